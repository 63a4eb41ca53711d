//! One flow, and what a look at one of its sockets tells.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::list::Links;
use crate::enrich::{FiveTuple, Workload};

/// Their numbers as protocols of IP.
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// Which end of a flow a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

/// Where one end was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Open,
    /// Open, but one of the ends has said that it will send no more.
    Closing,
    /// With the error, if there was one.
    Closed(Option<&'static str>),
    /// Never open, and why.
    Failed(&'static str),
}

impl Phase {
    pub(super) fn has_ended(self) -> bool {
        matches!(self, Self::Closed(_) | Self::Failed(_))
    }
}

/// What one end of a flow tells. Times are nanoseconds of the monotonic clock.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Where the flow arrives.
    pub tuple: FiveTuple,
    /// Where the client sent it, if that is another place.
    pub service: Option<SocketAddr>,
    pub end: End,
    /// What tells the socket from every other one.
    pub cookie: u64,
    pub netns: u32,
    pub phase: Phase,
    /// Zero: before anyone looked.
    pub started: u64,
    /// Zero: not yet, or before anyone looked.
    pub opened: u64,
    pub now: u64,
    /// When data last went either way.
    pub active: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub segments_sent: u32,
    pub segments_received: u32,
}

/// Who talks to whom, through which Service address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    pub source: Workload,
    pub destination: Workload,
    pub service: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Connecting,
    Open,
    Closing,
    Closed,
    Failed,
}

impl State {
    pub const ALL: [Self; 5] = [
        Self::Connecting,
        Self::Open,
        Self::Closing,
        Self::Closed,
        Self::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Failed => "failed",
        }
    }

    pub(super) fn has_ended(self) -> bool {
        matches!(self, Self::Closed | Self::Failed)
    }
}

/// The addresses of a flow, small: a table holds many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    client: [u8; 16],
    server: [u8; 16],
    client_port: u16,
    server_port: u16,
    pub(super) protocol: u8,
}

impl Key {
    pub(super) fn of(tuple: &FiveTuple) -> Self {
        let bytes = |address: IpAddr| match address {
            IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
            IpAddr::V6(six) => six.octets(),
        };
        Self {
            client: bytes(tuple.client.ip()),
            server: bytes(tuple.server.ip()),
            client_port: tuple.client.port(),
            server_port: tuple.server.port(),
            protocol: tuple.protocol,
        }
    }

    pub(super) fn tuple(&self) -> FiveTuple {
        let end = |address: [u8; 16], port| {
            SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)).to_canonical(), port)
        };
        FiveTuple {
            protocol: self.protocol,
            client: end(self.client, self.client_port),
            server: end(self.server, self.server_port),
        }
    }

    /// Whether other namespaces may have the same addresses for something else.
    pub(super) fn stays_in_its_namespace(&self) -> bool {
        self.client == self.server || {
            let server = self.tuple().server.ip();
            server.is_loopback() || server.is_unspecified()
        }
    }
}

/// One end, as far as it was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Side {
    /// Zero: not seen.
    pub(super) cookie: u64,
    pub(super) netns: u32,
    pub(super) ended: bool,
    pub(super) connecting: bool,
    pub(super) closing: bool,
    /// In the last pass over everything that lives.
    pub(super) pass: u8,
}

/// Who knows of a flow: in one byte, since a table holds many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks(u8);

impl Marks {
    /// Whoever looks for patterns was told of it.
    pub(super) const TOLD: u8 = 1;
    /// Whoever keeps what has ended has it as it is.
    pub(super) const STORED: u8 = 2;
    /// They had it once, and more was heard since.
    pub(super) const SUPERSEDED: u8 = 4;
    /// It began before anyone looked: `since` is when it was seen first.
    pub(super) const OLD: u8 = 8;

    pub(super) fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    /// Whether it was not there before.
    pub(super) fn set(&mut self, mark: u8) -> bool {
        let is_new = !self.has(mark);
        self.0 |= mark;
        is_new
    }

    /// Whether it was there before.
    pub(super) fn clear(&mut self, mark: u8) -> bool {
        let was_there = self.has(mark);
        self.0 &= !mark;
        was_there
    }
}

#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) sides: [Side; 2],
    pub(super) edge: Arc<Edge>,
    /// Why it failed, or the error that it ended with.
    pub(super) reason: Option<&'static str>,
    pub(super) failed: bool,
    pub(super) marks: Marks,
    pub(super) links: Links,
    pub(super) serial: u64,
    /// When it was opened, or attempted if it was not.
    pub(super) since: u64,
    /// Zero: not yet.
    pub(super) ended: u64,
    /// When data last moved, as far as that was noticed.
    pub(super) active: u64,
    /// From client to server, and back.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// What of these is older than `active`, and in the history.
    pub(super) sent_before: u64,
    pub(super) received_before: u64,
    pub(super) segments_sent: u32,
    pub(super) segments_received: u32,
}

impl Flow {
    pub(super) fn side(&self, end: End) -> &Side {
        &self.sides[end as usize]
    }

    pub(super) fn side_mut(&mut self, end: End) -> &mut Side {
        &mut self.sides[end as usize]
    }

    pub(super) fn state(&self) -> State {
        let seen = || self.sides.iter().filter(|side| side.cookie != 0);
        if self.failed {
            State::Failed
        } else if seen().all(|side| side.ended) {
            State::Closed
        } else if seen().any(|side| side.ended || side.closing) {
            State::Closing
        } else if seen().all(|side| side.connecting) {
            State::Connecting
        } else {
            State::Open
        }
    }

    /// When it ended, or until when it goes on. Of datagrams, only the last one is known.
    pub(super) fn end(&self, now: u64) -> u64 {
        match self.ended {
            0 if self.key.protocol == UDP => self.active,
            0 => now,
            ended => ended,
        }
    }

    pub(super) fn duration(&self, now: u64) -> u64 {
        self.end(now).saturating_sub(self.since)
    }

    /// Whether its addresses mean the same in this namespace.
    pub(super) fn is_seen_from(&self, netns: u32) -> bool {
        let is_there = |side: &Side| side.cookie != 0 && side.netns == netns;
        !self.key.stays_in_its_namespace() || self.sides.iter().any(is_there)
    }

    /// Whether a sighting of a socket with these addresses is about this flow.
    pub(super) fn is_of(&self, sighting: &Sighting) -> bool {
        let own = self.side(sighting.end);
        let began = sighting.opened.max(sighting.started);
        if own.cookie == sighting.cookie {
            // A socket may connect again, even from the same port.
            return !own.ended || self.ended == 0 || began <= self.ended;
        }
        let other = self.side(match sighting.end {
            End::Client => End::Server,
            End::Server => End::Client,
        });
        let same_place = !self.key.stays_in_its_namespace() || other.netns == sighting.netns;
        // The ends of one connection live at the same time; a port that is used again does not.
        let same_time = self.ended == 0 || began <= self.ended;
        own.cookie == 0
            && !self.failed
            && !matches!(sighting.phase, Phase::Failed(_))
            && same_place
            && same_time
            && (self.since <= sighting.now || self.marks.has(Marks::OLD))
    }
}
