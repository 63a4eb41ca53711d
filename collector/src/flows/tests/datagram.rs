//! Datagrams, from both ends or one.

use super::*;
use crate::enrich::{CgroupId, Enricher, Identities, NamespaceIdentity, NetnsId, Translation};
use crate::export::Registry;
use crate::host::{Host, Paths};
use crate::kernel::monotonic_nanoseconds;
use crate::signals::UdpFlow;

/// The shop has 10.0.0.1, the resolver 10.0.0.2.
fn enricher() -> Enricher {
    let mut identities = Identities::default();
    for (netns, name) in [(1, "shop"), (2, "resolver")] {
        let identity = NamespaceIdentity {
            owner: Workload::local(name, Kind::Netns),
            shared: false,
            addresses: vec![IpAddr::from([10, 0, 0, netns])],
            container: None,
            is_hosts: false,
        };
        identities.set_namespace(NetnsId(netns.into()), identity);
    }
    Enricher::of(identities, &Registry::new(100))
}

fn said(netns: u32, local: &str, peer: &str, sent: u64, received: u64) -> UdpFlow {
    UdpFlow {
        netns: NetnsId(netns),
        cgroup: CgroupId(0),
        local: local.parse().unwrap(),
        peer: peer.parse().unwrap(),
        datagrams_sent: sent / 10,
        datagrams_received: received / 10,
        bytes_sent: sent,
        bytes_received: received,
        sent_first: netns == 1,
        first_ns: 1000 * SECOND,
        last_ns: 1001 * SECOND,
    }
}

#[test]
fn each_direction_counts_as_its_sender_says() {
    const CLIENT: &str = "10.0.0.1:40000";
    const SERVER: &str = "10.0.0.2:53";
    let enricher = enricher();
    let flows = Flows::default();
    let mut feed = DatagramFeed::new(flows.clone());
    let mut check = |said: Vec<UdpFlow>, expected: (u64, u64, u32, &str)| {
        feed.take(said, &enricher, 1002 * SECOND);
        let rows = rows(&flows.lock(), &Filter::default(), 1002);
        assert_eq!(rows.len(), 1, "{rows:#?}");
        let row = &rows[0];
        let shown = (
            row.bytes_sent,
            row.bytes_received,
            row.segments_sent,
            row.role,
        );
        assert_eq!(shown, expected);
        assert_eq!(
            (&*row.source.name, &*row.destination.name),
            ("shop", "resolver")
        );
    };
    // One datagram is on its way, another was lost.
    let server = said(2, SERVER, CLIENT, 200, 30);
    let client = said(1, CLIENT, SERVER, 50, 190);
    check(vec![server, client], (50, 200, 5, "both"));
    check(vec![said(2, SERVER, CLIENT, 0, 10)], (50, 200, 5, "both"));
    check(vec![said(1, CLIENT, SERVER, 10, 10)], (60, 200, 6, "both"));
}

#[test]
fn an_end_alone_is_believed() {
    let enricher = enricher();
    for (said, expected) in [
        (
            said(1, "10.0.0.1:40000", "10.0.0.2:53", 50, 190),
            (50, 190, "client"),
        ),
        (
            said(2, "10.0.0.2:53", "10.0.0.1:40000", 190, 50),
            (50, 190, "server"),
        ),
        // Where the ports say nothing, who sent first does.
        (
            said(1, "10.0.0.1:123", "10.0.0.2:123", 50, 190),
            (50, 190, "client"),
        ),
    ] {
        let flows = Flows::default();
        let mut feed = DatagramFeed::new(flows.clone());
        feed.take(vec![said], &enricher, 1002 * SECOND);
        let rows = rows(&flows.lock(), &Filter::default(), 1002);
        let row = &rows[0];
        assert_eq!((row.bytes_sent, row.bytes_received, row.role), expected);
        assert_eq!(&*row.source.name, "shop");
    }
}

#[test]
fn a_service_is_one_flow_to_its_backend() {
    let enricher = enricher();
    let tuple = |server: &str| FiveTuple {
        protocol: 17,
        client: "10.0.0.1:40000".parse().unwrap(),
        server: server.parse().unwrap(),
    };
    enricher.add_translations([Translation {
        from: tuple("10.96.0.10:53"),
        to: tuple("10.0.0.2:5353"),
    }]);
    let flows = Flows::default();
    let mut feed = DatagramFeed::new(flows.clone());
    let exchanged = vec![
        said(1, "10.0.0.1:40000", "10.96.0.10:53", 50, 190),
        said(2, "10.0.0.2:5353", "10.0.0.1:40000", 190, 50),
    ];
    feed.take(exchanged, &enricher, 1002 * SECOND);
    let rows = rows(&flows.lock(), &Filter::default(), 1002);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let row = &rows[0];
    assert_eq!(row.service, Some("10.96.0.10:53".parse().unwrap()));
    assert_eq!(row.backend, Some("10.0.0.2:5353".parse().unwrap()));
    assert_eq!((row.bytes_sent, row.bytes_received), (50, 190));
    // The metrics, which know no ports, name the backend too.
    let named = enricher.peer(NetnsId(1), IpAddr::from([10, 96, 0, 10]));
    assert_eq!(&*named.name, "resolver");
}

