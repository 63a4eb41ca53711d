//! The configuration changes while the collector runs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use runwire_collector::signals::MAPS;

use super::collector::{Collector, stderr, stdout};
use crate::kernel::lab::Lab;

#[test]
#[ignore = "loads BPF: needs root"]
fn a_changed_file_is_in_force_within_seconds_and_a_bad_one_changes_nothing() {
    let mut collector = Collector::start("series_budget: 500\nstatistics: on\n");
    assert_eq!(collector.metric("series_limit"), 500.0);
    let (_, text) = collector.get("/metrics");
    for line in text
        .lines()
        .filter_map(|line| line.strip_prefix("runwire_bpf_map_capacity{map=\""))
    {
        let map = line.split('"').next().unwrap();
        assert!(MAPS.contains(&map), "{map} is not in MAPS of signals.rs");
    }
    let opened = "tcp_connections_opened_total";
    let before = collector.eventually("connections are counted", |collector| {
        let opened = collector.metric(opened);
        (opened > 0.0).then_some(opened)
    });

    let start = Instant::now();
    collector.write_config(
        "series_budget: 600\ndisabled_signals: [dns]\nmap_capacity: {tcp_edges: 99}\n",
    );
    collector.eventually("the file is in force", |collector| {
        let has_dns = collector
            .get("/metrics")
            .1
            .contains("metric=\"dns_queries\"");
        (collector.metric("series_limit") == 600.0 && !has_dns).then_some(())
    });
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(collector.metric(opened) >= before, "counters go on");
    assert_eq!(
        collector.metric("config_reloads_total{outcome=\"applied\"}"),
        1.0
    );
    let waiting = "these keys changed but are only read at start: restart the collector";
    assert!(collector.has_logged(waiting));

    collector.write_config("series_budget: many\n");
    collector.eventually("the file is refused", |collector| {
        (collector.metric("config_last_reload_successful") == 0.0).then_some(())
    });
    assert_eq!(collector.metric("series_limit"), 600.0);
    let lines = collector.log();
    let why = lines
        .iter()
        .find_map(|line| line["fields"]["error"].as_str())
        .unwrap();
    assert!(
        why.starts_with("`series_budget` in ")
            && why.ends_with(" line 1 is `many`: write a number from 100 to 1000000"),
        "{why}"
    );

    collector.write_config("series_budget: 700\n");
    collector.signal(Signal::SIGHUP);
    collector.eventually("it is good again", |collector| {
        let good = collector.metric("config_last_reload_successful") == 1.0;
        (good && collector.metric("series_limit") == 700.0).then_some(())
    });
    assert!(
        collector
            .get("/metrics")
            .1
            .contains("metric=\"dns_queries\""),
        "on again"
    );
}

