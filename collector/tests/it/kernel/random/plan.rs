//! What one round of random traffic does: the same for the same seed.

use std::ops::Range;

/// Steele, Lea and Flood's SplitMix64: small, and every seed is a good one.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn within(&mut self, range: Range<usize>) -> usize {
        range.start + (self.next() % range.len() as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.within(0..choices.len())]
    }

    /// A size of any order of magnitude below 2^18, nothing included.
    fn size(&mut self) -> usize {
        let magnitude = self.within(0..19);
        self.within(0..(1 << magnitude).max(1))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    ClientFirst,
    ServerFirst,
    /// Neither waits for the other.
    Both,
    /// The client says that it is done before the server answers.
    ClientHalf,
    /// The server answers and says that it is done before it is asked.
    ServerHalf,
    ClientResets,
    ServerResets,
    /// The server has not read all, which makes its kernel send a reset.
    ServerLeavesUnread,
    /// Open until the end of the test.
    Never,
}

impl Close {
    const ALL: [Self; 9] = [
        Self::ClientFirst,
        Self::ServerFirst,
        Self::Both,
        Self::ClientHalf,
        Self::ServerHalf,
        Self::ClientResets,
        Self::ServerResets,
        Self::ServerLeavesUnread,
        Self::Never,
    ];

    /// Whether the client, and whether the server, receives a reset on an open connection.
    pub(super) fn resets(self) -> (bool, bool) {
        match self {
            Self::ServerResets | Self::ServerLeavesUnread => (true, false),
            Self::ClientResets => (false, true),
            _ => (false, false),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Bytes there and back over a connection of its own.
    Talk {
        request: usize,
        answer: usize,
        close: Close,
    },
    /// Nobody listens.
    Refused,
    /// Datagrams to an echo.
    Datagrams { count: usize, size: usize },
    /// More datagrams than the receiver's buffer has room for, read only then.
    Flood { count: usize },
    /// Datagrams to nobody.
    Nobody { count: usize, size: usize },
    /// A DNS query and an answer with this code.
    Query { qtype: u16, rcode: u8 },
    /// The same over TCP.
    QueryOverTcp { qtype: u16, rcode: u8 },
}

pub(super) const QTYPES: [(u16, &str); 4] = [(1, "a"), (28, "aaaa"), (12, "ptr"), (33, "srv")];
pub(super) const RCODES: [(u8, &str); 4] = [
    (0, "noerror"),
    (2, "servfail"),
    (3, "nxdomain"),
    (5, "refused"),
];

pub(super) type Plan = Vec<(Family, Act)>;

pub(super) fn plan(dice: &mut Dice, acts: usize) -> Plan {
    (0..acts)
        .map(|_| (dice.one_of(&[Family::V4, Family::V6]), act(dice)))
        .collect()
}

fn act(dice: &mut Dice) -> Act {
    match dice.within(0..11) {
        0..5 => Act::Talk {
            request: dice.size(),
            answer: dice.size(),
            close: dice.one_of(&Close::ALL),
        },
        5 => Act::Refused,
        6 => Act::Datagrams {
            count: dice.within(1..20),
            size: dice.size() % 9000,
        },
        7 => Act::Nobody {
            count: dice.within(1..6),
            size: dice.size() % 1200,
        },
        8 => Act::Flood {
            count: dice.within(150..300),
        },
        9 => Act::Query {
            qtype: dice.one_of(&QTYPES).0,
            rcode: dice.one_of(&RCODES).0,
        },
        _ => Act::QueryOverTcp {
            qtype: dice.one_of(&QTYPES).0,
            rcode: dice.one_of(&RCODES).0,
        },
    }
}
