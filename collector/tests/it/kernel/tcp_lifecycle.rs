//! Connections, failures, bytes and states, against known numbers and against `ss`.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, socket,
};

use runwire_collector::signals::SignalSettings;

use super::lab::{Lab, run};
use super::measure::Measurement;

const SIGNAL: &str = "tcp_lifecycle";
const CONNECTIONS: u64 = 40;
const REQUEST: usize = 3_000;
const ANSWER: usize = 100_000;

/// Answers `connections` requests and ends.
fn serve(listener: &TcpListener, connections: u64) {
    for _ in 0..connections {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; REQUEST];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(&vec![7; ANSWER]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // The client closes second, so that TIME_WAIT is on this side.
        let _ = stream.read(&mut [0; 16]);
    }
}

fn ask(server: SocketAddr) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(&vec![1; REQUEST]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), ANSWER);
}

fn every_connection_is_counted_once_at_each_end(server: fn(&Lab) -> IpAddr) {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((server(&lab), 0)).unwrap());
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, CONNECTIONS));
        for _ in 0..CONNECTIONS {
            lab.in_client(|| ask(address));
        }
    });
    // The last ACK of the last connection is on its way.
    thread::sleep(Duration::from_millis(300));
    measurement.collect();

    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
        ("src_kind", "netns"),
        ("src_namespace", "host"),
    ];
    let back = [
        ("src_workload", lab.server.as_str()),
        ("dst_workload", lab.client.as_str()),
    ];
    let count = |metric: &str, extra: &[(&str, &str)]| {
        measurement.count(metric, &[edge.as_slice(), extra].concat())
    };
    assert_eq!(count("tcp_connect_attempts_total", &[]), CONNECTIONS);
    assert_eq!(
        count("tcp_connect_duration_seconds_count", &[]),
        CONNECTIONS
    );
    assert_eq!(count("tcp_connect_failures_total", &[]), 0);
    for role in ["client", "server"] {
        let role = ("role", role);
        assert_eq!(count("tcp_connections_opened_total", &[role]), CONNECTIONS);
        let closed = count("tcp_connections_closed_total", &[role, ("error", "none")]);
        assert_eq!(closed, CONNECTIONS, "{role:?}");
        assert_eq!(
            count("tcp_connection_duration_seconds_count", &[role]),
            CONNECTIONS
        );
    }
    let requests = CONNECTIONS * REQUEST as u64;
    let answers = CONNECTIONS * ANSWER as u64;
    assert_eq!(count("tcp_bytes_sent_total", &[]), requests);
    assert_eq!(count("tcp_bytes_received_total", &[]), requests);
    assert_eq!(measurement.count("tcp_bytes_sent_total", &back), answers);
    assert_eq!(
        measurement.count("tcp_bytes_received_total", &back),
        answers
    );
    assert_eq!(count("tcp_rtt_seconds_count", &[]), CONNECTIONS);
    assert!(count("tcp_segments_sent_total", &[]) >= 4 * CONNECTIONS);

    let seconds = measurement.sum("tcp_connect_duration_seconds_sum", &edge);
    assert!((1e-6..1.0).contains(&seconds), "{seconds} s");
    // A second look adds nothing.
    measurement.collect();
    assert_eq!(measurement.count("tcp_bytes_sent_total", &edge), requests);
}

#[test]
#[ignore = "needs root"]
fn every_connection_is_counted_once_at_each_end_over_ipv4() {
    every_connection_is_counted_once_at_each_end(|lab| lab.server4);
}

#[test]
#[ignore = "needs root"]
fn every_connection_is_counted_once_at_each_end_over_ipv6() {
    every_connection_is_counted_once_at_each_end(|lab| lab.server6);
}

