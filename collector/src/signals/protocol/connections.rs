//! First bytes of many connections, as the kernel sends them → protocols and handshakes. Pure: it
//! looks at no clock. Bytes are dropped as soon as they have said what they are.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::Duration;

use super::connection::{Connection, Edge, Id, Key, start_of};
use crate::abi::{STREAM_ANSWERS, stream_segment};
use crate::protocol::{Protocol, classify_datagram};
use crate::tls::handshake::{End, Outcome, PLAINTEXT};

const SECOND: u64 = 1_000_000_000;
/// So long a client's side of the same connection has to turn up before the server's is counted.
const OTHER_SIDE: u64 = SECOND;
/// A connection is remembered so long after its last segment, lest it be counted twice.
const REMEMBER: u64 = 3 * SECOND;
const GENERATION: u64 = 10 * SECOND;
const MAX_CONNECTIONS: usize = 65_536;
const MAX_COUNTS: usize = 16_384;
const MAX_HANDSHAKES: usize = 65_536;
const MAX_TLS_SERVERS: usize = 4096;

/// What was found out since the last time.
#[derive(Default)]
pub(super) struct Found {
    pub(super) protocols: HashMap<(Edge, Protocol, u8), u64>,
    /// Connections in clear text to where TLS is spoken.
    pub(super) plaintext: HashMap<Edge, u64>,
    pub(super) handshakes: Vec<Finished>,
    /// Connections that there was no room for.
    pub(super) lost: u64,
    /// Pieces of connections that the kernel had no room for.
    pub(super) lost_pieces: u64,
    /// Handshakes of which a piece is missing, so that nobody knows how they ended.
    pub(super) incomplete: u64,
}

impl Found {
    fn count(&mut self, edge: Edge, protocol: Protocol, transport: u8) {
        let key = (edge, protocol, transport);
        if self.protocols.len() >= MAX_COUNTS && !self.protocols.contains_key(&key) {
            self.lost += 1;
        } else {
            *self.protocols.entry(key).or_default() += 1;
        }
    }
}

pub(super) struct Finished {
    pub(super) edge: Edge,
    pub(super) client: [u8; 16],
    pub(super) server: ([u8; 16], u16),
    pub(super) outcome: Outcome,
}

pub(super) struct Connections {
    live: HashMap<Key, Connection>,
    /// Datagrams seen at the server's side.
    held: Vec<(u64, Id, Edge, Protocol)>,
    seen: Seen,
    /// Where TLS is spoken from the first byte; with a namespace where the address is its own.
    tls_servers: HashSet<(u32, [u8; 16], u16)>,
    /// Namespace and local port of connections of our own.
    ignored: HashMap<(u32, u16), u64>,
    found: Found,
    handshake_timeout: u64,
    ticked: u64,
    /// Pieces that the kernel has lost, and until when it may have lost the last.
    lost_pieces: u64,
    lost_until: Option<u64>,
}

/// Connections whose client is on this host, of the last ten to twenty seconds.
#[derive(Default)]
struct Seen {
    current: HashSet<Id>,
    previous: HashSet<Id>,
    since: u64,
}

impl Connections {
    pub(super) fn new(handshake_timeout: Duration) -> Self {
        Self {
            live: HashMap::new(),
            held: Vec::new(),
            seen: Seen::default(),
            tls_servers: HashSet::new(),
            ignored: HashMap::new(),
            found: Found::default(),
            handshake_timeout: nanoseconds(handshake_timeout),
            ticked: 0,
            lost_pieces: 0,
            lost_until: None,
        }
    }

    pub(super) fn set_handshake_timeout(&mut self, timeout: Duration) {
        self.handshake_timeout = nanoseconds(timeout);
    }

    /// The next connection of this namespace from this port is ours and does not count.
    pub(super) fn ignore(&mut self, netns: u32, local_port: u16, now_ns: u64) {
        self.ignored.insert((netns, local_port), now_ns);
    }

    pub(super) fn take(&mut self) -> Found {
        mem::take(&mut self.found)
    }

    pub(super) fn segment(&mut self, segment: &stream_segment, bytes: &[u8]) {
        if segment.transport == 17 {
            return self.datagram(segment, bytes);
        }
        let key = Key::of(segment);
        let known = (self.live.get(&key))
            .is_some_and(|connection| connection.received_start == segment.received_start);
        if !known && !self.begin(key, segment, bytes) {
            return;
        }
        if let Some(connection) = self.live.get_mut(&key) {
            connection.segment(segment, bytes);
        }
        self.look_at(&key, segment.time_ns);
    }

    /// To be called before every tick, with how many pieces the kernel has ever lost.
    pub(super) fn lost_pieces(&mut self, ever: u64, now_ns: u64) {
        let new = ever.saturating_sub(self.lost_pieces);
        if new > 0 {
            self.found.lost_pieces += new;
            self.lost_until = Some(now_ns);
        }
        self.lost_pieces = ever;
    }

