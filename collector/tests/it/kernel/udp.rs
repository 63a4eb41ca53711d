//! Known numbers of datagrams, against those sent and the kernel's own counters.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use runwire_collector::signals::{SignalSettings, UdpFlows};

use super::lab::Lab;
use super::measure::{Measurement, is_older_than, say};

const ADDRESSES: [fn(&Lab) -> IpAddr; 2] = [|lab| lab.server4, |lab| lab.server6];

fn any(server: IpAddr) -> UdpSocket {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    UdpSocket::bind(any).unwrap()
}

fn listen(lab: &Lab, address: IpAddr) -> UdpSocket {
    let socket = lab.in_server(|| UdpSocket::bind((address, 0)).unwrap());
    let timeout = Some(Duration::from_millis(300));
    socket.set_read_timeout(timeout).unwrap();
    socket
}

/// Reads what is there, and says how many datagrams and bytes it was.
fn read_all(socket: &UdpSocket) -> (u64, u64) {
    let mut buffer = [0; 65_536];
    let mut read = (0, 0);
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        read.0 += 1;
        read.1 += length as u64;
    }
    read
}

fn nstat(namespace: &str, address: IpAddr, counter: &str) -> u64 {
    let family = if address.is_ipv4() { "Udp" } else { "Udp6" };
    Lab::nstat(namespace, &format!("{family}{counter}"))
}

fn counts(measurement: &Measurement, src: &str, dst: &str) -> [u64; 4] {
    [
        "datagrams_sent",
        "bytes_sent",
        "datagrams_received",
        "bytes_received",
    ]
    .map(|name| {
        let edge = [("src_workload", src), ("dst_workload", dst)];
        measurement.count(&format!("udp_{name}_total"), &edge)
    })
}

#[test]
#[ignore = "needs root"]
fn datagrams_and_payload_are_exact() {
    for address in ADDRESSES {
        let lab = Lab::new();
        let Some(mut measurement) = Measurement::start("udp") else {
            return;
        };
        let address = address(&lab);
        let server = listen(&lab, address);
        let before = [
            nstat(&lab.client, address, "OutDatagrams"),
            nstat(&lab.server, address, "InDatagrams"),
        ];
        let to = server.local_addr().unwrap();
        let mut sent = (0, 0);
        lab.in_client(|| {
            let [connected, free] = [any(address), any(address)];
            connected.connect(to).unwrap();
            // Empty, small, larger than a packet of the link.
            for size in [0, 1, 7, 1400, 1500, 9000, 0, 33] {
                let payload = vec![1; size];
                connected.send(&payload).unwrap();
                free.send_to(&payload, to).unwrap();
                sent = (sent.0 + 2, sent.1 + 2 * size as u64);
            }
        });
        assert_eq!(read_all(&server), sent);
        // And some back.
        lab.in_client(|| {
            let client = any(address);
            client.send_to(b"ping", to).unwrap();
            let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
            for _ in 0..3 {
                server.send_to(b"answer", from).unwrap();
            }
            client.recv_from(&mut [0; 9]).unwrap();
        });
        sent = (sent.0 + 1, sent.1 + 4);
        measurement.collect();

        let show = measurement.show("udp_");
        let both = [sent.0, sent.1, sent.0, sent.1];
        assert_eq!(
            counts(&measurement, &lab.client, &lab.server),
            both,
            "{show}"
        );
        let back = counts(&measurement, &lab.server, &lab.client);
        assert_eq!(back, [3, 18, 3, 18], "{show}");
        let kernel = [
            nstat(&lab.client, address, "OutDatagrams"),
            nstat(&lab.server, address, "InDatagrams"),
        ];
        assert_eq!([kernel[0] - before[0], kernel[1] - before[1]], [sent.0; 2]);
        // Nothing moves when nothing is sent.
        measurement.collect();
        assert_eq!(counts(&measurement, &lab.client, &lab.server), both);
    }
}

