//! What rtnetlink says about a link, and ethtool about its speed.

use std::collections::HashMap;
use std::io;

use super::super::netlink::{Netlink, attribute, attributes, text, u16_at, u32_at, u64_at};

/// The attributes come after `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// A veth is made without a carrier and gets it when both of its ends are up. For the kernel these
/// are two changes; where pods come and go, they would look like a link that flaps.
const CHANGES_AT_BIRTH: u64 = 2;

#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::host) struct Link {
    pub(in crate::host) index: u32,
    pub(in crate::host) name: String,
    /// `veth`, `bridge` …; nothing of a physical one.
    kind: String,
    flags: u32,
    pub(super) mtu: u32,
    pub(super) counters: Counters,
}

/// Everything that only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) receive: Direction,
    pub(super) transmit: Direction,
    /// Those of a veth at its birth left out.
    pub(super) carrier_changes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) dropped: u64,
    /// In the order of [`RECEIVE_ERRORS`] or [`TRANSMIT_ERRORS`].
    pub(super) errors: [u64; RECEIVE_ERRORS.len()],
    /// As the driver counts them.
    all_errors: u64,
}

pub(super) const RECEIVE_ERRORS: [&str; 7] =
    ["length", "crc", "frame", "other", "over", "fifo", "missed"];
pub(super) const TRANSMIT_ERRORS: [&str; 6] =
    ["aborted", "carrier", "fifo", "heartbeat", "window", "other"];

impl Link {
    /// Those of the calling thread's namespace.
    pub(in crate::host) fn list(route: &mut Netlink) -> io::Result<Vec<Self>> {
        route.list(libc::RTM_GETLINK, &[0; LINK_HEADER], Self::parse)
    }

    fn parse(message: &[u8]) -> Option<Self> {
        let mut link = Self {
            index: u32_at(message, 4)?,
            flags: u32_at(message, 8)?,
            ..Self::default()
        };
        for (kind, value) in attributes(message.get(LINK_HEADER..)?) {
            match kind {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
                libc::IFLA_STATS64 => link.counters.set(value),
                libc::IFLA_CARRIER_CHANGES => {
                    link.counters.carrier_changes = u32_at(value, 0)?.into();
                }
                libc::IFLA_LINKINFO => {
                    let name = attributes(value).find(|&(kind, _)| kind == libc::IFLA_INFO_KIND);
                    link.kind = name.map(|(_, name)| text(name)).unwrap_or_default();
                }
                _ => {}
            }
        }
        if link.is_veth() {
            let changes = &mut link.counters.carrier_changes;
            *changes = changes.saturating_sub(CHANGES_AT_BIRTH);
        }
        Some(link)
    }

    /// A loopback that nobody uses and tunnels that a module makes in every namespace say nothing.
    pub(super) fn is_used(&self) -> bool {
        let is_counting = self.counters.receive.packets > 0 || self.counters.transmit.packets > 0;
        let is_on = self.has(libc::IFF_UP) && !self.has(libc::IFF_LOOPBACK);
        is_counting || is_on || self.counters.carrier_changes > 1
    }

    /// One end of a cable between namespaces.
    pub(super) fn is_veth(&self) -> bool {
        ["veth", "netkit"].contains(&self.kind.as_str())
    }

    /// Of a driver, and not made by somebody.
    pub(super) fn is_physical(&self) -> bool {
        self.kind.is_empty() && !self.has(libc::IFF_LOOPBACK)
    }

    pub(super) fn is_up(&self) -> bool {
        self.has(libc::IFF_UP) && self.has(libc::IFF_LOWER_UP)
    }

    #[cfg(test)]
    pub(super) fn with_bytes(kind: &str, bytes: u64) -> Self {
        let mut link = Self {
            kind: kind.to_owned(),
            ..Self::default()
        };
        link.counters.receive.bytes = bytes;
        link
    }

    fn has(&self, flag: libc::c_int) -> bool {
        self.flags & flag.cast_unsigned() != 0
    }
}

impl Counters {
    /// What is left when errors with a name are taken away is less than before where one packet has
    /// two kinds of them, or the driver counts a kind apart. That undoes no error.
    pub(super) fn follow(&mut self, before: &Self) {
        let other = |names: &[&str]| names.iter().position(|name| *name == "other");
        for (now, before, other) in [
            (&mut self.receive, &before.receive, other(&RECEIVE_ERRORS)),
            (
                &mut self.transmit,
                &before.transmit,
                other(&TRANSMIT_ERRORS),
            ),
        ] {
            if let Some(at) = other
                && now.all_errors >= before.all_errors
            {
                now.errors[at] = now.errors[at].max(before.errors[at]);
            }
        }
    }

    /// `struct rtnl_link_stats64`.
    fn set(&mut self, statistics: &[u8]) {
        let at = |index: usize| u64_at(statistics, index * 8).unwrap_or(0);
        let [length, over, crc, frame, fifo, missed] = [10, 11, 12, 13, 14, 15].map(at);
        let other = at(4).saturating_sub(length + crc + frame);
        self.receive = Direction {
            packets: at(0),
            bytes: at(2),
            dropped: at(6),
            errors: [length, crc, frame, other, over, fifo, missed],
            all_errors: at(4),
        };
        let [aborted, carrier, fifo, heartbeat, window] = [16, 17, 18, 19, 20].map(at);
        let other = at(5).saturating_sub(aborted + carrier + fifo + heartbeat + window);
        self.transmit = Direction {
            packets: at(1),
            bytes: at(3),
            dropped: at(7),
            errors: [aborted, carrier, fifo, heartbeat, window, other, 0],
            all_errors: at(5),
        };
    }
}

