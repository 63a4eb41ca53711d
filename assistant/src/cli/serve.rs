//! `serve`: the HTTP service, until SIGINT or SIGTERM.

use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::api::{self, AppState};
use crate::config::Config;
use crate::diagnosis::{DEADLINE, Engine};
use crate::metrics::Metrics;
use crate::prometheus::{self, Prometheus};
use crate::retrieval::Retriever;

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    // Bound first: a port that is taken should not cost the time of indexing.
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener
        .local_addr()
        .context("cannot ask for our address")?;
    let metrics = Arc::new(Metrics::default());
    let retriever = Retriever::open(&config)?;
    retriever
        .watch()
        .context("cannot start watching the runbooks")?;
    let prometheus = Prometheus::new(prometheus::Settings::new(&config.prometheus))?
        .with_metrics(metrics.clone());
    let engine = Arc::new(Engine::new(prometheus, DEADLINE));
    let state = AppState::new(Arc::new(config), retriever, metrics, engine);

    info!(%address, "serving");
    axum::serve(listener, api::router(state))
        .with_graceful_shutdown(stop())
        .await
        .context("cannot go on serving")
}

async fn stop() {
    // Without its handler the default action ends the process: no harm.
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
