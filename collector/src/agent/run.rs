//! `runwire-collector run`: start, tick, shut down.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use super::Agent;
use crate::config::Config;
use crate::enrich::Enricher;
use crate::export::Registry;
use crate::host::{Host, Paths, ReadingSettings, Readings};
use crate::server;
use crate::signals::{SignalSettings, Signals};

const TICK: Duration = Duration::from_secs(1);
/// The kernel's maps are emptied at least this often, whether somebody scrapes or not.
const COLLECT_UNASKED: Duration = Duration::from_secs(5);
const SWEEP_TICKS: u64 = 60;
/// Clients that keep a connection open do not keep us from ending.
const SHUTDOWN: Duration = Duration::from_secs(2);

pub async fn run(config: Config) -> anyhow::Result<()> {
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "cannot listen on {}: set `listen` to an address that is free",
            config.listen
        )
    })?;
    let registry = Registry::with_buckets(config.series_budget, config.buckets.clone());
    let enricher = {
        let registry = registry.clone();
        spawn_blocking(move || Enricher::of_host(Host::new(Paths::default()), &registry)).await?
    };
    let agent = Arc::new(Agent::new(registry.clone(), Arc::new(enricher)));
    let (stop, stopped) = watch::channel(());

    let served = {
        let router = server::router(agent.clone());
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let stopped = stopped.clone();
        axum::serve(listener, service).with_graceful_shutdown(until_closed(stopped))
    };
    let served = tokio::spawn(served.into_future());
    info!(address = %config.listen, "serving /metrics");

    let starting = {
        let agent = agent.clone();
        spawn_blocking(move || start(&agent, &registry, &config))
    };
    let ticking = async {
        starting.await.context("loading the signals panicked")?;
        tick(&agent).await
    };
    tokio::select! {
        result = ticking => result?,
        () = asked_to_stop() => info!("stopping"),
    }
    drop(stop);
    if timeout(SHUTDOWN, served).await.is_err() {
        warn!("clients are still connected; leaving them");
    }
    Ok(())
}

fn start(agent: &Agent, registry: &Registry, config: &Config) {
    let signals = Signals::start(registry, &SignalSettings::from(config));
    let on = signals.names();
    if on.is_empty() {
        error!("no signal could be started; `runwire-collector doctor` says why and what to do");
    } else {
        info!(signals = on.join(","), "measuring");
    }
    let settings = ReadingSettings {
        off: config.disabled_signals.clone(),
        host_veths: config.host_veths,
    };
    agent.start(signals, Readings::new(registry, &settings));
    agent.collect(Duration::ZERO);
}

async fn tick(agent: &Arc<Agent>) -> anyhow::Result<()> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for count in 1_u64.. {
        ticks.tick().await;
        let agent = agent.clone();
        spawn_blocking(move || {
            agent.refresh();
            agent.collect(COLLECT_UNASKED);
            if count.is_multiple_of(SWEEP_TICKS) {
                agent.sweep();
            }
        })
        .await
        .context("collecting panicked")?;
    }
    Ok(())
}

async fn until_closed(mut stopped: watch::Receiver<()>) {
    // Ends with an error when the sender is dropped, which is what we wait for.
    let _ = stopped.changed().await;
}

async fn asked_to_stop() {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt)] = signals else {
        warn!("cannot wait for SIGTERM; stop the collector with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
