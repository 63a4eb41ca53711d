//! One direction of a TLS connection: bytes as they come → records → what is plain in them.

use crate::protocol::PassingBytes;

/// What a record, or a message that takes several, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole handshake message: its type, and its body.
    Message(u8, Vec<u8>),
    /// Level and description.
    Alert(u8, u8),
    /// An alert that only the two ends can read.
    HiddenAlert,
    ChangeCipherSpec,
    /// A handshake message that only the two ends can read.
    HiddenMessage,
    /// An encrypted record of this length. Nothing follows in this direction.
    Protected(usize),
    /// The bytes are no TLS. Nothing follows.
    NotTls,
}

const HEADER: usize = 5;
/// Plain text of 2¹⁴ bytes, and what encryption may add.
const MAX_RECORD: usize = (1 << 14) + 2048;
/// A chain of certificates may be long; what is longer is not kept.
const MAX_MESSAGE: usize = 48 * 1024;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Puts records together, however they were cut.
#[derive(Default)]
pub struct Reader {
    /// Not yet a whole record.
    bytes: PassingBytes,
    /// Not yet a whole message.
    message: PassingBytes,
    is_hidden: bool,
    is_done: bool,
}

impl Reader {
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        if self.is_done {
            return events;
        }
        self.bytes.extend(bytes);
        let mut at = 0;
        while !self.is_done {
            let rest = &self.bytes[at..];
            if !may_be_record(rest) {
                self.is_done = true;
                events.push(Event::NotTls);
                break;
            }
            let Some(header) = rest.get(..HEADER) else {
                break;
            };
            let length = usize::from(header[3]) << 8 | usize::from(header[4]);
            if header[0] == APPLICATION_DATA {
                self.is_done = true;
                events.push(Event::Protected(length));
                break;
            }
            let Some(fragment) = rest.get(HEADER..HEADER + length) else {
                break;
            };
            let (kind, fragment) = (header[0], PassingBytes::from(fragment));
            at += HEADER + length;
            self.record(kind, &fragment, &mut events);
        }
        self.bytes.forget_first(at);
        if self.is_done {
            self.bytes.clear();
            self.message.clear();
        }
        events
    }

    fn record(&mut self, kind: u8, fragment: &[u8], events: &mut Vec<Event>) {
        match (kind, fragment) {
            (CHANGE_CIPHER_SPEC, _) => {
                self.is_hidden = true;
                events.push(Event::ChangeCipherSpec);
            }
            (ALERT, &[level, description]) => events.push(Event::Alert(level, description)),
            (ALERT, _) => events.push(Event::HiddenAlert),
            (HANDSHAKE, _) if self.is_hidden && !looks_plain(fragment) => {
                events.push(Event::HiddenMessage);
            }
            (HANDSHAKE, _) => {
                self.message.extend(fragment);
                self.messages(events);
            }
            _ => {}
        }
    }

    fn messages(&mut self, events: &mut Vec<Event>) {
        while let &[kind, high, middle, low, ..] = &self.message[..] {
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if length > MAX_MESSAGE {
                self.is_done = true;
                events.push(Event::NotTls);
                return;
            }
            if self.message.len() < 4 + length {
                return;
            }
            let body = self.message[4..4 + length].to_vec();
            self.message.forget_first(4 + length);
            events.push(Event::Message(kind, body));
        }
    }
}

/// TLS 1.3 sends a change of ciphers that means nothing: after a retry, hellos follow it.
fn looks_plain(fragment: &[u8]) -> bool {
    let &[kind @ (1 | 2), high, middle, low, major, ..] = fragment else {
        return false;
    };
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    kind != 0 && length + 4 == fragment.len() && major == 3
}

/// As far as the bytes go.
fn may_be_record(bytes: &[u8]) -> bool {
    let fits = |at: usize, test: fn(u8) -> bool| bytes.get(at).is_none_or(|&byte| test(byte));
    let length = (bytes.get(3).zip(bytes.get(4)))
        .map(|(&high, &low)| usize::from(high) << 8 | usize::from(low));
    fits(0, |kind| {
        (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind)
    }) && fits(1, |major| major == 3)
        && fits(2, |minor| minor <= 4)
        && length.is_none_or(|length| length <= MAX_RECORD)
}
