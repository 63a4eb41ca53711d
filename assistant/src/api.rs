//! The HTTP API on one screen: routes, and what every request goes through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::audit::Audit;
use crate::config::Config;
use crate::diagnosis::Engine;
use crate::error::ApiError;
use crate::incidents::Incidents;
use crate::metrics::Metrics;
use crate::narrate::Narrator;
use crate::retrieval::Retriever;
use crate::watched::Troubles;

mod answer;
mod article;
mod asked;
mod assets;
mod clock;
mod diagnose;
mod events;
mod evidence;
mod graph;
mod health;
mod html;
mod incidents;
mod links;
mod mcp;
mod openapi;
mod pasted;
mod plot;
mod resolve;
mod runbooks;
mod search;
mod start;
mod webhook;

/// A question is a sentence or an alert; a megabyte is neither.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Longer questions say nothing more to the model and much to the word index.
pub const MAX_QUESTION_BYTES: usize = 64 << 10;

/// Requests that may wait for a core.
const QUEUE: usize = 128;

/// So long one may wait; who has waited longer had better come back when there is less to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub config: Arc<Config>,
    pub retriever: Retriever,
    pub metrics: Arc<Metrics>,
    pub engine: Arc<Engine>,
    pub audit: Arc<Audit>,
    /// What is wrong with parts of us that have no state of their own.
    pub troubles: Arc<Troubles>,
    incidents: Option<Incidents>,
    narrator: Option<Narrator>,
    queue: Arc<Semaphore>,
    cores: Arc<Semaphore>,
}

impl AppState {
    pub fn new(
        config: Arc<Config>,
        retriever: Retriever,
        metrics: Arc<Metrics>,
        engine: Arc<Engine>,
    ) -> Self {
        let troubles = Arc::new(Troubles::default());
        let audit = Audit::new(
            config.access.audit.clone(),
            config.access.audit_questions.unwrap_or_default(),
            Arc::clone(&troubles),
        );
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            config,
            retriever,
            metrics,
            engine,
            audit: Arc::new(audit),
            troubles,
            incidents: None,
            narrator: None,
            queue: Arc::new(Semaphore::new(QUEUE)),
            cores: Arc::new(Semaphore::new(cores)),
        }
    }

    /// Keeps incidents. Without, what is about them is answered with 503.
    pub fn with_incidents(self, incidents: Incidents) -> Self {
        Self {
            incidents: Some(incidents),
            ..self
        }
    }

    /// Lets a language model narrate where a request asks for it.
    pub fn with_narrator(self, narrator: Narrator) -> Self {
        Self {
            narrator: Some(narrator),
            ..self
        }
    }

    fn incidents(&self) -> Result<&Incidents, ApiError> {
        self.incidents.as_ref().ok_or_else(|| {
            ApiError::Unavailable(
                "incidents are not kept here: `incidents` is off; give it a file or a postgres:// address".into(),
            )
        })
    }

    /// Runs what keeps a core busy, as many at a time as there are cores, and refuses what could only pile up.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.place()?;
        self.compute_in(&place, work).await
    }

    /// A place in the queue, for as long as it is held.
    pub fn place(&self) -> Result<Place<'_>, ApiError> {
        let permit = self.queue.try_acquire();
        let permit = permit.map_err(|_| ApiError::TooManyRequests)?;
        Ok(Place { _permit: permit })
    }

    /// The same for one piece of a request that has several.
    pub async fn compute_in<T: Send + 'static>(
        &self,
        _place: &Place<'_>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let core = timeout(PATIENCE, Arc::clone(&self.cores).acquire_owned()).await;
        let core = core
            .map_err(|_| ApiError::TooManyRequests)?
            .context("shutting down")?;
        // The core is held until the work is done, also when the client has gone.
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(core);
            result
        });
        Ok(done.await.context("a request's work panicked")?)
    }
}

/// Proof of a place in the queue.
pub struct Place<'a> {
    _permit: SemaphorePermit<'a>,
}

pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/", get(start::page))
        .route("/search", post(search::search))
        .route("/search/batch", post(search::batch))
        .route("/diagnose", post(diagnose::diagnose))
        .route(
            "/webhook/alertmanager",
            post(webhook::alertmanager).layer(DefaultBodyLimit::max(webhook::MAX_BODY_BYTES)),
        )
        .route("/incidents", get(incidents::list))
        .route("/incidents/{id}", get(incidents::one))
        .route("/incidents/{id}/feedback", post(incidents::feedback))
        .route("/runbooks", get(runbooks::list))
        .route("/runbooks/{*id}", get(runbooks::page))
        .route("/r", get(runbooks::of_url))
        .route("/r/{alertname}", get(runbooks::of_alert))
        .route_service("/mcp", mcp::service(state.clone()))
        .route("/openapi.json", get(openapi::description))
        .route("/assets/style.css", get(assets::style))
        .route("/assets/page.js", get(assets::script))
        .route("/assets/icon.svg", get(assets::icon))
        .route("/api/graph/fields", get(graph::fields))
        .route("/api/graph/data", get(graph::data))
        .route("/api/health", get(graph::health))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.clone(), measure))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}

/// What goes wrong is told to people as pages. Around all that may refuse a request: only what is inside is told so.
pub fn with_pages(router: Router) -> Router {
    router.layer(from_fn(html::problems_as_pages))
}

/// Counts and times every request. Times go into a header: bodies are the same for the same question.
async fn measure(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    // The route, not the path: paths come from outside and have no end.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    let took = started.elapsed();
    let status = response.status();
    state.metrics.add(
        "runwire_assistant_http_requests_total",
        "Requests answered",
        &[("route", &route), ("status", status.as_str())],
        1.0,
    );
    state.metrics.observe(
        "runwire_assistant_http_request_duration_seconds",
        "Time from a request's head to its answer",
        &[("route", &route)],
        took,
    );
    if let Ok(timing) = HeaderValue::from_str(&format!("total;dur={:.3}", milliseconds(took))) {
        let header = HeaderName::from_static("server-timing");
        response.headers_mut().append(header, timing);
    }
    response
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::NotFound(format!(
        "there is nothing at {}; the paths are /search, /search/batch, /diagnose, /incidents, /webhook/alertmanager, /runbooks, /r/ALERT, /openapi.json, /mcp, /metrics, /healthz and /readyz",
        uri.path()
    ))
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed(format!(
        "{} does not take {method}; the Allow header says what it takes",
        uri.path()
    ))
}
