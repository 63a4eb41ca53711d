//! `serve`: the HTTP service, until SIGINT or SIGTERM.

use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::access::Access;
use crate::api::{self, AppState};
use crate::config::Config;
use crate::diagnosis::Engine;
use crate::incidents::{self, Incidents};
use crate::metrics::Metrics;
use crate::narrate::Narrator;
use crate::prometheus::{self, Identity, Prometheus};
use crate::retrieval::Retriever;
use crate::server::tls::Certificate;
use crate::server::{self, Limits};

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let access = Arc::new(Access::open(&config, Arc::clone(&metrics))?);
    let certificate = match (&config.access.tls_certificate, &config.access.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(Certificate::open(certificate.clone(), key.clone())?)
        }
        _ => None,
    };
    let mut settings = prometheus::Settings::new(&config.prometheus);
    settings.identity = Identity::open(&config.identity)?;
    // What comes after the deadline is there for who asks about the same moment again.
    settings.timeout = 2 * config.diagnosis_deadline;
    let prometheus = Prometheus::new(settings)?.with_metrics(Arc::clone(&metrics));

    // Bound first: a port that is taken should not cost the time of indexing.
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener
        .local_addr()
        .context("cannot ask for our address")?;
    let retriever = Retriever::open(&config)?;
    retriever
        .watch()
        .context("cannot start watching the runbooks")?;
    let engine = Arc::new(Engine::new(prometheus.clone(), config.diagnosis_deadline));
    let config = Arc::new(config);
    let mut state = AppState::new(Arc::clone(&config), retriever, Arc::clone(&metrics), engine);
    state.audit.check()?;
    if let Some(llm) = &config.llm {
        state = state.with_narrator(Narrator::new(llm.clone(), Arc::clone(&metrics))?);
    }
    if let Some(settings) = &config.incidents {
        let incidents = Incidents::new(settings.clone(), Arc::clone(&metrics))?;
        state = state.with_incidents(incidents.clone());
        tokio::spawn(incidents::work::run(state.clone(), incidents));
    }

    let troubles = Arc::clone(&state.troubles);
    tokio::spawn(Arc::clone(&access).keep_fresh(Arc::clone(&troubles)));
    tokio::spawn(prometheus.clone().keep_fresh(Arc::clone(&troubles)));
    let tls = match certificate {
        Some(certificate) => {
            let acceptor = certificate.acceptor().context("cannot set up TLS")?;
            tokio::spawn(certificate.keep_fresh(troubles, Arc::clone(&metrics)));
            Some(acceptor)
        }
        None => None,
    };
    let router = access.protect(api::router(state));
    let (stopping, stopped) = watch::channel(());
    tokio::spawn(async move {
        stop().await;
        drop(stopping);
    });
    info!(%address, tls = tls.is_some(), "serving");
    server::serve(listener, router, tls, Limits::default(), &metrics, stopped).await;
    Ok(())
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
