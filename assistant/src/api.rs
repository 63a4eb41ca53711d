//! The HTTP API on one screen: routes, and what every request goes through.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::routing::{get, post};

use crate::config::Config;
use crate::diagnosis::Engine;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::retrieval::Retriever;

mod diagnose;
mod health;

/// A question is a sentence or an alert; a megabyte is neither.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub config: Arc<Config>,
    pub retriever: Retriever,
    pub metrics: Arc<Metrics>,
    pub engine: Arc<Engine>,
}

impl AppState {
    pub fn new(
        config: Arc<Config>,
        retriever: Retriever,
        metrics: Arc<Metrics>,
        engine: Arc<Engine>,
    ) -> Self {
        Self {
            config,
            retriever,
            metrics,
            engine,
        }
    }
}

pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/diagnose", post(diagnose::diagnose))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::NotFound(format!("there is nothing at {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed(format!(
        "{} does not take {method}; the Allow header says what it takes",
        uri.path()
    ))
}
