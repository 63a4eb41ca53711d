//! The kernel's list of interfaces, queueing disciplines and filters, read and changed over rtnetlink.
//! A socket speaks for the namespace that its thread was in when it was opened.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;

/// `struct nlmsghdr`
const HEADER: usize = 16;
/// The kernel makes no larger pieces.
const BUFFER: usize = 1 << 16;
/// It answers at once; this only keeps us from waiting for ever.
const TIMEOUT: TimeVal = TimeVal::new(2, 0);

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;
/// The two low bits of a type are flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

pub(crate) struct Rtnetlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Rtnetlink {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, ReceiveTimeout, &TIMEOUT)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Shows every answer to a question. `Interrupted`: the list changed while it was read.
    pub(crate) fn list(
        &mut self,
        question: u16,
        body: &[u8],
        mut visit: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.send(question, DUMP, body)?;
        self.receive(|body| visit(body))
    }

    /// Has something changed. `flags` beyond those of every request.
    pub(crate) fn change(&mut self, command: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.send(command, ACK | flags, body)?;
        self.receive(|_| {})
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let length = HEADER + body.len();
        let mut message = Vec::with_capacity(length);
        message.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0_u32.to_ne_bytes());
        message.extend_from_slice(body);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }

    /// Until the end of a list, or the acknowledgement.
    fn receive(&mut self, mut visit: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut interrupted = false;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?;
            let mut rest = buffer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
            while let Some((kind, flags, sequence, body)) = next_message(&mut rest) {
                // What is left of a question that was given up.
                if sequence != self.sequence {
                    continue;
                }
                interrupted |= flags & DUMP_INTERRUPTED != 0;
                match kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let error = i32::from_ne_bytes(bytes_at(body, 0).unwrap_or_default());
                        if error != 0 {
                            return Err(io::Error::from_raw_os_error(-error));
                        }
                        return match interrupted {
                            true => Err(io::ErrorKind::Interrupted.into()),
                            false => Ok(()),
                        };
                    }
                    _ => visit(body),
                }
            }
        }
    }
}

fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, u16, u32, &'a [u8])> {
    let length = u32::from_ne_bytes(bytes_at(rest, 0)?) as usize;
    let kind = u16::from_ne_bytes(bytes_at(rest, 4)?);
    let flags = u16::from_ne_bytes(bytes_at(rest, 6)?);
    let sequence = u32::from_ne_bytes(bytes_at(rest, 8)?);
    let body = rest.get(HEADER..length)?;
    *rest = rest.get(align(length)..).unwrap_or_default();
    Some((kind, flags, sequence, body))
}

/// The attributes that follow the fixed part of a message, or lie in another attribute.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes_at(bytes, 0)?));
        let kind = u16::from_ne_bytes(bytes_at(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind & ATTRIBUTE_TYPE, value))
    })
}

pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|&(kind, _)| kind == wanted)
        .map(|(_, value)| value)
}

/// A string as the kernel writes it, with a zero at its end.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

/// Appends an attribute to a message.
pub(crate) fn push_attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("our attributes are small");
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(align(message.len()), 0);
}

pub(crate) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_come_back_as_they_went_in() {
        let mut message = Vec::new();
        push_attribute(&mut message, 3, b"eth0\0");
        push_attribute(&mut message, 0x8002, &[]);
        push_attribute(&mut message, 7, &[1, 2, 3, 4]);
        let found: Vec<_> = attributes(&message).collect();
        let expected: [(u16, &[u8]); 3] = [(3, b"eth0\0"), (2, &[]), (7, &[1, 2, 3, 4])];
        assert_eq!(found, expected);
        assert_eq!(text(attribute(&message, 3).unwrap()), "eth0");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut rest = bytes.as_slice();
            while next_message(&mut rest).is_some() {}
            for (_, value) in attributes(&bytes).take(100) {
                text(value);
            }
        }
    }
}
