//! One metric family: its series, its budget, and when a series is forgotten.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::{Buckets, EDGE, INTERFACE, Labels, OWNER, lock};

/// Where what is over the budget goes.
const OTHER: &str = "~other";
/// Series kept free for `~other` with the family's own labels (reason, state …), which are few.
const RESERVE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: Vec<&'static str>,
    buckets: Buckets,
    budget: AtomicUsize,
    /// Empty: belongs to no signal, and is always shown.
    signals: Mutex<Vec<&'static str>>,
    series: Mutex<BTreeMap<Labels, Series>>,
    overflow: AtomicU64,
    /// What new series are stamped with; see `Scrapes`.
    generation: AtomicU64,
    /// What is added now happened before anybody looked.
    past: AtomicBool,
}

pub(super) struct Series {
    pub(super) value: Value,
    pub(super) generation: u64,
    /// Since the last sweep.
    moved: bool,
    /// Sweeps in a row at which a workload of this series was gone.
    gone: u8,
}

pub(super) enum Value {
    Number(f64),
    Slots { slots: Box<[u64]>, sum: f64 },
}

impl Family {
    pub(super) fn new(
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: Vec<&'static str>,
        buckets: Buckets,
        budget: usize,
        generation: u64,
    ) -> Self {
        Self {
            name,
            help,
            kind,
            labels,
            buckets,
            budget: AtomicUsize::new(budget),
            signals: Mutex::default(),
            series: Mutex::default(),
            overflow: AtomicU64::new(0),
            generation: AtomicU64::new(generation),
            past: AtomicBool::new(false),
        }
    }

    pub(super) fn set_budget(&self, budget: usize) {
        self.budget.store(budget, Ordering::Relaxed);
    }

    pub(super) fn belongs_to(&self, signal: Option<&'static str>) {
        let mut signals = lock(&self.signals);
        if let Some(signal) = signal
            && !signals.contains(&signal)
        {
            signals.push(signal);
        }
    }

    pub(super) fn set_past(&self, signal: &str, past: bool) {
        if lock(&self.signals).contains(&signal) {
            self.past.store(past, Ordering::Relaxed);
        }
    }

    pub(super) fn is_shown(&self, disabled: &[&str]) -> bool {
        let signals = lock(&self.signals);
        signals.is_empty() || signals.iter().any(|signal| !disabled.contains(signal))
    }

