//! Scans, floods and odd packets from a raw socket, and clients that only look busy.

use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream,
    UdpSocket,
};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};
use runwire_collector::scan::Detector;
use runwire_collector::signals::SignalSettings;

use super::lab::{Lab, run};
use super::measure::{Measurement, is_older_than, say};

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
fn a_scan_over_udp_is_told_from_answers_that_come_too_late() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("probe") else {
        return;
    };
    let event = |kind, from, to| [("kind", kind), ("src_workload", from), ("dst_workload", to)];
    let (client, server) = (lab.client.as_str(), lab.server.as_str());
    for (server_address, client_address) in [
        (lab.server4, lab.client4),
        (lab.server6, neighbour6(lab.server6, 1)),
    ] {
        lab.in_server(|| {
            let resolver = UdpSocket::bind((server_address, 53)).unwrap();
            for port in 40_000..40_100 {
                resolver.send_to(b"late", (client_address, port)).unwrap();
            }
        });
        lab.in_client(|| {
            let socket = UdpSocket::bind((client_address, 0)).unwrap();
            for _ in 0..100 {
                // Refused by then, which this socket is told at its next call.
                let _ = socket.send_to(b"metric", (server_address, 8125));
            }
        });
    }
    measurement.collect();
    let none = [("kind", "udp_port_scan"), ("dst_workload", client)];
    assert_eq!(measurement.count("security_events_total", &none), 0);
    let none = event("udp_port_scan", client, server);
    assert_eq!(measurement.count("security_events_total", &none), 0);

    for (address, scans) in [(lab.server4, 1), (lab.server6, 2)] {
        lab.in_client(|| {
            let any = if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any).unwrap();
            for port in 2000..2060 {
                let _ = socket.send_to(b"?", (address, port));
            }
        });
        measurement.collect();
        let scan = event("udp_port_scan", client, server);
        let show = measurement.show("security_events_total");
        let count = measurement.count("security_events_total", &scan);
        assert_eq!(count, scans, "{show}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_sweep_of_pings_is_told_from_a_monitor_of_hosts_that_answer() {
    let lab = Lab::new();
    let detector = Detector::default();
    let settings = SignalSettings {
        detector: detector.clone(),
        ..SignalSettings::default()
    };
    let Some(mut measurement) = Measurement::start_with("icmp_sent", settings) else {
        return;
    };
    let client6 = neighbour6(lab.server6, 1);
    for (server, prefix) in [(lab.server4, 24), (lab.server6, 64)] {
        let alive: Vec<IpAddr> = (150..190).map(|host| neighbour(server, host)).collect();
        for address in &alive {
            let namespace = &lab.server;
            let nodad = if prefix == 64 { "nodad" } else { "" };
            run(&format!(
                "ip -n {namespace} address add {address}/{prefix} dev eth0 {nodad}"
            ));
        }
        // Kept open: what no socket takes is no answer.
        let socket = lab.in_client(|| ping_all(&alive));
        std::thread::sleep(Duration::from_millis(200));
        measurement.collect();
        drop(socket);
    }
    let sweeps = |measurement: &mut Measurement, from: IpAddr| {
        measurement.collect();
        (detector.events(0).into_iter())
            .filter(|event| event.source.as_ref().is_some_and(|end| end.address == from))
            .map(|event| (event.kind, event.destination, event.count))
            .collect::<Vec<_>>()
    };
    // Longer than an answer is waited for.
    std::thread::sleep(Duration::from_millis(2200));
    for from in [lab.client4, client6] {
        assert_eq!(sweeps(&mut measurement, from), []);
    }
    for server in [lab.server4, lab.server6] {
        let nobody: Vec<IpAddr> = (100..140).map(|host| neighbour(server, host)).collect();
        lab.in_client(|| drop(ping_all(&nobody)));
    }
    measurement.collect();
    std::thread::sleep(Duration::from_millis(2200));
    for from in [lab.client4, client6] {
        let expected = [("ping_sweep", None, 40)];
        assert_eq!(sweeps(&mut measurement, from), expected);
    }
}

/// Another address of the same network.
fn neighbour(address: IpAddr, host: u8) -> IpAddr {
    match address {
        IpAddr::V4(four) => {
            let [a, b, c, _] = four.octets();
            Ipv4Addr::new(a, b, c, host).into()
        }
        IpAddr::V6(_) => neighbour6(address, host.into()),
    }
}

fn neighbour6(address: IpAddr, host: u16) -> IpAddr {
    let IpAddr::V6(six) = address else {
        panic!("{address} is none of IPv6")
    };
    let mut segments = six.segments();
    segments[7] = host;
    Ipv6Addr::from(segments).into()
}

/// One echo request to each, all of one family.
fn ping_all(hosts: &[IpAddr]) -> OwnedFd {
    let (family, protocol) = if hosts[0].is_ipv4() {
        (AddressFamily::Inet, SockProtocol::Icmp)
    } else {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    };
    let raw = socket(family, SockType::Raw, SockFlag::empty(), protocol).unwrap();
    for host in hosts {
        let sent = match *host {
            IpAddr::V4(four) => {
                let to = SockaddrIn::from(SocketAddrV4::new(four, 0));
                let request = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
                sendto(raw.as_raw_fd(), &request, &to, MsgFlags::empty())
            }
            IpAddr::V6(six) => {
                // The kernel adds the checksum.
                let to = SockaddrIn6::from(SocketAddrV6::new(six, 0, 0, 0));
                let request = [128, 0, 0, 0, 0, 0, 0, 0];
                sendto(raw.as_raw_fd(), &request, &to, MsgFlags::empty())
            }
        };
        assert_eq!(sent, Ok(8), "{host}");
    }
    raw
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
    let mut placed = 20;
    if is_older_than(6, 11) {
        say("partly: before Linux 6.11 packets that a listener drops have no place");
        placed = 10;
    }
    for (server, expected) in [(lab.server4, placed), (lab.server6, 2 * placed)] {
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
            let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
            sendto(raw.as_raw_fd(), &header, &to, MsgFlags::empty())
        }
        IpAddr::V6(to) => {
            let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
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
