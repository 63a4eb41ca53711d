//! Records of the kernel on their way into the table.

use std::net::Ipv4Addr;

use super::*;
use crate::abi::{FLOW_CLOSED, TCP_ROLE_CLIENT, flow_record};
use crate::enrich::{Enricher, Identities, Translation};
use crate::export::Registry;

#[test]
fn a_port_that_is_used_again_may_have_another_backend() {
    let enricher = Enricher::of(Identities::default(), &Registry::new(100));
    let tuple = |server: &str| FiveTuple {
        protocol: 6,
        client: "10.0.0.1:40000".parse().unwrap(),
        server: server.parse().unwrap(),
    };
    // Of the connection before.
    enricher.add_translations([Translation {
        from: tuple("10.96.0.1:80"),
        to: tuple("10.0.0.2:8080"),
    }]);
    let flows = Flows::default();
    let reasons = Reasons {
        failures: &[],
        ends: &["none"],
    };
    let mut feed = Feed::new(flows.clone(), reasons, 4_000_000);
    let address = |bytes: [u8; 4]| Ipv4Addr::from(bytes).to_ipv6_mapped().octets();
    let record = flow_record {
        cookie: 1,
        cgroup: 0,
        started_ns: 1,
        established_ns: 2,
        now_ns: 3,
        bytes_sent: 0,
        bytes_received: 0,
        segments_sent: 4,
        segments_received: 3,
        idle: 0,
        netns: 1,
        local: address([10, 0, 0, 1]),
        peer: address([10, 96, 0, 1]),
        local_port: 40_000,
        peer_port: 80,
        role: TCP_ROLE_CLIENT as u8,
        phase: FLOW_CLOSED as u8,
        state: 7,
        reason: 0,
    };
    feed.take_ended(vec![record], &enricher);
    let asked = enricher.translations_known_until();
    assert!(asked >= 2, "connection tracking is asked again");
    assert_eq!(flows.lock().len(), 1);
}
