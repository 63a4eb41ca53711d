//! `GET /api/dns`: the names that are asked for most, and how the queries ended.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::task::spawn_blocking;

use super::problem;
use crate::agent::Agent;
use crate::signals::DNS;

pub(super) fn routes() -> Router<Arc<Agent>> {
    Router::new().route("/api/dns", get(names))
}

async fn names(State(agent): State<Arc<Agent>>) -> Response {
    let report = spawn_blocking(move || agent.report(DNS)).await;
    match report.ok().flatten() {
        Some(report) => Json(report).into_response(),
        None => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "DNS is not measured now; /readyz says why",
        ),
    }
}