#[test]
#[ignore = "loads BPF: needs root"]
fn keys_are_set_while_it_runs_and_wrong_ones_refused_with_a_sentence() {
    let mut collector = Collector::start("");
    let refuse = |collector: &Collector, setting: &str, expected: &str| {
        let output = collector.command(&["config", "set", setting]);
        assert_eq!(output.status.code(), Some(2), "{setting}");
        assert_eq!(stderr(&output), format!("runwire-collector: {expected}\n"));
    };
    refuse(
        &collector,
        "dns_timeout=soon",
        "`dns_timeout` is `soon`: write a duration from 100ms to 1m, such as 5s",
    );
    refuse(
        &collector,
        "listen=127.0.0.1:1",
        "`listen` is only read at start: write it into the configuration file and restart the collector",
    );
    let output = collector.command(&["config", "set", "colour=red"]);
    assert!(
        stderr(&output)
            .starts_with("runwire-collector: there is no key `colour`, they are listen, ")
    );

    // The program shows in the kernel's own list while it is loaded.
    let runs = "bpf_program_runs_total";
    assert_eq!(collector.metric(runs), 0.0);
    let output = collector.command(&["config", "set", "statistics=on", "collect_interval=500ms"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("statistics is on until the collector ends"));
    collector.eventually("programs are measured", |collector| {
        (collector.metric(runs) > 0.0).then_some(())
    });
    let one = collector.command(&["config", "get", "collect_interval"]);
    assert_eq!(stdout(&one), "500ms\n");
    let all = collector.command(&["config", "get", "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&all.stdout).unwrap();
    let statistics = (all.as_array().unwrap().iter()).find(|key| key["name"] == "statistics");
    assert_eq!(statistics.unwrap()["origin"], "run_time");

    // The level, both ways.
    let changes = |collector: &Collector| {
        let lines = collector.log();
        lines
            .iter()
            .filter(|line| line["fields"]["message"] == "the configuration changed")
            .count()
    };
    let before = changes(&collector);
    collector.command(&["config", "set", "log_level=error"]);
    collector.command(&["config", "set", "dns_timeout=2s"]);
    assert_eq!(changes(&collector), before);
    collector.command(&["config", "set", "log_level=info"]);
    assert_eq!(changes(&collector), before + 1);
}

#[test]
#[ignore = "loads BPF: needs root"]
fn debug_pages_are_for_this_host_and_writing_is_for_the_command() {
    let collector = Collector::start("");
    assert_eq!(collector.get("/debug/config").0, 200);
    let state: serde_json::Value = serde_json::from_str(&collector.get("/debug/state").1).unwrap();
    assert_eq!(state["process"], collector.pid());
    let write = "PUT /debug/config/log_level HTTP/1.0\r\nContent-Length: 5\r\n\r\ndebug";
    let answer = super::collector::exchange(collector.address(), write);
    assert!(answer.starts_with("HTTP/1.0 403 "), "{answer}");
    let long = "x".repeat(20_000);
    let write = format!(
        "PUT /debug/config/log_level HTTP/1.0\r\nrunwire-set: 1\r\nContent-Length: 20000\r\n\r\n{long}"
    );
    let answer = super::collector::exchange(collector.address(), &write);
    assert!(answer.starts_with("HTTP/1.0 413 "), "{answer}");

    collector.command(&["config", "set", "debug_endpoints=off"]);
    assert_eq!(collector.get("/debug/config").0, 403);
    let output = collector.command(&["config", "get"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("set `debug_endpoints: on`"),
        "{}",
        stderr(&output)
    );
}

/// As the DaemonSet has it: on the node's address, which others reach too.
#[test]
#[ignore = "loads BPF: needs root"]
fn a_collector_that_serves_others_is_configured_from_its_own_host_alone() {
    let lab = Lab::new();
    let listen = format!("{}:9435", lab.client4);
    let collector = lab.in_client(|| Collector::start_on(&listen, &[], ""));
    // Its own address may be what hides who asks.
    let from_here = lab.in_client(|| collector.get("/debug/config"));
    assert_eq!(from_here.0, 403);
    let set = lab.in_client(|| collector.command(&["config", "set", "log_level=debug"]));
    assert!(set.status.success(), "{}", stderr(&set));
    let get = lab.in_client(|| collector.command(&["config", "get", "log_level"]));
    assert_eq!(stdout(&get), "debug\n");
    let from_another = lab.in_server(|| collector.command(&["config", "set", "log_level=info"]));
    assert!(
        stderr(&from_another).contains("for this host alone"),
        "{}",
        stderr(&from_another)
    );
    // There is nothing else on loopback.
    let beside = SocketAddr::from(([127, 0, 0, 1], 9435));
    let metrics = "GET /metrics HTTP/1.0\r\n\r\n";
    let answer = lab.in_client(|| super::collector::exchange(beside, metrics));
    assert!(answer.starts_with("HTTP/1.0 404 "), "{answer}");
}

#[test]
#[ignore = "loads BPF: needs root"]
fn maps_have_the_size_that_was_asked_for() {
    let collector = Collector::start("map_capacity: {tcp_edges: 1000, dns_pending: 64}\n");
    let size = |map: &str| collector.metric(&format!("bpf_map_capacity{{map=\"{map}\"}}"));
    assert_eq!((size("tcp_edges"), size("dns_pending")), (1000.0, 64.0));
}
