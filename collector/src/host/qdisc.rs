//! Queueing disciplines, as `tc -s qdisc` shows them.
//!
//! Of each interface the root and the ingress one: the root counts what those below it (the classes
//! of htb, the queues of mq) drop and hold, so that adding them would count twice. An interface has
//! one of each, so interface and kind say which it is, and no handle is needed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use super::netlink::{attributes, text, u32_at};
use super::readings::{Moved, Reading, Visit};
use super::totals::{NetnsGauge, increase_of_32_bits};
use crate::enrich::NetnsId;
use crate::export::{Counter, Labels, OWNER, Registry};

/// The attributes come after `struct tcmsg`.
const HEADER: usize = 20;
/// TC_H_ROOT and TC_H_INGRESS.
const TOP: [u32; 2] = [0xffff_ffff, 0xffff_fff1];
/// Of linux/gen_stats.h.
const STATISTICS_QUEUE: u16 = 3;
/// Holds and drops nothing.
const NONE: &str = "noqueue";

pub(super) struct Qdiscs {
    backlog_bytes: NetnsGauge,
    backlog_packets: NetnsGauge,
    dropped: Counter,
    overlimits: Counter,
    requeues: Counter,
    namespaces: HashMap<NetnsId, Namespace>,
}

#[derive(Default)]
struct Namespace {
    owner: Labels,
    seen: HashMap<Id, Seen>,
}

/// Another handle is another qdisc, with totals of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id {
    interface: u32,
    handle: u32,
    parent: u32,
}

struct Seen {
    interface: String,
    kind: String,
    totals: Totals,
}

#[derive(Clone, Debug, PartialEq)]
struct Qdisc {
    id: Id,
    kind: String,
    backlog_bytes: u32,
    backlog_packets: u32,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    dropped: u32,
    requeues: u32,
    overlimits: u32,
}

impl Qdiscs {
    pub(super) const NAME: &str = "qdisc";

