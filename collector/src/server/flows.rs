//! `GET /api/flows`: connections as rows. `GET /api/health`, `/api/graph/fields`, `/api/graph/data`:
//! what Grafana's Node Graph API data source asks for.

mod parameters;
mod stored;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::problem;
use crate::agent::Agent;
use crate::flow_store::Unread;
use crate::flows::{Clock, fields};
use parameters::{Parameters, Unknown};

/// Requests that read the flow store at a time: each has its rows in memory.
static STORE_READERS: Semaphore = Semaphore::const_new(1);

pub(super) fn routes() -> Router<Arc<Agent>> {
    Router::new()
        .route("/api/flows", get(flows))
        .route("/api/health", get(health))
        .route("/api/graph/fields", get(graph_fields))
        .route("/api/graph/data", get(graph_data))
}

async fn flows(State(agent): State<Arc<Agent>>, uri: Uri) -> Response {
    let asked = match Parameters::of(&uri, Unknown::Refused) {
        Ok(asked) => asked,
        Err(sentence) => return problem(StatusCode::BAD_REQUEST, &sentence),
    };
    // Whoever waits for the store has no thread yet: collecting needs some, too.
    let permit = match agent.has_flow_store() && asked.has_range() {
        true => STORE_READERS.acquire().await.ok(),
        false => None,
    };
    let read = move || {
        let _permit = permit;
        stored::rows(&agent, &asked)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(rows)) => ([(header::CONTENT_TYPE, "application/json")], rows).into_response(),
        Ok(Err(wrong @ Unread::TooMuch)) => problem(StatusCode::BAD_REQUEST, &wrong.to_string()),
        Ok(Err(wrong @ Unread::Io(_))) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &wrong.to_string())
        }
        Err(_) => failed(),
    }
}

async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

async fn graph_fields(uri: Uri) -> Response {
    match Parameters::of(&uri, Unknown::Ignored) {
        Ok(asked) => Json(fields(asked.statistic)).into_response(),
        Err(sentence) => problem(StatusCode::BAD_REQUEST, &sentence),
    }
}

async fn graph_data(State(agent): State<Arc<Agent>>, uri: Uri) -> Response {
    let asked = match Parameters::of(&uri, Unknown::Ignored) {
        Ok(asked) => asked,
        Err(sentence) => return problem(StatusCode::BAD_REQUEST, &sentence),
    };
    answer(move || {
        let flows = agent.fresh_flows().lock();
        let clock = Clock::now();
        flows.graph(&asked.filter(clock), asked.statistic, clock.monotonic)
    })
    .await
}

/// Collecting waits for the kernel, so it has a thread of its own.
async fn answer<T: Serialize + Send + 'static>(
    make: impl FnOnce() -> T + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(make).await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => failed(),
    }
}

fn failed() -> Response {
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the flows could not be read; the collector's log says why",
    )
}
