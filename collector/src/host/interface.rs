//! Network interfaces: bytes, packets, drops and errors as `ip -s -s link` shows them, and how a link
//! is: up, how fast, how large its packets may be.
//!
//! A host has a veth for each of its containers, and what it counts the container's own end counts
//! too, under the container's name. So the host's veths are summed, unless the user wants each.
//! When an interface goes and its namespace stays, its series go with it.

mod link;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

pub(super) use link::Link;
use link::{Counters, RECEIVE_ERRORS, TRANSMIT_ERRORS};

use super::readings::{Moved, Reading, Visit};
use super::totals::{NetnsGauge, increase};
use crate::enrich::NetnsId;
use crate::export::{Counter, Labels, OWNER, Registry};

/// Veths of a namespace that are counted each by itself. More of them are counted together.
const MAX_VETHS: usize = 64;
/// What veths that are counted together are called.
const VETHS: &str = "~veth";
/// How often a link is asked for its speed.
const READ_SPEEDS: Duration = Duration::from_secs(30);

/// How the veths in the host's own namespace are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostVeths {
    /// All together.
    #[default]
    Sum,
    Each,
    Off,
}

pub(super) struct Interfaces {
    host_veths: HostVeths,
    bytes: Counter,
    packets: Counter,
    dropped: Counter,
    errors: Counter,
    carrier_changes: Counter,
    mtu: NetnsGauge,
    speed: NetnsGauge,
    up: NetnsGauge,
    namespaces: HashMap<NetnsId, Namespace>,
}

#[derive(Default)]
struct Namespace {
    owner: Labels,
    /// By the kernel's number.
    links: HashMap<u32, Seen>,
    /// Bytes a second.
    speeds: HashMap<u32, f64>,
    speeds_read: Option<Instant>,
}

struct Seen {
    name: String,
    is_summed: bool,
    counters: Counters,
}

impl Interfaces {
    pub(super) const NAME: &str = "interface";

    pub(super) fn new(registry: &Registry, host_veths: HostVeths) -> Self {
        let registry = registry.for_signal(Self::NAME);
        let gauge = |name, help| {
            // Of several namespaces with one owner, the worst.
            NetnsGauge::new(
                registry.gauge(name, help, &[OWNER, &["interface"]]),
                f64::min,
            )
        };
        let counter = |name, help, labels: &'static [&'static str]| {
            registry.counter(name, help, &[OWNER, &["interface"], labels])
        };
        Self {
            host_veths,
            bytes: counter(
                "interface_bytes",
                "Bytes that an interface received and transmitted; `~veth` is all veths of the host, or those beyond 64 of a namespace",
                &["direction"],
            ),
            packets: counter(
                "interface_packets",
                "Packets that an interface received and transmitted",
                &["direction"],
            ),
            dropped: counter(
                "interface_dropped_packets",
                "Packets that an interface or its driver dropped, as `ip -s link` counts them",
                &["direction"],
            ),
            errors: counter(
                "interface_errors",
                "Bad packets by what was wrong; receive length, crc, frame and other, and all of transmit, add up to the errors of `ip -s link`; over, fifo and missed found no room",
                &["direction", "error"],
            ),
            carrier_changes: counter(
                "interface_carrier_changes",
                "How often the link of an interface came up or went down; that a new veth gets its link does not count",
                &[],
            ),
            mtu: gauge(
                "interface_mtu_bytes",
                "Largest packet that an interface sends",
            ),
            speed: gauge(
                "interface_speed_bytes",
                "Bytes per second that the link of an interface carries, where it says so",
            ),
            up: gauge(
                "interface_up",
                "Whether an interface is switched on and its link is up",
            ),
            namespaces: HashMap::new(),
        }
    }

    /// The series of interfaces that went, unless another namespace of this owner has one of that
    /// name.
    fn forget_series(&self, netns: NetnsId, owner: &Labels, names: &HashSet<String>) {
        for name in names {
            let is_elsewhere = (self.namespaces.iter()).any(|(&other, namespace)| {
                other != netns
                    && namespace.owner == *owner
                    && namespace.links.values().any(|link| link.name == *name)
            });
            if !is_elsewhere {
                let labels = owner.clone().with(&[name]);
                for counter in [
                    &self.bytes,
                    &self.packets,
                    &self.dropped,
                    &self.errors,
                    &self.carrier_changes,
                ] {
                    counter.forget(&labels);
                }
            }
        }
    }

    fn add(
        &self,
        labels: &Labels,
        before: &Counters,
        now: &Counters,
        to: fn(&Counter, Labels, u64),
    ) -> Moved {
        let mut moved = Moved::No;
        let mut add = |counter: &Counter, values: &[&str], before: u64, now: u64| {
            let added = increase(before, now);
            if added > 0 {
                moved = Moved::Yes;
                to(counter, labels.clone().with(values), added);
            }
        };
        for (direction, kinds, before, now) in [
            (
                "receive",
                &RECEIVE_ERRORS[..],
                &before.receive,
                &now.receive,
            ),
            (
                "transmit",
                &TRANSMIT_ERRORS[..],
                &before.transmit,
                &now.transmit,
            ),
        ] {
            add(&self.bytes, &[direction], before.bytes, now.bytes);
            add(&self.packets, &[direction], before.packets, now.packets);
            add(&self.dropped, &[direction], before.dropped, now.dropped);
            for ((kind, &before), &now) in kinds.iter().zip(&before.errors).zip(&now.errors) {
                add(&self.errors, &[direction, kind], before, now);
            }
        }
        add(
            &self.carrier_changes,
            &[],
            before.carrier_changes,
            now.carrier_changes,
        );
        moved
    }
}