/// With TCP Fast Open the request comes with the SYN, and the answer may go before the last ACK of
/// the handshake is here.
#[test]
#[ignore = "needs root"]
fn a_server_that_closes_before_the_handshake_is_complete_has_its_connection_counted() {
    let lab = Lab::new();
    let (client, server) = (&lab.client, &lab.server);
    for namespace in [client, server] {
        // At both ends, without cookies, for every listener.
        run(&format!(
            "ip netns exec {namespace} sysctl -qw net.ipv4.tcp_fastopen=1543"
        ));
    }
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    for address in [lab.server4, lab.server6] {
        let listener = lab.in_server(|| TcpListener::bind((address, 4000)).unwrap());
        // ACKs do not arrive until the client has read the answer.
        for rule in [
            "table inet t",
            "chain inet t o { type filter hook output priority 0 ; }",
            "rule inet t o tcp dport 4000 tcp flags & (syn|ack) == ack drop",
        ] {
            run(&format!("ip netns exec {client} nft add {rule}"));
        }
        let script = format!(
            "import os, socket\n\
             s = socket.socket(socket.AF_INET6 if ':' in '{address}' else socket.AF_INET)\n\
             s.settimeout(3)\n\
             s.sendto(b'hello', socket.MSG_FASTOPEN, ('{address}', 4000))\n\
             try:\n  \
               while s.recv(99): pass\n\
             finally: os.system('nft flush ruleset')\n\
             s.close()"
        );
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut [0; 5]).unwrap();
                stream.write_all(b"answer").unwrap();
            });
            let status = Command::new("ip")
                .args(["netns", "exec", client, "python3", "-c", &script])
                .status();
            assert!(status.unwrap().success());
        });
    }
    thread::sleep(Duration::from_millis(300));
    measurement.collect();

    let there = [
        ("src_workload", client.as_str()),
        ("dst_workload", server.as_str()),
    ];
    let back = [
        ("src_workload", server.as_str()),
        ("dst_workload", client.as_str()),
    ];
    let role = [there.as_slice(), &[("role", "server")]].concat();
    let opened = measurement.count("tcp_connections_opened_total", &role);
    assert_eq!(opened, Lab::nstat(server, "TcpPassiveOpens"));
    assert_eq!(opened, 2);
    assert_eq!(measurement.count("tcp_connections_closed_total", &role), 2);
    assert_eq!(measurement.count("tcp_bytes_received_total", &there), 10);
    assert_eq!(measurement.count("tcp_bytes_sent_total", &back), 12);
}

#[test]
#[ignore = "needs root"]
fn a_failed_connect_has_the_reason_of_its_socket() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    lab.in_client(|| {
        for _ in 0..7 {
            TcpStream::connect((lab.server4, 81)).unwrap_err();
            TcpStream::connect((lab.server6, 81)).unwrap_err();
        }
    });
    // Nobody has this address: the neighbour search fails after three seconds.
    let nobody = SocketAddr::new(lab.nobody4, 80);
    lab.in_client(|| TcpStream::connect(nobody).unwrap_err());
    // Given up by the program before that.
    lab.in_client(|| TcpStream::connect_timeout(&nobody, Duration::from_millis(200)).unwrap_err());
    measurement.collect();

    let reason = |reason| {
        let labels = [("src_workload", lab.client.as_str()), ("reason", reason)];
        measurement.count("tcp_connect_failures_total", &labels)
    };
    let all = measurement.show("tcp_connect_failures");
    assert_eq!(reason("refused"), 14, "{all}");
    assert_eq!(reason("host_unreachable"), 1, "{all}");
    assert_eq!(reason("aborted"), 1, "{all}");
}

