//! Metrics: families of series, each with a budget, and what a scrape of them looks like.
//!
//! A family is registered once, under its name without prefix and without `_total`; what is added
//! to it by label values. Handles are cheap to clone and may be used from any thread.

mod encode;
mod family;
mod labels;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use encode::{Format, Scraper};
pub use labels::{EDGE, Labels, OWNER, edge, edge_by, owner};

use family::{Family, Kind};

/// The label of an interface's name, and the kind under which [`Registry::sweep`] asks for one.
pub const INTERFACE: &str = "interface";

/// In front of every metric name.
pub const PREFIX: &str = "runwire_";

/// All families of this process.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
    /// Whose families are registered through this handle.
    signal: Option<&'static str>,
}

struct Inner {
    budget: AtomicUsize,
    /// By family: what its buckets are instead of those it is registered with.
    buckets: BTreeMap<String, Vec<f64>>,
    families: Mutex<BTreeMap<&'static str, Arc<Family>>>,
    disabled: Mutex<Vec<&'static str>>,
    scrapes: Mutex<Scrapes>,
}

/// Which generation of series each scraper has seen. A series is of the generation that was
/// current when it was made, and every scrape starts a new one.
struct Scrapes {
    generation: u64,
    seen: HashMap<Scraper, Seen>,
}

/// Generations; `u64::MAX` where there was no scrape, since who comes for the first time has no past to which a 0 could be added.
#[derive(Clone, Copy)]
struct Seen {
    last: u64,
    before: u64,
    /// The one from which on all was shown twice, because the first time was late.
    repeated: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            last: u64::MAX,
            before: u64::MAX,
            repeated: u64::MAX,
        }
    }
}

impl Registry {
    /// `budget` is how many series one family may have.
    pub fn new(budget: usize) -> Self {
        Self::with_buckets(budget, BTreeMap::new())
    }

    /// As [`Registry::new`]; these histograms have other buckets (in seconds, ascending) than those
    /// that they are registered with.
    pub fn with_buckets(budget: usize, buckets: BTreeMap<String, Vec<f64>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                budget: AtomicUsize::new(budget),
                buckets,
                families: Mutex::default(),
                disabled: Mutex::default(),
                scrapes: Mutex::new(Scrapes {
                    generation: 1,
                    seen: HashMap::new(),
                }),
            }),
            signal: None,
        }
    }

    /// The same registry; what is registered through it belongs to `signal` and is exposed only
    /// while that signal is on.
    pub fn for_signal(&self, signal: &'static str) -> Self {
        Self {
            inner: self.inner.clone(),
            signal: Some(signal),
        }
    }

    /// How many series one family may have.
    pub fn budget(&self) -> usize {
        self.inner.budget.load(Ordering::Relaxed)
    }

    /// Takes effect on series that come; those that are there stay.
    pub fn set_budget(&self, budget: usize) {
        self.inner.budget.store(budget, Ordering::Relaxed);
        for family in lock(&self.inner.families).values() {
            family.set_budget(budget);
        }
    }

    /// Shows or hides the families of a signal. All are shown at first.
    pub fn enable(&self, signal: &'static str, on: bool) {
        let mut disabled = lock(&self.inner.disabled);
        disabled.retain(|&name| name != signal);
        if !on {
            disabled.push(signal);
        }
    }

    /// Whether what is added to the families of a signal from now on happened before anybody looked.
    /// Series that come meanwhile are shown as they are and not as 0 first: their value is no
    /// increase.
    pub fn set_past(&self, signal: &str, past: bool) {
        for family in lock(&self.inner.families).values() {
            family.set_past(signal, past);
        }
    }

    /// `labels` are the label names, in groups: `&[EDGE, &["reason"]]`.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&[&'static str]],
    ) -> Counter {
        Counter(self.family(name, help, Kind::Counter, labels, Buckets::none()))
    }

    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&[&'static str]],
    ) -> Gauge {
        Gauge(self.family(name, help, Kind::Gauge, labels, Buckets::none()))
    }

    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&[&'static str]],
        buckets: Buckets,
    ) -> Histogram {
        let chosen = self.inner.buckets.get(name);
        let buckets = chosen.map_or(buckets, |bounds| Buckets(bounds.as_slice().into()));
        Histogram(self.family(name, help, Kind::Histogram, labels, buckets))
    }

    /// Registering a name a second time gives the same family: two signals may share one.
    fn family(
        &self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &[&[&'static str]],
        buckets: Buckets,
    ) -> Arc<Family> {
        let generation = lock(&self.inner.scrapes).generation;
        let mut families = lock(&self.inner.families);
        let family = families.entry(name).or_insert_with(|| {
            Arc::new(Family::new(
                name,
                help,
                kind,
                labels.concat(),
                buckets,
                self.budget(),
                generation,
            ))
        });
        debug_assert!(
            family.kind == kind && family.labels == labels.concat(),
            "two families are called {name}"
        );
        family.belongs_to(self.signal);
        family.clone()
    }

    /// Forgets series that did not move for `sweeps` calls during which one of their workloads was
    /// gone, or an interface of the host, which has [`INTERFACE`] for a kind and no namespace. In a
    /// family that is full one such call is enough. Call it about once a minute.
    pub fn sweep(&self, sweeps: u8, is_alive: impl Fn(&str, &str, &str) -> bool) {
        for family in lock(&self.inner.families).values() {
            family.sweep(sweeps, &is_alive);
        }
    }

    fn shown(&self) -> Vec<Arc<Family>> {
        let disabled = lock(&self.inner.disabled).clone();
        lock(&self.inner.families)
            .values()
            .filter(|family| family.is_shown(&disabled))
            .cloned()
            .collect()
    }
}

#[derive(Clone)]
pub struct Counter(Arc<Family>);

impl Counter {
    pub fn add(&self, labels: Labels, n: u64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "exposition values are doubles: exact up to 2^53"
        )]
        self.0.add(labels, n as f64);
    }

    /// Adds what was counted before anybody looked: a series that begins with it is shown as it is,
    /// and not as 0 first.
    pub fn add_past(&self, labels: Labels, n: u64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "exposition values are doubles: exact up to 2^53"
        )]
        self.0.add_past(labels, n as f64);
    }

    /// Forgets every series whose first label values are these.
    pub fn forget(&self, first: &Labels) {
        self.0.forget(first);
    }

    /// For families that count seconds.
    pub fn add_seconds(&self, labels: Labels, seconds: f64) {
        self.0.add(labels, seconds);
    }
}

