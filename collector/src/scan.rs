//! Scans and floods, told from busy clients: attempts to connect in, events out. Pure.
//!
//! A client that works is known by what it reaches. So only attempts that came to nothing count, by how many *different* ports
//! of a host, or hosts on a port, one source tried within [`WINDOW`]; a thousand tries of one port are one.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::enrich::Workload;
use crate::flows;

/// Nanoseconds in which what belongs together must be seen.
const WINDOW: u64 = 60_000_000_000;
/// An event is over when nothing was added for so many nanoseconds; what comes later is another one.
const QUIET: u64 = 300_000_000_000;

/// More closed ports of one host than any client has in its configuration.
const PORTS: usize = 20;
/// Hosts on one port, or of pings, that do not answer. A client of a service whose backends are all gone stays below: it has
/// fewer.
const HOSTS: usize = 30;
/// Handshakes of one port that peers began and did not complete.
const HALF_OPEN: u64 = 64;
/// Damage on the wire makes one odd packet, and a checksum drops it before it is looked at.
const ODD_PACKETS: u64 = 5;

/// Sources and listeners that are watched at a time.
const WATCHED: usize = 4096;
/// Of one source, so many targets; a scan is known long before.
const TARGETS: usize = 2048;
const EVENTS: usize = 1000;

/// An end: who it is as far as known, and its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    pub workload: Workload,
    pub address: IpAddr,
}

impl Serialize for Party {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut party = serializer.serialize_struct("Party", 4)?;
        party.serialize_field("namespace", &*self.workload.namespace)?;
        party.serialize_field("workload", &*self.workload.name)?;
        party.serialize_field("kind", self.workload.kind.as_str())?;
        party.serialize_field("address", &self.address)?;
        party.end()
    }
}

#[derive(Clone, Debug)]
pub struct Attempt {
    pub source: Party,
    pub destination: Party,
    pub means: Means,
    /// Zero of a ping.
    pub port: u16,
    pub outcome: Outcome,
    /// How many alike.
    pub count: u64,
    /// Nanoseconds of the monotonic clock.
    pub at: u64,
}

/// What a socket tried. A client that came through is one that works.
impl From<&flows::Attempt> for Attempt {
    fn from(attempt: &flows::Attempt) -> Self {
        Self {
            source: Party {
                workload: attempt.source.clone(),
                address: attempt.source_address,
            },
            destination: Party {
                workload: attempt.destination.clone(),
                address: attempt.destination_address,
            },
            means: match attempt.protocol {
                flows::UDP => Means::Udp,
                _ => Means::Tcp,
            },
            port: attempt.port,
            outcome: if attempt.failure.is_some() {
                Outcome::Failed
            } else {
                Outcome::Opened
            },
            count: 1,
            at: attempt.at,
        }
    }
}

/// What was sent to see whether somebody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Means {
    Tcp,
    Udp,
    Ping,
}

