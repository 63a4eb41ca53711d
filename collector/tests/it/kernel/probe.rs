//! Scans, floods and odd packets from a raw socket, and clients that only look busy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};

use super::lab::{Lab, run};
use super::measure::Measurement;

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const URG: u8 = 32;

#[test]
#[ignore = "needs root"]
fn a_scan_is_told_from_a_busy_client() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("probe") else {
        return;
    };
    for server in [lab.server4, lab.server6] {
        let listener = lab.in_server(|| TcpListener::bind((server, 0)).unwrap());
        let open = listener.local_addr().unwrap();
        lab.in_client(|| {
            // As many as the accept queue takes.
            for _ in 0..100 {
                drop(TcpStream::connect(open).unwrap());
            }
            for _ in 0..200 {
                assert!(TcpStream::connect(SocketAddr::new(server, 1)).is_err());
            }
        });
        drop(listener);
    }
    measurement.collect();
    let from_client = [("src_workload", lab.client.as_str())];
    let before = measurement.show("security_events_total");
    assert_eq!(
        measurement.count("security_events_total", &from_client),
        0,
        "{before}"
    );

    for (server, scans) in [(lab.server4, 1), (lab.server6, 2)] {
        lab.in_client(|| {
            for port in 2000..2100 {
                assert!(TcpStream::connect(SocketAddr::new(server, port)).is_err());
            }
        });
        measurement.collect();
        let scan = [
            ("kind", "port_scan"),
            ("src_workload", lab.client.as_str()),
            ("dst_workload", lab.server.as_str()),
        ];
        // A client that goes on with another address of the same host is another scan.
        assert_eq!(measurement.count("security_events_total", &scan), scans);
    }
    let report = measurement.report("probe").to_string();
    assert!(report.contains(&lab.client4.to_string()), "{report}");
}

#[test]
#[ignore = "needs root"]
fn packets_that_no_connection_sends_are_named() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("probe") else {
        return;
    };
    let kinds = [
        ("null", 0),
        ("fin", FIN),
        ("xmas", FIN | PSH | URG),
        ("syn_fin", SYN | FIN),
    ];
    for (server, expected) in [(lab.server4, 20), (lab.server6, 40)] {
        let listener = lab.in_server(|| TcpListener::bind((server, 0)).unwrap());
        let open = listener.local_addr().unwrap().port();
        lab.in_client(|| {
            for (_, flags) in kinds {
                for n in 0..10 {
                    send(&lab, server, 30_000 + n, open, flags);
                    send(&lab, server, 30_000 + n, 9, flags);
                }
            }
        });
        std::thread::sleep(Duration::from_millis(100));
        measurement.collect();
        for (name, _) in kinds {
            let labels = [("flags", name), ("src_workload", lab.client.as_str())];
            let count = measurement.count("tcp_odd_packets_total", &labels);
            assert_eq!(
                count,
                expected,
                "{name}: {}",
                measurement.show("tcp_odd_packets_total")
            );
            let labels = [("kind", name), ("src_workload", lab.client.as_str())];
            assert!(
                measurement.count("security_events_total", &labels) > 0,
                "{name}"
            );
        }
    }
}

#[test]
#[ignore = "needs root"]
fn handshakes_that_nobody_completes_are_a_flood() {
    let lab = Lab::new();
    // The client must not answer the SYN-ACKs with resets.
    run(&format!(
        "ip netns exec {} nft add table inet t",
        lab.client
    ));
    run(&format!(
        "ip netns exec {} nft add chain inet t in {{ type filter hook input priority 0 ; }}",
        lab.client
    ));
    run(&format!(
        "ip netns exec {} nft add rule inet t in tcp sport 7777 drop",
        lab.client
    ));
    let Some(mut measurement) = Measurement::start("probe") else {
        return;
    };
    let _listener = lab.in_server(|| TcpListener::bind((lab.server4, 7777)).unwrap());
    lab.in_client(|| {
        for port in 0..120 {
            send(&lab, lab.server4, 40_000 + port, 7777, SYN);
        }
    });
    let flood = [("kind", "syn_flood"), ("dst_workload", lab.server.as_str())];
    // SYN-ACKs are sent again after one and after three seconds.
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(200));
        measurement.collect();
        if measurement.count("security_events_total", &flood) > 0 {
            return;
        }
    }
    panic!("{}", measurement.report("probe"));
}

/// One TCP packet without a connection. To be called in the client's namespace.
fn send(lab: &Lab, to: IpAddr, from_port: u16, port: u16, flags: u8) {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&from_port.to_be_bytes());
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[4..8].copy_from_slice(&[1, 2, 3, 4]);
    header[12] = 5 << 4;
    header[13] = flags;
    header[14] = 0x20;
    let (family, from): (_, IpAddr) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, lab.client4),
        IpAddr::V6(to) => {
            let mut segments = to.segments();
            segments[7] = 1;
            (AddressFamily::Inet6, Ipv6Addr::from(segments).into())
        }
    };
    let sum = checksum(from, to, &header);
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    let raw = socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Tcp).unwrap();
    let sent = match to {
        IpAddr::V4(to) => {
            let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
            sendto(raw.as_raw_fd(), &header, &to, MsgFlags::empty())
        }
        IpAddr::V6(to) => {
            let to = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, 0));
            sendto(raw.as_raw_fd(), &header, &to, MsgFlags::empty())
        }
    };
    assert_eq!(sent, Ok(header.len()));
}

/// RFC 9293, section 3.1.
fn checksum(from: IpAddr, to: IpAddr, header: &[u8; 20]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    };
    let bytes = [octets(from), octets(to), vec![0, 6, 0, 20], header.to_vec()].concat();
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    !u16::try_from(((folded >> 16) + folded) & 0xffff).unwrap()
}
