//! Retransmits against the kernel's own RetransSegs, resets against the number made.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::lab::{Lab, run};
use super::measure::{Measurement, is_older_than, say};

#[test]
#[ignore = "needs root"]
fn retransmitted_segments_equal_those_of_nstat() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_retransmit") else {
        return;
    };
    let server = &lab.server;
    run(&format!("ip netns exec {server} nft add table inet t"));
    run(&format!(
        "ip netns exec {server} nft add chain inet t in {{ type filter hook input priority 0 ; }}"
    ));
    // Some loss, on the way to the server.
    run(&format!(
        "ip netns exec {server} nft add rule inet t in tcp dport 1000-65535 numgen random mod 100 < 8 drop"
    ));
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
        });
        lab.in_client(|| {
            let mut stream = TcpStream::connect(address).unwrap();
            for _ in 0..300 {
                stream.write_all(&[0; 10_000]).unwrap();
            }
        });
    });
    // A SYN that gets no answer is sent again after a second.
    run(&format!(
        "ip netns exec {server} nft insert rule inet t in tcp dport 999 drop"
    ));
    lab.in_client(|| {
        let silent = std::net::SocketAddr::new(lab.server4, 999);
        TcpStream::connect_timeout(&silent, Duration::from_millis(1_500)).unwrap_err()
    });
    // The FIN may be lost too, so look when nothing moves.
    let mut kernel = 0;
    for _ in 0..20 {
        kernel = Lab::nstat(&lab.client, "TcpRetransSegs");
        thread::sleep(Duration::from_millis(300));
        measurement.collect();
        if Lab::nstat(&lab.client, "TcpRetransSegs") == kernel {
            break;
        }
    }
    let client = ("src_workload", lab.client.as_str());
    let ours = measurement.count("tcp_retransmitted_segments_total", &[client]);
    let show = measurement.show("tcp_retransmitted");
    assert_eq!(ours, kernel, "{show}");
    assert!(kernel > 10, "{show}");
    let syn = measurement.count(
        "tcp_retransmitted_segments_total",
        &[client, ("kind", "syn")],
    );
    assert!(syn >= 1, "{show}");
    let fast = measurement.count(
        "tcp_retransmitted_segments_total",
        &[client, ("kind", "fast")],
    );
    let recovered = Lab::nstat(&lab.client, "TcpExtTCPFastRetrans");
    assert_eq!(fast, recovered, "{show}");
    assert!(fast >= 1, "{show}");
}

/// One segment is on its way, which meets silence: no gap is reported, and nothing new is there to
/// be sent instead.
#[test]
#[ignore = "needs root"]
fn what_meets_silence_is_probed_once_and_then_times_out() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_retransmit") else {
        return;
    };
    let (client, server) = (&lab.client, &lab.server);
    run(&format!("ip netns exec {server} nft add table inet t"));
    run(&format!(
        "ip netns exec {server} nft add chain inet t in {{ type filter hook input priority 0 ; }}"
    ));
    for server_address in [lab.server4, lab.server6] {
        let listener = lab.in_server(|| TcpListener::bind((server_address, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let mut stream = lab.in_client(|| TcpStream::connect(address).unwrap());
        run(&format!(
            "ip netns exec {server} nft add rule inet t in tcp dport {} drop",
            address.port()
        ));
        stream.write_all(b"into silence").unwrap();
        thread::sleep(Duration::from_millis(1_500));
        run(&format!("ip netns exec {server} nft flush chain inet t in"));
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.read_exact(&mut [0; 12]).unwrap();
    }
    measurement.collect();
    let of_kind = |kind| {
        let labels = [("src_workload", client.as_str()), ("kind", kind)];
        measurement.count("tcp_retransmitted_segments_total", &labels)
    };
    let show = measurement.show("tcp_retransmitted");
    // Where the handshake took long, as on a machine that is busy, the time-out comes before a probe.
    let probes = Lab::nstat(client, "TcpExtTCPLossProbes");
    assert_eq!(of_kind("tail_loss_probe"), probes, "{show}");
    assert!((1..=2).contains(&probes), "{show}");
    let timeouts = Lab::nstat(client, "TcpExtTCPTimeouts");
    assert_eq!(of_kind("timeout"), timeouts, "{show}");
    assert!(timeouts >= 2, "{show}");
    assert_eq!(of_kind("fast"), 0, "{show}");
    assert_eq!(
        Lab::nstat(client, "TcpRetransSegs"),
        probes + timeouts,
        "{show}"
    );
}

/// Since Linux 6.17 the kernel tells of these attempts too.
#[test]
#[ignore = "needs root"]
fn what_could_not_be_sent_again_was_not() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_retransmit") else {
        return;
    };
    let (client, server) = (&lab.client, &lab.server);
    run(&format!("ip netns exec {server} nft add table inet t"));
    run(&format!(
        "ip netns exec {server} nft add chain inet t in {{ type filter hook input priority 0 ; }}"
    ));
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut stream = lab.in_client(|| TcpStream::connect(address).unwrap());
    // Sent, never acknowledged, and then there is no way to the peer.
    run(&format!(
        "ip netns exec {server} nft add rule inet t in tcp dport {} drop",
        address.port()
    ));
    stream.write_all(b"lost").unwrap();
    run(&format!("ip -n {client} route flush table main"));
    thread::sleep(Duration::from_secs(3));
    measurement.collect();
    let ours = measurement.count(
        "tcp_retransmitted_segments_total",
        &[("src_workload", client.as_str())],
    );
    let show = measurement.show("tcp_retransmitted");
    assert_eq!(ours, Lab::nstat(client, "TcpRetransSegs"), "{show}");
    let timeouts = Lab::nstat(client, "TcpExtTCPTimeouts");
    assert!(timeouts > ours, "{timeouts} {show}");
}

