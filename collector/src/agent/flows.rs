//! The flow table of the agent: UDP's part of what feeds it, and what it says of itself.

use std::path::Path;
use std::sync::{Mutex, OnceLock};

use tracing::error;

use super::lock;
use crate::enrich::Enricher;
use crate::export::{Counter, Gauge, Labels, Registry};
use crate::flow_store::{FLOW_STORE, FlowStore, FlowStoreMetrics, Limits};
use crate::flows::{Attempt, DatagramFeed, Flows, Statistics};
use crate::kernel::monotonic_nanoseconds;
use crate::scan::{self, Detector};
use crate::signals::{UdpFlows, events_lost};

pub(super) struct TrackedFlows {
    pub(super) table: Flows,
    /// Where the signal puts what it saw.
    pub(super) datagrams: UdpFlows,
    /// Told of every attempt to connect.
    pub(super) detector: Detector,
    /// If there is one.
    pub(super) store: OnceLock<FlowStore>,
    store_metrics: FlowStoreMetrics,
    feed: Mutex<DatagramFeed>,
    entries: Gauge,
    limit: Gauge,
    evictions: Counter,
    events_lost: Counter,
    counted: Mutex<Statistics>,
}

impl TrackedFlows {
    pub(super) fn register(registry: &Registry) -> Self {
        let table = Flows::default();
        let detector = Detector::default();
        let watcher = detector.clone();
        let watch = move |attempt: &Attempt| watcher.observe(&scan::Attempt::from(attempt));
        table.lock().observe(watch);
        Self {
            detector,
            feed: Mutex::new(DatagramFeed::new(table.clone())),
            table,
            datagrams: UdpFlows::default(),
            store: OnceLock::new(),
            store_metrics: FlowStoreMetrics::register(registry),
            entries: registry.gauge(
                "flow_table_entries",
                "Flows in the flow table, open ones and those that ended lately",
                &[],
            ),
            limit: registry.gauge(
                "flow_table_limit",
                "Flows that the flow table has room for",
                &[],
            ),
            evictions: registry.counter(
                "flow_table_evictions",
                "Flows that a full flow table forgot before their time, while open or ended",
                &[&["reason"]],
            ),
            events_lost: events_lost(registry),
            counted: Mutex::default(),
        }
    }

    /// Takes in datagrams, forgets what is old, and counts. After the signals have collected.
    pub(super) fn update(&self, enricher: &Enricher) {
        let now = monotonic_nanoseconds();
        let (datagrams, lost) = self.datagrams.take();
        if lost > 0 {
            let labels = Labels::new(&["udp", "flow_queue_full"]);
            self.events_lost.add(labels, lost);
        }
        lock(&self.feed).take(datagrams, enricher, now);
        let mut table = self.table.lock();
        table.age(now);
        self.show(table.statistics());
    }

    /// From now on, what has ended is kept on disk.
    pub(super) fn open_store(
        &self,
        folder: &Path,
        limits: Limits,
        enricher: &Enricher,
        registry: &Registry,
    ) {
        let cluster = enricher.cluster().clone();
        match FlowStore::open(folder, limits, cluster, self.store_metrics.clone()) {
            Ok(store) => {
                self.table.lock().keep_ended();
                registry.enable(FLOW_STORE, true);
                let _ = self.store.set(store);
            }
            Err(error) => error!(%error, "flows are not stored: there is no thread for it"),
        }
    }

    /// Hands on what has ended and settled.
    pub(super) fn hand_on(&self) {
        if let Some(store) = self.store.get() {
            let (ended, lost) = self.table.lock().take_ended(monotonic_nanoseconds());
            store.keep(ended, lost);
        }
    }

    /// Hands on the rest, and waits until it is written.
    pub(super) fn close_store(&self) {
        if let Some(store) = self.store.get() {
            let (ended, lost) = self.table.lock().take_last();
            store.keep_last(ended, lost);
            store.close();
        }
    }

    fn show(&self, now: Statistics) {
        let none = Labels::default();
        self.entries.set(none.clone(), now.entries as f64);
        self.limit.set(none, now.limit as f64);
        let before = std::mem::replace(&mut *lock(&self.counted), now);
        for (reason, now, before) in [
            ("limit_ended", now.evicted_ended, before.evicted_ended),
            ("limit_open", now.evicted_open, before.evicted_open),
        ] {
            let new = now.saturating_sub(before);
            self.evictions.add(Labels::new(&[reason]), new);
        }
    }
}
