//! Connection tracking: the table's entries and limit, and what happened to packets and entries, as
//! `conntrack -C` and `conntrack -S` show them.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::readings::{Moved, Reading, Visit};
use super::totals::{NetnsGauge, increase_of_32_bits};
use crate::enrich::NetnsId;
use crate::export::{Counter, OWNER, Registry};

/// There while connection tracking is in the kernel. One line for each CPU.
const TABLE: &str = "/proc/thread-self/net/stat/nf_conntrack";
const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// The limit is the whole host's, and seldom changed.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Columns of [`TABLE`], and what `conntrack -S` calls them.
const EVENTS: [(&str, &str); 13] = [
    ("found", "found"),
    ("invalid", "invalid"),
    ("insert", "insert"),
    ("insert_failed", "insert_failed"),
    ("drop", "drop"),
    ("early_drop", "early_drop"),
    ("icmp_error", "error"),
    ("search_restart", "search_restart"),
    ("clashres", "clash_resolve"),
    ("chainlength", "chaintoolong"),
    ("expect_new", "expect_new"),
    ("expect_create", "expect_create"),
    ("expect_delete", "expect_delete"),
];

pub(super) struct Conntrack {
    entries: NetnsGauge,
    limit: NetnsGauge,
    events: Counter,
    seen: HashMap<NetnsId, Seen>,
}

struct Seen {
    /// A namespace that never tracked a connection has no series: there may be a thousand.
    is_used: bool,
    events: Events,
    limit: Option<f64>,
    limit_read: Option<Instant>,
}

/// In the order of [`EVENTS`].
type Events = [u32; EVENTS.len()];

impl Conntrack {
    pub(super) const NAME: &str = "conntrack";

    pub(super) fn new(registry: &Registry) -> Self {
        let registry = registry.for_signal(Self::NAME);
        let sum = |a, b| a + b;
        Self {
            entries: NetnsGauge::new(
                registry.gauge(
                    "conntrack_entries",
                    "Entries in the connection-tracking table of a network namespace",
                    &[OWNER],
                ),
                sum,
            ),
            limit: NetnsGauge::new(
                registry.gauge(
                    "conntrack_limit",
                    "Entries that the connection-tracking table of a network namespace may have",
                    &[OWNER],
                ),
                sum,
            ),
            events: registry.counter(
                "conntrack_events",
                "What happened in connection tracking, by the names of `conntrack -S`: drop is a full table, insert_failed a clash of ports or addresses, invalid a packet of no known connection",
                &[OWNER, &["event"]],
            ),
            seen: HashMap::new(),
        }
    }
}

impl Reading for Conntrack {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn read(&mut self, visit: &mut Visit) -> io::Result<Moved> {
        let table = match fs::read_to_string(TABLE) {
            // This kernel, or this namespace, tracks no connections.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.forget(visit.netns);
                return Ok(Moved::No);
            }
            table => parse(&table?),
        };
        let seen = self.seen.entry(visit.netns).or_insert_with(|| Seen {
            is_used: false,
            events: [0; EVENTS.len()],
            limit: None,
            limit_read: None,
        });
        let mut moved = Moved::No;
        for (((_, event), &before), &now) in EVENTS.iter().zip(&seen.events).zip(&table.events) {
            let added = increase_of_32_bits(before, now);
            if added > 0 {
                moved = Moved::Yes;
                self.events.add(visit.owner.clone().with(&[event]), added);
            }
        }
        seen.events = table.events;
        seen.is_used |= table != Table::default();
        if !seen.is_used {
            return Ok(Moved::No);
        }
        let is_fresh = |at| visit.now.saturating_duration_since(at) < READ_LIMIT;
        if !seen.limit_read.is_some_and(is_fresh) {
            seen.limit = read_limit();
            seen.limit_read = Some(visit.now);
        }
        let labels = || visit.owner.clone();
        self.entries
            .set(visit.netns, vec![(labels(), table.entries.into())]);
        let limit = seen.limit.map(|limit| (labels(), limit));
        self.limit.set(visit.netns, limit.into_iter().collect());
        Ok(moved)
    }

    fn forget(&mut self, netns: NetnsId) {
        self.seen.remove(&netns);
        self.entries.forget(netns);
        self.limit.forget(netns);
    }

    fn publish(&mut self) {
        self.entries.publish();
        self.limit.publish();
    }
}

fn read_limit() -> Option<f64> {
    fs::read_to_string(LIMIT).ok()?.trim().parse().ok()
}

#[derive(Debug, Default, PartialEq)]
struct Table {
    entries: u32,
    events: Events,
}

fn parse(text: &str) -> Table {
    let mut table = Table::default();
    let mut lines = text.lines();
    let names: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .collect();
    for line in lines {
        let values = line
            .split_ascii_whitespace()
            .map(|value| u32::from_str_radix(value, 16));
        for (&name, value) in names.iter().zip(values) {
            let value = value.unwrap_or(0);
            if name == "entries" {
                // Of the namespace: the same on each line.
                table.entries = value;
            } else if let Some(at) = EVENTS.iter().position(|&(column, _)| column == name) {
                table.events[at] = table.events[at].wrapping_add(value);
            }
        }
    }
    table
}

#[test]
fn events_are_those_of_all_cpus_and_entries_are_not() {
    let table = parse(
        "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n\
         0000001f  00000001 00000000 00000000 00000010 00000000 00000000 00000000 00000000 00000002 00000000 00000000 00000000  00000000 00000000 00000000 00000000\n\
         0000001f  00000000 00000000 00000000 00000004 00000000 00000000 00000000 00000000 00000001 00000000 00000000 00000000  00000000 00000000 00000000 00000007\n",
    );
    let of =
        |event: &str| table.events[EVENTS.iter().position(|&(_, name)| name == event).unwrap()];
    assert_eq!(table.entries, 31);
    assert_eq!(of("invalid"), 20);
    assert_eq!(of("insert_failed"), 3);
    assert_eq!(of("clash_resolve"), 1);
    assert_eq!(of("search_restart"), 7);
    assert_eq!(parse(""), Table::default());
}
