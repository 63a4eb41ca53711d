//! What the table answers.

use std::collections::HashSet;

use regex::Regex;
use serde_json::Value;

use super::*;

#[test]
fn a_time_range_counts_only_what_moved_in_it() {
    let mut table = table_of(10);
    // One that lives through it all, and one of each time.
    let long = client(1, 1000);
    see(&mut table, &later(&long, 1000, 100, 1000));
    see(&mut table, &later(&long, 1001, 150, 1000));
    see(&mut table, &later(&long, 1030, 400, 9000));
    for (port, second) in [(2, 1002), (3, 1031)] {
        let short = later(&client(port, second), second, 10, 20);
        see(&mut table, &closed(&short, second + 1));
    }
    let moved = |table: &FlowTable, from, to| -> Vec<(u16, u64, u64)> {
        let rows = rows(table, &span(from, to), 1100);
        let mut moved: Vec<_> = (rows.iter())
            .map(|row| (row.src_port, row.bytes_sent, row.bytes_received))
            .collect();
        moved.sort_unstable();
        moved
    };
    assert_eq!(moved(&table, 999, 1010), [(1, 150, 1000), (2, 10, 20)]);
    assert_eq!(moved(&table, 1020, 1040), [(1, 250, 8000), (3, 10, 20)]);
    assert_eq!(moved(&table, 1010, 1020), [(1, 0, 0)]);
    assert_eq!(moved(&table, 0, 999), []);

    let bytes = |table: &FlowTable, filter: &Filter| -> (u64, u64) {
        let graph = table.graph(filter, Statistic::Bytes, 1200 * SECOND);
        let edges = serde_json::to_value(&graph.edges).unwrap();
        let number = |name: &str| edges[0][name].as_u64().unwrap_or(0);
        (
            number("detail__bytes_sent"),
            number("detail__bytes_received"),
        )
    };
    assert_eq!(bytes(&table, &span(999, 1010)), (160, 1020));
    assert_eq!(bytes(&table, &span(1020, 1040)), (260, 8020));
    assert_eq!(bytes(&table, &Filter::default()), (420, 9040));
    // Also of what has been forgotten since, then by the minute.
    see(&mut table, &closed(&later(&long, 1030, 400, 9000), 1050));
    table.age(1120 * SECOND);
    assert!(table.is_empty());
    assert_eq!(bytes(&table, &Filter::default()), (420, 9040));
    assert_eq!(bytes(&table, &span(960, 1080)), (420, 9040));
    assert_eq!(bytes(&table, &span(2000, 3000)), (0, 0));
    // From a time that is still to come until now.
    assert_eq!(bytes(&table, &span(3000, 2000)), (0, 0));
    table.age(9000 * SECOND);
    assert_eq!(bytes(&table, &Filter::default()), (0, 0));
}

#[test]
fn connections_older_than_the_agent_count_from_then_on() {
    let mut table = table_of(10);
    let old = Sighting {
        started: 0,
        opened: 0,
        ..client(1, 1000)
    };
    see(&mut table, &later(&old, 1000, 5000, 5000));
    see(&mut table, &later(&old, 1010, 5100, 5200));
    let all = &rows(&table, &Filter::default(), 1020)[0];
    assert_eq!((all.bytes_sent, all.bytes_received), (5100, 5200));
    let since = &rows(&table, &span(900, 1020), 1020)[0];
    assert_eq!((since.bytes_sent, since.bytes_received), (100, 200));
}

