//! Accept queues: how long, how long they may get, and what they turned away. See
//! `bpf/listen_queue.bpf.c`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use zerocopy::FromBytes as _;

use super::labels::address;
use super::tcp_lifecycle::{PATIENCE_AT_START, walk_through};
use super::{Signal, SignalSettings};
use crate::abi::listener;
use crate::elf;
use crate::enrich::{CgroupId, Enricher, NetnsId, Workload};
use crate::export::{Counter, Gauge, Labels, OWNER, Registry, owner};
use crate::host::netns::Inode;
use crate::kernel::{IteratorKind, KernelTypes, Object, Refusal};

pub(super) const NAME: &str = "listen_queue";
static ELF: &[u8] = elf!("listen_queue");

const IN_NAMESPACE: &str = "listen_in_namespace";

pub(super) struct ListenQueue {
    length: Gauge,
    limit: Gauge,
    utilization: Gauge,
    listeners: Gauge,
    drops: Counter,
    /// Drops by socket as of the last collection.
    seen: HashMap<u64, u32>,
    /// Namespaces in which listeners older than this signal are still to be found, those of no
    /// program's files. `None` before the first collection.
    left: Option<Vec<(Inode, PathBuf)>>,
    /// Listeners that come to light now may be older than this signal.
    is_looking: bool,
    can_walk: bool,
    repair_interval: Duration,
    repaired: Option<Instant>,
    can_repair: bool,
    output: Vec<u8>,
    listeners_now: Vec<Listener>,
}

/// A listening socket: what `GET /api/listeners` shows, and metrics may not.
#[derive(Serialize)]
struct Listener {
    namespace: String,
    workload: String,
    kind: &'static str,
    address: IpAddr,
    port: u16,
    /// Open connections that wait to be accepted, and how many may.
    length: u32,
    limit: u32,
    /// No further connection is opened.
    full: bool,
    /// Handshakes that are not complete.
    half_open: u32,
    /// Packets turned away since the socket was made.
    drops: u32,
}

/// What the listeners of one workload add up to.
#[derive(Default)]
struct Sum {
    length: u64,
    limit: u64,
    /// Of the fullest listener.
    utilization: f64,
    listeners: u64,
}

impl ListenQueue {
    pub(super) fn register(registry: &Registry, settings: &SignalSettings) -> Self {
        let registry = registry.for_signal(NAME);
        Self {
            length: registry.gauge(
                "tcp_accept_queue_length",
                "Open TCP connections that no program has accepted yet",
                &[OWNER],
            ),
            limit: registry.gauge(
                "tcp_accept_queue_limit",
                "Open TCP connections that may wait to be accepted",
                &[OWNER],
            ),
            utilization: registry.gauge(
                "tcp_accept_queue_utilization_ratio",
                "Length of the fullest accept queue over its limit",
                &[OWNER],
            ),
            listeners: registry.gauge("tcp_listeners", "Listening TCP sockets", &[OWNER]),
            drops: registry.counter(
                "tcp_listener_drops",
                "Packets that a listening TCP socket turned away",
                &[OWNER],
            ),
            seen: HashMap::new(),
            left: None,
            is_looking: true,
            can_walk: false,
            repair_interval: settings.repair_interval,
            repaired: None,
            can_repair: false,
            output: Vec::new(),
            listeners_now: Vec::new(),
        }
    }

    /// Once in each namespace: what comes later is seen when it begins to listen.
    fn find_without_file(&mut self, object: &Object, enricher: &Enricher) {
        let all = || enricher.host().map(|host| host.places().collect());
        let can_walk = self.can_walk;
        let left =
            (self.left).get_or_insert_with(|| can_walk.then(all).flatten().unwrap_or_default());
        let walked = walk_through(object, IN_NAMESPACE, left, PATIENCE_AT_START);
        left.retain(|(place, _)| {
            (walked.iter()).any(|(inode, netns)| inode == place && netns.is_none())
        });
    }
}

