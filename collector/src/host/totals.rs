//! From what the kernel says now to what we export: increments of its totals, and gauges of
//! namespaces that may have one owner.

use std::collections::{BTreeMap, HashMap};

use crate::enrich::NetnsId;
use crate::export::{Gauge, Labels};

/// What was added to a total since it was `before`. A total that is smaller began anew.
pub(super) fn increase(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// The same for the kernel's 32-bit totals, which go on at 0 when they are full.
pub(super) fn increase_of_32_bits(before: u32, now: u32) -> u64 {
    const NEARLY_FULL: u32 = 3 << 30;
    const HARDLY_BEGUN: u32 = 1 << 30;
    let went_over = before >= NEARLY_FULL && now < HARDLY_BEGUN;
    let added = if now >= before || went_over {
        now.wrapping_sub(before)
    } else {
        now
    };
    added.into()
}

/// A gauge with the values of each namespace.
pub(super) struct NetnsGauge {
    gauge: Gauge,
    /// Makes one of the values of several namespaces with the same labels.
    combine: fn(f64, f64) -> f64,
    values: HashMap<NetnsId, Vec<(Labels, f64)>>,
    changed: bool,
}

impl NetnsGauge {
    pub(super) fn new(gauge: Gauge, combine: fn(f64, f64) -> f64) -> Self {
        Self {
            gauge,
            combine,
            values: HashMap::new(),
            changed: false,
        }
    }

    /// Replaces what was known of a namespace.
    pub(super) fn set(&mut self, netns: NetnsId, values: Vec<(Labels, f64)>) {
        let before = self.values.get(&netns).map_or(&[][..], Vec::as_slice);
        if before == values {
            return;
        }
        self.changed = true;
        if values.is_empty() {
            self.values.remove(&netns);
        } else {
            self.values.insert(netns, values);
        }
    }

    pub(super) fn forget(&mut self, netns: NetnsId) {
        self.changed |= self.values.remove(&netns).is_some();
    }

    pub(super) fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let mut series: BTreeMap<&Labels, f64> = BTreeMap::new();
        for (labels, value) in self.values.values().flatten() {
            (series.entry(labels))
                .and_modify(|all| *all = (self.combine)(*all, *value))
                .or_insert(*value);
        }
        let series = series.into_iter();
        (self.gauge).replace_all(
            series
                .map(|(labels, value)| (labels.clone(), value))
                .collect(),
        );
    }
}

#[test]
fn totals_may_begin_anew_or_go_over() {
    assert_eq!(increase(5, 9), 4);
    assert_eq!(increase(9, 2), 2);
    assert_eq!(increase_of_32_bits(5, 9), 4);
    assert_eq!(increase_of_32_bits(900, 2), 2);
    assert_eq!(increase_of_32_bits(u32::MAX - 1, 3), 5);
}

#[test]
fn namespaces_of_one_owner_are_one_series() {
    use crate::export::{Format, Registry};
    let registry = Registry::new(100);
    let mut gauge = NetnsGauge::new(registry.gauge("entries", "Entries", &[&["x"]]), |a, b| {
        a + b
    });
    let shown = |gauge: &mut NetnsGauge| {
        gauge.publish();
        let text = registry.encode(Format::Text, None);
        let lines = text
            .lines()
            .filter(|line| line.starts_with("runwire_entries"));
        lines.collect::<Vec<_>>().join(" ")
    };
    gauge.set(NetnsId(1), vec![(Labels::new(&["a"]), 1.0)]);
    gauge.set(NetnsId(2), vec![(Labels::new(&["a"]), 2.0)]);
    assert_eq!(shown(&mut gauge), "runwire_entries{x=\"a\"} 3");
    gauge.forget(NetnsId(1));
    assert_eq!(shown(&mut gauge), "runwire_entries{x=\"a\"} 2");
    gauge.set(NetnsId(2), Vec::new());
    assert_eq!(shown(&mut gauge), "");
}