#[test]
fn filters_select_exactly() {
    let mut table = table_of(10);
    let mut dns = client(1, 1000);
    dns.tuple.server = "[fd00::53]:53".parse().unwrap();
    dns.tuple.client = "[fd00::1]:1".parse().unwrap();
    let mut service = client(2, 1001);
    service.service = Some("10.96.0.1:80".parse().unwrap());
    let failed = Sighting {
        phase: Phase::Failed("refused"),
        ..client(3, 1002)
    };
    see(&mut table, &dns);
    see(&mut table, &service);
    see(&mut table, &failed);
    see(&mut table, &server(&client(4, 1003)));
    let check = |what: &str, change: &dyn Fn(&mut Filter), expected: &[u16]| {
        let mut filter = Filter::default();
        change(&mut filter);
        let mut ports: Vec<u16> = (rows(&table, &filter, 1010).iter())
            .map(|row| row.src_port)
            .collect();
        ports.sort_unstable();
        assert_eq!(ports, expected, "{what}");
    };
    let pattern = |text: &str| Some(Regex::new(text).unwrap());
    check("port", &|filter| filter.port = Some(53), &[1]);
    check("port", &|filter| filter.port = Some(80), &[2]);
    check("protocol", &|filter| filter.protocol = Some(17), &[]);
    check("state", &|filter| filter.state = Some(State::Failed), &[3]);
    check("role", &|filter| filter.role = Some(End::Server), &[4]);
    for (workload, expected) in [("db", [1, 2, 3, 4].as_slice()), ("d", &[])] {
        check(
            workload,
            &|filter| filter.workload = Some(workload.into()),
            expected,
        );
    }
    for (namespace, expected) in [("host", [1, 2, 3, 4].as_slice()), ("shop", &[])] {
        check(
            namespace,
            &|filter| filter.namespace = Some(namespace.into()),
            expected,
        );
    }
    for (source, expected) in [
        ("fd00::1", [1].as_slice()),
        ("fd00::/16", &[1]),
        ("10.0.0.1", &[2, 3, 4]),
        ("::ffff:10.0.0.1", &[2, 3, 4]),
        ("::ffff:10.0.0.0/127", &[2, 3, 4]),
        ("10.0.0.0/31", &[2, 3, 4]),
        ("10.0.0.0/32", &[]),
        ("0.0.0.0/0", &[2, 3, 4]),
        ("shop", &[1, 2, 3, 4]),
        ("db", &[]),
    ] {
        check(
            source,
            &|filter| filter.source = source.parse().ok(),
            expected,
        );
    }
    for (destination, expected) in [("10.96.0.1", [2].as_slice()), ("10.0.0.2", &[2, 3, 4])] {
        check(
            destination,
            &|filter| filter.destination = destination.parse().ok(),
            expected,
        );
    }
    for (include, expected) in [("^fd00:", [1].as_slice()), ("^host/db$", &[1, 2, 3, 4])] {
        check(
            include,
            &|filter| filter.include = pattern(include),
            expected,
        );
    }
    for (exclude, expected) in [("^10\\.96\\.", [1, 3, 4].as_slice()), ("^shop$", &[])] {
        check(
            exclude,
            &|filter| filter.exclude = pattern(exclude),
            expected,
        );
    }
    for wrong in ["10.0.0.300", "10.0.0.1/33", "1:2", "/8", "10.1"] {
        assert!(wrong.parse::<Whom>().is_err(), "{wrong}");
    }
}

#[test]
fn the_graph_is_what_the_panel_needs() {
    let mut table = table_of(10);
    for (port, seconds) in [(1, 1), (2, 2), (3, 3)] {
        let open = later(&client(port, 1000), 1000, 100, 300);
        see(&mut table, &closed(&open, 1000 + seconds));
    }
    let failed = Sighting {
        phase: Phase::Failed("timeout"),
        ..client(4, 1000)
    };
    see(&mut table, &failed);
    // A day that is not over, say.
    let filter = span(1000, 90_000);
    let check = |statistic, main: &str, secondary: &str, arcs: [f64; 3]| {
        let graph = table.graph(&filter, statistic, 1010 * SECOND);
        let graph = serde_json::to_value(&graph).unwrap();
        let fields = fields(statistic);
        for (part, elements) in [
            ("nodes_fields", &graph["nodes"]),
            ("edges_fields", &graph["edges"]),
        ] {
            let described: HashSet<&str> = (fields[part].as_array().unwrap().iter())
                .map(|field| field["field_name"].as_str().unwrap())
                .collect();
            for element in elements.as_array().unwrap() {
                let keys: HashSet<&str> =
                    element.as_object().unwrap().keys().map(|k| &**k).collect();
                assert_eq!(keys, described);
            }
        }
        let nodes = graph["nodes"].as_array().unwrap();
        let ids: HashSet<&Value> = nodes.iter().map(|node| &node["id"]).collect();
        for edge in graph["edges"].as_array().unwrap() {
            assert!(ids.contains(&edge["source"]) && ids.contains(&edge["target"]));
        }
        let shop = nodes.iter().find(|node| node["title"] == "shop").unwrap();
        assert_eq!(
            (&shop["mainStat"], &shop["secondaryStat"]),
            (&main.into(), &secondary.into())
        );
        let shown = ["arc__1", "arc__2", "arc__3"].map(|arc| shop[arc].as_f64().unwrap());
        for (shown, expected) in shown.iter().zip(arcs) {
            assert!((shown - expected).abs() < 1e-9, "{shown} {expected}");
        }
        assert!((shown.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    };
    check(
        Statistic::Connection,
        "all: 4",
        "persistent: 2",
        [0.5, 0.25, 0.25],
    );
    check(
        Statistic::Bytes,
        "recv: 90 B/s",
        "resp: 30 B/s",
        [0.75, 0.25, 0.0],
    );
    check(
        Statistic::Duration,
        "avg: 2.00 s",
        "max: 3.00 s",
        [5.0 / 6.0, 1.0 / 6.0, 0.0],
    );

    let nothing = Filter {
        workload: Some("nobody".into()),
        ..Filter::default()
    };
    let graph = table.graph(&nothing, Statistic::Bytes, 1010 * SECOND);
    assert_eq!(
        serde_json::to_string(&graph).unwrap(),
        r#"{"nodes":[],"edges":[]}"#
    );
}

#[test]
fn times_without_end_are_understood() {
    let at = |text: &str| clock(1000).monotonic(text.parse().unwrap());
    assert_eq!(at("2026-11-20T12:00:01Z"), 1001 * SECOND);
    assert_eq!(at("1970-01-01T00:00:00Z"), 0);
    assert_eq!(at("9999-12-30T00:00:00Z"), u64::MAX);
}
