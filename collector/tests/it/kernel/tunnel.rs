//! Drops of what tunnels carry.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

use super::lab::{Lab, nft};
use super::measure::Measurement;

/// A firewall that drops a tunnel's packets drops those of the pods whom the tunnel joins.
#[test]
#[ignore = "needs root"]
fn what_a_tunnel_carries_is_between_the_ends_inside() {
    let (lab, pods) = (Lab::new(), Lab::new());
    let Some(mut measurement) = Measurement::start("packet_drop") else {
        return;
    };
    let drop_all =
        "table inet t {\n chain c {\n type filter hook input priority 0 ; policy drop ;\n }\n}\n";
    if !nft(&lab.server, drop_all) {
        return;
    }
    let IpAddr::V6(client6) = of_client(lab.server6) else {
        unreachable!()
    };
    let (question4, question6) = (
        inside(pods.client4, pods.server4),
        inside(of_client(pods.server6), pods.server6),
    );
    // RFC 7348, RFC 8926 (with four bytes of options), RFC 2784 and RFC 2890 (with a key).
    let vxlan = [[0x08, 0, 0, 0, 0, 0, 7, 0].as_slice(), &[0; 12]].concat();
    let geneve = [[0x01, 0, 0x65, 0x58, 0, 0, 7, 0].as_slice(), &[0; 16]].concat();
    let (ip4, ip6) = ([0x08, 0x00], [0x86, 0xdd]);
    for (port, header) in [(4789, &vxlan), (8472, &vxlan), (6081, &geneve)] {
        for address in [lab.server4, lab.server6] {
            for (question, protocol) in [(&question4, ip4), (&question6, ip6)] {
                lab.in_client(|| {
                    let any: IpAddr = match address {
                        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                        IpAddr::V6(_) => client6.into(),
                    };
                    let socket = UdpSocket::bind((any, 0)).unwrap();
                    let packet = [header.as_slice(), &protocol, question].concat();
                    socket.send_to(&packet, (address, port)).unwrap();
                });
            }
        }
    }
    let gre = |protocol: [u8; 2]| [[0x20, 0].as_slice(), &protocol, &[0, 0, 0, 7]].concat();
    let frame = [[0; 12].as_slice(), &ip4].concat();
    for (protocol, packet) in [
        (4, question4.clone()),
        (41, question6.clone()),
        (47, [gre(ip4), question4.clone()].concat()),
        (47, [gre(ip6), question6.clone()].concat()),
        (47, [gre([0x65, 0x58]), frame, question4.clone()].concat()),
    ] {
        for address in [lab.server4, lab.server6] {
            let packet = ip_packet(protocol, of_client(address), address, &packet);
            lab.in_client(|| send_raw(&packet, address));
        }
    }
    // To these ports, but of no tunnel: flags that VXLAN has not, a version of Geneve to come, and nothing inside.
    lab.in_client(|| {
        let socket = UdpSocket::bind((lab.client4, 0)).unwrap();
        for (port, packet) in [
            (
                4789,
                b"\0plain words that are no header of VXLAN at all".as_slice(),
            ),
            (4789, &vxlan[..8]),
            (6081, b"\xc0plain words that are no header of Geneve at all"),
        ] {
            socket.send_to(packet, (lab.server4, port)).unwrap();
        }
    });
    thread::sleep(Duration::from_millis(100));
    measurement.collect();
    let show = measurement.show("dropped_packets");
    let count = |ends: [&str; 2], more: &[(&str, &str)]| {
        let edge = [
            ("src_workload", ends[0]),
            ("dst_workload", ends[1]),
            ("workload", &lab.server),
        ];
        measurement.count("dropped_packets_total", &[edge.as_slice(), more].concat())
    };
    let inner = [pods.client.as_str(), &pods.server];
    let syn = [
        ("protocol", "tcp"),
        ("syn", "true"),
        ("reason", "netfilter_drop"),
    ];
    for (tunnel, expected) in [("vxlan", 8), ("geneve", 4), ("ip", 4), ("gre", 6)] {
        let labels = [syn.as_slice(), &[("tunnel", tunnel)]].concat();
        assert_eq!(count(inner, &labels), expected, "{tunnel}: {show}");
    }
    assert_eq!(count(inner, &[]), 22, "{show}");
    let outer = [lab.client.as_str(), &lab.server];
    assert_eq!(count(outer, &[("protocol", "udp")]), 3, "{show}");
}

/// The client's address in the network of a server's, see [`Lab`].
fn of_client(server: IpAddr) -> IpAddr {
    match server {
        IpAddr::V4(server) => {
            let [a, b, c, _] = server.octets();
            Ipv4Addr::new(a, b, c, 1).into()
        }
        IpAddr::V6(server) => {
            let mut groups = server.segments();
            groups[7] = 1;
            IpAddr::V6(groups.into())
        }
    }
}

/// An IP packet with a SYN.
fn inside(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut tcp = [0; 20];
    (tcp[1], tcp[3], tcp[12], tcp[13]) = (9, 80, 5 << 4, 0x02);
    ip_packet(6, source, destination, &tcp)
}

fn ip_packet(protocol: u8, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = (length + 20).to_be_bytes();
            let start = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
            let (source, destination) = (source.octets(), destination.octets());
            [start.as_slice(), &source, &destination, payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = length.to_be_bytes();
            let start = [0x60, 0, 0, 0, high, low, protocol, 64];
            let (source, destination) = (source.octets(), destination.octets());
            [start.as_slice(), &source, &destination, payload].concat()
        }
        _ => panic!("one family"),
    }
}

/// With its own IP header.
fn send_raw(packet: &[u8], to: IpAddr) {
    let family = match to {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let raw = socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
    let to = SockaddrStorage::from(SocketAddr::new(to, 0));
    let sent = sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
    assert_eq!(sent, packet.len());
}
