//! What is asked of the flow table, and the rows that answer.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use regex::Regex;
use serde::{Serialize, Serializer};

use super::flow::{Edge, End, Flow, State, TCP, UDP};
use super::table::FlowTable;
use crate::enrich::Workload;

/// A time from which and one until which, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

/// Which flows are wanted. Empty: all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of either end.
    pub namespace: Option<String>,
    pub workload: Option<String>,
    pub source: Option<Whom>,
    pub destination: Option<Whom>,
    pub port: Option<u16>,
    pub protocol: Option<u8>,
    pub state: Option<State>,
    /// The end whose socket was seen.
    pub role: Option<End>,
    pub include: Option<Regex>,
    pub exclude: Option<Regex>,
    pub span: Option<Span>,
}

/// One end of a flow, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    Network { address: IpAddr, prefix: u32 },
    Workload(String),
}

/// By what rows are ordered, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    #[default]
    Recent,
    Started,
    Bytes,
    Sent,
    Received,
    Duration,
}

impl Sort {
    pub const ALL: [(&'static str, Self); 6] = [
        ("recent", Self::Recent),
        ("started", Self::Started),
        ("bytes", Self::Bytes),
        ("sent", Self::Sent),
        ("received", Self::Received),
        ("duration", Self::Duration),
    ];
}

/// What rows are ordered by; times of the calendar.
#[derive(Clone, Copy, Debug)]
pub struct Measures {
    pub started: Option<jiff::Timestamp>,
    pub last_active: Option<jiff::Timestamp>,
    pub ended: Option<jiff::Timestamp>,
    pub sent: u64,
    pub received: u64,
    pub duration_seconds: f64,
}

impl Sort {
    /// The most comes first.
    pub fn key(self, of: &Measures) -> i128 {
        let time = |time: Option<jiff::Timestamp>| time.map_or(0, jiff::Timestamp::as_nanosecond);
        match self {
            Self::Recent => (time(of.last_active))
                .max(time(of.ended))
                .max(time(of.started)),
            Self::Started => time(of.started),
            Self::Bytes => i128::from(of.sent) + i128::from(of.received),
            Self::Sent => of.sent.into(),
            Self::Received => of.received.into(),
            #[expect(clippy::cast_possible_truncation, reason = "nanoseconds of a life")]
            Self::Duration => (of.duration_seconds * 1e9) as i128,
        }
    }
}

impl Row {
    pub fn measures(&self) -> Measures {
        Measures {
            started: self.started,
            last_active: self.last_active,
            ended: self.ended,
            sent: self.bytes_sent,
            received: self.bytes_received,
            duration_seconds: self.duration_seconds,
        }
    }
}

/// What a filter looks at, but for the times.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Namespace and name.
    pub source: (&'a str, &'a str),
    pub destination: (&'a str, &'a str),
    pub client: IpAddr,
    pub server: SocketAddr,
    /// What the client asked for, if that is another address.
    pub service: Option<SocketAddr>,
    pub protocol: u8,
    pub state: State,
    /// Which ends are sockets of this host: client, server.
    pub is_here: [bool; 2],
}

/// A flow, as it is shown. Bytes and segments go out from the client («sent») and come back to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub id: u64,
    pub protocol: &'static str,
    pub state: &'static str,
    /// Why it failed, or the error that it ended with.
    pub reason: Option<&'static str>,
    /// Which ends are sockets of this host: `client`, `server` or `both`.
    pub role: &'static str,
    pub src_address: IpAddr,
    pub src_port: u16,
    #[serde(flatten, serialize_with = "source")]
    pub source: Workload,
    pub dst_address: IpAddr,
    pub dst_port: u16,
    #[serde(flatten, serialize_with = "destination")]
    pub destination: Workload,
    /// The address that the client asked for, if it was translated to that of a backend.
    pub service: Option<SocketAddr>,
    pub backend: Option<SocketAddr>,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub segments_sent: u32,
    pub segments_received: u32,
    pub duration_seconds: f64,
    pub persistent: bool,
    #[serde(serialize_with = "time")]
    pub started: Option<jiff::Timestamp>,
    #[serde(serialize_with = "time")]
    pub last_active: Option<jiff::Timestamp>,
    #[serde(serialize_with = "time")]
    pub ended: Option<jiff::Timestamp>,
}

impl FromStr for Whom {
    type Err = ();

    /// What looks like an address must be one; anything else is a name.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        if let Ok(address) = address.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let prefix: u32 = prefix.map_or(Ok(bits), str::parse).map_err(|_| ())?;
            if prefix > bits {
                return Err(());
            }
            // ::ffff:10.0.0.1 is how `ss` shows IPv4 of a socket of IPv6. Flows have 10.0.0.1.
            let (address, prefix) = match (address, address.to_canonical(), prefix) {
                (IpAddr::V6(_), four @ IpAddr::V4(_), 96..) => (four, prefix - 96),
                _ => (address, prefix),
            };
            return Ok(Self::Network { address, prefix });
        }
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        if prefix.is_some() || text.contains(':') || text.chars().all(is_number) {
            return Err(());
        }
        Ok(Self::Workload(text.to_owned()))
    }
}

