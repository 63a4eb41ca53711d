//! What is a scan, and above all what is none.

use std::net::{IpAddr, Ipv4Addr};

use super::{Attempt, Detector, Means, Outcome, Party};
use crate::enrich::{Kind, Workload};

const SECOND: u64 = 1_000_000_000;

fn party(last: u8) -> Party {
    Party {
        workload: Workload::new("host", &format!("w{last}"), Kind::Netns),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
    }
}

fn attempt(from: u8, to: u8, port: u16, outcome: Outcome, second: u64) -> Attempt {
    Attempt {
        source: party(from),
        destination: party(to),
        means: Means::Tcp,
        port,
        outcome,
        count: 1,
        at: 1000 * SECOND + second * SECOND,
    }
}

/// Kind, source, destination and count of what was found.
fn found(
    attempts: impl Iterator<Item = Attempt>,
) -> Vec<(&'static str, Option<String>, Option<String>, u64)> {
    let detector = Detector::default();
    let mut last = 0;
    for attempt in attempts {
        last = attempt.at;
        detector.observe(&attempt);
    }
    let name = |party: Option<Party>| party.map(|party| party.workload.name.to_string());
    let events = detector.events(last);
    assert_eq!(
        detector.take_fresh(last).len(),
        events.len(),
        "each event begins once"
    );
    assert!(detector.take_fresh(last).is_empty());
    events
        .into_iter()
        .map(|event| {
            (
                event.kind,
                name(event.source),
                name(event.destination),
                event.count,
            )
        })
        .collect()
}

#[test]
fn many_closed_ports_of_one_host_are_a_scan_that_names_its_source() {
    let scan = (1..=100).map(|port| attempt(7, 9, port, Outcome::Failed, u64::from(port) / 20));
    let expected = (
        "port_scan",
        Some("w7".to_owned()),
        Some("w9".to_owned()),
        100,
    );
    assert_eq!(found(scan), [expected]);
}

#[test]
fn one_port_of_many_hosts_that_do_not_answer_is_a_scan() {
    let scan = (1..=50).map(|host| attempt(200, host, 22, Outcome::Failed, 1));
    assert_eq!(
        found(scan),
        [("host_scan", Some("w200".to_owned()), None, 50)]
    );
}

#[test]
fn datagrams_and_pings_have_scans_of_their_own() {
    let ports = (1..=40).map(|port| Attempt {
        means: Means::Udp,
        ..attempt(7, 9, port, Outcome::Failed, 1)
    });
    let expected = (
        "udp_port_scan",
        Some("w7".to_owned()),
        Some("w9".to_owned()),
        40,
    );
    assert_eq!(found(ports), [expected]);
    let hosts = |means, hosts| {
        (1..=hosts).map(move |host| Attempt {
            means,
            ..attempt(200, host, 161, Outcome::Failed, 1)
        })
    };
    let scanner = Some("w200".to_owned());
    assert_eq!(
        found(hosts(Means::Udp, 40)),
        [("udp_host_scan", scanner.clone(), None, 40)]
    );
    assert_eq!(
        found(hosts(Means::Ping, 40)),
        [("ping_sweep", scanner, None, 40)]
    );
    // A few of each are no scan of any.
    let mixed = [Means::Tcp, Means::Udp, Means::Ping].map(|means| hosts(means, 19));
    assert_eq!(found(mixed.into_iter().flatten()), []);
    // Whoever pings the same host again and again waits for it.
    let patient = (0..500).map(|second| Attempt {
        means: Means::Ping,
        ..attempt(7, 9, 0, Outcome::Failed, second)
    });
    assert_eq!(found(patient), []);
}

#[test]
fn busy_and_unlucky_clients_are_no_scanners() {
    let one_port = (0..1000).map(|_| attempt(7, 9, 80, Outcome::Failed, 1));
    assert_eq!(found(one_port), []);
    let many_open_ports = (1..500).map(|port| attempt(7, 9, port, Outcome::Opened, 1));
    assert_eq!(found(many_open_ports), []);
    let dead_backends = (1..=10).map(|host| attempt(7, host, 80, Outcome::Failed, 1));
    assert_eq!(found(dead_backends), []);
    // A port now and then, over an hour.
    let slow = (1..60).map(|port| attempt(7, 9, port, Outcome::Failed, u64::from(port) * 60));
    assert_eq!(found(slow), []);
    // A few handshakes that were left, among many that were completed.
    let lossy = (0..2000_u64).map(|n| {
        let outcome = if n % 20 == 0 {
            Outcome::HalfOpen
        } else {
            Outcome::Opened
        };
        attempt(u8::try_from(n % 200).unwrap(), 9, 80, outcome, n / 100)
    });
    assert_eq!(found(lossy), []);
}

#[test]
fn handshakes_that_nobody_completes_are_a_flood() {
    let flood = (0..200).map(|from| attempt(from, 250, 80, Outcome::HalfOpen, 1));
    assert_eq!(
        found(flood),
        [("syn_flood", None, Some("w250".to_owned()), 200)]
    );
}

#[test]
fn packets_with_odd_flags_have_a_name() {
    let odd = Attempt {
        count: 10,
        ..attempt(7, 9, 80, Outcome::Odd("xmas"), 1)
    };
    let expected = ("xmas", Some("w7".to_owned()), Some("w9".to_owned()), 10);
    assert_eq!(found([odd].into_iter()), [expected]);
    assert_eq!(
        found([attempt(7, 9, 80, Outcome::Odd("xmas"), 1)].into_iter()),
        []
    );
}

#[test]
fn odd_packets_to_many_ports_add_up() {
    let scan = |second| {
        (1..=12)
            .map(move |port| attempt(7, 9, port, Outcome::Odd("null"), second * u64::from(port)))
    };
    let expected = ("null", Some("w7".to_owned()), Some("w9".to_owned()), 12);
    assert_eq!(found(scan(1)), [expected]);
    // Damage on the wire makes one now and then.
    assert_eq!(found(scan(30)), []);
    // And so do many ends, one each.
    let many = (1..=100).map(|end| attempt(end, 9, 80, Outcome::Odd("null"), 1));
    assert_eq!(found(many), []);
}

#[test]
fn what_is_watched_is_bounded() {
    let detector = Detector::default();
    for n in 0..20_000_u32 {
        let mut one = attempt(1, 9, 80, Outcome::Failed, 1);
        one.source.address = IpAddr::V4(Ipv4Addr::from(n));
        detector.observe(&one);
    }
    assert!(detector.lock().sources.len() <= super::WATCHED);
    // Minutes later there is room again.
    let scan = (1..=100).map(|port| attempt(7, 9, port, Outcome::Failed, 600));
    scan.for_each(|attempt| detector.observe(&attempt));
    assert_eq!(detector.events(1600 * SECOND).len(), 1);
}

#[test]
fn scans_are_counted_also_where_nobody_asks_for_them() {
    let detector = Detector::default();
    let mut begun = 0;
    for scanner in 0..1200_u32 {
        let second = u64::from(scanner) * 60;
        for port in 1..=20 {
            let mut one = attempt(1, 9, port, Outcome::Failed, second);
            one.source.address = IpAddr::V4(Ipv4Addr::from(scanner));
            detector.observe(&one);
        }
        begun += detector.take_fresh((1000 + second) * SECOND).len();
    }
    assert_eq!(begun, 1200);
}
