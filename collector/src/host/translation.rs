//! Connections whose ends netfilter has changed, read from connection tracking by netlink.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::netlink::{Netlink, attribute, attributes};
use crate::enrich::{FiveTuple, Translation};

// `include/uapi/linux/netfilter/nfnetlink_conntrack.h`
/// IPCTNL_MSG_CT_GET of NFNL_SUBSYS_CTNETLINK
const CONNTRACK_GET: u16 = 1 << 8 | 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_STATUS_MASK: u16 = 26;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// The kernel's flags for nested attributes and byte order.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// NLA_F_NESTED
const NESTED: u16 = 0x8000;
/// IPS_SRC_NAT
const SOURCE_CHANGED: u32 = 1 << 4;
/// IPS_DST_NAT
const DESTINATION_CHANGED: u32 = 1 << 5;
/// `struct nfgenmsg`
const FAMILY_HEADER: usize = 4;

/// The changed connections of the calling thread's namespace, `room` at most. Costs some
/// milliseconds where there are any connections at all, since the kernel walks a table that all
/// namespaces share, and some hundred where they are hundreds of thousands.
pub(super) fn list(room: &AtomicUsize) -> io::Result<Vec<Translation>> {
    if is_empty() {
        return Ok(Vec::new());
    }
    // Those alone whose destination was changed; kernels before 5.18 send all.
    let mut request = vec![0; FAMILY_HEADER];
    request.extend(attribute(CTA_STATUS, &DESTINATION_CHANGED.to_be_bytes()));
    request.extend(attribute(
        CTA_STATUS_MASK,
        &DESTINATION_CHANGED.to_be_bytes(),
    ));
    let less = |room: usize| room.checked_sub(1);
    Netlink::netfilter()?.list(CONNTRACK_GET, &request, |message| {
        let translation = translation(message.get(FAMILY_HEADER..)?, DESTINATION_CHANGED)?;
        room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
            .then_some(translation)
    })
}

/// Those of these connections that the calling thread's namespace has changed. Some microseconds
/// for each, however many there are in all. Only the default zone of connection tracking is asked.
pub(super) fn ask(tuples: &[FiveTuple]) -> io::Result<Vec<Translation>> {
    let requests = (tuples.iter()).filter_map(|sent| request(CTA_TUPLE_ORIG, sent));
    answers(requests, DESTINATION_CHANGED)
}

/// As [`ask`], by what left the namespace, for connections whose source it has changed.
pub(super) fn ask_back(tuples: &[FiveTuple]) -> io::Result<Vec<Translation>> {
    let requests = (tuples.iter()).filter_map(|left| request(CTA_TUPLE_REPLY, &left.reversed()));
    answers(requests, SOURCE_CHANGED)
}