/// As a program does that takes the addresses of a name one after the other: `::1` first, for example.
#[test]
#[ignore = "needs root"]
fn a_refusal_after_which_the_other_family_serves_is_told_from_one_that_stays() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    let listen = |address: IpAddr| lab.in_server(|| TcpListener::bind((address, 0)).unwrap());
    let listeners = [lab.server4, lab.server6].map(listen);
    let [only4, only6] = listeners.each_ref().map(|it| it.local_addr().unwrap());
    let connect = |address: IpAddr, port| {
        lab.in_client(|| TcpStream::connect((address, port)))
            .is_ok()
    };
    for _ in 0..3 {
        assert!(!connect(lab.server6, only4.port()));
        assert!(connect(lab.server4, only4.port()));
    }
    for _ in 0..2 {
        assert!(!connect(lab.server4, only6.port()));
        assert!(connect(lab.server6, only6.port()));
    }
    // Nobody serves: over the same family, at another port, or much later.
    assert!(!connect(lab.server6, 81));
    assert!(connect(lab.server4, only4.port()));
    assert!(!connect(lab.server6, only4.port()));
    thread::sleep(Duration::from_millis(400));
    assert!(connect(lab.server4, only4.port()));
    // One refusal is the first try of one connection only.
    assert!(!connect(lab.server6, only4.port()));
    assert!(connect(lab.server4, only4.port()));
    assert!(connect(lab.server4, only4.port()));
    measurement.collect();
    let count = |name, family| {
        let labels = [
            ("src_workload", lab.client.as_str()),
            ("dst_workload", lab.server.as_str()),
            ("family", family),
        ];
        measurement.count(name, &labels)
    };
    let show = measurement.show("tcp_connect_f");
    assert_eq!(count("tcp_connect_failures_total", "ipv6"), 6, "{show}");
    assert_eq!(count("tcp_connect_fallbacks_total", "ipv6"), 4, "{show}");
    assert_eq!(count("tcp_connect_failures_total", "ipv4"), 2, "{show}");
    assert_eq!(count("tcp_connect_fallbacks_total", "ipv4"), 2, "{show}");
}

/// Nobody reads of a reset that meets a closed socket; who has ended only its own direction does.
#[test]
#[ignore = "needs root"]
fn a_reset_that_comes_after_the_close_is_told_from_one_before() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let connect = || {
        let client = lab.in_client(|| TcpStream::connect(address).unwrap());
        (client, listener.accept().unwrap().0)
    };
    let pause = || thread::sleep(Duration::from_millis(50));
    // The last words of a client go out together with its end, to a server that is gone.
    let (client, server) = connect();
    drop(server);
    pause();
    let more_follows = MsgFlags::from_bits_retain(nix::libc::MSG_MORE);
    nix::sys::socket::send(client.as_raw_fd(), b"never read", more_follows).unwrap();
    drop(client);
    pause();
    // A question that ends with the client's direction, and is never answered.
    let (mut client, server) = connect();
    client.write_all(b"never read").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    pause();
    drop(server);
    thread::sleep(Duration::from_millis(50));
    measurement.collect();
    let show = measurement.show("tcp_connections_closed");
    for (error, expected) in [("late_reset", 1), ("reset", 1)] {
        let labels = [
            ("src_workload", lab.client.as_str()),
            ("role", "client"),
            ("error", error),
        ];
        let counted = measurement.count("tcp_connections_closed_total", &labels);
        assert_eq!(counted, expected, "{error} {show}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_client_without_a_free_port_fails_for_that_reason() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    lab.in_client(|| {
        // The range is that of the namespace of who opens the file.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001").unwrap();
    });
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let open: Vec<_> = (0..4)
        .map(|_| lab.in_client(|| TcpStream::connect(address)))
        .collect();
    measurement.collect();
    let failed = open.iter().filter(|stream| stream.is_err()).count() as u64;
    let labels = [
        ("src_workload", lab.client.as_str()),
        ("reason", "no_local_port"),
    ];
    let counted = measurement.count("tcp_connect_failures_total", &labels);
    assert_eq!(counted, failed, "{}", measurement.show("tcp_connect_fail"));
    assert!(failed >= 1);
}