#[test]
#[ignore = "needs root"]
fn offloaded_datagrams_count_one_by_one() {
    for address in ADDRESSES {
        let lab = Lab::new();
        let Some(mut measurement) = Measurement::start("udp") else {
            return;
        };
        let server = listen(&lab, address(&lab));
        let together = listen(&lab, address(&lab));
        setsockopt(&together, sockopt::UdpGroSegment, &true).unwrap();
        lab.in_client(|| {
            let client = any(address(&lab));
            setsockopt(&client, sockopt::UdpGsoSegment, &1000).unwrap();
            for server in [&server, &together] {
                let to = server.local_addr().unwrap();
                // Ten full ones and one of 500.
                client.send_to(&[2; 10_500], to).unwrap();
            }
        });
        assert_eq!(read_all(&server), (11, 10_500));
        assert_eq!(read_all(&together), (1, 10_500), "the kernel glued them");
        measurement.collect();
        assert_eq!(
            counts(&measurement, &lab.client, &lab.server),
            [22, 21_000, 22, 21_000],
            "{}",
            measurement.show("udp_")
        );
    }
}

#[test]
#[ignore = "needs root"]
fn what_finds_no_room_is_not_received() {
    for address in ADDRESSES {
        let lab = Lab::new();
        if address(&lab).is_ipv6() && is_older_than(6, 10) {
            say("partly: before Linux 6.10 no event tells of a full receive buffer over IPv6");
            continue;
        }
        let Some(mut measurement) = Measurement::start("udp") else {
            return;
        };
        let address = address(&lab);
        let server = listen(&lab, address);
        setsockopt(&server, sockopt::RcvBuf, &8192).unwrap();
        let to = server.local_addr().unwrap();
        lab.in_client(|| {
            let client = any(address);
            for _ in 0..300 {
                client.send_to(&[3; 500], to).unwrap();
            }
        });
        let dropped = nstat(&lab.server, address, "RcvbufErrors");
        assert!(dropped > 0);
        let (received, bytes) = read_all(&server);
        measurement.collect();
        let show = measurement.show("udp_");
        let owner = [("workload", lab.server.as_str())];
        assert_eq!(
            measurement.count("udp_receive_buffer_drops_total", &owner),
            dropped,
            "{show}"
        );
        assert_eq!(
            counts(&measurement, &lab.client, &lab.server),
            [300, 150_000, received, bytes],
            "{show}"
        );
        assert_eq!(received + dropped, 300);
    }
}

#[test]
#[ignore = "needs root"]
fn ever_new_ports_stay_bounded_and_exact() {
    let lab = Lab::new();
    let flows = UdpFlows::default();
    let settings = SignalSettings {
        udp_flows: Some(flows.clone()),
        ..SignalSettings::default()
    };
    let Some(mut measurement) = Measurement::start_with("udp", settings) else {
        return;
    };
    const PORTS: u16 = 50_000;
    let spray = || {
        let client = any(lab.server4);
        for port in 1..=PORTS {
            // Answers say that nobody listens there.
            let _ = client.send_to(b"port?", (lab.server4, port));
        }
        client.local_addr().unwrap().port()
    };
    let local_port = lab.in_client(spray);
    measurement.collect();
    let count = u64::from(PORTS);
    assert_eq!(
        counts(&measurement, &lab.client, &lab.server),
        [count, 5 * count, 0, 0]
    );
    assert_eq!(
        measurement
            .show("udp_datagrams_sent_total")
            .matches(lab.client.as_str())
            .count(),
        1
    );
    let full = measurement.count("bpf_map_insert_failures_total", &[("map", "udp")]);
    assert!((30_000..50_000).contains(&full), "{full}");
    let (taken, _) = flows.take();
    assert!(taken.len() > 8000, "{}", taken.len());

    // Nothing is stuck: the next flows have room.
    let server = listen(&lab, lab.server4);
    lab.in_client(|| {
        let client = any(lab.server4);
        client.send_to(b"12345678", server.local_addr().unwrap())
    })
    .unwrap();
    measurement.collect();
    let (taken, lost) = flows.take();
    let ours: HashMap<SocketAddr, _> = (taken.iter())
        .filter(|flow| flow.peer == server.local_addr().unwrap())
        .map(|flow| (flow.peer, flow))
        .collect();
    let flow = ours[&server.local_addr().unwrap()];
    assert_eq!((flow.datagrams_sent, flow.bytes_sent, lost), (1, 8, 0));
    assert!(flow.local.ip() == lab.client4 && flow.local.port() != local_port);
    assert!(flow.first_ns > 0 && flow.first_ns <= flow.last_ns);
}
