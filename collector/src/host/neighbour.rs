//! Neighbour tables: the entries of each namespace by state, and how full the host's tables are,
//! which all namespaces share.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::netlink::u16_at;
use super::readings::{Moved, Reading, Visit};
use super::totals::{NetnsGauge, increase};
use crate::enrich::NetnsId;
use crate::export::{Counter, Gauge, Labels, OWNER, Registry};

/// Of `struct ndmsg`: family, padding, interface, then this.
const STATE: usize = 8;
const HEADER: usize = 12;
/// The states of linux/neighbour.h. An entry is in one of them.
const STATES: [(u16, &str); 8] = [
    (0x01, "incomplete"),
    (0x02, "reachable"),
    (0x04, "stale"),
    (0x08, "delay"),
    (0x10, "probe"),
    (0x20, "failed"),
    (0x40, "no_arp"),
    (0x80, "permanent"),
];
const TABLES: [(&str, &str, &str); 2] = [
    (
        "ipv4",
        "/proc/net/stat/arp_cache",
        "/proc/sys/net/ipv4/neigh/default/gc_thresh3",
    ),
    (
        "ipv6",
        "/proc/net/stat/ndisc_cache",
        "/proc/sys/net/ipv6/neigh/default/gc_thresh3",
    ),
];

pub(super) struct NeighbourTables {
    entries: NetnsGauge,
    table_entries: Gauge,
    table_limit: Gauge,
    overflows: Counter,
    overflows_before: [Option<u64>; 2],
}

impl NeighbourTables {
    pub(super) const NAME: &str = "neighbour_tables";

    pub(super) fn new(registry: &Registry) -> Self {
        let registry = registry.for_signal(Self::NAME);
        Self {
            entries: NetnsGauge::new(
                registry.gauge(
                    "neighbour_entries",
                    "Entries of a namespace's neighbour tables (ARP, NDP) in a state",
                    &[OWNER, &["state"]],
                ),
                |a, b| a + b,
            ),
            table_entries: registry.gauge(
                "neighbour_table_entries",
                "Entries of a neighbour table, of all namespaces of the host",
                &[&["family"]],
            ),
            table_limit: registry.gauge(
                "neighbour_table_limit",
                "Entries that a neighbour table may have: gc_thresh3",
                &[&["family"]],
            ),
            overflows: registry.counter(
                "neighbour_table_overflows",
                "Neighbours that found their table full",
                &[&["family"]],
            ),
            overflows_before: [None; 2],
        }
    }
}

impl Reading for NeighbourTables {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn read(&mut self, visit: &mut Visit) -> io::Result<Moved> {
        let states = visit
            .route
            .list(libc::RTM_GETNEIGH, &[0; HEADER], |message| {
                u16_at(message, STATE)
            })?;
        let mut count: BTreeMap<&str, f64> = BTreeMap::new();
        for state in states {
            if let Some((_, name)) = STATES.iter().find(|(bit, _)| state & bit != 0) {
                *count.entry(name).or_default() += 1.0;
            }
        }
        let series = count
            .into_iter()
            .map(|(state, count)| (visit.owner.clone().with(&[state]), count));
        self.entries.set(visit.netns, series.collect());
        Ok(Moved::No)
    }

    fn forget(&mut self, netns: NetnsId) {
        self.entries.forget(netns);
    }

    fn publish(&mut self) {
        self.entries.publish();
        for ((family, statistics, limit), before) in
            TABLES.into_iter().zip(&mut self.overflows_before)
        {
            let labels = Labels::new(&[family]);
            if let Some(table) = fs::read_to_string(statistics)
                .ok()
                .as_deref()
                .and_then(parse)
            {
                self.table_entries.set(labels.clone(), table.entries as f64);
                // What happened before we began is no increase.
                let added = before.map_or(0, |before| increase(before, table.overflows));
                *before = Some(table.overflows);
                self.overflows.add(labels.clone(), added);
            }
            // Only the host's own namespace shows the limit.
            if let Some(limit) =
                (fs::read_to_string(limit).ok()).and_then(|text| text.trim().parse().ok())
            {
                self.table_limit.set(labels, limit);
            }
        }
    }
}

#[derive(Debug, PartialEq)]
struct Table {
    entries: u64,
    overflows: u64,
}

/// A line per CPU under a line of names, in hexadecimal. The entries are of all CPUs on each line.
fn parse(text: &str) -> Option<Table> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let at = |wanted: &str| names.iter().position(|name| *name == wanted);
    let (entries, full) = (at("entries")?, at("table_fulls"));
    let mut table = Table {
        entries: 0,
        overflows: 0,
    };
    for line in lines {
        let values: Vec<u64> = line
            .split_ascii_whitespace()
            .map_while(|value| u64::from_str_radix(value, 16).ok())
            .collect();
        table.entries = *values.get(entries)?;
        table.overflows += full.and_then(|at| values.get(at)).copied().unwrap_or(0);
    }
    Some(table)
}

#[test]
fn statistics_of_a_table_are_added_up() {
    let text =
        "entries  allocs   table_fulls\n0000001f 00000001 00000002\n0000001f 00000000 0000000a\n";
    let table = Table {
        entries: 31,
        overflows: 12,
    };
    assert_eq!(parse(text), Some(table));
    assert_eq!(parse(""), None);
}