impl Signal for ListenQueue {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal> {
        let new = object.attach_tracepoint(types, "listen_state", "inet_sock_set_state");
        let existing = object.load_iterator(types, "listen_existing", IteratorKind::OpenFiles);
        self.can_repair = existing.is_ok();
        self.can_walk = object
            .load_iterator(types, IN_NAMESPACE, IteratorKind::NamespaceSockets)
            .is_ok();
        // Either finds listeners; only this one reads them.
        object.load_iterator(types, "listeners", IteratorKind::StoredSockets)?;
        new.or(existing)
    }

    fn read(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        self.is_looking = self.left.as_ref().is_none_or(|left| !left.is_empty());
        self.find_without_file(object, enricher);
        let due = self
            .repaired
            .is_none_or(|repaired| repaired.elapsed() >= self.repair_interval);
        if self.can_repair && due {
            object.run_iterator("listen_existing")?;
            self.repaired = Some(Instant::now());
        }
        self.output = object.run_socket_iterator("listeners", "listening_sockets")?;
        Ok(())
    }

    fn collect(&mut self, _object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let mut sums: HashMap<Labels, Sum> = HashMap::new();
        let mut seen = HashMap::new();
        self.listeners_now.clear();
        for record in self.output.chunks_exact(size_of::<listener>()) {
            let Ok(listener) = listener::read_from_bytes(record) else {
                continue;
            };
            let workload = enricher.owner(NetnsId(listener.netns), CgroupId(listener.cgroup));
            let labels = owner(&workload);
            self.listeners_now.push(Listener::new(&listener, &workload));
            seen.insert(listener.cookie, listener.drops);
            // What a listener dropped before we first looked is not ours to count, unless it is
            // younger than that.
            let before = match self.seen.get(&listener.cookie) {
                Some(&drops) => drops,
                None if self.is_looking => listener.drops,
                None => 0,
            };
            let drops = listener.drops.wrapping_sub(before);
            if drops < u32::MAX / 2 {
                self.drops.add(labels.clone(), drops.into());
            }
            sums.entry(labels).or_default().add(&listener);
        }
        self.seen = seen;

        let gauge = |gauge: &Gauge, value: fn(&Sum) -> f64| {
            gauge.replace_all(
                sums.iter()
                    .map(|(labels, sum)| (labels.clone(), value(sum)))
                    .collect(),
            );
        };
        gauge(&self.length, |sum| sum.length as f64);
        gauge(&self.limit, |sum| sum.limit as f64);
        gauge(&self.utilization, |sum| sum.utilization);
        gauge(&self.listeners, |sum| sum.listeners as f64);
        // The fullest first.
        self.listeners_now.sort_by(|a, b| {
            (b.utilization().total_cmp(&a.utilization())).then_with(|| a.place().cmp(&b.place()))
        });
        Ok(())
    }

    fn report(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "listeners": self.listeners_now }))
    }
}

impl Listener {
    fn new(listener: &listener, workload: &Workload) -> Self {
        Self {
            namespace: workload.namespace.to_string(),
            workload: workload.name.to_string(),
            kind: workload.kind.as_str(),
            // That of an IPv6 socket stands for IPv4 too, and is not one.
            address: match listener.is_v6 {
                0 => address(listener.address),
                _ => IpAddr::V6(Ipv6Addr::from(listener.address)),
            },
            port: listener.port,
            length: listener.length,
            limit: listener.limit,
            full: listener.length > listener.limit,
            half_open: listener.half_open,
            drops: listener.drops,
        }
    }

    fn utilization(&self) -> f64 {
        utilization(self.length, self.limit)
    }

    fn place(&self) -> (&str, &str, u16, IpAddr) {
        (&self.namespace, &self.workload, self.port, self.address)
    }
}

fn utilization(length: u32, limit: u32) -> f64 {
    // A limit of 0 still lets one connection wait.
    f64::from(length) / f64::from(limit.max(1))
}

impl Sum {
    fn add(&mut self, listener: &listener) {
        self.length += u64::from(listener.length);
        self.limit += u64::from(listener.limit);
        self.listeners += 1;
        let utilization = utilization(listener.length, listener.limit);
        self.utilization = self.utilization.max(utilization);
    }
}
