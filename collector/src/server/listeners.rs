//! `GET /api/listeners`: every listening TCP socket, with its queue; the fullest first.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::task::spawn_blocking;

use super::problem;
use crate::agent::Agent;
use crate::signals::LISTENERS;

pub(super) fn routes() -> Router<Arc<Agent>> {
    Router::new().route("/api/listeners", get(listeners))
}

async fn listeners(State(agent): State<Arc<Agent>>) -> Response {
    let report = spawn_blocking(move || agent.report(LISTENERS)).await;
    match report.ok().flatten() {
        Some(report) => Json(report).into_response(),
        None => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "listening sockets are not measured now; /readyz says why",
        ),
    }
}