#[test]
#[ignore = "needs root"]
fn sockets_older_than_the_collector_report_what_they_do_from_now_on() {
    let lab = Lab::new();
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let mut transfer = |length: usize| {
        let mut buffer = vec![0; length];
        client.write_all(&buffer).unwrap();
        server.read_exact(&mut buffer).unwrap();
    };
    transfer(50_000);
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    transfer(70_000);
    thread::sleep(Duration::from_millis(300));
    measurement.collect();

    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
    ];
    assert_eq!(measurement.count("tcp_bytes_sent_total", &edge), 70_000);
    assert_eq!(measurement.count("tcp_bytes_received_total", &edge), 70_000);
    assert_eq!(measurement.count("tcp_rtt_seconds_count", &edge), 1);

    // An accepted socket whose listener is older than the collector, and closing of old sockets.
    let second = lab.in_client(|| TcpStream::connect(address).unwrap());
    let accepted = listener.accept().unwrap();
    transfer(1_000);
    drop((client, server, second, accepted));
    thread::sleep(Duration::from_millis(300));
    measurement.collect();
    assert_eq!(measurement.count("tcp_bytes_sent_total", &edge), 71_000);
    for (role, opened) in [("client", 1), ("server", 1)] {
        let labels = [edge.as_slice(), &[("role", role)]].concat();
        let show = measurement.show("tcp_connections_");
        assert_eq!(
            measurement.count("tcp_connections_opened_total", &labels),
            opened,
            "{show}"
        );
        assert_eq!(
            measurement.count("tcp_connections_closed_total", &labels),
            2,
            "{show}"
        );
    }
}

pub(super) fn connect_without_waiting(to: SocketAddr) -> OwnedFd {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).unwrap_err();
    socket
}

#[test]
#[ignore = "needs root"]
fn states_equal_those_of_ss() {
    let lab = Lab::new();
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let old = lab.in_client(|| TcpStream::connect(address).unwrap());
    let old_accepted = listener.accept().unwrap();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    let connect_one = || lab.in_client(|| TcpStream::connect(address).unwrap());
    // Accepted or not, closed by one end, closed by both.
    let mut kept = vec![old];
    kept.extend((0..5).map(|_| connect_one()));
    let accepted: Vec<_> = (0..4).map(|_| listener.accept().unwrap()).collect();
    drop(kept.pop());
    for _ in 0..3 {
        let (client, server) = (connect_one(), listener.accept().unwrap());
        kept.push(client);
        drop(server);
    }
    // Closed by both, one after the other.
    for _ in 0..2 {
        let (client, server) = (connect_one(), listener.accept().unwrap());
        drop(client);
        thread::sleep(Duration::from_millis(20));
        drop(server);
    }
    // And one to nowhere.
    let nowhere = SocketAddr::new(lab.nobody4, 80);
    let connecting = lab.in_client(|| connect_without_waiting(nowhere));
    thread::sleep(Duration::from_millis(200));
    // Time-wait sockets are looked for a few milliseconds at a time: where there are many namespaces, not all at once.
    for _ in 0..10 {
        measurement.collect();
    }

    for namespace in [&lab.client, &lab.server] {
        // A closed socket that waits for the peer's FIN shrinks to a time-wait one, as which `ss -s`
        // counts it; `ss` without -s names it by what it waits for, and so do we.
        for (ours, theirs) in [
            ("established", "established"),
            ("close_wait", "close-wait"),
            ("fin_wait1", "fin-wait-1"),
            ("fin_wait2", "fin-wait-2"),
            ("time_wait", "time-wait"),
            ("last_ack", "last-ack"),
            ("listen", "listening"),
            ("syn_sent", "syn-sent"),
        ] {
            let ss = run(&format!(
                "ip netns exec {namespace} ss -tanH state {theirs}"
            ));
            let labels = [("workload", namespace.as_str()), ("state", ours)];
            assert_eq!(
                measurement.count("tcp_connections", &labels),
                ss.lines().count() as u64,
                "{namespace} {ours}\n{}",
                measurement.show("tcp_connections{")
            );
        }
    }
    drop((old_accepted, accepted, kept, connecting));
}

