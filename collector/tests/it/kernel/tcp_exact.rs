//! What sockets count, against `ss` on the same sockets: live ones, half-open ones, old ones.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, socket,
};
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::lab::{Lab, run};
use super::measure::Measurement;

const SIGNAL: &str = "tcp_lifecycle";

/// What `ss` says under `name` of the connections of a namespace that are not over loopback.
fn of_ss(namespace: &str, name: &str) -> u64 {
    let wanted = format!("{name}:");
    run(&format!(
        "ip netns exec {namespace} ss -tinH state established"
    ))
    .split_ascii_whitespace()
    .filter_map(|word| word.strip_prefix(&wanted)?.parse::<u64>().ok())
    .sum()
}

fn segments_of_a_live_connection_equal_those_of_ss(server: fn(&Lab) -> IpAddr) {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((server(&lab), 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
    ];
    let back = [
        ("src_workload", lab.server.as_str()),
        ("dst_workload", lab.client.as_str()),
    ];
    // Looked at in between, and once more when nothing has changed.
    for length in [1_000, 700_000, 30, 0] {
        let mut data = vec![0; length];
        client.write_all(&data).unwrap();
        server.read_exact(&mut data).unwrap();
        server.write_all(&data[..length / 3]).unwrap();
        client.read_exact(&mut data[..length / 3]).unwrap();
        thread::sleep(Duration::from_millis(200));
        measurement.collect();
    }
    for (metric, theirs) in [
        ("tcp_segments_sent_total", "segs_out"),
        ("tcp_data_segments_sent_total", "data_segs_out"),
    ] {
        let show = measurement.show(metric);
        assert_eq!(
            measurement.count(metric, &edge),
            of_ss(&lab.client, theirs),
            "{show}"
        );
        assert_eq!(
            measurement.count(metric, &back),
            of_ss(&lab.server, theirs),
            "{show}"
        );
    }
    for (metric, theirs) in [
        ("tcp_segments_received_total", "segs_in"),
        ("tcp_data_segments_received_total", "data_segs_in"),
        ("tcp_bytes_received_total", "bytes_received"),
    ] {
        let show = measurement.show(metric);
        // What a socket received comes from the other end.
        assert_eq!(
            measurement.count(metric, &edge),
            of_ss(&lab.server, theirs),
            "{show}"
        );
        assert_eq!(
            measurement.count(metric, &back),
            of_ss(&lab.client, theirs),
            "{show}"
        );
    }
    assert!(of_ss(&lab.client, "data_segs_out") > 3);
}

#[test]
#[ignore = "needs root"]
fn segments_of_a_live_connection_equal_those_of_ss_over_ipv4() {
    segments_of_a_live_connection_equal_those_of_ss(|lab| lab.server4);
}

#[test]
#[ignore = "needs root"]
fn segments_of_a_live_connection_equal_those_of_ss_over_ipv6() {
    segments_of_a_live_connection_equal_those_of_ss(|lab| lab.server6);
}

#[test]
#[ignore = "needs root"]
fn what_a_program_does_not_read_is_seen_however_large_its_buffer() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    let mut open = Vec::new();
    for (server, length) in [(lab.server4, 20_000), (lab.server6, 300)] {
        let listener = lab.in_server(|| TcpListener::bind((server, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
        let (server, _) = listener.accept().unwrap();
        client.write_all(&vec![0; length]).unwrap();
        open.push((client, server));
    }
    thread::sleep(Duration::from_millis(200));
    measurement.collect();
    let owner = [("workload", lab.server.as_str())];
    let unread = |measurement: &Measurement| measurement.count("tcp_unread_bytes", &owner);
    let show = measurement.show("tcp_unread");
    assert_eq!(unread(&measurement), 20_300, "{show}");
    let queued: u64 = run(&format!(
        "ip netns exec {} ss -tnH state established",
        lab.server
    ))
    .lines()
    .filter_map(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok())
    .sum();
    assert_eq!(unread(&measurement), queued, "{show}");
    // A FIN is no payload, read or not.
    let (client, mut server) = open.remove(0);
    drop(client);
    server.read_exact(&mut [0; 19_000]).unwrap();
    thread::sleep(Duration::from_millis(100));
    measurement.collect();
    assert_eq!(unread(&measurement), 1_300);
    std::io::copy(&mut server, &mut std::io::sink()).unwrap();
    measurement.collect();
    assert_eq!(unread(&measurement), 300);
}

#[test]
#[ignore = "needs root"]
fn half_open_connections_equal_those_of_ss() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    // The answer to a SYN does not arrive.
    let client = &lab.client;
    run(&format!("ip netns exec {client} nft add table inet t"));
    run(&format!(
        "ip netns exec {client} nft add chain inet t in {{ type filter hook input priority 0 ; }}"
    ));
    run(&format!(
        "ip netns exec {client} nft add rule inet t in tcp flags syn,ack drop"
    ));
    let listeners = [lab.server4, lab.server6]
        .map(|server| lab.in_server(|| TcpListener::bind((server, 0)).unwrap()));
    lab.in_client(|| {
        for listener in &listeners {
            for _ in 0..4 {
                let address = listener.local_addr().unwrap();
                TcpStream::connect_timeout(&address, Duration::from_millis(10)).unwrap_err();
            }
        }
    });
    measurement.collect();
    let server = lab.server.as_str();
    let ss = run(&format!("ip netns exec {server} ss -tanH state syn-recv"));
    let expected = ss.lines().count() as u64;
    assert_eq!(expected, 8, "{ss}");
    let owner = ("workload", server);
    let show = measurement.show("tcp_connections{");
    assert_eq!(
        measurement.count("tcp_connections", &[owner, ("state", "syn_recv")]),
        expected,
        "{show}"
    );
    assert_eq!(
        measurement.count("tcp_half_open_connections", &[owner]),
        expected
    );
}

#[test]
#[ignore = "needs root"]
fn sockets_in_no_programs_hands_are_there_right_after_the_start() {
    let lab = Lab::new();
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    // Nobody has accepted these; one of them waits for a FIN that does not come.
    let mut open: Vec<_> = (0..5)
        .map(|_| lab.in_client(|| TcpStream::connect(address).unwrap()))
        .collect();
    open[0].shutdown(std::net::Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(100));
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    measurement.collect();
    for (namespace, state, theirs) in [
        (&lab.server, "established", "established"),
        (&lab.server, "close_wait", "close-wait"),
        (&lab.server, "listen", "listening"),
        (&lab.client, "established", "established"),
        (&lab.client, "fin_wait2", "fin-wait-2"),
    ] {
        let ss = run(&format!(
            "ip netns exec {namespace} ss -tanH state {theirs}"
        ));
        let labels = [("workload", namespace.as_str()), ("state", state)];
        assert_eq!(
            measurement.count("tcp_connections", &labels),
            ss.lines().count() as u64,
            "{namespace} {state}\n{}",
            measurement.show("tcp_connections{")
        );
    }
    // What they did before is not counted, and what they do from now on is.
    let edge = [("src_workload", lab.client.as_str())];
    assert_eq!(measurement.count("tcp_segments_sent_total", &edge), 0);
    open[1].write_all(&[0; 777]).unwrap();
    thread::sleep(Duration::from_millis(100));
    measurement.collect();
    assert_eq!(measurement.count("tcp_bytes_sent_total", &edge), 777);
    assert_eq!(measurement.count("tcp_bytes_received_total", &edge), 777);
}

/// Sees the frames that a namespace sends, and can send them once more.
struct Tap(OwnedFd);

impl Tap {
    fn open() -> Self {
        let tap = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        );
        Self(tap.unwrap())
    }

    /// The next TCP frame with at least `length` bytes of payload.
    fn next(&self, length: usize) -> (Vec<u8>, LinkAddr) {
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..100_000 {
            let Ok((size, Some(from))) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer)
            else {
                continue;
            };
            // Ethernet, IPv4 and TCP with timestamps.
            if size >= 66 + length && buffer[23] == 6 {
                return (buffer[..size].to_vec(), from);
            }
        }
        panic!("no such frame was sent");
    }

    fn send(&self, (frame, to): &(Vec<u8>, LinkAddr)) {
        sendto(self.0.as_raw_fd(), frame, to, MsgFlags::empty()).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn duplicates_and_reordering_equal_those_of_ss() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    // Frames are those of the wire and carry their checksum, so that a copy is as good as the first.
    run(&format!(
        "ip netns exec {} ethtool -K eth0 tx off tso off gso off",
        lab.client
    ));
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
    client.set_nodelay(true).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let tap = lab.in_client(Tap::open);
    for _ in 0..3 {
        client.write_all(&[1; 200]).unwrap();
        server.read_exact(&mut [0; 200]).unwrap();
        // It arrives a second time.
        tap.send(&tap.next(200));
        thread::sleep(Duration::from_millis(20));
    }
    // The first segment of two is lost, and comes after the second one.
    let namespace = &lab.server;
    run(&format!("ip netns exec {namespace} nft add table inet t"));
    run(&format!(
        "ip netns exec {namespace} nft add chain inet t in {{ type filter hook input priority 0 ; }}"
    ));
    run(&format!(
        "ip netns exec {namespace} nft add rule inet t in tcp dport {} meta length > 1000 numgen inc mod 1000000 == 0 drop",
        address.port()
    ));
    client.write_all(&[2; 2_896]).unwrap();
    // In time: the sender waits some milliseconds before it takes a segment for lost.
    tap.send(&tap.next(1_448));
    server.read_exact(&mut [0; 2_896]).unwrap();
    thread::sleep(Duration::from_millis(100));
    measurement.collect();
    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
    ];
    let dsacks = of_ss(&lab.client, "dsack_dups");
    let reorderings = of_ss(&lab.client, "reord_seen");
    assert!(dsacks >= 3, "{dsacks}");
    assert_eq!(measurement.count("tcp_dsacks_total", &edge), dsacks);
    assert!(reorderings >= 1, "{reorderings}");
    assert_eq!(
        measurement.count("tcp_reordering_events_total", &edge),
        reorderings
    );
}