#[derive(Clone)]
pub struct Gauge(Arc<Family>);

impl Gauge {
    pub fn set(&self, labels: Labels, value: f64) {
        self.0.set(labels, value);
    }

    /// The family's series become these and no others; values under equal labels are added up.
    pub fn replace_all(&self, series: Vec<(Labels, f64)>) {
        self.0.replace_all(series);
    }
}

#[derive(Clone)]
pub struct Histogram(Arc<Family>);

impl Histogram {
    /// Adds observations by slot: `slots[i]` lie in bucket `i` and not in the one before; the slot
    /// after the last bucket, and any further one, is +Inf. `sum` is in the unit of the family.
    pub fn add(&self, labels: Labels, slots: &[u64], sum: f64) {
        self.0.add_slots(labels, slots, sum);
    }

    /// As [`Counter::forget`].
    pub fn forget(&self, first: &Labels) {
        self.0.forget(first);
    }

    /// The buckets' upper bounds in units of which a second has `per_second`, for programs that
    /// put observations into slots by themselves.
    pub fn bounds(&self, per_second: f64) -> Vec<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bounds are positive, and hours at most"
        )]
        let whole = |bound: &f64| (bound * per_second).round() as u64;
        self.0.bounds().iter().map(whole).collect()
    }

    pub fn observe(&self, labels: Labels, seconds: f64) {
        let bounds = self.0.bounds();
        let slot = bounds.partition_point(|&bound| bound < seconds);
        let mut slots = vec![0; bounds.len() + 1];
        slots[slot] = 1;
        self.0.add_slots(labels, &slots, seconds);
    }
}

/// Upper bounds of a histogram's buckets, in the unit of its family, without +Inf.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets(Box<[f64]>);

impl Buckets {
    /// `start`, `start·factor`, `start·factor²` … `count` of them.
    pub fn exponential(start: f64, factor: f64, count: usize) -> Self {
        let mut bound = start;
        let mut bounds = Vec::with_capacity(count);
        for _ in 0..count {
            bounds.push(bound);
            bound *= factor;
        }
        Self(bounds.into())
    }

    fn none() -> Self {
        Self(Box::default())
    }
}

/// A panic while a lock was held leaves numbers that are at worst one addition short, so the
/// metrics go on.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn series_of_an_interface_of_the_host_go_with_it() {
    let registry = Registry::new(100);
    let drops = registry.counter("drops", "Drops", &[OWNER, &[INTERFACE]]);
    for (kind, interface) in [
        ("host", "veth1"),
        ("unit", "veth1"),
        ("host", "eth0"),
        ("host", ""),
        ("netns", "veth1"),
    ] {
        drops.add(Labels::new(&["host", "a", kind, interface]), 1);
    }
    for _ in 0..3 {
        registry.sweep(2, |_, name, kind| kind != INTERFACE || name == "eth0");
    }
    let text = registry.encode(Format::Text, None);
    let is_series = |line: &&str| line.starts_with("runwire_drops_total{");
    assert_eq!(text.lines().filter(is_series).count(), 3, "{text}");
    assert!(text.contains(r#"kind="netns",interface="veth1""#), "{text}");
}
