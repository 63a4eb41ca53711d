//! `/healthz`: the process lives. `/readyz`: it can answer. `/metrics`: how it does.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::AppState;
use crate::diagnosis::response::Part;
use crate::retrieval::IndexState;

/// A probe of Kubernetes waits one second.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    ready: bool,
    index: IndexState,
    /// `ok`, or why live numbers are missing. Search works without them, so this alone never makes us unready.
    prometheus: String,
    /// Other parts that do not work as they should.
    degraded: Vec<Part>,
    /// `ok`, `off`, or why incidents cannot be kept now. Alertmanager sends again, so this never makes us unready either.
    incidents: String,
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Whether requests can be answered, and what is not as it should be.
#[utoipa::path(get, path = "/readyz", tag = "health", responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub(super) async fn ready(State(state): State<AppState>) -> impl IntoResponse {
    let index = state.retriever.state();
    let ready = index.ready;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let troubles = state.troubles.all().into_iter();
    let (prometheus, incidents) = tokio::join!(describe(state.engine.prometheus.check()), async {
        match state.incidents() {
            Ok(incidents) => describe(incidents.store.check()).await,
            Err(_) => "off".to_owned(),
        }
    });
    let part = |(part, reason): (&'static str, String)| Part {
        part: part.to_owned(),
        reason,
    };
    // Answers come, but from nothing: a folder that went away must not look like a quiet network.
    let nothing = (ready && index.runbooks == 0).then(|| {
        let reason = "no runbook was found: nothing can be searched or diagnosed; see `runbooks`";
        ("runbooks", reason.to_owned())
    });
    let ready = Ready {
        ready,
        index,
        prometheus,
        degraded: troubles.chain(nothing).map(part).collect(),
        incidents,
    };
    (status, Json(ready))
}

async fn describe<E: std::fmt::Display>(check: impl Future<Output = Result<(), E>>) -> String {
    match timeout(PATIENCE, check).await {
        Ok(Ok(())) => "ok".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not answer in time".to_owned(),
    }
}

/// Our own metrics, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    let index = state.retriever.state();
    let gauge = |name, help, value: usize| {
        // Counts stay far below 2^52, where f64 stops being exact.
        state.metrics.set(name, help, &[], value as f64);
    };
    gauge(
        "runwire_assistant_runbooks",
        "Runbooks in the index",
        index.runbooks,
    );
    gauge(
        "runwire_assistant_passages",
        "Passages in the index",
        index.passages,
    );
    gauge(
        "runwire_assistant_runbook_warnings",
        "Things wrong with runbook files",
        index.warnings,
    );
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (content_type, state.metrics.encode())
}
