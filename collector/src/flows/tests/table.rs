//! What is in the table.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::super::flow::Flow;
use super::*;

#[test]
fn a_flow_is_small() {
    assert!(
        size_of::<Option<Flow>>() <= 176,
        "{}",
        size_of::<Option<Flow>>()
    );
}

#[test]
fn both_ends_make_one_row_whichever_comes_first() {
    let open = later(&client(40_000, 1000), 1001, 1000, 5000);
    let sightings = [
        open.clone(),
        server(&open),
        closed(&server(&open), 1002),
        closed(&open, 1003),
    ];
    let orders = [
        [0, 1, 2, 3],
        [1, 0, 3, 2],
        [0, 3, 1, 2],
        [2, 3, 1, 0],
        [3, 2, 0, 1],
    ];
    for order in &orders {
        let mut table = table_of(10);
        for &which in order {
            see(&mut table, &sightings[which]);
        }
        let rows = rows(&table, &Filter::default(), 1005);
        assert_eq!(rows.len(), 1, "{order:?}");
        let row = &rows[0];
        assert_eq!(
            (row.role, row.bytes_sent, row.bytes_received),
            ("both", 1000, 5000)
        );
        assert_eq!((&*row.source.name, &*row.destination.name), ("shop", "db"));
        assert_eq!((row.src_port, row.dst_port), (40_000, 443));
    }
}

#[test]
fn ends_that_began_before_anyone_looked_make_one_row_whichever_was_looked_at_first() {
    for seconds in [[1001, 1000], [1000, 1001]] {
        let [client, server] = seconds.map(|second| Sighting {
            started: 0,
            opened: 0,
            ..later(&client(40_000, 900), second, 10, 10)
        });
        let server = self::server(&server);
        let mut table = table_of(10);
        see(&mut table, &client);
        see(&mut table, &server);
        let rows = rows(&table, &Filter::default(), 1005);
        let roles: Vec<_> = rows.iter().map(|row| row.role).collect();
        assert_eq!(roles, ["both"], "{seconds:?}");
    }
}

#[test]
fn an_end_alone_is_a_row_with_the_client_as_source() {
    for sighting in [client(1, 1000), server(&client(1, 1000))] {
        let mut table = table_of(10);
        see(&mut table, &sighting);
        see(&mut table, &closed(&later(&sighting, 1001, 7, 9), 1003));
        let rows = rows(&table, &Filter::default(), 1010);
        let row = &rows[0];
        assert_eq!(
            (rows.len(), &*row.source.name, row.state),
            (1, "shop", "closed")
        );
        assert_eq!(row.duration_seconds, 3.0);
        assert!(row.persistent);
        let (sent, role) = match sighting.end {
            End::Client => (7, "client"),
            End::Server => (9, "server"),
        };
        assert_eq!((row.bytes_sent, row.role), (sent, role));
    }
}

#[test]
fn a_port_that_is_used_again_is_another_flow() {
    let mut table = table_of(10);
    let first = client(1, 1000);
    see(&mut table, &first);
    see(&mut table, &server(&first));
    see(&mut table, &closed(&first, 1001));
    see(&mut table, &closed(&server(&first), 1001));
    let second = client(1, 1002);
    see(&mut table, &server(&second));
    see(&mut table, &second);
    assert_eq!(table.len(), 2);
    // And so is the second attempt of one socket, from the same port.
    let failed = Sighting {
        phase: Phase::Failed("refused"),
        opened: 0,
        ..client(2, 1003)
    };
    see(&mut table, &failed);
    let again = Sighting {
        started: 1004 * SECOND,
        now: 1004 * SECOND,
        ..failed.clone()
    };
    see(&mut table, &again);
    assert_eq!(table.len(), 4);
}

#[test]
fn loopback_of_two_namespaces_is_two_flows() {
    let mut table = table_of(10);
    let mut here = client(1, 1000);
    here.tuple.client = ([127, 0, 0, 1], 1).into();
    here.tuple.server = ([127, 0, 0, 1], 2).into();
    see(&mut table, &here);
    see(&mut table, &server(&here));
    assert_eq!(table.len(), 2, "another namespace");
    let mut same = server(&here);
    same.netns = here.netns;
    same.cookie += 1;
    see(&mut table, &same);
    assert_eq!(table.len(), 2, "the same namespace");
}