#[test]
#[ignore = "needs root"]
fn a_full_map_counts_into_other_and_is_empty_after_the_next_look() {
    const PEERS: u64 = 40;
    let lab = Lab::new();
    let settings = SignalSettings {
        map_capacity: [("tcp_edges".to_owned(), 8)].into(),
        ..SignalSettings::default()
    };
    let Some(mut measurement) = Measurement::start_with(SIGNAL, settings) else {
        return;
    };
    let mine = [("src_workload", lab.client.as_str())];
    let other = [("src_workload", "~other")];
    // Both maps of the pair, and the first one again.
    for _ in 0..3 {
        let named = measurement.count("tcp_connect_attempts_total", &mine);
        let overflowed = measurement.count("tcp_connect_attempts_total", &other);
        let failures = measurement.count("bpf_map_insert_failures_total", &[("map", SIGNAL)]);
        lab.in_client(|| {
            for host in 1..=PEERS as u8 {
                TcpStream::connect((Ipv4Addr::new(127, 9, 9, host), 83)).unwrap_err();
            }
        });
        measurement.collect();
        let named = measurement.count("tcp_connect_attempts_total", &mine) - named;
        let overflowed = measurement.count("tcp_connect_attempts_total", &other) - overflowed;
        let failures =
            measurement.count("bpf_map_insert_failures_total", &[("map", SIGNAL)]) - failures;
        let show = measurement.show("tcp_connect_attempts");
        // The kernel keeps a few spare entries per CPU, so this is not exactly eight. The other
        // traffic of the host overflows too.
        assert!((1..PEERS).contains(&named), "{named}\n{show}");
        assert!(named + overflowed >= PEERS, "{named} {overflowed}\n{show}");
        assert!(failures >= overflowed, "{failures} {overflowed}");
    }
}

#[test]
#[ignore = "needs root"]
fn bytes_are_exact_however_often_one_looks() {
    const STREAMS: usize = 8;
    const LENGTH: usize = 12_000_000;
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server6, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let (listener, lab) = (&listener, &lab);
        let mut ends = Vec::new();
        for _ in 0..STREAMS {
            ends.push(scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
            }));
            ends.push(scope.spawn(move || {
                let mut stream = lab.in_client(|| TcpStream::connect(address).unwrap());
                stream.write_all(&vec![0; LENGTH]).unwrap();
            }));
        }
        while !ends.iter().all(thread::ScopedJoinHandle::is_finished) {
            measurement.collect();
        }
    });
    thread::sleep(Duration::from_millis(300));
    measurement.collect();
    let edge = [
        ("src_workload", lab.client.as_str()),
        ("dst_workload", lab.server.as_str()),
    ];
    let expected = (STREAMS * LENGTH) as u64;
    assert_eq!(measurement.count("tcp_bytes_sent_total", &edge), expected);
    assert_eq!(
        measurement.count("tcp_bytes_received_total", &edge),
        expected
    );
    // The kernel counts those that it sends again apart.
    let kernel = Lab::nstat(&lab.client, "TcpOutSegs") + Lab::nstat(&lab.client, "TcpRetransSegs");
    let segments = measurement.count("tcp_segments_sent_total", &edge);
    // Those that TIME_WAIT sockets send are not of a socket any more.
    assert!(
        (kernel - 4 * STREAMS as u64..=kernel).contains(&segments),
        "{segments} of {kernel}"
    );
}

#[test]
#[ignore = "needs root"]
fn a_sender_whose_receiver_does_not_read_is_limited_by_the_window() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start(SIGNAL) else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let client = lab.in_client(|| TcpStream::connect(address).unwrap());
    let (server, _) = listener.accept().unwrap();
    client.set_nonblocking(true).unwrap();
    let mut client = client;
    while client.write(&[0; 65_536]).is_ok() {}
    thread::sleep(Duration::from_millis(1_000));
    measurement.collect();
    let edge = [("src_workload", lab.client.as_str())];
    let busy = measurement.sum("tcp_busy_seconds_total", &edge);
    let window = measurement.sum("tcp_receive_window_limited_seconds_total", &edge);
    assert!((0.8..2.0).contains(&window), "{window} of {busy}");
    assert!(busy >= window, "{window} of {busy}");
    drop(server);
}
