//! Connections that have ended, kept on disk over restarts: files of lines of JSON, each of some
//! minutes, the oldest removed by age and by size.
//!
//! ```text
//!  FlowTable ─ ended ─► queue ─► writer (a thread) ─► segments ─► reader ─► /api/flows
//! ```
//!
//! What is lost on the way is counted. Nothing here stops the collector.

mod line;
mod queue;
mod reader;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tracing::{info, warn};

pub use line::ClusterRow;
pub use reader::{Found, Query, Unread};

use crate::export::{Counter, Gauge, Labels, Registry};
use crate::flows::Ended;
use crate::k8s::Cluster;
use queue::Queue;
use reader::Spans;
use writer::Writer;

/// The part of the registry that is only shown if there is a store.
pub const FLOW_STORE: &str = "flow_store";
/// How long somebody waits for what is on its way to the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// The writer comes round every second. If it has not for so long, the disk holds it up.
const STUCK: Duration = Duration::from_secs(10);

/// How long flows are kept, and how many bytes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub keep: Duration,
    pub size: u64,
}

/// How the store is, for `/readyz`.
#[derive(Clone, Debug, Serialize)]
pub struct FlowStoreHealth {
    pub folder: PathBuf,
    /// Why it cannot be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the store says of itself.
#[derive(Clone)]
pub struct FlowStoreMetrics {
    lost: Counter,
    bytes: Gauge,
}

/// A store that is written.
pub struct FlowStore {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

struct Shared {
    folder: PathBuf,
    run: i64,
    limits: Mutex<Limits>,
    queue: Queue,
    cluster: Arc<Cluster>,
    spans: Spans,
    problem: Mutex<Option<String>>,
    /// When the writer came round last.
    round: Mutex<Instant>,
    metrics: FlowStoreMetrics,
}

impl FlowStoreMetrics {
    pub fn register(registry: &Registry) -> Self {
        let registry = registry.for_signal(FLOW_STORE);
        registry.enable(FLOW_STORE, false);
        Self {
            lost: registry.counter(
                "flow_store_lost",
                "Flows that had ended and were not written to the flow store",
                &[&["reason"]],
            ),
            bytes: registry.gauge(
                "flow_store_bytes",
                "Bytes of the segments in the flow store",
                &[],
            ),
        }
    }
}

impl FlowStore {
    pub fn open(
        folder: &Path,
        limits: Limits,
        cluster: Arc<Cluster>,
        metrics: FlowStoreMetrics,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            run: Timestamp::now().as_millisecond(),
            limits: Mutex::new(limits),
            queue: Queue::default(),
            cluster,
            spans: Spans::default(),
            problem: Mutex::default(),
            round: Mutex::new(Instant::now()),
            metrics,
        });
        let writer = Writer::new(shared.clone());
        let writer = thread::Builder::new()
            .name("flow-store".to_owned())
            .spawn(|| writer.run())?;
        Ok(Self { shared, writer })
    }

    pub fn set_limits(&self, limits: Limits) {
        *lock(&self.shared.limits) = limits;
    }

    /// Takes flows to be written; never waits. `lost` more found no room before.
    pub fn keep(&self, flows: Vec<Ended>, lost: u64) {
        let lost = lost + self.shared.queue.push(flows) as u64;
        if lost > 0 {
            self.shared.lost("queue_full", lost);
        }
    }

    /// Takes all that is left when nothing more will come: then there is nobody to be told of a loss.
    pub fn keep_last(&self, flows: Vec<Ended>, lost: u64) {
        self.shared.queue.push_last(flows);
        if lost > 0 {
            self.shared.lost("queue_full", lost);
        }
    }

    /// Rows of a time, of this run and of those before, without those that are `known`. Waits
    /// for the disk, and has a segment and its rows in memory meanwhile.
    pub fn read(&self, query: &Query) -> Result<Vec<Found>, Unread> {
        self.shared.queue.flush(PATIENCE);
        reader::search(&self.shared, query)
    }

    /// When this run began: what ended before is only here.
    pub fn began(&self) -> Timestamp {
        Timestamp::from_millisecond(self.shared.run).unwrap_or_default()
    }

    /// Writes what there is, and ends.
    pub fn close(&self) {
        self.shared.queue.flush(PATIENCE);
        self.shared.queue.close();
        let start = Instant::now();
        while !self.writer.is_finished() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        if !self.writer.is_finished() {
            warn!("the last flows are not stored: the disk takes them too slowly");
        }
    }

    pub fn health(&self) -> FlowStoreHealth {
        let ended = self.writer.is_finished();
        let ended =
            ended.then(|| "the thread that writes it has ended; the log says why".to_owned());
        FlowStoreHealth {
            folder: self.shared.folder.clone(),
            reason: (ended.or_else(|| self.shared.held_up()))
                .or_else(|| lock(&self.shared.problem).clone()),
        }
    }
}

impl Shared {
    fn limits(&self) -> Limits {
        *lock(&self.limits)
    }

    fn lost(&self, reason: &'static str, flows: u64) {
        self.metrics.lost.add(Labels::new(&[reason]), flows);
    }

    /// Why nothing is written although nothing has failed.
    fn held_up(&self) -> Option<String> {
        let waits = lock(&self.round).elapsed();
        let folder = self.folder.display();
        (waits >= STUCK).then(|| format!("{folder} has not answered for {} s", waits.as_secs()))
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to petabytes")]
    fn show_size(&self, bytes: u64) {
        let bytes = bytes as f64;
        self.metrics.bytes.set(Labels::default(), bytes);
    }

    /// How the last try went; said in the log when it changes.
    fn note(&self, error: Option<&io::Error>) {
        let folder = self.folder.display();
        let now = error.map(|error| format!("cannot write to {folder}: {error}"));
        let mut problem = lock(&self.problem);
        match (&*problem, &now) {
            (_, Some(now)) if problem.as_ref() != Some(now) => {
                warn!(reason = %now, "flows are not stored")
            }
            (Some(_), None) => info!(%folder, "flows are stored again"),
            _ => {}
        }
        *problem = now;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
