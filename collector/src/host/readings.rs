//! Signals that are read and not counted by our own programs: what /proc, /sys and netlink say about
//! each network namespace, and about the node.
//!
//! One thread goes through the namespaces, and in each lets every reading read. Where there are many
//! namespaces, those in which something happens come first and the others take turns.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::{debug, error};

use super::conntrack::Conntrack;
use super::icmp::IcmpReceived;
use super::interface::{HostVeths, Interfaces, Link};
use super::neighbour::NeighbourTables;
use super::netlink::Netlink;
use super::netns::{Place, Visitor};
use super::node::Node;
use super::qdisc::Qdiscs;
use super::snmp::{MibFiles, NetnsCounters, read_mib};
use super::sockets::Sockets;
use super::turns::Turns;
use crate::enrich::{Enricher, NetnsId};
use crate::export::{Counter, Labels, Registry, owner};
use crate::kernel::{HookStatus, Refusal};

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
    mib: Option<Arc<MibFiles>>,
}

/// The names of all there are.
pub const NAMES: [&str; 8] = [
    NetnsCounters::NAME,
    Conntrack::NAME,
    Interfaces::NAME,
    Qdiscs::NAME,
    Sockets::NAME,
    Node::NAME,
    IcmpReceived::NAME,
    NeighbourTables::NAME,
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
    /// The visiting thread holds these while it reads, which may be long.
    running: Arc<Mutex<Vec<Running>>>,
    off: Arc<[String]>,
    /// Names of those that were made before.
    begun: Vec<&'static str>,
    panicked: Vec<&'static str>,
    turns: Turns,
    /// Namespaces that are still to be forgotten.
    gone: Vec<NetnsId>,
    visitor: Visitor,
    registry: Registry,
    failures: Counter,
}

struct Running {
    reading: Box<dyn Reading>,
    failed: u64,
    panicked: bool,
}

/// How long namespaces are, for the first time, read one batch after the other.
const FIRST_READING: Duration = Duration::from_secs(10);

impl Readings {
    pub fn new(registry: &Registry, settings: &ReadingSettings) -> Self {
        let all: [Box<dyn Reading>; 8] = [
            Box::new(NetnsCounters::new(registry)),
            Box::new(Conntrack::new(registry)),
            Box::new(Interfaces::new(registry, settings.host_veths)),
            Box::new(Qdiscs::new(registry)),
            Box::new(Sockets::new(registry)),
            Box::new(Node::new(registry)),
            Box::new(IcmpReceived::new(registry)),
            Box::new(NeighbourTables::new(registry)),
        ];
        let running = all.into_iter().map(|reading| Running {
            reading,
            failed: 0,
            panicked: false,
        });
        let mut readings = Self {
            running: Arc::new(Mutex::new(running.collect())),
            off: Arc::default(),
            begun: Vec::new(),
            panicked: Vec::new(),
            turns: Turns::default(),
            gone: Vec::new(),
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

    /// From now on these are not made, and all others are. What the kernel counts meanwhile is added
    /// when they are made again.
    pub fn turn_off(&mut self, off: &[String]) {
        self.off = off.into();
        let on = self.names();
        for name in NAMES {
            self.registry.enable(name, on.contains(&name));
        }
    }

    /// Names of those that are made.
    pub fn names(&self) -> Vec<&'static str> {
        let is_on = |name: &&str| !is_off(&self.off, name) && !self.panicked.contains(name);
        NAMES.into_iter().filter(is_on).collect()
    }

    /// Those that panicked, as signals show that they failed.
    pub fn failed(&self) -> Vec<HookStatus> {
        let status = |&signal| HookStatus {
            signal,
            hook: "all",
            refusal: Some(Refusal::of_failure("read: panic".to_owned())),
        };
        let failed = self.panicked.iter();
        failed
            .filter(|name| !is_off(&self.off, name))
            .map(status)
            .collect()
    }

    /// Reads what is due and shows it. Returns after a few seconds also when the kernel does not.
    ///
    /// The first time, totals since the host was started come to light. Nobody is to take those for
    /// an increase, so all namespaces are read before anything is shown.
    pub fn collect(&mut self, enricher: &Enricher) {
        let mut new = self.names();
        new.retain(|name| !self.begun.contains(name));
        for name in &new {
            self.registry.set_past(name, true);
        }
        let start = Instant::now();
        loop {
            // The visit goes on by itself, and what it finds the first time is the past all the same.
            let Some(places) = self.collect_some(enricher) else {
                return;
            };
            let is_late = start.elapsed() > FIRST_READING;
            if new.is_empty() || is_late || self.turns.had_all(places) {
                break;
            }
        }
        for name in &new {
            self.registry.set_past(name, false);
        }
        self.begun.extend(new);
    }

    /// As many namespaces as are read at a time. Returns how many there are; `None` if the kernel
    /// has not answered.
    fn collect_some(&mut self, enricher: &Enricher) -> Option<usize> {
        let mut places = enricher.host().map(|host| host.owned_places())?;
        let all = places.len();
        for place in &mut places {
            place.owner = enricher.owner_of_place(place);
        }
        self.gone.extend(self.turns.retain(&places));
        let places = self.turns.next(places);
        let (running, off) = (self.running.clone(), self.off.clone());
        let now = Instant::now();
        let read = self.visitor.visit(places, move |place| {
            read(&mut super::lock(&running), &off, place, now)
        });
        let Some(read) = read else {
            self.failures.add(Labels::new(&["stuck"]), 1);
            return None;
        };
        for (inode, (netns, moved)) in read.into_iter().filter_map(|(at, read)| Some((at, read?))) {
            // The kernel gives the number of a namespace that is gone to the next one.
            self.gone.extend(self.turns.was_read(inode, netns, moved));
        }
        for running in super::lock(&self.running).iter_mut() {
            let name = running.reading.name();
            for &netns in &self.gone {
                running.reading.forget(netns);
            }
            if !is_off(&self.off, name) {
                running.guard(|reading| reading.publish());
            }
            let failed = std::mem::take(&mut running.failed);
            if failed > 0 {
                self.failures.add(Labels::new(&[name]), failed);
            }
            if running.panicked && !self.panicked.contains(&name) {
                self.registry.enable(name, false);
                self.panicked.push(name);
            }
        }
        self.gone.clear();
        Some(all)
    }
}

fn is_off(off: &[String], name: &str) -> bool {
    off.iter().any(|off| off == name)
}

fn read(
    all: &mut [Running],
    off: &[String],
    place: &Place,
    now: Instant,
) -> Option<(NetnsId, Moved)> {
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
        mib: None,
    };
    let mut moved = Moved::No;
    for running in all {
        if is_off(off, running.reading.name()) {
            continue;
        }
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
        if self.panicked {
            return None;
        }
        let result = catch_unwind(AssertUnwindSafe(|| work(self.reading.as_mut())));
        if result.is_err() {
            error!(signal = self.reading.name(), "signal is off: it panicked");
            self.panicked = true;
        }
        result.ok()
    }
}