/// linux/genetlink.h and linux/ethtool_netlink.h.
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const GET_LINK_MODES: u8 = 4;
const LINK_MODES_HEADER: u16 = 1;
const LINK_MODES_SPEED: u16 = 5;
const HEADER_INDEX: u16 = 1;
const HEADER_FLAGS: u16 = 3;
const COMPACT_BITSETS: u32 = 1;
const GENERIC_HEADER: usize = 4;
const NESTED: u16 = 0x8000;

/// Bytes a second by interface number, of those that say.
pub(super) fn speeds() -> io::Result<HashMap<u32, f64>> {
    let mut generic = Netlink::generic()?;
    let family = generic.get(
        0x10,
        &[
            &[GET_FAMILY, 1, 0, 0][..],
            &attribute(FAMILY_NAME, b"ethtool\0"),
        ]
        .concat(),
        |message| {
            let mut all = attributes(message.get(GENERIC_HEADER..)?);
            let (_, id) = all.find(|&(kind, _)| kind == FAMILY_ID)?;
            u16_at(id, 0)
        },
    )?;
    let family = family.ok_or(io::ErrorKind::NotFound)?;
    let flags = attribute(HEADER_FLAGS, &COMPACT_BITSETS.to_ne_bytes());
    let header = attribute(NESTED | LINK_MODES_HEADER, &flags);
    let request = [&[GET_LINK_MODES, 1, 0, 0][..], &header].concat();
    let speeds = generic.list(family, &request, parse_speed)?;
    Ok(speeds.into_iter().collect())
}

fn parse_speed(message: &[u8]) -> Option<(u32, f64)> {
    let (mut index, mut megabits) = (None, None);
    for (kind, value) in attributes(message.get(GENERIC_HEADER..)?) {
        match kind {
            LINK_MODES_HEADER => {
                let number = attributes(value).find(|&(kind, _)| kind == HEADER_INDEX);
                index = number.and_then(|(_, number)| u32_at(number, 0));
            }
            LINK_MODES_SPEED => megabits = u32_at(value, 0),
            _ => {}
        }
    }
    // SPEED_UNKNOWN is -1, and a link that is down says 0 or that.
    let megabits = megabits.filter(|&megabits| megabits != 0 && megabits != u32::MAX)?;
    Some((index?, f64::from(megabits) * 125_000.0))
}

#[test]
fn a_link_is_read_from_its_message() {
    let mut message = [
        [0; 4],
        7_u32.to_ne_bytes(),
        0x1_1043_u32.to_ne_bytes(),
        [0; 4],
    ]
    .concat();
    let statistics: Vec<u8> = (100_u64..125).flat_map(u64::to_ne_bytes).collect();
    message.extend(attribute(libc::IFLA_IFNAME, b"eth0\0"));
    message.extend(attribute(libc::IFLA_MTU, &1450_u32.to_ne_bytes()));
    message.extend(attribute(libc::IFLA_STATS64, &statistics));
    message.extend(attribute(libc::IFLA_CARRIER_CHANGES, &3_u32.to_ne_bytes()));
    let kind = attribute(libc::IFLA_INFO_KIND, b"veth\0");
    message.extend(attribute(NESTED | libc::IFLA_LINKINFO, &kind));
    let link = Link::parse(&message).unwrap();
    assert_eq!(
        (link.index, link.name.as_str(), link.mtu),
        (7, "eth0", 1450)
    );
    assert!(link.is_veth() && link.is_up());
    let Counters {
        receive,
        transmit,
        carrier_changes,
    } = link.counters;
    assert_eq!(
        (receive.packets, receive.bytes, receive.dropped),
        (100, 102, 106)
    );
    assert_eq!(
        (transmit.packets, transmit.bytes, transmit.dropped),
        (101, 103, 107)
    );
    assert_eq!(receive.errors, [110, 112, 113, 0, 111, 114, 115]);
    assert_eq!(carrier_changes, 1, "two are its birth");
    assert_eq!(Link::parse(&message[..10]), None);
}

#[test]
fn a_packet_with_two_kinds_of_errors_makes_no_others() {
    // Errors, and of these: length, CRC.
    let read = |[all, length, crc]: [u64; 3]| {
        let mut statistics = [0; 24];
        (statistics[4], statistics[10], statistics[12]) = (all, length, crc);
        let bytes: Vec<u8> = statistics.into_iter().flat_map(u64::to_ne_bytes).collect();
        let mut counters = Counters::default();
        counters.set(&bytes);
        counters
    };
    let mut before = read([10, 0, 5]);
    let mut others = vec![before.receive.errors[3]];
    // One that is too long and has a bad CRC; one of neither; and the driver begins anew.
    for next in [[11, 1, 6], [12, 1, 6], [1, 0, 0]] {
        let mut now = read(next);
        now.follow(&before);
        others.push(now.receive.errors[3]);
        before = now;
    }
    assert_eq!(others, [5, 5, 5, 1]);
}