impl Means {
    /// What it is to try many ports of one host so. Pings have none.
    fn of_ports(self) -> Option<&'static str> {
        match self {
            Self::Tcp => Some("port_scan"),
            Self::Udp => Some("udp_port_scan"),
            Self::Ping => None,
        }
    }

    /// What it is to try many hosts so.
    fn of_hosts(self) -> &'static str {
        match self {
            Self::Tcp => "host_scan",
            Self::Udp => "udp_host_scan",
            Self::Ping => "ping_sweep",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Opened,
    /// Refused, stopped, or never answered.
    Failed,
    /// The peer began a handshake and left it.
    HalfOpen,
    /// A packet with flags that no connection has.
    Odd(&'static str),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    pub kind: &'static str,
    pub source: Option<Party>,
    pub destination: Option<Party>,
    pub port: Option<u16>,
    /// Different ports, hosts or peers; of odd packets, packets.
    pub count: u64,
    #[serde(skip)]
    first: u64,
    #[serde(skip)]
    last: u64,
    /// Seconds since it was first and last seen; filled in when it is shown.
    pub first_seconds_ago: u64,
    pub last_seconds_ago: u64,
}

/// Cheap to clone; all clones are one.
#[derive(Clone, Default, Debug)]
pub struct Detector(Arc<Mutex<Watch>>);

#[derive(Default, Debug)]
struct Watch {
    sources: HashMap<IpAddr, Source>,
    listeners: HashMap<(IpAddr, u16), Listener>,
    /// Too few for an event so far, by source, destination and kind.
    odd: HashMap<(IpAddr, IpAddr, &'static str), Packets>,
    events: Vec<Event>,
    /// Of `events`, those that nobody has counted yet.
    fresh: Vec<Event>,
}

#[derive(Default, Debug)]
struct Source {
    /// When each port of each host was tried last, in vain.
    failed: HashMap<(Means, IpAddr, u16), u64>,
    last: u64,
}

#[derive(Debug)]
struct Packets {
    since: u64,
    count: u64,
}

impl Packets {
    fn new(since: u64) -> Self {
        Self { since, count: 0 }
    }
}

#[derive(Debug)]
struct Listener {
    since: u64,
    half_open: u64,
    peers: HashSet<IpAddr>,
    opened: u64,
}

impl Detector {
    pub fn observe(&self, attempt: &Attempt) {
        self.lock().observe(attempt);
    }

    /// Events that began since the last call. Also forgets what is old, whether or not anybody ever
    /// asks for [`Detector::events`]: else their place would be taken for good.
    pub fn take_fresh(&self, now: u64) -> Vec<Event> {
        let mut watch = self.lock();
        watch.forget(now);
        std::mem::take(&mut watch.fresh)
    }

    /// Events of the last minutes, the latest first.
    pub fn events(&self, now: u64) -> Vec<Event> {
        let mut watch = self.lock();
        watch.forget(now);
        let seconds = |at: u64| now.saturating_sub(at) / 1_000_000_000;
        let mut events: Vec<Event> = (watch.events.iter())
            .map(|event| Event {
                first_seconds_ago: seconds(event.first),
                last_seconds_ago: seconds(event.last),
                ..event.clone()
            })
            .collect();
        events.sort_by_key(|event| event.last_seconds_ago);
        events
    }

    /// A panic in the middle of a change costs an attempt at worst.
    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    fn observe(&mut self, attempt: &Attempt) {
        match attempt.outcome {
            Outcome::Opened => {
                let key = (attempt.destination.address, attempt.port);
                if let Some(listener) = self.listeners.get_mut(&key) {
                    listener.opened += attempt.count;
                }
            }
            Outcome::Failed => self.failed(attempt),
            Outcome::HalfOpen => self.half_open(attempt),
            Outcome::Odd(kind) => self.odd(kind, attempt),
        }
    }

    /// Whatever their ports: who scans with such packets sends one to each.
    fn odd(&mut self, kind: &'static str, attempt: &Attempt) {
        if let Some(event) = self.find(kind, attempt, true, true, None) {
            event.count += attempt.count;
            event.last = attempt.at;
            return;
        }
        let ends = (attempt.source.address, attempt.destination.address, kind);
        if !self.odd.contains_key(&ends) && self.odd.len() >= WATCHED {
            self.forget(attempt.at);
            if self.odd.len() >= WATCHED {
                return;
            }
        }
        let packets = self
            .odd
            .entry(ends)
            .or_insert_with(|| Packets::new(attempt.at));
        if attempt.at.saturating_sub(packets.since) > WINDOW {
            *packets = Packets::new(attempt.at);
        }
        packets.count += attempt.count;
        let count = packets.count;
        if count >= ODD_PACKETS {
            self.odd.remove(&ends);
            self.begin(kind, attempt, true, true, None, count);
        }
    }

    fn failed(&mut self, attempt: &Attempt) {
        let source = attempt.source.address;
        // Whoever is watched already is not pushed out by a flood of made-up addresses.
        if !self.sources.contains_key(&source) && self.sources.len() >= WATCHED {
            self.forget(attempt.at);
            if self.sources.len() >= WATCHED {
                return;
            }
        }
        let watched = self.sources.entry(source).or_default();
        watched.last = attempt.at;
        if watched.failed.len() >= TARGETS {
            let begin = attempt.at.saturating_sub(WINDOW);
            watched.failed.retain(|_, at| *at >= begin);
        }
        if watched.failed.len() < TARGETS {
            let target = (attempt.means, attempt.destination.address, attempt.port);
            watched.failed.insert(target, attempt.at);
        }
        let begin = attempt.at.saturating_sub(WINDOW);
        let lately = || {
            (watched.failed.iter())
                .filter(|((means, _, _), at)| *means == attempt.means && **at >= begin)
        };
        let ports = lately()
            .filter(|((_, host, _), _)| *host == attempt.destination.address)
            .count();
        let hosts = lately()
            .filter(|((_, _, port), _)| *port == attempt.port)
            .count();
        if let Some(kind) = attempt.means.of_ports().filter(|_| ports >= PORTS) {
            self.report(kind, attempt, true, None, ports as u64);
        }
        if hosts >= HOSTS {
            let port = (attempt.means != Means::Ping).then_some(attempt.port);
            self.report(attempt.means.of_hosts(), attempt, false, port, hosts as u64);
        }
    }

    fn half_open(&mut self, attempt: &Attempt) {
        let key = (attempt.destination.address, attempt.port);
        if !self.listeners.contains_key(&key) && self.listeners.len() >= WATCHED {
            return;
        }
        let listener = self
            .listeners
            .entry(key)
            .or_insert_with(|| Listener::new(attempt.at));
        if attempt.at.saturating_sub(listener.since) > WINDOW {
            *listener = Listener::new(attempt.at);
        }
        // SYN-ACKs are sent again several times: of one peer only the first tells something new.
        if listener.peers.len() < TARGETS && listener.peers.insert(attempt.source.address) {
            listener.half_open += 1;
        } else {
            listener.half_open += attempt.count / 2;
        }
        let (half_open, opened) = (listener.half_open, listener.opened);
        // On a lossy path handshakes are left too, but not most of them.
        if half_open >= HALF_OPEN && half_open > opened {
            let known = self.find("syn_flood", attempt, false, true, Some(attempt.port));
            match known {
                Some(event) => {
                    event.count = event.count.max(half_open);
                    event.last = attempt.at;
                }
                None => self.begin(
                    "syn_flood",
                    attempt,
                    false,
                    true,
                    Some(attempt.port),
                    half_open,
                ),
            }
        }
    }

    fn report(
        &mut self,
        kind: &'static str,
        attempt: &Attempt,
        to_one_host: bool,
        port: Option<u16>,
        count: u64,
    ) {
        match self.find(kind, attempt, true, to_one_host, port) {
            Some(event) => {
                event.count = event.count.max(count);
                event.last = attempt.at;
            }
            None => self.begin(kind, attempt, true, to_one_host, port, count),
        }
    }

    /// The same that goes on.
    fn find(
        &mut self,
        kind: &str,
        attempt: &Attempt,
        from_one: bool,
        to_one: bool,
        port: Option<u16>,
    ) -> Option<&mut Event> {
        let is = |party: &Option<Party>, known: bool, other: &Party| match party {
            Some(party) => known && party.address == other.address,
            None => !known,
        };
        self.events.iter_mut().find(|event| {
            event.kind == kind
                && event.port == port
                && is(&event.source, from_one, &attempt.source)
                && is(&event.destination, to_one, &attempt.destination)
                && attempt.at.saturating_sub(event.last) < QUIET
        })
    }

    fn begin(
        &mut self,
        kind: &'static str,
        attempt: &Attempt,
        from_one: bool,
        to_one: bool,
        port: Option<u16>,
        count: u64,
    ) {
        let event = Event {
            kind,
            source: from_one.then(|| attempt.source.clone()),
            destination: to_one.then(|| attempt.destination.clone()),
            port,
            count,
            first: attempt.at,
            last: attempt.at,
            first_seconds_ago: 0,
            last_seconds_ago: 0,
        };
        if self.events.len() < EVENTS {
            self.events.push(event.clone());
            self.fresh.push(event);
        }
    }

    fn forget(&mut self, now: u64) {
        let begin = now.saturating_sub(WINDOW);
        self.sources.retain(|_, source| source.last >= begin);
        self.listeners.retain(|_, listener| listener.since >= begin);
        self.odd.retain(|_, packets| packets.since >= begin);
        self.events
            .retain(|event| now.saturating_sub(event.last) < QUIET);
    }
}

impl Listener {
    fn new(since: u64) -> Self {
        Self {
            since,
            half_open: 0,
            peers: HashSet::new(),
            opened: 0,
        }
    }
}

#[cfg(test)]
mod tests;
