//! `GET /api/flows`: connections as rows. `GET /api/health`, `/api/graph/fields`, `/api/graph/data`:
//! what Grafana's Node Graph API data source asks for.

mod cluster;
mod parameters;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;

use super::problem;
use crate::agent::Agent;
use crate::flows::{Clock, fields};
use cluster::ClusterRow;
use parameters::{Parameters, Unknown};

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
    answer(move || {
        let flows = agent.fresh_flows().lock();
        let clock = Clock::now();
        let filter = asked.filter(clock);
        let rows = flows.rows(&filter, asked.sort, asked.limit, clock);
        drop(flows);
        let index = agent.cluster().index();
        let rows = rows.into_iter().map(|row| ClusterRow::of(row, &index));
        rows.collect::<Vec<_>>()
    })
    .await
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
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the flows could not be read; the collector's log says why",
        ),
    }
}