    pub(super) fn new(registry: &Registry) -> Self {
        let registry = registry.for_signal(Self::NAME);
        let labels: &[&[&'static str]] = &[OWNER, &["interface", "qdisc"]];
        let gauge = |name, help| NetnsGauge::new(registry.gauge(name, help, labels), |a, b| a + b);
        Self {
            backlog_bytes: gauge(
                "qdisc_backlog_bytes",
                "Bytes that wait in the queue of an interface",
            ),
            backlog_packets: gauge(
                "qdisc_backlog_packets",
                "Packets that wait in the queue of an interface",
            ),
            dropped: registry.counter(
                "qdisc_dropped_packets",
                "Packets that the queue of an interface dropped, its classes included; qdisc=\"ingress\" or \"clsact\": by a filter",
                labels,
            ),
            overlimits: registry.counter(
                "qdisc_overlimits",
                "How often the queue of an interface held packets back because of its rate",
                labels,
            ),
            requeues: registry.counter(
                "qdisc_requeues",
                "Packets that the queue of an interface took back because the interface could not send them",
                labels,
            ),
            namespaces: HashMap::new(),
        }
    }

    fn add(
        &self,
        labels: &Labels,
        before: Totals,
        now: Totals,
        to: fn(&Counter, Labels, u64),
    ) -> Moved {
        let mut moved = Moved::No;
        for (counter, before, now) in [
            (&self.dropped, before.dropped, now.dropped),
            (&self.overlimits, before.overlimits, now.overlimits),
            (&self.requeues, before.requeues, now.requeues),
        ] {
            let added = increase_of_32_bits(before, now);
            if added > 0 {
                moved = Moved::Yes;
                to(counter, labels.clone(), added);
            }
        }
        moved
    }

    /// The series of a qdisc that was removed, unless another namespace of the owner has the like.
    fn forget_series(&self, netns: NetnsId, owner: &Labels, gone: &HashSet<(String, String)>) {
        for (interface, kind) in gone {
            let is_elsewhere = (self.namespaces.iter()).any(|(&other, namespace)| {
                let mut all = namespace.seen.values();
                other != netns
                    && namespace.owner == *owner
                    && all.any(|seen| seen.interface == *interface && seen.kind == *kind)
            });
            if !is_elsewhere {
                let labels = owner.clone().with(&[interface, kind]);
                for counter in [&self.dropped, &self.overlimits, &self.requeues] {
                    counter.forget(&labels);
                }
            }
        }
    }
}

impl Reading for Qdiscs {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn read(&mut self, visit: &mut Visit) -> io::Result<Moved> {
        let qdiscs = visit.route.list(libc::RTM_GETQDISC, &[0; HEADER], parse)?;
        let qdiscs: Vec<Qdisc> = (qdiscs.into_iter())
            .filter(|qdisc| TOP.contains(&qdisc.id.parent) && qdisc.kind != NONE)
            .collect();
        // All that can fail comes first: totals that are forgotten would be counted once more.
        let names: HashMap<u32, String> = if qdiscs.is_empty() {
            HashMap::new()
        } else {
            let links = visit.links()?.iter();
            links.map(|link| (link.index, link.name.clone())).collect()
        };
        let mut namespace = self.namespaces.remove(&visit.netns).unwrap_or_default();
        namespace.owner = visit.owner.clone();
        let is_there = |id: &Id, seen: &Seen| {
            names.get(&id.interface) == Some(&seen.interface)
                && (qdiscs.iter()).any(|qdisc| qdisc.id == *id && qdisc.kind == seen.kind)
        };
        let gone = namespace.seen.extract_if(|id, seen| !is_there(id, seen));
        let before: HashMap<Id, Seen> = gone.collect();
        let gone: HashSet<_> = (before.values())
            .map(|seen| (seen.interface.clone(), seen.kind.clone()))
            .collect();
        self.forget_series(visit.netns, &visit.owner, &gone);

        let mut moved = Moved::No;
        let (mut bytes, mut packets) = (BTreeMap::new(), BTreeMap::new());
        for qdisc in qdiscs {
            let Some(interface) = names.get(&qdisc.id.interface) else {
                continue;
            };
            let labels = visit.owner.clone().with(&[interface, &qdisc.kind]);
            bytes.insert(labels.clone(), qdisc.backlog_bytes.into());
            packets.insert(labels.clone(), qdisc.backlog_packets.into());
            let is_new = !namespace.seen.contains_key(&qdisc.id);
            let seen = namespace.seen.entry(qdisc.id).or_insert_with(|| Seen {
                interface: interface.clone(),
                kind: qdisc.kind.clone(),
                totals: brought_along(&qdisc, before.get(&qdisc.id)),
            });
            if is_new {
                self.add(&labels, Totals::default(), seen.totals, Counter::add_past);
            }
            if self.add(&labels, seen.totals, qdisc.totals, Counter::add) == Moved::Yes {
                moved = Moved::Yes;
            }
            seen.totals = qdisc.totals;
        }
        self.backlog_bytes
            .set(visit.netns, bytes.into_iter().collect());
        self.backlog_packets
            .set(visit.netns, packets.into_iter().collect());
        self.namespaces.insert(visit.netns, namespace);
        Ok(moved)
    }

    fn forget(&mut self, netns: NetnsId) {
        self.namespaces.remove(&netns);
        self.backlog_bytes.forget(netns);
        self.backlog_packets.forget(netns);
    }

    fn publish(&mut self) {
        self.backlog_bytes.publish();
        self.backlog_packets.publish();
    }
}

/// A qdisc keeps its totals when its interface gets another name. That is no increase.
fn brought_along(qdisc: &Qdisc, renamed: Option<&Seen>) -> Totals {
    renamed
        .filter(|seen| seen.kind == qdisc.kind)
        .map_or_else(Totals::default, |seen| seen.totals)
}

fn parse(message: &[u8]) -> Option<Qdisc> {
    let mut qdisc = Qdisc {
        id: Id {
            interface: u32_at(message, 4)?,
            handle: u32_at(message, 8)?,
            parent: u32_at(message, 12)?,
        },
        kind: String::new(),
        backlog_bytes: 0,
        backlog_packets: 0,
        totals: Totals::default(),
    };
    for (kind, value) in attributes(message.get(HEADER..)?) {
        match kind {
            libc::TCA_KIND => qdisc.kind = text(value),
            libc::TCA_STATS2 => {
                let queue = attributes(value).find(|&(kind, _)| kind == STATISTICS_QUEUE);
                // `struct gnet_stats_queue`.
                let at = |index: usize| {
                    queue
                        .and_then(|(_, queue)| u32_at(queue, index * 4))
                        .unwrap_or(0)
                };
                qdisc.backlog_packets = at(0);
                qdisc.backlog_bytes = at(1);
                qdisc.totals = Totals {
                    dropped: at(2),
                    requeues: at(3),
                    overlimits: at(4),
                };
            }
            _ => {}
        }
    }
    Some(qdisc)
}

#[test]
fn a_qdisc_is_read_from_its_message() {
    use super::netlink::attribute;
    let numbers =
        |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_ne_bytes()).collect() };
    let mut message = numbers(&[0, 5, 0x8001_0000, 0xffff_ffff, 2]);
    message.extend(attribute(libc::TCA_KIND, b"tbf\0"));
    let queue = attribute(STATISTICS_QUEUE, &numbers(&[3, 4500, 7, 1, 99]));
    message.extend(attribute(libc::TCA_STATS2, &queue));
    let qdisc = parse(&message).unwrap();
    assert_eq!((qdisc.id.interface, qdisc.kind.as_str()), (5, "tbf"));
    assert_eq!((qdisc.backlog_packets, qdisc.backlog_bytes), (3, 4500));
    let totals = Totals {
        dropped: 7,
        requeues: 1,
        overlimits: 99,
    };
    assert_eq!(qdisc.totals, totals);
    let mut seen = Seen {
        interface: "eth0".to_owned(),
        kind: "tbf".to_owned(),
        totals,
    };
    assert_eq!(brought_along(&qdisc, Some(&seen)), totals, "renamed");
    seen.kind = "fq".to_owned();
    assert_eq!(brought_along(&qdisc, Some(&seen)), Totals::default());
    assert_eq!(parse(&message[..12]), None);
}
