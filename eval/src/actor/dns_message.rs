//! The little of DNS that a lab needs; pure.

use std::net::IpAddr;

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
pub(super) const NXDOMAIN: u8 = 3;
const HEADER: usize = 12;
/// In the third byte of a message: this answer was cut, ask over TCP.
const TRUNCATED: u8 = 0x02;

pub(super) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend(id.to_be_bytes());
    // Recursion desired; one question.
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).expect("labels of the lab are short"));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message
}

/// The answer to `query`, with a record when the code is 0. `None` if it is no query of one question.
pub(super) fn answer(query: &[u8], code: u8, address: IpAddr) -> Option<Vec<u8>> {
    let question = question(query)?;
    let kind = u16::from_be_bytes([
        *question.get(question.len() - 4)?,
        *question.get(question.len() - 3)?,
    ]);
    let mut message = query[..2].to_vec();
    let data: Vec<u8> = match (code, kind, address) {
        (0, TYPE_A, IpAddr::V4(address)) => address.octets().to_vec(),
        (0, TYPE_A, IpAddr::V6(_)) => vec![192, 0, 2, 1],
        (0, TYPE_AAAA, IpAddr::V6(address)) => address.octets().to_vec(),
        (0, TYPE_AAAA, IpAddr::V4(address)) => address.to_ipv6_mapped().octets().to_vec(),
        _ => Vec::new(),
    };
    let answers = u8::from(!data.is_empty());
    // A response, recursion desired and available.
    message.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    message.extend(question);
    if !data.is_empty() {
        // The name of the question, by a pointer.
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message.extend(30_u32.to_be_bytes());
        message.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        message.extend(data);
    }
    Some(message)
}

/// The response code, if this answers the query of that id.
pub(super) fn response_code(message: &[u8], id: u16) -> Option<u8> {
    let header = message.get(..HEADER)?;
    let is_answer = header[2] & 0x80 != 0 && header[..2] == id.to_be_bytes();
    is_answer.then_some(header[3] & 0x0f)
}

/// That answer with the mark that it was cut, and no record.
pub(super) fn truncated(query: &[u8], address: IpAddr) -> Option<Vec<u8>> {
    let mut message = answer(query, 0, address)?;
    message.truncate(HEADER + question(query)?.len());
    message[2] |= TRUNCATED;
    message[6..8].fill(0);
    Some(message)
}

pub(super) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// As it goes over TCP: behind its length.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("messages of the lab are short");
    [&length.to_be_bytes(), message].concat()
}

/// Whether the question is for a name in this zone; the empty one holds every name.
pub(super) fn is_in_zone(query: &[u8], zone: &str) -> bool {
    let mut wire = Vec::new();
    for label in zone.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len()).unwrap_or_default());
        wire.extend(label.to_ascii_lowercase().into_bytes());
    }
    wire.push(0);
    question(query).is_some_and(|question| question[..question.len() - 4].ends_with(&wire))
}

/// Name, type and class of the one question.
fn question(message: &[u8]) -> Option<&[u8]> {
    let header = message.get(..HEADER)?;
    if header[2] & 0x80 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    message.get(HEADER..at + 5)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

    #[test]
    fn an_answer_repeats_id_and_question_and_carries_the_address() {
        let query = query(0x1234, "cart.example", TYPE_A);
        let message = answer(&query, 0, ADDRESS).unwrap();
        assert_eq!(response_code(&message, 0x1234), Some(0));
        assert_eq!(message[12..query.len()], query[12..]);
        assert_eq!(message[message.len() - 4..], [10, 1, 2, 3]);
    }

    #[test]
    fn an_error_has_a_code_and_no_record() {
        let query = query(7, "cart.example", TYPE_A);
        let message = answer(&query, 2, ADDRESS).unwrap();
        assert_eq!(response_code(&message, 7), Some(2));
        assert_eq!(message.len(), query.len());
    }

    #[test]
    fn a_cut_answer_says_so_and_carries_no_record() {
        let query = query(7, "cart.example", TYPE_A);
        let message = truncated(&query, ADDRESS).unwrap();
        assert!(is_truncated(&message));
        assert!(!is_truncated(&answer(&query, 0, ADDRESS).unwrap()));
        assert_eq!(message[6..8], [0, 0]);
        assert_eq!(message.len(), query.len());
        assert_eq!(framed(&[1, 2, 3]), [0, 3, 1, 2, 3]);
    }

    #[test]
    fn a_zone_holds_the_names_that_end_in_it() {
        let inside = query(7, "cart.shop.example", TYPE_A);
        let outside = query(7, "cart.shop.example.svc.local", TYPE_A);
        for (zone, expected) in [("", true), ("shop.example", true), ("op.example", false)] {
            assert_eq!(is_in_zone(&inside, zone), expected, "{zone}");
        }
        assert!(!is_in_zone(&outside, "shop.example"));
    }

    #[test]
    fn foreign_bytes_are_no_answer() {
        let query = query(7, "cart.example", TYPE_A);
        assert_eq!(response_code(&query, 7), None);
        assert_eq!(response_code(&answer(&query, 0, ADDRESS).unwrap(), 8), None);
        for length in 0..query.len() {
            assert_eq!(answer(&query[..length], 0, ADDRESS), None);
        }
    }
}
