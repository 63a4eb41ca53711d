//! What runs: namespaces and signals are read when somebody asks or time has passed.

mod flows;
mod health;
mod process;
mod run;
mod settings;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use health::{Health, HookHealth, SignalHealth, Status};
pub use process::max_open_fds;
pub use run::{Listeners, listen, run};
pub use settings::{Setting, Settings};

use crate::config::Config;
use crate::enrich::{Enricher, Kind, Workload};
use crate::export::{
    Buckets, Counter, Format, Gauge, Histogram, INTERFACE, Labels, OWNER, Registry, Scraper, owner,
};
use crate::flow_store::FlowStore;
use crate::flows::Flows;
use crate::host::{READING_NAMES, Readings, interface_names};
use crate::k8s::{Cluster, KubernetesMetrics};
use crate::kernel::{MapFill, release_memory};
use crate::signals::{self, SignalSettings, Signals};
use crate::tls::table::TlsTable;
use flows::TrackedFlows;
use process::Process;

/// Requests this close to one another share a collection.
const SHARED: Duration = Duration::from_millis(100);
/// Connection tracking may be asked again by then, however large it is.
const TRACKING: Duration = Duration::from_millis(1500);
/// Minutes that a series stays after its workload went: whoever scrapes every minute or more often
/// has its last value by then, and Prometheus sees what it grew by in its own samples.
const KEEP_SERIES: u8 = 5;

pub struct Agent {
    registry: Registry,
    enricher: Arc<Enricher>,
    sources: Mutex<Sources>,
    health: Mutex<Health>,
    flows: TrackedFlows,
    workload_info: Gauge,
    collect_duration: Gauge,
    scrape_duration: Histogram,
    series_limit: Gauge,
    config_reloads: Counter,
    config_is_good: Gauge,
    process: Process,
    tls_table: TlsTable,
    kubernetes: Mutex<KubernetesMetrics>,
}

#[derive(Default)]
struct Sources {
    /// `None` until they are loaded.
    signals: Option<Signals>,
    readings: Option<Readings>,
    collected: Option<Instant>,
    /// Processor time that is in our metrics already.
    cpu_seconds: f64,
}

impl Agent {
    /// An agent that measures nothing yet.
    pub fn new(registry: Registry, enricher: Arc<Enricher>) -> Self {
        let build_info = registry.gauge(
            "build_info",
            "The running collector; always 1",
            &[&["version"]],
        );
        build_info.set(Labels::new(&[env!("CARGO_PKG_VERSION")]), 1.0);
        let config_is_good = registry.gauge(
            "config_last_reload_successful",
            "Whether the configuration file was good when it was last read",
            &[],
        );
        config_is_good.set(Labels::default(), 1.0);
        Self {
            workload_info: registry.gauge(
                "workload_info",
                "Workloads that are known now; always 1",
                &[OWNER],
            ),
            collect_duration: registry.gauge(
                "collect_duration_seconds",
                "How long the last collection took",
                &[],
            ),
            scrape_duration: registry.histogram(
                "scrape_duration_seconds",
                "How long it took to collect and write what a scrape asked for",
                &[],
                Buckets::exponential(0.001, 2.0, 14),
            ),
            series_limit: registry.gauge(
                "series_limit",
                "Series that one metric family may have",
                &[],
            ),
            config_reloads: registry.counter(
                "config_reloads",
                "Times that the configuration file was read again",
                &[&["outcome"]],
            ),
            config_is_good,
            process: Process::register(&registry),
            flows: TrackedFlows::register(&registry),
            kubernetes: Mutex::new(KubernetesMetrics::register(&registry, enricher.cluster())),
            registry,
            enricher,
            sources: Mutex::default(),
            health: Mutex::default(),
            tls_table: TlsTable::default(),
        }
    }

    /// The TLS handshakes of late, of now.
    pub fn tls_table(&self) -> &TlsTable {
        self.collect(SHARED);
        &self.tls_table
    }

    /// From now on these are collected from.
    pub fn start(&self, signals: Signals, readings: Readings) {
        let mut sources = lock(&self.sources);
        sources.signals = Some(signals);
        sources.readings = Some(readings);
    }