    pub(super) fn bounds(&self) -> &[f64] {
        &self.buckets.0
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.series).len()
    }

    /// How many additions went to `~other`.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, labels: Labels, n: f64) {
        self.add_when(labels, n, self.past.load(Ordering::Relaxed));
    }

    pub(super) fn add_past(&self, labels: Labels, n: f64) {
        self.add_when(labels, n, true);
    }

    fn add_when(&self, labels: Labels, n: f64, past: bool) {
        self.update_when(&mut lock(&self.series), labels, past, |value| {
            if let Value::Number(number) = value {
                *number += n;
            }
        });
    }

    pub(super) fn set(&self, labels: Labels, n: f64) {
        self.update(&mut lock(&self.series), labels, |value| {
            if let Value::Number(number) = value {
                *number = n;
            }
        });
    }

    pub(super) fn replace_all(&self, series: Vec<(Labels, f64)>) {
        let mut current = lock(&self.series);
        current.clear();
        for (labels, n) in series {
            self.update(&mut current, labels, |value| {
                if let Value::Number(number) = value {
                    *number += n;
                }
            });
        }
    }

    pub(super) fn add_slots(&self, labels: Labels, added: &[u64], added_sum: f64) {
        self.update(&mut lock(&self.series), labels, |value| {
            if let Value::Slots { slots, sum } = value {
                let infinity = slots.len() - 1;
                for (slot, n) in added.iter().enumerate() {
                    slots[slot.min(infinity)] += n;
                }
                *sum += added_sum;
            }
        });
    }

    fn update(
        &self,
        series: &mut BTreeMap<Labels, Series>,
        labels: Labels,
        change: impl FnOnce(&mut Value),
    ) {
        self.update_when(series, labels, self.past.load(Ordering::Relaxed), change);
    }

    fn update_when(
        &self,
        series: &mut BTreeMap<Labels, Series>,
        labels: Labels,
        past: bool,
        change: impl FnOnce(&mut Value),
    ) {
        debug_assert_eq!(labels.values().count(), self.labels.len(), "{}", self.name);
        let labels = self.within_budget(series, labels);
        let entry = series.entry(labels).or_insert_with(|| Series {
            value: self.zero(),
            // The first is older than every scrape.
            generation: match past {
                true => 0,
                false => self.generation.load(Ordering::Relaxed),
            },
            moved: false,
            gone: 0,
        });
        entry.moved = true;
        change(&mut entry.value);
    }

    pub(super) fn zero(&self) -> Value {
        match self.kind {
            Kind::Counter | Kind::Gauge => Value::Number(0.0),
            Kind::Histogram => Value::Slots {
                slots: vec![0; self.bounds().len() + 1].into(),
                sum: 0.0,
            },
        }
    }

    fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed).max(2)
    }

    /// Whether there is room for `~other` alone.
    fn is_full(&self, series: &BTreeMap<Labels, Series>) -> bool {
        let budget = self.budget();
        series.len() >= budget - RESERVE.min(budget / 10).max(1)
    }

    /// The labels themselves while there is room, else those of the overflow series: first with
    /// only the ends replaced, and if even that would be too many, with everything replaced.
    fn within_budget(&self, series: &BTreeMap<Labels, Series>, labels: Labels) -> Labels {
        if !self.is_full(series) || series.contains_key(&labels) {
            return labels;
        }
        let budget = self.budget();
        self.overflow.fetch_add(1, Ordering::Relaxed);
        let ends_replaced = self.replaced(&labels, |name| {
            EDGE.contains(&name) || OWNER.contains(&name)
        });
        if series.len() < budget - 1 || series.contains_key(&ends_replaced) {
            return ends_replaced;
        }
        self.replaced(&labels, |_| true)
    }

    fn replaced(&self, labels: &Labels, replace: impl Fn(&str) -> bool) -> Labels {
        let values: Vec<&str> = (self.labels.iter().zip(labels.values()))
            .map(|(name, value)| if replace(name) { OTHER } else { value })
            .collect();
        Labels::new(&values)
    }

    pub(super) fn forget(&self, first: &Labels) {
        lock(&self.series).retain(|labels, _| !labels.begin_with(first));
    }

    pub(super) fn sweep(&self, sweeps: u8, is_alive: &impl Fn(&str, &str, &str) -> bool) {
        // A gauge is replaced as a whole and so forgets by itself.
        if self.kind == Kind::Gauge {
            return;
        }
        let ends: Vec<usize> = (self.labels.iter().enumerate())
            .filter(|(_, name)| ["src_namespace", "dst_namespace", "namespace"].contains(name))
            .map(|(index, _)| index)
            .collect();
        let at = |label: &str| self.labels.iter().position(|name| *name == label);
        let interface = at(INTERFACE).zip(at("kind"));
        // The host and its units stay, but there is an interface for each container.
        let is_gone = |values: &[&str]| {
            interface.is_some_and(|(interface, kind)| {
                let (interface, kind) = (values[interface], values[kind]);
                let hosts = [crate::enrich::Kind::Host, crate::enrich::Kind::Unit];
                let is_hosts = hosts.iter().any(|it| it.as_str() == kind);
                is_hosts && !interface.is_empty() && !is_alive("", interface, INTERFACE)
            })
        };
        let mut all = lock(&self.series);
        // What stays would keep those that live now out.
        let sweeps = if self.is_full(&all) { 1 } else { sweeps };
        all.retain(|labels, series| {
            let values: Vec<&str> = labels.values().collect();
            // Namespace, workload and kind follow one another in both label sets.
            let alive = (ends.iter())
                .all(|&at| is_alive(values[at], values[at + 1], values[at + 2]))
                && !is_gone(&values);
            let moved = std::mem::take(&mut series.moved);
            series.gone = if alive || moved { 0 } else { series.gone + 1 };
            series.gone < sweeps
        });
    }

    /// Shows every series, in order. Series made from now on are of `generation`.
    pub(super) fn visit(&self, generation: u64, mut visit: impl FnMut(&Labels, &Series)) {
        let series = lock(&self.series);
        self.generation.store(generation, Ordering::Relaxed);
        for (labels, series) in series.iter() {
            visit(labels, series);
        }
    }
}
