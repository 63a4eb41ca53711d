//! What is the whole node's and no namespace's: the memory of all sockets, and the queues between
//! the network cards and the protocols.

use std::fs;
use std::io;

use nix::unistd::{SysconfVar, sysconf};

use super::readings::{Moved, Reading, Visit};
use super::sockets::{number, parse};
use super::totals::increase_of_32_bits;
use crate::enrich::NetnsId;
use crate::export::{Counter, Gauge, Labels, Registry};

pub(super) struct Node {
    memory: Gauge,
    memory_limit: Gauge,
    orphans: Gauge,
    processed: Counter,
    dropped: Counter,
    squeezes: Counter,
    seen: Softnet,
    page: f64,
}

/// Sums over all CPUs of `/proc/net/softnet_stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Softnet {
    processed: u32,
    dropped: u32,
    squeezes: u32,
}

impl Node {
    pub(super) const NAME: &str = "node";

    pub(super) fn new(registry: &Registry) -> Self {
        let registry = registry.for_signal(Self::NAME);
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        Self {
            memory: registry.gauge(
                "socket_memory_bytes",
                "Memory that the buffers of all sockets of the node take",
                &[&["protocol"]],
            ),
            memory_limit: registry.gauge(
                "socket_memory_limit_bytes",
                "Limits of socket_memory_bytes (tcp_mem, udp_mem): from `pressure` on the kernel spares memory, at `maximum` it drops",
                &[&["protocol", "limit"]],
            ),
            orphans: registry.gauge(
                "tcp_orphan_sockets",
                "TCP sockets of the node that no program has open any more and that are not closed yet",
                &[],
            ),
            processed: registry.counter(
                "softnet_processed_packets",
                "Received packets that the CPUs of the node took from their backlogs and devices",
                &[],
            ),
            dropped: registry.counter(
                "softnet_dropped_packets",
                "Received packets that the node dropped because a CPU's backlog was full",
                &[],
            ),
            squeezes: registry.counter(
                "softnet_time_squeezes",
                "How often a CPU of the node had no time to take all packets that were there",
                &[],
            ),
            seen: Softnet::default(),
            page: page.and_then(|page| u32::try_from(page).ok()).map_or(4096.0, f64::from),
        }
    }

    fn show_memory(&self) {
        let text = fs::read_to_string("/proc/thread-self/net/sockstat").unwrap_or_default();
        let mut memory = Vec::new();
        for (protocol, name, value) in parse(&text) {
            match name {
                "mem" => memory.push((Labels::new(&[&protocol]), number(value) * self.page)),
                "orphan" => self.orphans.set(Labels::default(), number(value)),
                _ => {}
            }
        }
        self.memory.replace_all(memory);
        for protocol in ["tcp", "udp"] {
            let path = format!("/proc/sys/net/ipv4/{protocol}_mem");
            let limits = fs::read_to_string(path).unwrap_or_default();
            let limits = limits
                .split_ascii_whitespace()
                .map_while(|limit| limit.parse::<f64>().ok());
            for (name, pages) in ["low", "pressure", "maximum"].iter().zip(limits) {
                let labels = Labels::new(&[protocol, name]);
                self.memory_limit.set(labels, pages * self.page);
            }
        }
    }

    fn count_softnet(&mut self) {
        let Ok(text) = fs::read_to_string("/proc/thread-self/net/softnet_stat") else {
            return;
        };
        let now = parse_softnet(&text);
        for (counter, before, now) in [
            (&self.processed, self.seen.processed, now.processed),
            (&self.dropped, self.seen.dropped, now.dropped),
            (&self.squeezes, self.seen.squeezes, now.squeezes),
        ] {
            counter.add(Labels::default(), increase_of_32_bits(before, now));
        }
        self.seen = now;
    }
}

impl Reading for Node {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn read(&mut self, _visit: &mut Visit) -> io::Result<Moved> {
        Ok(Moved::No)
    }

    fn forget(&mut self, _netns: NetnsId) {}

    fn publish(&mut self) {
        self.show_memory();
        self.count_softnet();
    }
}

fn parse_softnet(text: &str) -> Softnet {
    let mut sums = Softnet::default();
    for line in text.lines() {
        let mut values = (line.split_ascii_whitespace())
            .map(|value| u32::from_str_radix(value, 16).unwrap_or(0));
        let mut next = || values.next().unwrap_or(0);
        sums.processed = sums.processed.wrapping_add(next());
        sums.dropped = sums.dropped.wrapping_add(next());
        sums.squeezes = sums.squeezes.wrapping_add(next());
    }
    sums
}

#[test]
fn softnet_is_of_all_cpus() {
    let text =
        "003e77b2 00000002 0000001c 00000000 00000000\n003965ee 00000001 00000023 00000000\n";
    let expected = Softnet {
        processed: 0x3e_77b2 + 0x39_65ee,
        dropped: 3,
        squeezes: 0x3f,
    };
    assert_eq!(parse_softnet(text), expected);
    assert_eq!(parse_softnet(""), Softnet::default());
}