fn answers(requests: impl Iterator<Item = Vec<u8>>, changed: u32) -> io::Result<Vec<Translation>> {
    if is_empty() {
        return Ok(Vec::new());
    }
    let mut netlink = Netlink::netfilter()?;
    let mut found = Vec::new();
    for request in requests {
        let answer = netlink.get(CONNTRACK_GET, &request, |message| {
            translation(message.get(FAMILY_HEADER..)?, changed)
        });
        match answer {
            Ok(translation) => found.extend(translation),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_empty() -> bool {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    count.map_or(true, |count| count.trim() == "0")
}

fn request(direction: u16, tuple: &FiveTuple) -> Option<Vec<u8>> {
    let (client, server) = (tuple.client, tuple.server);
    let (family, ip) = match (client.ip().to_canonical(), server.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => (
            libc::AF_INET,
            [
                attribute(CTA_IP_V4_SRC, &client.octets()),
                attribute(CTA_IP_V4_DST, &server.octets()),
            ],
        ),
        (IpAddr::V6(client), IpAddr::V6(server)) => (
            libc::AF_INET6,
            [
                attribute(CTA_IP_V6_SRC, &client.octets()),
                attribute(CTA_IP_V6_DST, &server.octets()),
            ],
        ),
        _ => return None,
    };
    let ports = [
        attribute(CTA_PROTO_NUM, &[tuple.protocol]),
        attribute(CTA_PROTO_SRC_PORT, &client.port().to_be_bytes()),
        attribute(CTA_PROTO_DST_PORT, &server.port().to_be_bytes()),
    ];
    let sent = [
        attribute(NESTED | CTA_TUPLE_IP, &ip.concat()),
        attribute(NESTED | CTA_TUPLE_PROTO, &ports.concat()),
    ];
    let mut request = vec![u8::try_from(family).ok()?, 0, 0, 0];
    request.extend(attribute(NESTED | direction, &sent.concat()));
    Some(request)
}

/// Of an entry of which so much was changed.
fn translation(entry: &[u8], changed: u32) -> Option<Translation> {
    let status = u32::from_be_bytes(*find(entry, CTA_STATUS)?.first_chunk()?);
    if status & changed == 0 {
        return None;
    }
    let from = tuple(find(entry, CTA_TUPLE_ORIG)?)?;
    let reply = tuple(find(entry, CTA_TUPLE_REPLY)?)?;
    let to = reply.reversed();
    Some(Translation { from, to })
}

fn tuple(attributes: &[u8]) -> Option<FiveTuple> {
    let (ip, ports) = (
        find(attributes, CTA_TUPLE_IP)?,
        find(attributes, CTA_TUPLE_PROTO)?,
    );
    let port = |which| {
        let bytes = find(ports, which)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    };
    let address = |four, six| {
        let four = find(ip, four).and_then(|bytes| bytes.first_chunk::<4>());
        let six = find(ip, six).and_then(|bytes| bytes.first_chunk::<16>());
        (four.map(|&bytes| IpAddr::V4(Ipv4Addr::from(bytes))))
            .or_else(|| six.map(|&bytes| IpAddr::V6(Ipv6Addr::from(bytes))))
    };
    Some(FiveTuple {
        protocol: *find(ports, CTA_PROTO_NUM)?.first()?,
        client: SocketAddr::new(
            address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
            port(CTA_PROTO_SRC_PORT)?,
        ),
        server: SocketAddr::new(
            address(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
            port(CTA_PROTO_DST_PORT)?,
        ),
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut all = attributes(bytes);
    all.find_map(|(kind, value)| (kind & ATTRIBUTE_TYPE == wanted).then_some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
        attribute(NESTED | kind, value)
    }

    fn tuple_of(client: [u8; 4], client_port: u16, server: [u8; 4], server_port: u16) -> Vec<u8> {
        let ip = [
            nested(CTA_IP_V4_SRC, &client),
            nested(CTA_IP_V4_DST, &server),
        ]
        .concat();
        let ports = [
            nested(CTA_PROTO_NUM, &[6]),
            nested(CTA_PROTO_SRC_PORT, &client_port.to_be_bytes()),
            nested(CTA_PROTO_DST_PORT, &server_port.to_be_bytes()),
        ];
        [
            nested(CTA_TUPLE_IP, &ip),
            nested(CTA_TUPLE_PROTO, &ports.concat()),
        ]
        .concat()
    }

    #[test]
    fn an_entry_says_what_was_sent_and_what_arrived() {
        let translation = |status: u32| {
            let to_service = tuple_of([10, 0, 0, 1], 4000, [10, 96, 0, 1], 80);
            let from_backend = tuple_of([10, 0, 0, 2], 8080, [10, 0, 0, 254], 61000);
            let entry = [
                nested(CTA_TUPLE_ORIG, &to_service),
                nested(CTA_TUPLE_REPLY, &from_backend),
                attribute(CTA_STATUS, &status.to_be_bytes()),
            ];
            translation(&entry.concat(), DESTINATION_CHANGED)
        };
        assert_eq!(translation(0xe), None);
        assert_eq!(translation(0x19e), None, "its source alone");
        let Translation { from, to } = translation(0x1ae).unwrap();
        let shown = [from.client, from.server, to.client, to.server].map(|end| end.to_string());
        assert_eq!(
            shown,
            [
                "10.0.0.1:4000",
                "10.96.0.1:80",
                "10.0.0.254:61000",
                "10.0.0.2:8080"
            ]
        );
    }

    #[test]
    fn a_connection_is_asked_for_as_its_client_sent_it() {
        let tuple = FiveTuple {
            protocol: 6,
            client: "10.0.0.1:4000".parse().unwrap(),
            server: "10.96.0.1:80".parse().unwrap(),
        };
        let request = request(CTA_TUPLE_ORIG, &tuple).unwrap();
        assert_eq!(request[..FAMILY_HEADER], [2, 0, 0, 0]);
        let sent = find(&request[FAMILY_HEADER..], CTA_TUPLE_ORIG).unwrap();
        assert_eq!(super::tuple(sent), Some(tuple));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(data in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = translation(&data, DESTINATION_CHANGED);
        }
    }
}
