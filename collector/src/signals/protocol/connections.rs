//! First bytes of many connections, as the kernel sends them → protocols and handshakes. Pure: it
//! looks at no clock. Bytes are dropped as soon as they have said what they are.

use std::mem;
use std::time::Duration;

// Their hash is several times as fast as the standard library's, and this is done for every segment.
use hashbrown::HashMap;

use super::agenda::Agenda;
use super::connection::{Connection, Edge, Id, Key, PATIENCE, start_of};
use super::recent::Recent;
use crate::abi::{STREAM_ANSWERS, STREAM_TLS_RECORD, stream_segment};
use crate::protocol::{Protocol, classify_datagram};
use crate::tls::handshake::{End, Outcome, PLAINTEXT};

const SECOND: u64 = 1_000_000_000;
/// So long a client's side of the same connection has to turn up before the server's is counted.
const OTHER_SIDE: u64 = SECOND;
/// One that speaks TLS, or began with data in its SYN, is kept so long after its last segment, lest
/// it count twice.
const REMEMBER: u64 = 3 * SECOND;
/// A handshake that goes on is looked at so often.
const HANDSHAKE: u64 = SECOND / 4;
const GENERATION: u64 = 10 * SECOND;
const MAX_CONNECTIONS: usize = 65_536;
const MAX_COUNTS: usize = 16_384;
const MAX_HANDSHAKES: usize = 65_536;
const MAX_TLS_SERVERS: usize = 4096;
/// A server that speaks no TLS any more, or whose address another one has by now, is taken for one that does for so long.
const TLS_SERVER: u64 = 3600 * SECOND;

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
    /// Those of which something may still be found out.
    live: HashMap<Key, Connection>,
    /// When to look at each of them again: `next_look` of a connection says which entry is its own.
    agenda: Agenda<Key>,
    /// Datagrams seen at the server's side.
    held: Vec<(u64, Id, Edge, Protocol)>,
    /// Connections whose client is on this host.
    seen: Recent<Id>,
    /// Connections that were counted at their server.
    at_server: Recent<Id>,
    /// Where TLS is spoken from the first byte, and when it was last; with a namespace where the address is its own.
    tls_servers: HashMap<(u32, [u8; 16], u16), u64>,
    /// Namespace and local port of connections of our own.
    ignored: HashMap<(u32, u16), u64>,
    found: Found,
    handshake_timeout: u64,
    ticked: u64,
    /// Pieces that the kernel has lost, and until when it may have lost the last.
    lost_pieces: u64,
    lost_until: Option<u64>,
}

