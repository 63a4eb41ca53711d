//! The HTTP interface, on one screen.

mod connections;
mod debug;
mod dns;
mod flows;
mod health;
mod listeners;
mod metrics;
mod security;
mod tls;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

pub use connections::{ANSWER, loopback_beside, places, places_for_administration, serve};
pub use debug::{WRITE_HEADER, routes as debug_routes};

use crate::agent::Agent;

pub fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .merge(listeners::routes())
        .merge(security::routes())
        .merge(dns::routes())
        .merge(flows::routes())
        .merge(tls::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(agent)
}

async fn not_found(uri: Uri) -> Response {
    let detail = format!(
        "there is no {}; try /metrics, /healthz or /readyz",
        uri.path()
    );
    problem(StatusCode::NOT_FOUND, &detail)
}

async fn wrong_method(uri: Uri) -> Response {
    let detail = format!("{} is only read: use GET", uri.path());
    problem(StatusCode::METHOD_NOT_ALLOWED, &detail)
}

/// An error as RFC 9457 wants it.
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, content_type, body.to_string()).into_response()
}
