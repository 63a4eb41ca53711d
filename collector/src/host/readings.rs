//! Signals that are read and not counted by our own programs: what /proc, /sys and netlink say about
//! each network namespace, and about the node.
//!
//! One thread goes through the namespaces, and in each lets every reading read. Where there are many
//! namespaces, those in which something happens come first and the others take turns.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::{debug, error};

use super::conntrack::Conntrack;
use super::interface::{HostVeths, Interfaces, Link};
use super::netlink::Netlink;
use super::netns::{Place, Visitor};
use super::node::Node;
use super::qdisc::Qdiscs;
use super::snmp::NetnsCounters;
use super::sockets::Sockets;
use super::turns::Turns;
use crate::enrich::{Enricher, NetnsId};
use crate::export::{Counter, Labels, Registry, owner};

/// One thing that is read.
pub(super) trait Reading: Send {
    /// The switch in the settings.
    fn name(&self) -> &'static str;

    /// Reads the calling thread's namespace.
    fn read(&mut self, visit: &mut Visit) -> io::Result<Moved>;

    /// A namespace is gone.
    fn forget(&mut self, netns: NetnsId);

    /// After every round: shows what was read.
    fn publish(&mut self);
}

/// Whether something was counted since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Yes,
    No,
}

/// A namespace while the calling thread is in it.
pub(super) struct Visit {
    pub(super) netns: NetnsId,
    /// Labels of the workload it belongs to.
    pub(super) owner: Labels,
    /// The host's own namespace.
    pub(super) is_hosts: bool,
    pub(super) now: Instant,
    pub(super) route: Netlink,
    links: Option<Vec<Link>>,
}

/// The names of all there are.
pub const NAMES: [&str; 6] = [
    NetnsCounters::NAME,
    Conntrack::NAME,
    Interfaces::NAME,
    Qdiscs::NAME,
    Sockets::NAME,
    Node::NAME,
];

/// What the user may change.
#[derive(Clone, Debug, Default)]
pub struct ReadingSettings {
    /// Readings by name that are not to be made.
    pub off: Vec<String>,
    pub host_veths: HostVeths,
}

/// All readings of this process.
pub struct Readings {
    /// The visiting thread has them while it reads.
    running: Arc<Mutex<Vec<Running>>>,
    turns: Turns,
    visitor: Visitor,
    registry: Registry,
    failures: Counter,
    names: Vec<&'static str>,
}

struct Running {
    reading: Box<dyn Reading>,
    /// By configuration. What it counts meanwhile shows when it is on again.
    off: bool,
    failed: u64,
    panicked: bool,
}

impl Readings {
    pub fn new(registry: &Registry, settings: &ReadingSettings) -> Self {
        let readings: [Box<dyn Reading>; 6] = [
            Box::new(NetnsCounters::new(registry)),
            Box::new(Conntrack::new(registry)),
            Box::new(Interfaces::new(registry, settings.host_veths)),
            Box::new(Qdiscs::new(registry)),
            Box::new(Sockets::new(registry)),
            Box::new(Node::new(registry)),
        ];
        let running = readings.into_iter().map(|reading| Running {
            reading,
            off: false,
            failed: 0,
            panicked: false,
        });
        let mut readings = Self {
            names: Vec::new(),
            running: Arc::new(Mutex::new(running.collect())),
            turns: Turns::default(),
            visitor: Visitor::default(),
            registry: registry.clone(),
            failures: registry.counter(
                "netns_read_failures",
                "Readings of a network namespace that failed; `stuck`: the kernel did not answer in time",
                &[&["signal"]],
            ),
        };
        readings.turn_off(&settings.off);
        readings
    }

    /// From now on these are not made, and all others are.
    pub fn turn_off(&mut self, off: &[String]) {
        let mut all = super::lock(&self.running);
        self.names.clear();
        for running in all.iter_mut() {
            let name = running.reading.name();
            running.off = off.iter().any(|off| off == name);
            self.registry.enable(name, !running.off);
            if !running.off {
                self.names.push(name);
            }
        }
    }

    /// Names of those that are made.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// Reads what is due and shows it. Returns after a few seconds also when the kernel does not.
    pub fn collect(&mut self, enricher: &Enricher) {
        let Some(places) = enricher.host().map(|host| host.owned_places()) else {
            return;
        };
        let gone = self.turns.retain(&places);
        let places = self.turns.next(places);
        let running = self.running.clone();
        let now = Instant::now();
        let read = self.visitor.visit(places, move |place| {
            let mut running = super::lock(&running);
            read(&mut running, place, now)
        });
        let Some(read) = read else {
            self.failures.add(Labels::new(&["stuck"]), 1);
            return;
        };
        for (inode, (netns, moved)) in read.into_iter().filter_map(|(at, read)| Some((at, read?))) {
            let before = self.turns.was_read(inode, netns, moved);
            for running in super::lock(&self.running).iter_mut() {
                // The kernel gives a number of a namespace that is gone to the next one.
                before
                    .into_iter()
                    .for_each(|netns| running.reading.forget(netns));
            }
        }
        for running in super::lock(&self.running).iter_mut() {
            gone.iter().for_each(|&netns| running.reading.forget(netns));
            running.guard(|reading| reading.publish());
        }
        self.account();
    }

    fn account(&mut self) {
        let mut all = super::lock(&self.running);
        for running in all.iter_mut() {
            let name = running.reading.name();
            let failed = std::mem::take(&mut running.failed);
            if failed > 0 {
                self.failures.add(Labels::new(&[name]), failed);
            }
            if running.panicked {
                error!(signal = name, "signal is off: it panicked");
                self.registry.enable(name, false);
                self.names.retain(|&on| on != name);
            }
        }
        all.retain(|running| !running.panicked);
    }
}

fn read(all: &mut [Running], place: &Place, now: Instant) -> Option<(NetnsId, Moved)> {
    let route = Netlink::route().ok()?;
    let netns = route.netns().ok()?;
    // Another namespace has taken the place, and whose it is we shall know at the next refresh.
    if place.id.is_some_and(|known| known != netns) {
        return None;
    }
    let mut visit = Visit {
        netns,
        owner: owner(&place.owner),
        is_hosts: place.is_hosts,
        now,
        route,
        links: None,
    };
    let mut moved = Moved::No;
    for running in all {
        match running.guard(|reading| reading.read(&mut visit)) {
            Some(Ok(Moved::Yes)) => moved = Moved::Yes,
            Some(Ok(Moved::No)) | None => {}
            Some(Err(error)) => {
                debug!(signal = running.reading.name(), %error, "cannot read a namespace");
                running.failed += 1;
            }
        }
    }
    Some((netns, moved))
}

impl Running {
    fn guard<T>(&mut self, work: impl FnOnce(&mut dyn Reading) -> T) -> Option<T> {
        if self.panicked || self.off {
            return None;
        }
        let result = catch_unwind(AssertUnwindSafe(|| work(self.reading.as_mut())));
        self.panicked = result.is_err();
        result.ok()
    }
}

impl Visit {
    /// The namespace's interfaces.
    pub(super) fn links(&mut self) -> io::Result<&[Link]> {
        let links = match self.links.take() {
            Some(links) => links,
            None => Link::list(&mut self.route)?,
        };
        Ok(self.links.insert(links))
    }
}