impl Whom {
    fn is(&self, (_, workload): (&str, &str), address: IpAddr) -> bool {
        match self {
            Self::Workload(name) => name == workload,
            Self::Network {
                address: network,
                prefix,
            } => match (network, address) {
                (IpAddr::V4(network), IpAddr::V4(address)) => {
                    let differ = u32::from(*network) ^ u32::from(address);
                    differ.checked_shr(32 - prefix).unwrap_or(0) == 0
                }
                (IpAddr::V6(network), IpAddr::V6(address)) => {
                    let differ = u128::from(*network) ^ u128::from(address);
                    differ.checked_shr(128 - prefix).unwrap_or(0) == 0
                }
                _ => false,
            },
        }
    }
}

impl Span {
    pub(super) fn everything() -> Self {
        Self {
            from: 0,
            to: u64::MAX,
        }
    }
}

impl Filter {
    /// Whether the ends are wanted, by what an edge knows of them.
    pub(super) fn has_edge(&self, edge: &Edge) -> bool {
        let ends = [name(&edge.source), name(&edge.destination)];
        let matches = |pattern: &Regex| ends.iter().any(|end| named(pattern, *end));
        self.has_names(ends)
            && self.include.as_ref().is_none_or(matches)
            && !self.exclude.as_ref().is_some_and(matches)
    }

    fn has_names(&self, ends: [(&str, &str); 2]) -> bool {
        let is = |wanted: &Option<String>, of: fn((&str, &str), &str) -> bool| {
            (wanted.as_ref()).is_none_or(|wanted| ends.iter().any(|end| of(*end, wanted)))
        };
        is(&self.namespace, |(namespace, _), wanted| {
            namespace == wanted
        }) && is(&self.workload, |(_, name), wanted| name == wanted)
    }

    pub(super) fn has_flow(&self, flow: &Flow) -> bool {
        self.has(&flow.seen()) && self.span.is_none_or(|span| flow.was_alive(span))
    }

    /// Whether a flow is wanted whenever it was.
    pub fn has(&self, seen: &Seen) -> bool {
        let (server, service) = (seen.server, seen.service);
        let is_source = |whom: &Whom| whom.is(seen.source, seen.client);
        let is_destination = |whom: &Whom| {
            whom.is(seen.destination, server.ip())
                || service.is_some_and(|service| whom.is(seen.destination, service.ip()))
        };
        let is_port =
            |port| server.port() == port || service.is_some_and(|service| service.port() == port);
        self.has_names([seen.source, seen.destination])
            && (self.source.as_ref()).is_none_or(is_source)
            && (self.destination.as_ref()).is_none_or(is_destination)
            && self.port.is_none_or(is_port)
            && (self.protocol).is_none_or(|protocol| seen.protocol == protocol)
            && self.state.is_none_or(|state| seen.state == state)
            && (self.role).is_none_or(|role| seen.is_here[role as usize])
            && self.matches(seen)
    }

    /// The patterns of [`Filter::has_edge`]; addresses may match them too.
    fn matches(&self, seen: &Seen) -> bool {
        let matches = |pattern: &Regex| {
            let service = seen.service.map(|service| service.ip());
            named(pattern, seen.source)
                || named(pattern, seen.destination)
                || [Some(seen.client), Some(seen.server.ip()), service]
                    .into_iter()
                    .flatten()
                    .any(|address| pattern.is_match(&address.to_string()))
        };
        self.include.as_ref().is_none_or(matches) && !self.exclude.as_ref().is_some_and(matches)
    }
}

fn name(workload: &Workload) -> (&str, &str) {
    (&workload.namespace, &workload.name)
}

/// A pattern is about the name, or about namespace and name.
fn named(pattern: &Regex, (namespace, name): (&str, &str)) -> bool {
    pattern.is_match(name) || pattern.is_match(&format!("{namespace}/{name}"))
}

impl Flow {
    fn seen(&self) -> Seen<'_> {
        let tuple = self.key.tuple();
        Seen {
            source: name(&self.edge.source),
            destination: name(&self.edge.destination),
            client: tuple.client.ip(),
            server: tuple.server,
            service: self.edge.service,
            protocol: tuple.protocol,
            state: self.state(),
            is_here: [End::Client, End::Server].map(|end| self.side(end).cookie != 0),
        }
    }

    pub(super) fn was_alive(&self, span: Span) -> bool {
        self.since <= span.to && self.end(u64::MAX) >= span.from
    }
}

/// Bytes sent and received, by flow.
type Moved = HashMap<u64, (u64, u64)>;