impl Visit {
    /// The files with the namespace's own counters.
    pub(super) fn mib(&mut self) -> Arc<MibFiles> {
        self.mib.get_or_insert_with(|| Arc::new(read_mib())).clone()
    }

    /// The namespace's interfaces.
    pub(super) fn links(&mut self) -> io::Result<&[Link]> {
        let links = match self.links.take() {
            Some(links) => links,
            None => Link::list(&mut self.route)?,
        };
        Ok(self.links.insert(links))
    }
}

/// What is shown of the node's packets after `collect`, to who scrapes for the second time.
#[cfg(test)]
fn packets_after(collect: impl FnOnce(&mut Readings, &Enricher)) -> f64 {
    use crate::export::{Format, Scraper};
    use crate::host::{Host, Paths};
    let registry = Registry::new(10_000);
    let enricher = Enricher::of_host(Host::new(Paths::default()), &registry);
    let scrape = || {
        let scraper = Scraper {
            address: [192, 0, 2, 1].into(),
            user_agent: "Prometheus".to_owned(),
        };
        registry.encode(Format::Text, Some(scraper))
    };
    // Programs are still being loaded.
    scrape();
    let mut readings = Readings::new(&registry, &ReadingSettings::default());
    collect(&mut readings, &enricher);
    let text = scrape();
    let mut lines = text.lines();
    let name = "runwire_softnet_processed_packets_total ";
    let value = lines.find_map(|line| line.strip_prefix(name));
    value.unwrap().parse().unwrap()
}

#[test]
fn a_reading_that_panicked_has_failed_and_is_not_off() {
    use crate::agent::{Health, Status};

    struct Broken;
    impl Reading for Broken {
        fn name(&self) -> &'static str {
            Node::NAME
        }

        fn read(&mut self, _visit: &mut Visit) -> io::Result<Moved> {
            Ok(Moved::No)
        }

        fn forget(&mut self, _netns: NetnsId) {}

        fn publish(&mut self) {
            panic!("broken");
        }
    }

    let registry = Registry::new(100);
    let host = crate::host::Host::new(crate::host::Paths::default());
    let enricher = Enricher::of_host(host, &registry);
    let mut readings = Readings::new(&registry, &ReadingSettings::default());
    for running in super::lock(&readings.running).iter_mut() {
        if running.reading.name() == Node::NAME {
            running.reading = Box::new(Broken);
        }
    }
    assert!(readings.failed().is_empty());
    readings.collect(&enricher);
    let health = Health::of(&NAMES, &readings.names(), &readings.failed());
    let node = health.signals.iter().find(|it| it.name == Node::NAME);
    assert_eq!(node.unwrap().state, "failed");
    assert_ne!(health.status, Status::Ready);
}

#[test]
fn what_the_kernel_counted_before_is_no_increase() {
    let packets = packets_after(|readings, enricher| readings.collect(enricher));
    assert!(packets > 0.0);
}

#[test]
fn nor_is_it_where_the_first_reading_takes_longer_than_we_wait() {
    let packets = packets_after(|readings, enricher| {
        let running = readings.running.clone();
        let busy = super::lock(&running);
        readings.collect(enricher);
        drop(busy);
        while readings.begun.is_empty() {
            std::thread::sleep(Duration::from_millis(10));
            readings.collect(enricher);
        }
    });
    assert!(packets > 0.0);
}
