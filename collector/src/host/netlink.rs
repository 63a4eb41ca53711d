//! Netlink: requests to the kernel about the calling thread's network namespace.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NlasIterator,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, getsockopt, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::netns::NetnsCookie;
use crate::enrich::NetnsId;

/// As much as the kernel puts into one part of an answer.
const BUFFER: usize = 32 * 1024;
const HEADER: usize = 16;
const ALIGNMENT: usize = 4;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
/// A list that changed while it was being sent is asked for again, so often.
const ATTEMPTS: usize = 3;

/// A socket of one namespace. Not to be kept: it would keep the namespace alive.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    pub(super) fn generic() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkGeneric)
    }

    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Which namespace the socket is in.
    pub(super) fn netns(&self) -> io::Result<NetnsId> {
        Ok(NetnsId::of_cookie(getsockopt(&self.socket, NetnsCookie)?))
    }

    /// Asks for a list, and parses every message of the answer.
    pub(crate) fn list<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut attempt = 1;
        loop {
            let mut list = Vec::new();
            let complete = self.exchange(kind, NLM_F_DUMP, body, |message| {
                list.extend(parse(message));
            })?;
            if complete {
                return Ok(list);
            }
            if attempt == ATTEMPTS {
                return Err(io::Error::other(
                    "the list changes faster than it can be read",
                ));
            }
            attempt += 1;
        }
    }

    /// Asks for one thing.
    pub(super) fn get<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let mut found = None;
        self.exchange(kind, NLM_F_ACK, body, |message| found = parse(message))?;
        Ok(found)
    }

    /// Has something changed. `flags`: NLM_F_CREATE and the like.
    pub(crate) fn change(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.exchange(kind, NLM_F_ACK | flags, body, |_| {})?;
        Ok(())
    }

    /// False if what was listed changed meanwhile.
    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        self.sequence += 1;
        let length = HEADER + body.len();
        let mut request = vec![0; length];
        request[HEADER..].copy_from_slice(body);
        let mut header = NetlinkBuffer::new(&mut request);
        header.set_length(u32::try_from(length).unwrap_or(u32::MAX));
        header.set_message_type(kind);
        header.set_flags(NLM_F_REQUEST | flags);
        header.set_sequence_number(self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;

        let mut complete = true;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(malformed)?;
                let length = message.length() as usize;
                rest = rest
                    .get(length.next_multiple_of(ALIGNMENT)..)
                    .unwrap_or(&[]);
                if message.sequence_number() != self.sequence {
                    continue;
                }
                complete &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    DONE => return Ok(complete),
                    ERROR => return error(message.payload()).map(|()| complete),
                    _ => each(message.payload()),
                }
            }
        }
    }
}

/// The answer to a request that failed, or that asked to hear when it was done.
fn error(payload: &[u8]) -> io::Result<()> {
    match u32_at(payload, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(malformed("an error without a code")),
    }
}

fn malformed(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// Kinds and values of the attributes that follow a message's fixed part. Ends at one that is cut.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), attribute.length());
        Some((kind, attribute.into_inner().get(4..length.into())?))
    })
}

/// A request's attribute.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(ALIGNMENT));
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(ALIGNMENT), 0);
    bytes
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A name, which ends with a zero.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

#[test]
fn attributes_are_read_until_one_is_cut() {
    let mut bytes = [
        attribute(3, b"eth0\0"),
        attribute(0x8000 | 18, &attribute(1, b"veth")),
    ]
    .concat();
    let read = |bytes: &[u8]| -> Vec<(u16, usize)> {
        attributes(bytes)
            .map(|(kind, value)| (kind, value.len()))
            .collect()
    };
    assert_eq!(read(&bytes), [(3, 5), (18, 8)]);
    bytes.truncate(bytes.len() - 1);
    assert_eq!(read(&bytes), [(3, 5)]);
    assert_eq!(read(&[1, 0, 0, 0]), []);
    assert_eq!(text(b"eth0\0\0"), "eth0");
}