    /// To be called a few times a second.
    pub(super) fn tick(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.ticked) < SECOND / 4 {
            return;
        }
        self.ticked = now_ns;
        self.seen.age(now_ns);
        (self.ignored).retain(|_, since| now_ns.saturating_sub(*since) < GENERATION);
        let keys: Vec<Key> = self.live.keys().copied().collect();
        for key in keys {
            self.look_at(&key, now_ns);
        }
        let held = mem::take(&mut self.held);
        for (since, id, edge, protocol) in held {
            if now_ns.saturating_sub(since) < OTHER_SIDE {
                self.held.push((since, id, edge, protocol));
            } else if !self.seen.contains(&id) {
                self.found.count(edge, protocol, 17);
            }
        }
    }

    /// Only from the first byte of the side that speaks first: of what was there before us, nobody
    /// could tell the protocol.
    fn begin(&mut self, key: Key, segment: &stream_segment, bytes: &[u8]) -> bool {
        let is_answer = u32::from(segment.flags) & STREAM_ANSWERS != 0;
        if bytes.is_empty() || is_answer || segment.sequence != start_of(segment) {
            return false;
        }
        if self.live.len() >= MAX_CONNECTIONS {
            self.found.lost += 1;
            return false;
        }
        let mut connection = Connection::begin(segment);
        let ours = (segment.netns, segment.local_port);
        connection.is_ignored = self.ignored.remove(&ours).is_some();
        if connection.edge.is_client {
            self.seen.current.insert(connection.id);
        }
        self.live.insert(key, connection);
        true
    }

    fn look_at(&mut self, key: &Key, now_ns: u64) {
        let Some(connection) = self.live.get_mut(key) else {
            return;
        };
        let age = now_ns.saturating_sub(connection.first_ns);
        connection.decide(age);
        // The server's side waits for the client's, which counts if it is here too.
        if !connection.edge.is_client && age < OTHER_SIDE {
            return;
        }
        let counts = !connection.is_ignored
            && (connection.edge.is_client || !self.seen.contains(&connection.id));
        if let Some(protocol) = connection.protocol
            && !connection.is_counted
        {
            connection.is_counted = true;
            if counts {
                self.found.count(connection.edge, protocol, 6);
                let server = connection.server(key);
                if connection.is_plain(self.tls_servers.contains(&server)) {
                    *self.found.plaintext.entry(connection.edge).or_default() += 1;
                }
            }
        }
        if age >= self.handshake_timeout
            && let Some(tls) = &mut connection.tls
        {
            // The kernel tells which connection has lost a piece with its next one. Here none came.
            if (self.lost_until).is_some_and(|until| until >= connection.first_ns) {
                connection.lose_handshake();
            } else {
                tls.time_out(now_ns);
            }
        }
        if mem::take(&mut connection.has_lost_handshake) && counts {
            self.found.incomplete += 1;
        }
        match connection.finish_handshake(now_ns) {
            Some(outcome) if counts => self.finished(*key, outcome),
            _ => {}
        }
        let idle = |connection: &Connection| now_ns.saturating_sub(connection.last_ns);
        let is_over = (self.live.get(key)).is_some_and(|connection| {
            connection.is_counted && connection.tls.is_none() && idle(connection) >= REMEMBER
        });
        if is_over {
            self.live.remove(key);
        }
    }

    fn finished(&mut self, key: Key, outcome: Outcome) {
        let Some(connection) = self.live.get(&key) else {
            return;
        };
        let edge = connection.edge;
        if outcome.end == End::Failed(PLAINTEXT) {
            *self.found.plaintext.entry(edge).or_default() += 1;
        }
        let speaks_tls = outcome.chosen.is_some() && connection.is_tls_from_start;
        if speaks_tls && self.tls_servers.len() < MAX_TLS_SERVERS {
            self.tls_servers.insert(connection.server(&key));
        }
        if self.found.handshakes.len() >= MAX_HANDSHAKES {
            self.found.lost += 1;
            return;
        }
        let (client, server) = if edge.is_client {
            (key.local, (key.peer, key.peer_port))
        } else {
            (key.peer, (key.local, key.local_port))
        };
        self.found.handshakes.push(Finished {
            edge,
            client,
            server,
            outcome,
        });
    }

    fn datagram(&mut self, segment: &stream_segment, bytes: &[u8]) {
        let protocol = classify_datagram(bytes);
        if protocol == Protocol::Unknown {
            return;
        }
        let edge = Edge::of(segment);
        let client_port = if edge.is_client {
            segment.local_port
        } else {
            segment.peer_port
        };
        let hash = bytes.iter().fold(u32::from(client_port), |hash, &byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        let id = (hash, u32::from(client_port));
        if edge.is_client {
            self.seen.current.insert(id);
            self.found.count(edge, protocol, 17);
        } else if self.held.len() < MAX_COUNTS {
            self.held.push((segment.time_ns, id, edge, protocol));
        } else {
            self.found.lost += 1;
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Seen {
    fn contains(&self, id: &Id) -> bool {
        self.current.contains(id) || self.previous.contains(id)
    }

    fn age(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.since) >= GENERATION {
            self.previous = mem::take(&mut self.current);
            self.since = now_ns;
        }
    }
}

#[cfg(test)]
mod tests;
