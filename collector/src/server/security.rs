//! `GET /api/security`: scans and floods of the last minutes, with their addresses; the latest first.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::task::spawn_blocking;

use super::problem;
use crate::agent::Agent;
use crate::signals::PROBES;

pub(super) fn routes() -> Router<Arc<Agent>> {
    Router::new().route("/api/security", get(security))
}

async fn security(State(agent): State<Arc<Agent>>) -> Response {
    let report = spawn_blocking(move || agent.report(PROBES)).await;
    match report.ok().flatten() {
        Some(report) => Json(report).into_response(),
        None => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "scans are not looked for now; /readyz says why",
        ),
    }
}