impl Connections {
    pub(super) fn new(handshake_timeout: Duration) -> Self {
        Self {
            live: HashMap::new(),
            agenda: Agenda::new(),
            held: Vec::new(),
            seen: Recent::new(GENERATION),
            at_server: Recent::new(GENERATION),
            tls_servers: HashMap::new(),
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
        if let Some(connection) = self.live.get_mut(&key)
            && connection.meet_server(segment)
            && connection.edge.is_client
        {
            self.seen.add(connection.id, segment.time_ns);
        }
        let known = (self.live.get(&key)).is_some_and(|connection| connection.has(segment));
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
        self.at_server.age(now_ns);
        (self.ignored).retain(|_, since| now_ns.saturating_sub(*since) < GENERATION);
        for key in self.agenda.due(now_ns) {
            let is_due = |connection: &Connection| connection.next_look <= now_ns;
            if self.live.get(&key).is_some_and(is_due) {
                self.look_at(&key, now_ns);
            }
        }
        let held = mem::take(&mut self.held);
        for (since, id, edge, protocol) in held {
            if now_ns.saturating_sub(since) < OTHER_SIDE {
                self.held.push((since, id, edge, protocol));
            } else if !self.seen.has(&id) {
                self.found.count(edge, protocol, 17);
            }
        }
    }

    /// Only from the first byte of the side that speaks first: of what was there before us, nobody
    /// could tell the protocol. Or where one that was counted changes to TLS.
    fn begin(&mut self, key: Key, segment: &stream_segment, bytes: &[u8]) -> bool {
        let has = |flag: u32| u32::from(segment.flags) & flag != 0;
        let is_first = !has(STREAM_ANSWERS) && segment.sequence == start_of(segment);
        let may_change = has(STREAM_TLS_RECORD) && segment.sequence != start_of(segment);
        if bytes.is_empty() || !(is_first || may_change) {
            return false;
        }
        let mut connection = Connection::begin(segment);
        let is_client = connection.edge.is_client;
        let has_client = self.seen.has(&connection.id);
        let was_counted = if is_client {
            has_client
        } else {
            self.at_server.has(&connection.id)
        };
        // What a server sees of a connection whose client is here, the client sees too.
        if was_counted != may_change || (has_client && !is_client) {
            return false;
        }
        if self.live.len() >= MAX_CONNECTIONS {
            self.found.lost += 1;
            return false;
        }
        if was_counted {
            connection.skip_protocol();
        }
        let ours = (segment.netns, segment.local_port);
        connection.is_ignored = self.ignored.remove(&ours).is_some();
        if is_client {
            self.seen.add(connection.id, segment.time_ns);
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
            return self.look_again(key, now_ns);
        }
        let counts =
            !connection.is_ignored && (connection.edge.is_client || !self.seen.has(&connection.id));
        if let Some(protocol) = connection.protocol
            && !connection.is_counted
        {
            connection.is_counted = true;
            if counts {
                if !connection.edge.is_client {
                    self.at_server.add(connection.id, now_ns);
                }
                self.found.count(connection.edge, protocol, 6);
                let server = connection.server(key);
                let last = self.tls_servers.get(&server);
                let speaks_tls = last.is_some_and(|last| now_ns.saturating_sub(*last) < TLS_SERVER);
                if connection.is_plain(speaks_tls) {
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
            Some(outcome) if counts => self.finished(*key, outcome, now_ns),
            _ => {}
        }
        self.look_again(key, now_ns);
    }

    /// Forgets a connection that is over, and sees to it that any other is looked at in time.
    fn look_again(&mut self, key: &Key, now_ns: u64) {
        let Some(connection) = self.live.get_mut(key) else {
            return;
        };
        let mut next = next_change(connection, now_ns);
        if next <= now_ns {
            if connection.is_over() {
                self.live.remove(key);
                return;
            }
            next = now_ns + HANDSHAKE;
        }
        let is_planned = now_ns < connection.next_look && connection.next_look <= next;
        if !is_planned {
            connection.next_look = next;
            self.agenda.put(now_ns, next, *key);
        }
    }

    fn finished(&mut self, key: Key, outcome: Outcome, now_ns: u64) {
        let Some(connection) = self.live.get(&key) else {
            return;
        };
        let edge = connection.edge;
        if outcome.end == End::Failed(PLAINTEXT) {
            *self.found.plaintext.entry(edge).or_default() += 1;
        }
        let speaks_tls = outcome.chosen.is_some() && connection.is_tls_from_start;
        if speaks_tls {
            let server = connection.server(&key);
            self.note_tls_server(server, now_ns);
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

    fn note_tls_server(&mut self, server: (u32, [u8; 16], u16), now_ns: u64) {
        if self.tls_servers.len() >= MAX_TLS_SERVERS {
            (self.tls_servers).retain(|_, last| now_ns.saturating_sub(*last) < TLS_SERVER);
        }
        if self.tls_servers.len() < MAX_TLS_SERVERS || self.tls_servers.contains_key(&server) {
            self.tls_servers.insert(server, now_ns);
        }
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
            self.seen.add(id, segment.time_ns);
            self.found.count(edge, protocol, 17);
        } else if self.held.len() < MAX_COUNTS {
            self.held.push((segment.time_ns, id, edge, protocol));
        } else {
            self.found.lost += 1;
        }
    }
}

/// When a look at it may tell something that no segment does.
fn next_change(connection: &Connection, now_ns: u64) -> u64 {
    let other_side = connection.first_ns + OTHER_SIDE;
    if !connection.edge.is_client && now_ns < other_side {
        other_side
    } else if connection.tls.is_some() {
        now_ns + HANDSHAKE
    } else if connection.is_over() && !connection.is_remembered() {
        now_ns
    } else if connection.is_counted {
        connection.last_ns + REMEMBER
    } else {
        connection.first_ns + PATIENCE
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