#[test]
#[ignore = "needs root"]
fn connects_without_a_route_fail_for_the_reason_that_the_program_saw() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_connect") else {
        return;
    };
    let client = &lab.client;
    for (kind, four, six) in [
        ("blackhole", "192.0.2.1", "2001:db8::1"),
        ("unreachable", "192.0.2.2", "2001:db8::2"),
        ("prohibit", "192.0.2.3", "2001:db8::3"),
    ] {
        run(&format!("ip -n {client} route add {kind} {four}"));
        run(&format!("ip -6 -n {client} route add {kind} {six}"));
    }
    let mut expected = Vec::new();
    lab.in_client(|| {
        for (address, reason) in [
            ("192.0.2.1", "invalid_route"),
            ("2001:db8::1", "invalid_route"),
            ("192.0.2.2", "host_unreachable"),
            ("2001:db8::2", "host_unreachable"),
            ("192.0.2.3", "prohibited"),
            ("2001:db8::3", "prohibited"),
            ("198.51.100.1", "network_unreachable"),
            ("2001:db8:9::1", "network_unreachable"),
        ] {
            let address = SocketAddr::new(address.parse().unwrap(), 80);
            for _ in 0..3 {
                TcpStream::connect(address).unwrap_err();
                // Not to wait for the answer is another path in the program, not in the kernel.
                TcpStream::connect_timeout(&address, Duration::from_secs(1)).unwrap_err();
            }
            // Not TCP.
            let any = if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let udp = std::net::UdpSocket::bind(any).unwrap();
            udp.connect(address).unwrap_err();
            expected.push((reason, 6));
        }
        // These fail after their SYN.
        TcpStream::connect((lab.server4, 81)).unwrap_err();
        let nobody = SocketAddr::new(lab.nobody4, 80);
        TcpStream::connect_timeout(&nobody, Duration::from_millis(50)).unwrap_err();
        TcpStream::connect(nobody).unwrap_err();
    });
    measurement.collect();
    let client = ("src_workload", lab.client.as_str());
    let show = measurement.show("tcp_connect_failures");
    let total: u64 = expected.iter().map(|(_, n)| n).sum();
    for (reason, _) in &expected {
        let calls = (expected.iter().filter(|(other, _)| other == reason))
            .map(|(_, n)| n)
            .sum::<u64>();
        let labels = [client, ("reason", reason)];
        let counted = measurement.count("tcp_connect_failures_total", &labels);
        assert_eq!(counted, calls, "{reason}\n{show}");
    }
    assert_eq!(
        measurement.count("tcp_connect_failures_total", &[client]),
        total,
        "{show}"
    );
    assert_eq!(
        measurement.count("tcp_connect_attempts_total", &[client]),
        total
    );
}

#[test]
#[ignore = "needs root"]
fn nothing_is_counted_while_nothing_happens() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server6, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&[0; 5_000]).unwrap();
    server.read_exact(&mut [0; 5_000]).unwrap();
    thread::sleep(Duration::from_millis(300));
    measurement.collect();
    let mine = |measurement: &Measurement| -> Vec<String> {
        measurement
            .show("tcp_")
            .lines()
            .filter(|line| line.contains(&lab.client) || line.contains(&lab.server))
            .map(str::to_owned)
            .collect()
    };
    let before = mine(&measurement);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(200));
        measurement.collect();
    }
    assert_eq!(mine(&measurement), before);
    assert!(before.len() > 20, "{before:?}");
}
