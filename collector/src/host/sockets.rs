//! Sockets of a namespace, the memory of its half-assembled packets, and the settings that limit both.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use super::readings::{Moved, Reading, Visit};
use super::totals::NetnsGauge;
use crate::enrich::NetnsId;
use crate::export::{Labels, OWNER, Registry};

const FILES: [(&str, &str); 2] = [
    ("ipv4", "/proc/thread-self/net/sockstat"),
    ("ipv6", "/proc/thread-self/net/sockstat6"),
];
/// Settings seldom change.
const READ_SETTINGS: Duration = Duration::from_secs(30);

/// What is exported, and where below /proc/sys/net it is.
const SETTINGS: [(&str, &str); 8] = [
    ("local_ports", LOCAL_PORTS),
    ("somaxconn", "core/somaxconn"),
    ("tcp_max_syn_backlog", "ipv4/tcp_max_syn_backlog"),
    ("tcp_max_tw_buckets", "ipv4/tcp_max_tw_buckets"),
    ("tcp_syncookies", "ipv4/tcp_syncookies"),
    ("tcp_mtu_probing", "ipv4/tcp_mtu_probing"),
    ("rp_filter", "ipv4/conf/all/rp_filter"),
    ("ipfrag_high_thresh", "ipv4/ipfrag_high_thresh"),
];
/// The only one that is two numbers: the first and the last port.
const LOCAL_PORTS: &str = "ipv4/ip_local_port_range";

pub(super) struct Sockets {
    in_use: NetnsGauge,
    fragment_memory: NetnsGauge,
    settings: NetnsGauge,
    settings_read: HashMap<NetnsId, Instant>,
}

impl Sockets {
    pub(super) const NAME: &str = "sockets";

    pub(super) fn new(registry: &Registry) -> Self {
        let registry = registry.for_signal(Self::NAME);
        let sum = |a, b| a + b;
        Self {
            in_use: NetnsGauge::new(
                registry.gauge(
                    "sockets_in_use",
                    "Sockets of a network namespace that are bound or connected, where there are any; TIME_WAIT is in tcp_connections",
                    &[OWNER, &["family", "protocol"]],
                ),
                sum,
            ),
            fragment_memory: NetnsGauge::new(
                registry.gauge(
                    "fragment_memory_bytes",
                    "Memory of fragments that wait for the rest of their packet, where there are any",
                    &[OWNER, &["family"]],
                ),
                sum,
            ),
            settings: NetnsGauge::new(
                registry.gauge(
                    "netns_setting",
                    "Kernel settings (sysctl) of a network namespace that has sockets; local_ports is how many ports connect() may choose from, for each destination",
                    &[OWNER, &["setting"]],
                ),
                f64::min,
            ),
            settings_read: HashMap::new(),
        }
    }

    fn is_due(&self, visit: &Visit) -> bool {
        let read = self.settings_read.get(&visit.netns);
        read.is_none_or(|&at| visit.now.saturating_duration_since(at) >= READ_SETTINGS)
    }
}

impl Reading for Sockets {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn read(&mut self, visit: &mut Visit) -> io::Result<Moved> {
        let (mut in_use, mut memory) = (Vec::new(), Vec::new());
        for (family, file) in FILES {
            // A kernel without IPv6 has only the first.
            let Ok(text) = fs::read_to_string(file) else {
                continue;
            };
            for (protocol, name, value) in parse(&text) {
                match (protocol.as_str(), name) {
                    _ if value == 0 => {}
                    ("frag", "memory") => {
                        memory.push((visit.owner.clone().with(&[family]), number(value)));
                    }
                    ("frag", _) => {}
                    (protocol, "inuse") => {
                        let labels = visit.owner.clone().with(&[family, protocol]);
                        in_use.push((labels, number(value)));
                    }
                    _ => {}
                }
            }
        }
        if visit.is_hosts || !in_use.is_empty() {
            if self.is_due(visit) {
                self.settings.set(visit.netns, settings(&visit.owner));
                self.settings_read.insert(visit.netns, visit.now);
            }
        } else {
            self.settings.forget(visit.netns);
            self.settings_read.remove(&visit.netns);
        }
        self.in_use.set(visit.netns, in_use);
        self.fragment_memory.set(visit.netns, memory);
        Ok(Moved::No)
    }

    fn forget(&mut self, netns: NetnsId) {
        self.settings_read.remove(&netns);
        for gauge in [
            &mut self.in_use,
            &mut self.fragment_memory,
            &mut self.settings,
        ] {
            gauge.forget(netns);
        }
    }

    fn publish(&mut self) {
        for gauge in [
            &mut self.in_use,
            &mut self.fragment_memory,
            &mut self.settings,
        ] {
            gauge.publish();
        }
    }
}

fn settings(owner: &Labels) -> Vec<(Labels, f64)> {
    let read = |(name, path): (&str, &str)| {
        let text = fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
        let mut numbers = text
            .split_ascii_whitespace()
            .map_while(|word| word.parse::<f64>().ok());
        let first = numbers.next()?;
        let value = if path == LOCAL_PORTS {
            numbers.next()? - first + 1.0
        } else {
            first
        };
        Some((owner.clone().with(&[name]), value))
    };
    SETTINGS.into_iter().filter_map(read).collect()
}

/// `TCP6: inuse 3` is ("tcp", "inuse", 3).
pub(super) fn parse(sockstat: &str) -> Vec<(String, &str, u64)> {
    let mut all = Vec::new();
    for (protocol, rest) in sockstat.lines().filter_map(|line| line.split_once(':')) {
        let protocol = protocol.trim_end_matches('6').to_lowercase();
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        for pair in words.chunks_exact(2) {
            if let Ok(value) = pair[1].parse() {
                all.push((protocol.clone(), pair[0], value));
            }
        }
    }
    all
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exposition values are doubles: exact up to 2^53"
)]
pub(super) fn number(value: u64) -> f64 {
    value as f64
}

#[test]
fn both_families_are_read_alike() {
    let of = |text, protocol: &str, name: &str| {
        let all = parse(text);
        let found = all.iter().find(|(p, n, _)| p == protocol && *n == name);
        found.map(|&(_, _, value)| value)
    };
    let four =
        "sockets: used 9\nTCP: inuse 3 orphan 0 tw 17 alloc 5 mem 1\nFRAG: inuse 1 memory 4096\n";
    assert_eq!(of(four, "tcp", "inuse"), Some(3));
    assert_eq!(of(four, "tcp", "tw"), Some(17));
    assert_eq!(of(four, "frag", "memory"), Some(4096));
    let six = "TCP6: inuse 2\nUDP6: inuse 1\nFRAG6: inuse 0 memory 8\n";
    assert_eq!(of(six, "udp", "inuse"), Some(1));
    assert_eq!(of(six, "frag", "memory"), Some(8));
    assert_eq!(of(six, "raw", "inuse"), None);
}