impl Reading for Interfaces {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn read(&mut self, visit: &mut Visit) -> io::Result<Moved> {
        let links: Vec<Link> = visit
            .links()?
            .iter()
            .filter(|link| link.is_used())
            .cloned()
            .collect();
        let mut namespace = self.namespaces.remove(&visit.netns).unwrap_or_default();
        namespace.owner = visit.owner.clone();
        let renamed_or_gone = namespace.links.extract_if(|index, seen| {
            !(links.iter()).any(|link| link.index == *index && link.name == seen.name)
        });
        let before: HashMap<u32, Seen> = renamed_or_gone.collect();
        let gone: HashSet<String> = (before.values())
            .filter(|seen| !seen.is_summed)
            .map(|seen| seen.name.clone())
            .collect();
        self.forget_series(visit.netns, &visit.owner, &gone);

        if namespace.is_speed_due(visit.now) {
            namespace.speeds = link::speeds().unwrap_or_default();
            namespace.speeds_read = Some(visit.now);
        }
        let mut moved = Moved::No;
        let (mut mtu, mut up, mut speed) = (Vec::new(), Vec::new(), Vec::new());
        for mut link in links {
            let together = match (link.is_veth(), visit.is_hosts, self.host_veths) {
                (true, true, HostVeths::Off) => continue,
                (true, true, HostVeths::Sum) => true,
                (true, ..) => namespace.veths() >= MAX_VETHS,
                _ => false,
            };
            let is_new = !namespace.links.contains_key(&link.index);
            let seen = namespace.links.entry(link.index).or_insert_with(|| Seen {
                name: link.name.clone(),
                is_summed: together,
                counters: brought_along(&link, before.get(&link.index)),
            });
            let name = if seen.is_summed { VETHS } else { &link.name };
            let labels = visit.owner.clone().with(&[name]);
            if is_new && !seen.is_summed {
                self.add(
                    &labels,
                    &Counters::default(),
                    &seen.counters,
                    Counter::add_past,
                );
            }
            link.counters.follow(&seen.counters);
            if self.add(&labels, &seen.counters, &link.counters, Counter::add) == Moved::Yes {
                moved = Moved::Yes;
            }
            seen.counters = link.counters;
            if seen.is_summed {
                continue;
            }
            mtu.push((labels.clone(), link.mtu.into()));
            up.push((labels.clone(), f64::from(u8::from(link.is_up()))));
            if let Some(&bytes) = namespace.speeds.get(&link.index) {
                speed.push((labels, bytes));
            }
        }
        self.mtu.set(visit.netns, mtu);
        self.up.set(visit.netns, up);
        self.speed.set(visit.netns, speed);
        self.namespaces.insert(visit.netns, namespace);
        Ok(moved)
    }

    fn forget(&mut self, netns: NetnsId) {
        self.namespaces.remove(&netns);
        for gauge in [&mut self.mtu, &mut self.up, &mut self.speed] {
            gauge.forget(netns);
        }
    }

    fn publish(&mut self) {
        for gauge in [&mut self.mtu, &mut self.up, &mut self.speed] {
            gauge.publish();
        }
    }
}

/// Of the host's own namespaces: those of init and of this process. `None` if they cannot be read.
pub fn names() -> Option<HashSet<String>> {
    let mut names = HashSet::new();
    for process in ["1", "self"] {
        let text = fs::read_to_string(format!("/proc/{process}/net/dev")).ok()?;
        names.extend(names_in(&text).map(str::to_owned));
    }
    Some(names)
}

/// Each is in front of its numbers, under two lines that say which these are.
fn names_in(net_dev: &str) -> impl Iterator<Item = &str> {
    (net_dev.lines()).filter_map(|line| Some(line.split_once(':')?.0.trim()))
}

/// What a link that was not here, or not called so, the last time counted before. A link keeps its
/// totals when it gets another name. A physical one keeps them also when it goes to another
/// namespace and back; all others are made where they are used. None of that is an increase.
fn brought_along(link: &Link, renamed: Option<&Seen>) -> Counters {
    match renamed {
        Some(seen) => seen.counters,
        None if link.is_physical() => link.counters,
        None => Counters::default(),
    }
}

impl Namespace {
    /// Interfaces that are counted each by itself, veths or not: a namespace has few others.
    fn veths(&self) -> usize {
        self.links.values().filter(|seen| !seen.is_summed).count()
    }

    fn is_speed_due(&self, now: Instant) -> bool {
        self.speeds_read
            .is_none_or(|at| now.saturating_duration_since(at) >= READ_SPEEDS)
    }
}

#[test]
fn names_are_in_front_of_numbers() {
    let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 8130 99 0 0 0 0 0 0 8130 99 0 0 0 0 0 0
cali0a1b2c3d4e5:1000000 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0
";
    let found: Vec<&str> = names_in(text).collect();
    assert_eq!(found, ["lo", "cali0a1b2c3d4e5"]);
}

#[test]
fn totals_that_a_link_brings_along_are_no_increase() {
    let link = Link::with_bytes("", 5_000_000_000_000);
    let veth = Link::with_bytes("veth", 700);
    assert_eq!(brought_along(&link, None), link.counters, "moved here");
    assert_eq!(brought_along(&veth, None), Counters::default(), "made here");
    let seen = Seen {
        name: "tmp0".to_owned(),
        is_summed: true,
        counters: Link::with_bytes("veth", 600).counters,
    };
    assert_eq!(brought_along(&veth, Some(&seen)), seen.counters, "renamed");
}