#[test]
fn a_full_table_keeps_the_newest_and_counts_the_others() {
    let mut table = table_of(100);
    for port in 1..=300 {
        let sighting = client(port, 1000 + u64::from(port));
        see(&mut table, &sighting);
        see(&mut table, &closed(&sighting, 1000 + u64::from(port)));
    }
    let ports: HashSet<u16> = (rows(&table, &Filter::default(), 2000).iter())
        .map(|row| row.src_port)
        .collect();
    assert_eq!(ports, (201..=300).collect());
    let statistics = table.statistics();
    assert_eq!((statistics.entries, statistics.limit), (100, 100));
    assert_eq!(
        (statistics.evicted_ended, statistics.evicted_open),
        (200, 0)
    );
    // What was forgotten is still in the graph.
    let graph = table.graph(&Filter::default(), Statistic::Connection, 2000 * SECOND);
    assert_eq!(graph.edges[0].shown.main_stat, "all: 300");
}

#[test]
fn a_table_full_of_open_flows_does_not_churn() {
    let mut table = table_of(100);
    let pass = |table: &mut FlowTable, now: u64| {
        table.begin_pass();
        for port in 1..=300 {
            see(
                table,
                &later(&client(port, 1000 + u64::from(port)), now, 0, 0),
            );
        }
        table.end_pass(6, now * SECOND);
    };
    pass(&mut table, 1400);
    assert_eq!(table.statistics().evicted_open, 200);
    pass(&mut table, 1401);
    pass(&mut table, 1402);
    assert_eq!(table.statistics().evicted_open, 200, "nothing is new");
    let oldest = rows(&table, &Filter::default(), 1403)
        .last()
        .unwrap()
        .src_port;
    assert_eq!(oldest, 201);
    // Short-lived ones have a quarter for themselves.
    for port in 1000..1100 {
        let sighting = client(port, 1500);
        see(&mut table, &sighting);
        see(&mut table, &closed(&sighting, 1500));
    }
    let shown = rows(&table, &Filter::default(), 1501);
    let open = shown.iter().filter(|row| row.state == "open").count();
    assert_eq!((open, shown.len()), (75, 100));
    // A smaller limit applies at once.
    table.set_limits(FlowLimits {
        entries: 10,
        ..table.limits()
    });
    assert_eq!(table.len(), 10);
}

#[test]
fn what_ended_is_forgotten_after_the_timeout_and_what_lives_is_not() {
    let mut table = table_of(10);
    see(&mut table, &client(1, 1000));
    see(&mut table, &client(2, 1000));
    see(&mut table, &closed(&client(2, 1000), 1010));
    table.age(1069 * SECOND);
    assert_eq!(table.len(), 2);
    table.age(1071 * SECOND);
    assert_eq!(rows(&table, &Filter::default(), 1071)[0].src_port, 1);
    assert_eq!(
        table.statistics().evicted_ended,
        0,
        "that is no want of room"
    );
}

#[test]
fn a_connection_whose_end_went_unnoticed_is_closed() {
    let mut table = table_of(10);
    table.begin_pass();
    see(&mut table, &client(1, 1000));
    see(&mut table, &client(2, 1000));
    table.end_pass(6, 1001 * SECOND);
    table.begin_pass();
    see(&mut table, &client(2, 1000));
    table.end_pass(6, 1002 * SECOND);
    let states: Vec<_> = (rows(&table, &Filter::default(), 1003).iter())
        .map(|row| (row.src_port, row.state))
        .collect();
    assert_eq!(states, [(1, "closed"), (2, "open")]);
    // It was only overlooked, as was one of the ends of the other.
    table.begin_pass();
    see(&mut table, &client(1, 1000));
    assert_eq!(rows(&table, &Filter::default(), 1003)[0].state, "open");
    see(&mut table, &server(&client(1, 1000)));
    table.begin_pass();
    see(&mut table, &server(&client(1, 1000)));
    table.end_pass(6, 1004 * SECOND);
    see(&mut table, &client(1, 1000));
    assert_eq!(rows(&table, &Filter::default(), 1003)[0].state, "open");
    assert_eq!(table.len(), 2);
}

#[test]
fn every_attempt_is_told_once() {
    let told: Arc<Mutex<Vec<Attempt>>> = Arc::default();
    let mut table = table_of(10);
    let log = told.clone();
    table.observe(move |attempt| log.lock().unwrap().push(attempt.clone()));
    let connecting = Sighting {
        phase: Phase::Connecting,
        opened: 0,
        ..client(1, 1000)
    };
    see(&mut table, &connecting);
    assert!(told.lock().unwrap().is_empty());
    let mut open = client(1, 1000);
    open.service = Some("10.96.0.1:80".parse().unwrap());
    see(&mut table, &open);
    see(&mut table, &server(&open));
    see(&mut table, &closed(&open, 1001));
    let failed = Sighting {
        phase: Phase::Failed("refused"),
        ..client(2, 1002)
    };
    see(&mut table, &failed);
    let told = told.lock().unwrap();
    let told: Vec<_> = (told.iter())
        .map(|attempt| (attempt.port, attempt.failure, &*attempt.source.name))
        .collect();
    assert_eq!(told, [(443, None, "shop"), (443, Some("refused"), "shop")]);
}
