//! One connection: its first bytes, until its protocol is known; its handshake, until that is over.

use super::stream::Stream;
use crate::abi::{
    STREAM_FIN, STREAM_LOST, STREAM_RST, STREAM_SENT, STREAM_SYN, STREAM_TLS, STREAM_TLS_AFTER,
    STREAM_TLS_RECORD, TCP_ROLE_CLIENT, TCP_ROLE_SERVER, stream_segment,
};
use crate::protocol::{PassingBytes, Patience, Protocol, classify};
use crate::tls::handshake::{Handshake, Outcome, Side};

/// After this we make do with the bytes that there are.
pub(super) const PATIENCE: u64 = 1_500_000_000;
/// Of each side, while its protocol is not known: a first request of HTTP/2.
const MAX_FIRST: usize = 1024;

/// Whose connection it is, as the kernel counts for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Edge {
    pub(super) netns: u32,
    pub(super) cgroup: u64,
    pub(super) peer: [u8; 16],
    pub(super) is_client: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) netns: u32,
    pub(super) local: [u8; 16],
    pub(super) peer: [u8; 16],
    pub(super) local_port: u16,
    pub(super) peer_port: u16,
}

/// The same at both ends of a connection, whatever is done to addresses in between: where the two
/// streams begin, the client's first.
pub(super) type Id = (u32, u32);

pub(super) struct Connection {
    pub(super) edge: Edge,
    pub(super) id: Id,
    received_start: u32,
    /// It began with data in the SYN, and nothing has come since.
    awaits_server: bool,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// When it is to be looked at again; 0 before that is known.
    pub(super) next_look: u64,
    pub(super) protocol: Option<Protocol>,
    pub(super) is_counted: bool,
    pub(super) is_ignored: bool,
    /// A program may change to TLS later on.
    pub(super) is_tls_from_start: bool,
    pub(super) tls: Option<Box<Handshake>>,
    /// Since the last look at it.
    pub(super) has_lost_handshake: bool,
    client: Half,
    server: Half,
    was_alert: bool,
}

/// What one side sends.
struct Half {
    stream: Stream,
    first: PassingBytes,
    has_spoken: bool,
    in_tls: bool,
}

impl Connection {
    pub(super) fn begin(segment: &stream_segment) -> Self {
        let edge = Edge::of(segment);
        let (client, server) = edge.starts(segment);
        Self {
            edge,
            id: (client, server),
            received_start: segment.received_start,
            awaits_server: u32::from(segment.flags) & STREAM_SYN != 0,
            first_ns: segment.time_ns,
            last_ns: segment.time_ns,
            next_look: 0,
            protocol: None,
            is_counted: false,
            is_ignored: false,
            is_tls_from_start: false,
            tls: None,
            has_lost_handshake: false,
            client: Half::from(client),
            server: Half::from(server),
            was_alert: false,
        }
    }

    /// Whether the segment is of this connection, and not of another that has its addresses.
    pub(super) fn has(&self, segment: &stream_segment) -> bool {
        self.received_start == segment.received_start
    }

    /// Where the server's stream begins, if this segment is the first to tell.
    pub(super) fn meet_server(&mut self, segment: &stream_segment) -> bool {
        let (client, server) = self.edge.starts(segment);
        let meets =
            self.awaits_server && u32::from(segment.flags) & STREAM_SYN == 0 && client == self.id.0;
        if meets {
            self.awaits_server = false;
            self.id = (client, server);
            self.received_start = segment.received_start;
            self.server = Half::from(server);
        }
        meets
    }

    pub(super) fn segment(&mut self, segment: &stream_segment, bytes: &[u8]) {
        let is = |flag: u32| u32::from(segment.flags) & flag != 0;
        let now = segment.time_ns;
        self.last_ns = now;
        let side = if is_sent(segment) == self.edge.is_client {
            Side::Client
        } else {
            Side::Server
        };
        if is(STREAM_LOST) {
            return self.lose_handshake();
        }
        if is(STREAM_TLS_AFTER) {
            if let Some(tls) = &mut self.tls {
                tls.read_after(bytes);
            }
        } else if !bytes.is_empty() {
            let is_start = segment.sequence == start_of(segment);
            if is(STREAM_TLS) && (is_start || is(STREAM_TLS_RECORD)) {
                self.change_to_tls(side, segment.sequence, is_start);
            }
            self.read(side, segment.sequence, bytes, now);
        }
        if is(STREAM_FIN | STREAM_RST) && (self.client.has_gap() || self.server.has_gap()) {
            self.lose_handshake();
        }
        if is(STREAM_FIN | STREAM_RST)
            && let Some(tls) = &mut self.tls
        {
            tls.close(is(STREAM_RST), now);
        }
    }

