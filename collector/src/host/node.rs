//! What is the whole node's and no namespace's: the memory of all sockets, and the queues between
//! the network cards and the protocols.

use std::collections::HashMap;
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
    /// By CPU. One that is taken away is not listed, and when it is back it goes on where it was.
    seen: HashMap<u32, Softnet>,
    page: f64,
}

/// What a CPU has processed, what it has dropped, and how often it ran out of time.
type Softnet = [u32; 3];

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
            seen: HashMap::new(),
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
        let added = added(&mut self.seen, &text);
        for (counter, added) in [&self.processed, &self.dropped, &self.squeezes]
            .into_iter()
            .zip(added)
        {
            counter.add(Labels::default(), added);
        }
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

/// What all CPUs together have counted since the last time.
fn added(seen: &mut HashMap<u32, Softnet>, softnet_stat: &str) -> [u64; 3] {
    let mut sums = [0; 3];
    for (cpu, now) in parse_softnet(softnet_stat) {
        let before = seen.insert(cpu, now).unwrap_or_default();
        for ((sum, before), now) in sums.iter_mut().zip(before).zip(now) {
            *sum += increase_of_32_bits(before, now);
        }
    }
    sums
}

/// A line for each CPU that is switched on; the thirteenth number says which it is.
fn parse_softnet(text: &str) -> Vec<(u32, Softnet)> {
    const CPU: usize = 12;
    let parse = |(line, text): (usize, &str)| {
        let values: Vec<u32> = text
            .split_ascii_whitespace()
            .map(|value| u32::from_str_radix(value, 16).unwrap_or(0))
            .collect();
        let at = |index: usize| values.get(index).copied().unwrap_or(0);
        #[expect(clippy::cast_possible_truncation, reason = "a CPU's number")]
        let cpu = values.get(CPU).copied().unwrap_or(line as u32);
        (cpu, [at(0), at(1), at(2)])
    };
    text.lines().enumerate().map(parse).collect()
}

#[test]
fn softnet_is_of_all_cpus() {
    let mut seen = HashMap::new();
    let line = |processed: u32, dropped: u32, squeezes: u32, cpu: u32| {
        let zeros = "00000000 ".repeat(9);
        format!("{processed:08x} {dropped:08x} {squeezes:08x} {zeros}{cpu:08x} 00000000 00000000\n")
    };
    let first = line(1000, 2, 28, 0) + &line(5000, 1, 35, 1);
    assert_eq!(added(&mut seen, &first), [6000, 3, 63]);
    // One CPU is taken away for a while.
    assert_eq!(added(&mut seen, &line(1010, 2, 28, 0)), [10, 0, 0]);
    let back = line(1010, 2, 28, 0) + &line(5001, 1, 36, 1);
    assert_eq!(added(&mut seen, &back), [1, 0, 1]);
    assert_eq!(added(&mut seen, ""), [0; 3]);
}