    /// The exposition, of now.
    pub fn scrape(&self, format: Format, scraper: Option<(Scraper, Duration)>) -> String {
        let start = Instant::now();
        self.collect(SHARED);
        let text = (self.registry).encode(format, scraper.as_ref().map(|(who, _)| who.clone()));
        let took = start.elapsed();
        // On a machine that is this busy the way to the scraper takes time, too.
        if let Some((who, patience)) = scraper
            && took > patience.mul_f64(0.7)
        {
            self.registry.was_late(&who);
        }
        self.scrape_duration
            .observe(Labels::default(), took.as_secs_f64());
        text
    }

    /// What a signal found that is no metric, as of now. `None` if it is not measured.
    pub fn report(&self, signal: &str) -> Option<serde_json::Value> {
        self.collect(SHARED);
        lock(&self.sources).signals.as_ref()?.report(signal)
    }

    /// What signals are to do, and where they put the connections that they see.
    pub fn signal_settings(&self, config: &Config) -> SignalSettings {
        SignalSettings {
            flows: self.flows.table.clone(),
            udp_flows: Some(self.flows.datagrams.clone()),
            detector: self.flows.detector.clone(),
            tls_table: self.tls_table.clone(),
            ..SignalSettings::from(config)
        }
    }

    /// What Kubernetes says, if it is asked.
    pub fn cluster(&self) -> &Cluster {
        self.enricher.cluster()
    }

    /// The connections that there are and were lately.
    pub fn flows(&self) -> &Flows {
        &self.flows.table
    }

    /// The same, of now.
    pub fn fresh_flows(&self) -> &Flows {
        self.collect(SHARED);
        &self.flows.table
    }

    /// Takes records out of the kernel's rings. To be called twice a second.
    pub fn drain(&self) {
        if let Some(signals) = &mut lock(&self.sources).signals {
            signals.drain(&self.enricher);
        }
        self.flows.hand_on();
    }

    /// From now on, connections that have ended are kept on disk, if that is wanted.
    pub fn open_flow_store(&self, config: &Config) {
        if let Some(folder) = &config.flow_store {
            let limits = config.flow_store_limits();
            (self.flows).open_store(folder, limits, &self.enricher, &self.registry);
        }
    }

    pub fn has_flow_store(&self) -> bool {
        self.flows.store.get().is_some()
    }

    /// The connections on disk, with all in it that is in memory no more.
    pub fn flow_store(&self) -> Option<&FlowStore> {
        self.flows.hand_on();
        self.flows.store.get()
    }

    /// Collects from everything, unless that was done less than `max_age` ago.
    pub fn collect(&self, max_age: Duration) {
        let mut sources = lock(&self.sources);
        if sources.collected.is_some_and(|at| at.elapsed() < max_age) {
            return;
        }
        let start = Instant::now();
        self.enricher.refresh();
        if let Some(readings) = &mut sources.readings {
            readings.collect(&self.enricher);
        }
        if let Some(signals) = &mut sources.signals {
            signals.collect(&self.enricher);
            sources.collected = Some(Instant::now());
        }
        self.process.update(&mut sources.cpu_seconds);
        let limit = self.registry.budget() as f64;
        self.series_limit.set(Labels::default(), limit);
        let known = self.enricher.workloads();
        let info = (known.iter()).map(|workload| (owner(workload), 1.0));
        self.workload_info.replace_all(info.collect());
        self.flows.update(&self.enricher);
        lock(&self.kubernetes).update(self.enricher.cluster());
        let took = start.elapsed().as_secs_f64();
        self.collect_duration.set(Labels::default(), took);
        *lock(&self.health) = sources.health();
    }

    /// Takes what may change while the collector runs.
    pub fn configure(&self, config: &Config) {
        self.registry.set_budget(config.series_budget);
        self.flows.table.lock().set_limits(config.flow_limits());
        if let Some(store) = self.flows.store.get() {
            store.set_limits(config.flow_store_limits());
        }
        lock(&self.kubernetes).set_app_labels(config.kubernetes_app_labels);
        let mut sources = lock(&self.sources);
        if let Some(signals) = &mut sources.signals {
            signals.configure(self.signal_settings(config));
        }
        if let Some(readings) = &mut sources.readings {
            readings.turn_off(&config.disabled_signals);
        }
        *lock(&self.health) = sources.health();
    }

