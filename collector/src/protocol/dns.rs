//! DNS by the header and the first question of a message.

use super::{Match, Protocol};

const HEADER: usize = 12;
const MAX_NAME: usize = 255;

/// A query behind its two bytes of length.
pub(super) fn over_tcp(client: &[u8], _server: &[u8]) -> Match {
    let Some((prefix, message)) = client.split_at_checked(2) else {
        return Match::Perhaps;
    };
    let length = usize::from(prefix[0]) << 8 | usize::from(prefix[1]);
    if !(17..=4096).contains(&length) {
        return Match::No;
    }
    match query(&message[..message.len().min(length)]) {
        // Longer than what we have of it: the name was read as far as it goes.
        Match::Perhaps if message.len() >= 40 && message.len() < length => {
            Match::Yes(Protocol::Dns)
        }
        found => found,
    }
}

/// One question, no answer.
pub(super) fn query(message: &[u8]) -> Match {
    let fits = |at: usize, test: fn(u8) -> bool| message.get(at).is_none_or(|&byte| test(byte));
    // Query, an operation that exists; counts of questions, answers, authorities, additionals.
    let is_query = fits(2, |flags| flags & 0x80 == 0 && flags >> 3 & 15 <= 5)
        && fits(3, |flags| flags & 0x4f == 0)
        && fits(4, |count| count == 0)
        && fits(5, |count| count == 1)
        && (6..11).all(|at| fits(at, |count| count == 0))
        && fits(11, |count| count <= 2);
    if !is_query {
        return Match::No;
    }
    if message.len() <= HEADER {
        return Match::Perhaps;
    }
    question(&message[HEADER..])
}

fn question(mut bytes: &[u8]) -> Match {
    let mut name = 0;
    loop {
        let Some((&length, rest)) = bytes.split_first() else {
            return Match::Perhaps;
        };
        let length = usize::from(length);
        if length == 0 {
            bytes = rest;
            break;
        }
        name += length + 1;
        if length > 63 || name > MAX_NAME {
            return Match::No;
        }
        let label = &rest[..rest.len().min(length)];
        if !label.iter().all(u8::is_ascii_graphic) {
            return Match::No;
        }
        let Some(next) = rest.get(length..) else {
            return Match::Perhaps;
        };
        bytes = next;
    }
    let (Some(qtype), Some(class)) = (bytes.get(..2), bytes.get(2..4)) else {
        return Match::Perhaps;
    };
    let class = u16::from_be_bytes([class[0], class[1]]) & 0x7fff;
    let is_known = qtype != [0, 0] && matches!(class, 1 | 3 | 4 | 254 | 255);
    if is_known {
        Match::Yes(Protocol::Dns)
    } else {
        Match::No
    }
}
