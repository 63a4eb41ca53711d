//! `/debug/…`: the configuration in force and what the process is at, for this host alone.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::json;

use super::{problem, wrong_method};
use crate::agent::Settings;

/// A page in a browser cannot send this unless we allow it.
pub const WRITE_HEADER: &str = "runwire-set";
const MAX_VALUE: usize = 16 * 1024;

pub fn routes(settings: Arc<Settings>) -> Router {
    Router::new()
        .route("/debug/config", get(config))
        .route("/debug/config/{key}", put(set))
        .route("/debug/logs", get(logs))
        .route("/debug/state", get(state))
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_VALUE))
        .layer(from_fn_with_state(settings.clone(), only_from_here))
        .with_state(settings)
}

async fn only_from_here(
    State(settings): State<Arc<Settings>>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if !peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback()) {
        let detail = "/debug is for this host alone: ask 127.0.0.1 or ::1 here, on the same port";
        return problem(StatusCode::FORBIDDEN, detail);
    }
    if !settings.current().debug_endpoints {
        let detail =
            "/debug is turned off: set `debug_endpoints: on` in the collector's configuration file";
        return problem(StatusCode::FORBIDDEN, detail);
    }
    next.run(request).await
}

async fn config(State(settings): State<Arc<Settings>>) -> Response {
    // Waits while somebody sets a key.
    match tokio::task::spawn_blocking(move || settings.show()).await {
        Ok(keys) => Json(keys).into_response(),
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the configuration could not be read; the collector's log says why",
        ),
    }
}

/// The body is the value. What is set so is gone when the collector ends.
async fn set(
    State(settings): State<Arc<Settings>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    value: String,
) -> Response {
    if !headers.contains_key(WRITE_HEADER) {
        let detail = format!("send the header `{WRITE_HEADER}: 1` too, as `config set` does");
        return problem(StatusCode::FORBIDDEN, &detail);
    }
    // Turning signals on takes longer than other requests should wait.
    let set = tokio::task::spawn_blocking(move || settings.set(&key, value.trim()));
    match set.await {
        Ok(Ok(())) => Json(json!({"set": true})).into_response(),
        Ok(Err(wrong)) => problem(StatusCode::BAD_REQUEST, &wrong.to_string()),
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the key could not be set; the collector's log says why",
        ),
    }
}

async fn logs(State(settings): State<Arc<Settings>>) -> Response {
    let lines = settings.recent_logs();
    ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response()
}

async fn state(State(settings): State<Arc<Settings>>) -> Response {
    match tokio::task::spawn_blocking(move || settings.state()).await {
        Ok(state) => Json(state).into_response(),
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the state could not be read; the collector's log says why",
        ),
    }
}