#[test]
#[ignore = "needs root"]
fn every_refused_connect_is_one_reset_at_each_end() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_reset") else {
        return;
    };
    lab.in_client(|| {
        for _ in 0..6 {
            TcpStream::connect((lab.server4, 82)).unwrap_err();
            TcpStream::connect((lab.server6, 82)).unwrap_err();
        }
    });
    measurement.collect();
    // The server sends it, to the client.
    let edge = [
        ("src_workload", lab.server.as_str()),
        ("dst_workload", lab.client.as_str()),
    ];
    let show = measurement.show("tcp_resets");
    let mut sent = 12;
    if is_older_than(6, 10) {
        say("partly: before Linux 6.10 no event tells of a reset that no socket sends");
        sent = 0;
    }
    for (direction, expected) in [("sent", sent), ("received", 12)] {
        let labels = [edge.as_slice(), &[("direction", direction)]].concat();
        let counted = measurement.count("tcp_resets_total", &labels);
        assert_eq!(counted, expected, "{direction} {show}");
    }
    let met = [("direction", "received"), ("reason", "connecting")];
    let labels = [edge.as_slice(), &met].concat();
    assert_eq!(measurement.count("tcp_resets_total", &labels), 12, "{show}");
}

/// Where only small packets pass it is the full-sized segments that time out; where nothing passes, the small ones too.
#[test]
#[ignore = "needs root"]
fn full_sized_segments_that_time_out_are_told_apart() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_retransmit") else {
        return;
    };
    let server = &lab.server;
    let nft = |rule: &str| run(&format!("ip netns exec {server} nft {rule}"));
    nft("add table inet t");
    nft("add chain inet t in { type filter hook input priority 0 ; }");
    let client = ("src_workload", lab.client.as_str());
    let mut timeouts = 0;
    let mut full_sized = 0;
    for (address, rule, bytes, are_full_sized) in [
        (lab.server4, "meta length > 1000 drop", 40_000, true),
        (lab.server6, "meta length > 1000 drop", 40_000, true),
        (lab.server4, "tcp dport 1000-65535 drop", 3, false),
    ] {
        let listener = lab.in_server(|| TcpListener::bind((address, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let mut stream = lab.in_client(|| TcpStream::connect(address).unwrap());
        nft(&format!("add rule inet t in {rule}"));
        stream.write_all(&vec![0; bytes]).unwrap();
        // Timers of .2, .4 and .8 s, after the probe.
        thread::sleep(Duration::from_millis(1_800));
        nft("flush chain inet t in");
        measurement.collect();
        let kind = ("kind", "timeout");
        let new = measurement.count("tcp_retransmitted_segments_total", &[client, kind]) - timeouts;
        let new_full_sized =
            measurement.count("tcp_full_sized_retransmits_total", &[client]) - full_sized;
        let show = measurement.show("retransmit");
        assert!(new >= 2, "{show}");
        let expected = if are_full_sized { new } else { 0 };
        assert_eq!(new_full_sized, expected, "{show}");
        // It goes on once the way is free; what comes then is not looked at.
        drop((stream, listener));
        thread::sleep(Duration::from_millis(900));
        measurement.collect();
        timeouts = measurement.count("tcp_retransmitted_segments_total", &[client, kind]);
        full_sized = measurement.count("tcp_full_sized_retransmits_total", &[client]);
    }
}

/// A proxy may end what is at rest so; who resets while the other works on the answer has waited in vain, and who does while the
/// other sends it does not want the rest.
#[test]
#[ignore = "needs root"]
fn a_reset_behind_the_answer_is_told_from_one_before_it() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_reset") else {
        return;
    };
    for address in [lab.server4, lab.server6] {
        let listener = lab.in_server(|| TcpListener::bind((address, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        for (has_asked, answer) in [(false, 0), (true, 0), (true, 1), (true, 8_000_000)] {
            let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
            let (mut server, _) = listener.accept().unwrap();
            if has_asked {
                client.write_all(b"ask").unwrap();
                server.read_exact(&mut [0; 3]).unwrap();
                thread::sleep(Duration::from_millis(30));
            }
            // The largest is more than fits the buffers of both, however far they grow.
            server.set_nonblocking(true).unwrap();
            let bytes = vec![b'!'; answer];
            for _ in 0..100 {
                let _ = server.write(&bytes);
                thread::sleep(Duration::from_millis(1));
                if answer < 2 {
                    break;
                }
            }
            if answer == 1 {
                client.read_exact(&mut [0]).unwrap();
            }
            thread::sleep(Duration::from_millis(30));
            setsockopt(
                &client,
                sockopt::Linger,
                &nix::libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                },
            )
            .unwrap();
            drop(client);
            thread::sleep(Duration::from_millis(30));
        }
    }
    measurement.collect();
    let show = measurement.show("tcp_resets");
    for (reason, expected) in [
        ("answered", 2),
        ("unused", 2),
        ("open", 2),
        ("answering", 2),
    ] {
        let labels = [
            ("src_workload", lab.client.as_str()),
            ("dst_workload", lab.server.as_str()),
            ("direction", "received"),
            ("reason", reason),
        ];
        let counted = measurement.count("tcp_resets_total", &labels);
        assert_eq!(counted, expected, "{reason} {show}");
    }
}

#[test]
#[ignore = "needs root"]
fn syn_acks_that_are_sent_again_are_counted_at_the_listener() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_retransmit") else {
        return;
    };
    let client = &lab.client;
    run(&format!("ip netns exec {client} nft add table inet t"));
    run(&format!(
        "ip netns exec {client} nft add chain inet t in {{ type filter hook input priority 0 ; }}"
    ));
    run(&format!(
        "ip netns exec {client} nft add rule inet t in tcp flags syn,ack drop"
    ));
    for server in [lab.server4, lab.server6] {
        let listener = lab.in_server(|| TcpListener::bind((server, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        lab.in_client(|| {
            // The client's SYN is sent again after a second, which is answered again too.
            let timeout = Duration::from_millis(1_300);
            TcpStream::connect_timeout(&address, timeout).unwrap_err()
        });
    }
    measurement.collect();
    let server = ("src_workload", lab.server.as_str());
    let show = measurement.show("tcp_retransmitted");
    let synacks = measurement.count(
        "tcp_retransmitted_segments_total",
        &[server, ("kind", "synack")],
    );
    assert_eq!(synacks, Lab::nstat(&lab.server, "TcpRetransSegs"), "{show}");
    assert!(synacks >= 2, "{show}");
    let syns = measurement.count(
        "tcp_retransmitted_segments_total",
        &[("src_workload", lab.client.as_str()), ("kind", "syn")],
    );
    assert_eq!(syns, Lab::nstat(&lab.client, "TcpRetransSegs"), "{show}");
}

#[test]
#[ignore = "needs root"]
fn a_program_that_closes_with_data_unread_sends_a_reset() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("tcp_reset") else {
        return;
    };
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
    let (server, _) = listener.accept().unwrap();
    client.write_all(b"never read").unwrap();
    thread::sleep(Duration::from_millis(100));
    drop(server);
    thread::sleep(Duration::from_millis(100));
    measurement.collect();
    let labels = [("src_workload", lab.server.as_str()), ("direction", "sent")];
    let show = measurement.show("tcp_resets");
    assert_eq!(measurement.count("tcp_resets_total", &labels), 1, "{show}");
    let named =
        show.contains("reason=\"tcp_abort_on_close\"") || show.contains("reason=\"unknown\"");
    assert!(named, "{show}");
}