#[test]
fn a_port_that_is_used_again_may_have_another_backend() {
    let enricher = enricher();
    let tuple = |server: &str| FiveTuple {
        protocol: 17,
        client: "10.0.0.1:40000".parse().unwrap(),
        server: server.parse().unwrap(),
    };
    // Of the exchange before.
    enricher.add_translations([Translation {
        from: tuple("10.96.0.10:53"),
        to: tuple("10.0.0.2:5353"),
    }]);
    let mut feed = DatagramFeed::new(Flows::default());
    let exchanged = UdpFlow {
        first_ns: 1,
        last_ns: 2,
        ..said(1, "10.0.0.1:40000", "10.96.0.10:53", 50, 190)
    };
    feed.take(vec![exchanged], &enricher, 3);
    let asked = enricher.translations_known_until();
    assert!(asked >= 1, "connection tracking is asked again");
}

#[test]
fn what_is_silent_is_forgotten() {
    let enricher = enricher();
    let flows = Flows::default();
    let mut feed = DatagramFeed::new(flows.clone());
    let exchanged = vec![said(1, "10.0.0.1:40000", "10.0.0.2:53", 50, 190)];
    feed.take(exchanged, &enricher, 1002 * SECOND);
    flows.lock().age(1300 * SECOND);
    assert_eq!(flows.lock().len(), 1);
    flows.lock().age(1302 * SECOND);
    assert!(flows.lock().is_empty());
}

#[test]
fn an_exchange_lasts_from_its_first_datagram_to_its_last() {
    let enricher = enricher();
    let flows = Flows::default();
    let mut feed = DatagramFeed::new(flows.clone());
    for second in [1000, 1005, 1010] {
        let exchanged = UdpFlow {
            first_ns: second * SECOND,
            last_ns: second * SECOND,
            ..said(1, "10.0.0.1:40000", "10.0.0.2:53", 50, 190)
        };
        feed.take(vec![exchanged], &enricher, second * SECOND);
    }
    let rows = rows(&flows.lock(), &Filter::default(), 1011);
    let [row] = rows.as_slice() else {
        panic!("{rows:#?}");
    };
    assert_eq!(row.started, Some(clock(1000).wall));
    assert_eq!((row.duration_seconds, row.persistent), (10.0, true));
}

#[test]
fn at_the_end_nothing_waits_for_connection_tracking() {
    let enricher = Enricher::of_host(Host::new(Paths::default()), &Registry::new(100));
    let flows = Flows::default();
    let mut feed = DatagramFeed::new(flows.clone());
    // It is not asked again at once.
    assert!(enricher.learn_translations());
    let later = monotonic_nanoseconds() + SECOND;
    let new = UdpFlow {
        first_ns: later,
        last_ns: later,
        ..said(1, "192.0.2.1:40000", "192.0.2.2:53", 50, 0)
    };
    feed.take(vec![new], &enricher, later);
    assert!(flows.lock().is_empty(), "it may have gone elsewhere");
    enricher.stop_learning();
    feed.take(Vec::new(), &enricher, later);
    assert_eq!(flows.lock().len(), 1);
}

#[test]
fn over_loopback_each_namespace_has_exchanges_of_its_own() {
    let enricher = enricher();
    let flows = Flows::default();
    let mut feed = DatagramFeed::new(flows.clone());
    for _ in 0..2 {
        let exchanged = [(1, 50), (2, 70)];
        let exchanged =
            exchanged.map(|(netns, sent)| said(netns, "127.0.0.1:40000", "127.0.0.1:53", sent, 0));
        feed.take(exchanged.into(), &enricher, 1002 * SECOND);
    }
    let rows = rows(&flows.lock(), &Filter::default(), 1002);
    let mut sent: Vec<_> = (rows.iter())
        .map(|row| (&*row.source.name, row.bytes_sent))
        .collect();
    sent.sort_unstable();
    assert_eq!(sent, [("resolver", 140), ("shop", 100)]);
}
