//! Fifty thousand peers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use runwire_collector::export::Registry;
use runwire_collector::signals::SignalSettings;

use super::lab::Lab;
use super::measure::Measurement;

const PEERS: u32 = 50_000;
const BUDGET: usize = 200;

#[test]
#[ignore = "loads BPF: needs root"]
fn series_stay_within_the_budget_whatever_addresses_there_are() {
    let lab = Lab::new();
    let registry = Registry::new(BUDGET);
    let signal = "tcp_lifecycle";
    let Some(mut measured) = Measurement::start_in(registry, signal, SignalSettings::default())
    else {
        return;
    };
    lab.in_client(|| {
        // Scattered over 127.0.0.0/8 and all ports, by a step that has no factor in common with them.
        for n in 0..PEERS {
            let scattered = n.wrapping_mul(2_654_435_761);
            let [_, b, c, d] = (scattered | 1).to_be_bytes();
            let port = (scattered >> 7) as u16 | 1;
            let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, b, c, d)), port);
            assert!(TcpStream::connect(peer).is_err(), "{peer}");
        }
    });
    measured.collect();
    let refused = measured.count("tcp_connect_failures_total", &[("reason", "refused")]);
    assert!(refused >= u64::from(PEERS), "none is lost: {refused}");
    let full = measured.count("bpf_map_insert_failures_total", &[("map", signal)]);
    assert!(
        full > 0,
        "the kernel's map has no room for so many, and says so"
    );
    for metric in ["tcp_connect_failures_total", "tcp_connect_attempts_total"] {
        let series = measured.show(metric).lines().count();
        assert!((1..=BUDGET).contains(&series), "{metric} {series}");
    }
}
