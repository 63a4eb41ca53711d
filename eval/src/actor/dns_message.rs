//! The little of DNS that a lab needs; pure.

use std::net::IpAddr;

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
const HEADER: usize = 12;

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
    fn foreign_bytes_are_no_answer() {
        let query = query(7, "cart.example", TYPE_A);
        assert_eq!(response_code(&query, 7), None);
        assert_eq!(response_code(&answer(&query, 0, ADDRESS).unwrap(), 8), None);
        for length in 0..query.len() {
            assert_eq!(answer(&query[..length], 0, ADDRESS), None);
        }
    }
}
