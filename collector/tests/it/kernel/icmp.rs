//! ICMP sent and received, against what the kernel counts.

use std::net::{IpAddr, UdpSocket};

use super::lab::{Lab, run};
use super::measure::Measurement;
use crate::host::exact::Reader;

/// Type, code, and the kernel's counter without `In` or `Out`.
const V4: [(&str, &str, u8); 3] = [
    ("echo_request", "none", 8),
    ("echo_reply", "none", 0),
    ("dest_unreachable", "port", 3),
];
const V6: [(&str, &str, u8); 3] = [
    ("echo_request", "none", 128),
    ("echo_reply", "none", 129),
    ("dest_unreachable", "port", 1),
];

fn nstat(namespace: &str, family: &str, direction: &str, kind: u8) -> u64 {
    let group = if family == "ipv4" { "IcmpMsg" } else { "Icmp6" };
    Lab::nstat(namespace, &format!("{group}{direction}Type{kind}"))
}

fn traffic(lab: &Lab) {
    for (address, count) in [(lab.server4, 5), (lab.server6, 3)] {
        let client = &lab.client;
        run(&format!(
            "ip netns exec {client} ping -q -i 0.01 -c {count} {address}"
        ));
        lab.in_client(|| {
            let any: IpAddr = match address {
                IpAddr::V4(_) => "0.0.0.0".parse().unwrap(),
                IpAddr::V6(_) => "::".parse().unwrap(),
            };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            for _ in 0..4 {
                let _ = socket.send_to(b"nobody", (address, 4001));
            }
        });
    }
}

#[test]
#[ignore = "needs root"]
fn messages_are_those_of_nstat() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("icmp_sent") else {
        return;
    };
    let before = |family: &str, kind| {
        [&lab.client, &lab.server].map(|netns| nstat(netns, family, "Out", kind))
    };
    let at_start: Vec<_> = [("ipv4", V4), ("ipv6", V6)]
        .iter()
        .flat_map(|(family, types)| types.map(|(_, _, kind)| before(family, kind)))
        .collect();
    traffic(&lab);
    measurement.collect();
    let mut reader = Reader::new();
    reader.collect();
    let mut at_start = at_start.iter();
    for (family, types) in [("ipv4", V4), ("ipv6", V6)] {
        for (name, code, kind) in types {
            let before = at_start.next().unwrap();
            for (netns, before) in [&lab.client, &lab.server].into_iter().zip(before) {
                let labels = [
                    ("workload", netns.as_str()),
                    ("direction", "sent"),
                    ("family", family),
                    ("type", name),
                    ("code", code),
                ];
                let sent = measurement.count("icmp_messages_total", &labels);
                let kernel = nstat(netns, family, "Out", kind) - before;
                let show = measurement.show("icmp_messages");
                assert_eq!(sent, kernel, "{name} {netns}\n{show}");
                let labels = [
                    ("direction", "received"),
                    ("family", family),
                    ("type", name),
                ];
                let received = reader.value("icmp_messages_total", netns, &labels);
                assert_eq!(received, nstat(netns, family, "In", kind), "{name} {netns}");
            }
        }
    }
    let ours = |kind| {
        let labels = [("workload", lab.server.as_str()), ("type", kind)];
        measurement.count("icmp_messages_total", &labels)
    };
    assert_eq!(ours("echo_reply"), 8);
    assert!(ours("dest_unreachable") >= 2);
}