    /// What it speaks, if its bytes or its age (in nanoseconds) say so.
    pub(super) fn decide(&mut self, age: u64) {
        if self.protocol.is_some() {
            return;
        }
        let patience = if age < PATIENCE {
            Patience::More
        } else {
            Patience::Decide
        };
        self.protocol = classify(&self.client.first, &self.server.first, patience);
        if self.protocol.is_some() {
            self.was_alert = matches!(self.server.first[..], [21, 3, _, 0, 2, ..]);
            self.client.first.clear();
            self.server.first.clear();
        }
    }

    /// A piece of it is missing, so whatever it looks like, it may have been otherwise.
    pub(super) fn lose_handshake(&mut self) {
        if self.tls.take().is_some() {
            self.has_lost_handshake = true;
        }
    }

    /// It was counted already, and only its handshake is of interest.
    pub(super) fn skip_protocol(&mut self) {
        self.protocol = Some(Protocol::Unknown);
        self.is_counted = true;
    }

    /// Nothing more is expected of it.
    pub(super) fn is_over(&self) -> bool {
        self.is_counted && self.tls.is_none()
    }

    /// What comes of it later may look like the beginning of another: a handshake that goes on, or
    /// data again that the server did not take with the SYN.
    pub(super) fn is_remembered(&self) -> bool {
        self.client.in_tls || self.server.in_tls || self.awaits_server
    }

    /// Whether the client speaks clear text to who expects TLS.
    pub(super) fn is_plain(&self, is_tls_server: bool) -> bool {
        let is_clear = self
            .protocol
            .is_some_and(|protocol| protocol != Protocol::Tls);
        is_clear && self.client.has_spoken && (is_tls_server || self.was_alert)
    }

    /// Its handshake, once that is over.
    pub(super) fn finish_handshake(&mut self, now_ns: u64) -> Option<Outcome> {
        self.tls.as_ref().filter(|tls| tls.is_settled(now_ns))?;
        self.tls.take()?.into_outcome()
    }

    /// Where the server listens. Loopback addresses are everybody's own.
    pub(super) fn server(&self, key: &Key) -> (u32, [u8; 16], u16) {
        let (address, port) = if self.edge.is_client {
            (key.peer, key.peer_port)
        } else {
            (key.local, key.local_port)
        };
        let is_loopback = super::super::labels::address(address).is_loopback();
        (if is_loopback { key.netns } else { 0 }, address, port)
    }

    fn change_to_tls(&mut self, side: Side, sequence: u32, is_start: bool) {
        if self.half(side).in_tls {
            return;
        }
        if self.tls.is_none() {
            self.tls = Some(Box::default());
            self.is_tls_from_start = is_start;
        }
        let half = self.half(side);
        half.in_tls = true;
        half.stream = Stream::from(sequence);
    }

    fn read(&mut self, side: Side, sequence: u32, bytes: &[u8], now: u64) {
        let is_undecided = self.protocol.is_none();
        let half = self.half(side);
        let ready = half.stream.push(sequence, bytes);
        half.has_spoken = true;
        if is_undecided {
            let room = MAX_FIRST.saturating_sub(half.first.len());
            half.first.extend(&ready[..ready.len().min(room)]);
        }
        let in_tls = half.in_tls;
        if let Some(tls) = self.tls.as_mut().filter(|_| in_tls) {
            tls.read(side, &ready, now);
        }
    }

    fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

impl Half {
    fn has_gap(&self) -> bool {
        self.stream.has_gap()
    }

    fn from(sequence: u32) -> Self {
        Self {
            stream: Stream::from(sequence),
            first: PassingBytes::default(),
            has_spoken: false,
            in_tls: false,
        }
    }
}

impl Edge {
    /// Where the two streams begin, the client's first.
    fn starts(&self, segment: &stream_segment) -> Id {
        if self.is_client {
            (segment.sent_start, segment.received_start)
        } else {
            (segment.received_start, segment.sent_start)
        }
    }

    /// Where the kernel could not tell, who speaks first is taken for the client.
    pub(super) fn of(segment: &stream_segment) -> Self {
        Self {
            netns: segment.netns,
            cgroup: segment.cgroup,
            peer: segment.peer,
            is_client: match u32::from(segment.role) {
                TCP_ROLE_CLIENT => true,
                TCP_ROLE_SERVER => false,
                _ => is_sent(segment),
            },
        }
    }
}

impl Key {
    pub(super) fn of(segment: &stream_segment) -> Self {
        Self {
            netns: segment.netns,
            local: segment.local,
            peer: segment.peer,
            local_port: segment.local_port,
            peer_port: segment.peer_port,
        }
    }
}

fn is_sent(segment: &stream_segment) -> bool {
    u32::from(segment.direction) == STREAM_SENT
}

/// Where the stream that this segment belongs to begins.
pub(super) fn start_of(segment: &stream_segment) -> u32 {
    if is_sent(segment) {
        segment.sent_start
    } else {
        segment.received_start
    }
}