    /// Notes that the configuration file was read again.
    pub fn count_reload(&self, outcome: &'static str, is_good: bool) {
        self.config_reloads.add(Labels::new(&[outcome]), 1);
        let value = f64::from(u8::from(is_good));
        self.config_is_good.set(Labels::default(), value);
    }

    /// Follows namespaces and interfaces that come and go.
    pub fn refresh(&self) {
        self.enricher.refresh();
        if let Some(signals) = &mut lock(&self.sources).signals {
            signals.follow(&self.enricher);
        }
    }

    /// Detaches from the kernel. Nothing is collected from then on.
    pub fn stop(&self) {
        if self.has_flow_store() {
            self.collect(Duration::ZERO);
            // Records may wait until connection tracking may be asked again.
            let start = Instant::now();
            while !self.enricher.learn_translations() && start.elapsed() < TRACKING {
                std::thread::sleep(SHARED / 4);
            }
            // What has begun since then would wait for the next time, which does not come.
            self.enricher.stop_learning();
            self.collect(Duration::ZERO);
            self.flows.close_store();
        }
        let mut sources = lock(&self.sources);
        // The rest stays: a scrape that waits for this goes on counting where it was.
        drop((sources.signals.take(), sources.readings.take()));
    }

    /// Forgets series of workloads that have been gone for a while, and gives the memory of what has
    /// gone since the last time back to the kernel. To be called every minute.
    pub fn sweep(&self) {
        let alive = self.enricher.alive();
        let interfaces = interface_names();
        self.registry.sweep(KEEP_SERIES, |namespace, name, kind| {
            if kind == INTERFACE {
                let is_there = |all: &HashSet<String>| all.contains(name);
                return name.starts_with('~') || interfaces.as_ref().is_none_or(is_there);
            }
            // The others are no things that come and go.
            let kind = (Kind::PASSING.into_iter()).find(|known| known.as_str() == kind);
            kind.is_none_or(|kind| alive.contains(&Workload::new(namespace, name, kind)))
        });
        release_memory();
    }

    /// What the kernel's maps held when they were last looked at.
    pub fn maps(&self) -> Vec<MapFill> {
        let sources = lock(&self.sources);
        (sources.signals.as_ref()).map_or_else(Vec::new, Signals::maps)
    }

    pub fn health(&self) -> Health {
        let kubernetes = self.enricher.cluster().health(Instant::now());
        let store = self.flows.store.get().map(FlowStore::health);
        let health = lock(&self.health).clone();
        health.in_kubernetes(kubernetes).with_flow_store(store)
    }
}

impl Sources {
    fn health(&self) -> Health {
        let Some(signals) = &self.signals else {
            return Health::default();
        };
        let (mut on, mut hooks) = (signals.names(), signals.hooks());
        if let Some(readings) = &self.readings {
            on.append(&mut readings.names());
            hooks.append(&mut readings.failed());
        }
        Health::of(&signal_names(), &on, &hooks)
    }
}

/// All there are.
pub fn signal_names() -> Vec<&'static str> {
    [&signals::NAMES[..], &READING_NAMES[..]].concat()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_scrape_at_the_end_goes_on_where_the_last_one_was() {
    let registry = Registry::new(100);
    let enricher = Enricher::of(crate::enrich::Identities::default(), &registry);
    let agent = Agent::new(registry, Arc::new(enricher));
    let seconds = || -> f64 {
        let text = agent.scrape(Format::Text, None);
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("runwire_process_cpu_seconds_total "));
        value.unwrap().parse().unwrap()
    };
    let mut before = 0.0;
    while before < 0.3 {
        before = seconds();
    }
    agent.stop();
    let after = seconds();
    // Counted again, it would be twice as much.
    assert!((before..before * 1.9).contains(&after), "{before} {after}");
}