impl FlowTable {
    /// The rows of a filter, the first `limit` of that order. With a span, they count only what
    /// moved in it.
    pub fn rows(&self, filter: &Filter, sort: Sort, limit: usize, clock: Clock) -> Vec<Row> {
        let moved = filter.span.map(|span| (span, self.moved(span)));
        let order = |flow: &Flow| {
            let (sent, received) = bytes(flow, moved.as_ref());
            let number = match sort {
                Sort::Recent => flow.active.max(flow.ended).max(flow.since),
                Sort::Started => flow.since,
                Sort::Bytes => sent.saturating_add(received),
                Sort::Sent => sent,
                Sort::Received => received,
                Sort::Duration => flow.duration(clock.monotonic),
            };
            (Reverse(number), flow.serial)
        };
        let mut found: Vec<_> = (self.flows())
            .filter(|flow| filter.has_flow(flow))
            .map(|flow| (order(flow), flow))
            .collect();
        if limit < found.len() {
            found.select_nth_unstable_by_key(limit, |(order, _)| *order);
            found.truncate(limit);
        }
        found.sort_unstable_by_key(|(order, _)| *order);
        (found.into_iter())
            .map(|(_, flow)| {
                let persistent = self.is_persistent(flow, clock.monotonic);
                row(flow, bytes(flow, moved.as_ref()), persistent, clock)
            })
            .collect()
    }

    /// Bytes by flow that the history knows to have moved in a span.
    fn moved(&self, span: Span) -> Moved {
        let mut moved = Moved::new();
        for step in self.history.steps(span.from, span.to) {
            let (sent, received) = moved.entry(step.serial).or_default();
            *sent += step.sent;
            *received += step.received;
        }
        moved
    }
}

pub(super) fn row(
    flow: &Flow,
    (sent, received): (u64, u64),
    persistent: bool,
    clock: Clock,
) -> Row {
    let tuple = flow.key.tuple();
    let role = match (flow.side(End::Client).cookie, flow.side(End::Server).cookie) {
        (_, 0) => "client",
        (0, _) => "server",
        _ => "both",
    };
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a life")]
    let duration_seconds = flow.duration(clock.monotonic) as f64 / 1e9;
    Row {
        id: flow.serial,
        protocol: protocol_name(tuple.protocol),
        state: flow.state().as_str(),
        reason: flow.reason,
        role,
        src_address: tuple.client.ip(),
        src_port: tuple.client.port(),
        source: flow.edge.source.clone(),
        dst_address: tuple.server.ip(),
        dst_port: tuple.server.port(),
        destination: flow.edge.destination.clone(),
        service: flow.edge.service,
        backend: flow.edge.service.map(|_| tuple.server),
        bytes_sent: sent,
        bytes_received: received,
        segments_sent: flow.segments_sent,
        segments_received: flow.segments_received,
        duration_seconds,
        persistent,
        started: clock.time(flow.since),
        last_active: (flow.sent > 0 || flow.received > 0)
            .then(|| clock.time(flow.active.max(flow.since)))
            .flatten(),
        ended: (flow.ended != 0).then(|| clock.time(flow.ended)).flatten(),
    }
}

/// From client to server and back: of its life, or of a span.
fn bytes(flow: &Flow, moved: Option<&(Span, Moved)>) -> (u64, u64) {
    let Some((span, moved)) = moved else {
        return (flow.sent, flow.received);
    };
    let (mut sent, mut received) = moved.get(&flow.serial).copied().unwrap_or_default();
    if (span.from..=span.to).contains(&flow.active) {
        let last = flow.step();
        sent += last.sent;
        received += last.received;
    }
    (sent, received)
}

fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        TCP => "tcp",
        UDP => "udp",
        _ => "other",
    }
}

/// What the monotonic clock and the calendar say at the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub monotonic: u64,
    pub wall: jiff::Timestamp,
}

impl Clock {
    pub fn now() -> Self {
        Self {
            monotonic: crate::kernel::monotonic_nanoseconds(),
            wall: jiff::Timestamp::now(),
        }
    }

    /// When something was, by the calendar.
    pub fn time(self, monotonic: u64) -> Option<jiff::Timestamp> {
        let ago = i128::from(self.monotonic) - i128::from(monotonic);
        jiff::Timestamp::from_nanosecond(self.wall.as_nanosecond() - ago).ok()
    }

    /// What the monotonic clock said at a time; the start of its count if that is later, or its end
    /// if that is earlier.
    pub fn monotonic(self, time: jiff::Timestamp) -> u64 {
        let ago = self.wall.as_nanosecond() - time.as_nanosecond();
        let then = i128::from(self.monotonic) - ago;
        u64::try_from(then.max(0)).unwrap_or(u64::MAX)
    }
}

fn source<S: Serializer>(workload: &Workload, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Source<'a> {
        src_namespace: &'a str,
        src_workload: &'a str,
        src_kind: &'a str,
    }
    Source {
        src_namespace: &workload.namespace,
        src_workload: &workload.name,
        src_kind: workload.kind.as_str(),
    }
    .serialize(serializer)
}

fn destination<S: Serializer>(workload: &Workload, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Destination<'a> {
        dst_namespace: &'a str,
        dst_workload: &'a str,
        dst_kind: &'a str,
    }
    Destination {
        dst_namespace: &workload.namespace,
        dst_workload: &workload.name,
        dst_kind: workload.kind.as_str(),
    }
    .serialize(serializer)
}

/// To the millisecond.
fn time<S: Serializer>(time: &Option<jiff::Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&format_args!("{time:.3}")),
        None => serializer.serialize_none(),
    }
}
