//! `runwire-collector run`: start, tick, shut down.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::{Agent, Settings};
use crate::config::{Config, FileWatch, Loaded, Sources};
use crate::enrich::Enricher;
use crate::export::Registry;
use crate::host::{Host, Paths, ReadingSettings, Readings};
use crate::k8s::{self, Cluster};
use crate::logs::Logs;
use crate::server;
use crate::signals::Signals;

const SWEEP: Duration = Duration::from_secs(60);
/// A file that was changed is noticed at the second look.
const LOOK_AT_FILE: Duration = Duration::from_secs(1);
/// The kernel's rings hold about two seconds of what a busy host does.
const DRAIN: Duration = Duration::from_millis(500);
/// Clients that keep a connection open do not keep us from ending.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Where the collector is asked.
pub struct Listeners {
    clients: std::net::TcpListener,
    /// For `/debug` alone, where clients are served on no loopback address.
    administration: Option<std::net::TcpListener>,
}

/// Takes the addresses: before rights are given up, since some ports need one.
pub fn listen(config: &Config) -> anyhow::Result<Listeners> {
    let address = config.listen;
    let clients = bind(address).with_context(|| {
        format!("cannot listen on {address}: set `listen` to an address that is free")
    })?;
    let beside = server::loopback_beside(clients.local_addr()?);
    let administration = beside.filter(|_| config.debug_endpoints);
    let administration = administration.and_then(|address| match bind(address) {
        Ok(listener) => Some(listener),
        Err(error) => {
            warn!(%error, "cannot listen on {address} too: `config get`, `config set` and parts of `bundle` are refused");
            None
        }
    });
    Ok(Listeners {
        clients,
        administration,
    })
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

pub async fn run(
    listeners: Listeners,
    sources: Sources,
    loaded: Loaded,
    logs: Logs,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listeners.clients)?;
    let address = listener.local_addr()?;
    let administration = listeners.administration.map(TcpListener::from_std);
    let administration = administration.transpose()?;
    let config = loaded.config.clone();
    let registry = Registry::with_buckets(config.series_budget, config.buckets.clone());
    let watching = config.watch_settings();
    let cluster = Arc::new(match watching.is_on() {
        true => Cluster::new(watching.node.as_deref(), config.kubernetes_grace),
        false => Cluster::default(),
    });
    let enricher = {
        let registry = registry.clone();
        spawn_blocking(move || Enricher::of_host(Host::new(Paths::default()), &registry)).await?
    };
    let enricher = enricher.in_cluster(cluster.clone());
    if watching.is_on() {
        tokio::spawn(k8s::watch::follow(cluster, watching));
    }
    let agent = Arc::new(Agent::new(registry.clone(), Arc::new(enricher)));
    let watch = loaded.watch(&sources);
    let settings = Arc::new(Settings::new(agent.clone(), logs, sources, loaded));
    let (stop, stopped) = watch::channel(());
    // Without a handler the signal would end us.
    let hangup = signal(SignalKind::hangup()).ok();

    let debug = server::debug_routes(settings.clone());
    let router = server::router(agent.clone()).merge(debug.clone());
    let serving = server::serve(listener, router, server::places(), stopped.clone());
    let served = tokio::spawn(async {
        let administered = async {
            if let Some(listener) = administration {
                let places = server::places_for_administration();
                server::serve(listener, debug, places, stopped).await;
            }
        };
        tokio::join!(serving, administered);
    });
    info!(%address, "serving /metrics");

    let starting = {
        let agent = agent.clone();
        spawn_blocking(move || start(&agent, &registry, &config))
    };
    let ticking = async {
        starting.await.context("loading the signals panicked")?;
        let (started, now) = (agent.clone(), settings.current());
        // What somebody changed meanwhile.
        spawn_blocking(move || started.configure(&now)).await?;
        let reloading = tokio::spawn(follow_file(settings.clone(), watch, hangup));
        let result = tick(&agent, &settings).await;
        reloading.abort();
        result
    };
    tokio::select! {
        result = ticking => result?,
        result = drain(&agent) => result?,
        () = asked_to_stop() => info!("stopping"),
    }
    let detached = spawn_blocking(move || agent.stop());
    drop(stop);
    if timeout(SHUTDOWN, served).await.is_err() {
        warn!("clients are still connected; leaving them");
    }
    detached.await.context("detaching panicked")?;
    Ok(())
}

fn start(agent: &Agent, registry: &Registry, config: &Config) {
    agent.open_flow_store(config);
    agent.configure(config);
    let signals = Signals::start(registry, &agent.signal_settings(config));
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

async fn tick(agent: &Arc<Agent>, settings: &Settings) -> anyhow::Result<()> {
    let mut changes = settings.subscribe();
    let (mut refreshed, mut swept) = (Instant::now(), Instant::now());
    loop {
        let config = settings.current();
        let pause = config.refresh_interval.min(config.collect_interval);
        tokio::select! {
            () = sleep(pause) => {}
            // The new intervals count from now on.
            _ = changes.changed() => continue,
        }
        let refresh = refreshed.elapsed() >= config.refresh_interval;
        let sweep = swept.elapsed() >= SWEEP;
        let agent = agent.clone();
        spawn_blocking(move || {
            if refresh {
                agent.refresh();
            }
            agent.collect(config.collect_interval);
            if sweep {
                agent.sweep();
            }
        })
        .await
        .context("collecting panicked")?;
        if refresh {
            refreshed = Instant::now();
        }
        if sweep {
            swept = Instant::now();
        }
    }
}

async fn drain(agent: &Arc<Agent>) -> anyhow::Result<()> {
    loop {
        sleep(DRAIN).await;
        let agent = agent.clone();
        spawn_blocking(move || agent.drain())
            .await
            .context("draining panicked")?;
    }
}

/// Reads the configuration again when its file changed, or at SIGHUP.
async fn follow_file(
    settings: Arc<Settings>,
    mut watch: Option<FileWatch>,
    mut hangup: Option<Signal>,
) {
    loop {
        let asked = tokio::select! {
            () = sleep(LOOK_AT_FILE) => false,
            () = received(&mut hangup) => true,
        };
        let (settings, mut following) = (settings.clone(), watch.take());
        let look = spawn_blocking(move || {
            let changed = (following.as_mut()).is_some_and(FileWatch::has_changed);
            if asked || changed {
                settings.reload();
            }
            following
        });
        match look.await {
            Ok(following) => watch = following,
            Err(_) => return error!("the configuration file is not followed any more"),
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
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
