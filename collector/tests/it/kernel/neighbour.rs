//! Neighbours that nobody is, and what the tables hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use super::lab::{Lab, run};
use super::measure::Measurement;
use crate::host::exact::Reader;

#[test]
#[ignore = "needs root"]
fn neighbours_that_do_not_answer_are_counted_once_each() {
    let lab = Lab::new();
    let Some(mut measurement) = Measurement::start("neighbour") else {
        return;
    };
    let nobody4 = |host| match lab.nobody4 {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, host))
        }
        IpAddr::V6(_) => unreachable!("the lab has IPv4"),
    };
    let nobody6 = match lab.server6 {
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[7] = 0x99;
            IpAddr::V6(Ipv6Addr::from(segments))
        }
        IpAddr::V4(_) => unreachable!("the lab has IPv6"),
    };
    lab.in_client(|| {
        let sockets = [UdpSocket::bind("0.0.0.0:0"), UdpSocket::bind("[::]:0")];
        let [four, six] = sockets.map(Result::unwrap);
        for host in [97, 98, 99] {
            // Several packets, one attempt.
            for _ in 0..3 {
                four.send_to(b"there?", (nobody4(host), 9)).unwrap();
            }
        }
        six.send_to(b"there?", (nobody6, 9)).unwrap();
    });
    // Three requests, a second apart.
    sleep(Duration::from_secs(5));
    measurement.collect();
    let labels = [("workload", lab.client.as_str()), ("interface", "eth0")];
    let show = measurement.show("neighbour_");
    assert_eq!(
        measurement.count("neighbour_failures_total", &labels),
        4,
        "{show}"
    );

    let mut reader = Reader::new();
    reader.collect();
    for state in ["failed", "reachable", "stale"] {
        let listed = run(&format!("ip -n {} neighbour show nud {state}", lab.client));
        let entries = reader.value("neighbour_entries", &lab.client, &[("state", state)]);
        assert_eq!(entries, listed.lines().count() as u64, "{state}: {listed}");
    }
    let failed = reader.value("neighbour_entries", &lab.client, &[("state", "failed")]);
    assert_eq!(failed, 4);
    let text = reader
        .registry
        .encode(runwire_collector::export::Format::Text, None);
    let limit = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").unwrap();
    let line = format!(
        "runwire_neighbour_table_limit{{family=\"ipv4\"}} {}\n",
        limit.trim()
    );
    assert!(text.contains(&line), "{line}");
}
