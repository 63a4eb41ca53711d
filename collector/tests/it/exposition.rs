//! Numbers in, exposition out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use expect_test::{expect, expect_file};
use runwire_collector::agent::{Agent, signal_names};
use runwire_collector::enrich::{Enricher, Identities, Kind, Workload};
use runwire_collector::export::{
    Buckets, EDGE, Format, Labels, OWNER, Registry, Scraper, edge, owner,
};
use runwire_collector::host::{ReadingSettings, Readings};
use runwire_collector::signals::{HISTOGRAMS, SignalSettings, Signals};

fn workload(name: &str) -> Workload {
    Workload::local(name, Kind::Netns)
}

/// The lines about one family.
fn family(text: &str, name: &str) -> String {
    let about = |line: &&str| {
        let line = line
            .trim_start_matches("# HELP ")
            .trim_start_matches("# TYPE ");
        line.starts_with(&format!("runwire_{name}"))
    };
    let lines: Vec<&str> = text.lines().filter(about).collect();
    lines.join("\n")
}

fn scraper(last_byte: u8) -> Option<Scraper> {
    Some(Scraper {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, last_byte)),
        user_agent: "Prometheus/3.0".to_owned(),
    })
}

/// The catalogue of everything that is exported, as a file to look names up in.
#[test]
fn every_family_is_in_metrics_prom() {
    let registry = Registry::new(100);
    let enricher = Enricher::of(Identities::default(), &registry);
    let settings = SignalSettings {
        off: signal_names().iter().map(|&name| name.to_owned()).collect(),
        ..SignalSettings::default()
    };
    let _families = (
        Signals::start(&registry, &settings),
        Readings::new(&registry, &ReadingSettings::default()),
        Agent::new(registry.clone(), Arc::new(enricher)),
    );
    for signal in signal_names() {
        registry.enable(signal, true);
    }
    for part in ["kubernetes", "kubernetes_app_labels", "flow_store"] {
        registry.enable(part, true);
    }
    expect_file!["../../metrics.prom"].assert_eq(&registry.catalogue());
}

#[test]
fn both_formats_show_the_same_series() {
    let registry = Registry::new(100);
    let resets = registry.counter(
        "tcp_resets",
        "RSTs; reason=\"\": none",
        &[EDGE, &["reason"]],
    );
    resets.add(
        edge(&workload("web"), &workload("db")).with(&["a\"b\\c\nd"]),
        3,
    );
    resets.add(edge(&workload("web"), &Workload::external()).with(&[""]), 1);
    let rtt = registry.histogram(
        "rtt_seconds",
        "RTT",
        &[&["x"]],
        Buckets::exponential(0.00005, 100.0, 3),
    );
    rtt.add(Labels::new(&["1"]), &[1, 2, 3, 4], 2.5);
    rtt.observe(Labels::new(&["1"]), 0.005);
    registry
        .gauge("load", "Load", &[])
        .set(Labels::default(), 0.25);

    expect![[r#"
        # HELP runwire_load Load
        # TYPE runwire_load gauge
        runwire_load 0.25
        # HELP runwire_rtt_seconds RTT
        # TYPE runwire_rtt_seconds histogram
        runwire_rtt_seconds_bucket{x="1",le="0.00005"} 1
        runwire_rtt_seconds_bucket{x="1",le="0.005"} 4
        runwire_rtt_seconds_bucket{x="1",le="0.5"} 7
        runwire_rtt_seconds_bucket{x="1",le="+Inf"} 11
        runwire_rtt_seconds_sum{x="1"} 2.505
        runwire_rtt_seconds_count{x="1"} 11
        # HELP runwire_tcp_resets_total RSTs; reason="": none
        # TYPE runwire_tcp_resets_total counter
        runwire_tcp_resets_total{src_namespace="host",src_workload="web",src_kind="netns",dst_namespace="host",dst_workload="db",dst_kind="netns",reason="a\"b\\c\nd"} 3
        runwire_tcp_resets_total{src_namespace="host",src_workload="web",src_kind="netns",dst_namespace="~external",dst_workload="~external",dst_kind="external"} 1
        # HELP runwire_series Series of a metric family, 0 included: a family that is not here is not measured
        # TYPE runwire_series gauge
        runwire_series{metric="load"} 1
        runwire_series{metric="rtt_seconds"} 1
        runwire_series{metric="tcp_resets"} 2
        # HELP runwire_series_overflow_total Additions that went to the `~other` series of a family that is over its budget
        # TYPE runwire_series_overflow_total counter
        runwire_series_overflow_total{metric="load"} 0
        runwire_series_overflow_total{metric="rtt_seconds"} 0
        runwire_series_overflow_total{metric="tcp_resets"} 0
    "#]]
    .assert_eq(&registry.encode(Format::Text, None));

    let text = registry.encode(Format::Text, None);
    let open = registry.encode(Format::OpenMetrics, None);
    let samples = |text: &str| -> Vec<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(str::to_owned).collect()
    };
    assert_eq!(samples(&text), samples(&open));
    assert!(open.contains("# HELP runwire_tcp_resets RSTs; reason=\\\"\\\": none\n"));
    assert!(open.contains("# TYPE runwire_tcp_resets counter\n"));
    assert!(open.ends_with("# EOF\n"));
}

#[test]
fn a_family_over_its_budget_goes_on_in_its_overflow_series() {
    let registry = Registry::new(40);
    let drops = registry.counter("drops", "Drops", &[OWNER, &["reason"]]);
    for i in 0..1000 {
        let reason = if i % 2 == 0 { "even" } else { "odd" };
        drops.add(owner(&workload(&format!("w{i:04}"))).with(&[reason]), 1);
    }
    // A reason for everyone would be as many series again.
    for i in 0..100 {
        drops.add(owner(&workload("w9999")).with(&[&format!("r{i}")]), 1);
    }
    let text = registry.encode(Format::Text, None);
    let values: Vec<u32> = family(&text, "drops")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(values.len(), 40);
    assert_eq!(values.iter().sum::<u32>(), 1100, "nothing is lost");
    let other =
        r#"runwire_drops_total{namespace="~other",workload="~other",kind="~other",reason="odd"}"#;
    assert!(text.contains(other), "{text}");
    expect![[r#"runwire_series_overflow_total{metric="drops"} 1064"#]]
        .assert_eq(text.lines().last().unwrap());
}

#[test]
fn what_was_counted_before_anybody_looked_is_shown_as_it_is() {
    let registry = Registry::new(100);
    registry.encode(Format::Text, scraper(1));
    let segments =
        registry
            .for_signal("netns_counters")
            .counter("segments", "Segments", &[&["of"]]);
    registry.set_past("netns_counters", true);
    segments.add(Labels::new(&["old"]), 1_000_000);
    registry.set_past("netns_counters", false);
    segments.add(Labels::new(&["new"]), 5);
    segments.add_past(Labels::new(&["moved"]), 7);
    let text = registry.encode(Format::Text, scraper(1));
    assert!(
        text.contains("segments_total{of=\"old\"} 1000000\n"),
        "{text}"
    );
    assert!(text.contains("segments_total{of=\"new\"} 0\n"), "{text}");
    assert!(text.contains("segments_total{of=\"moved\"} 7\n"), "{text}");
}

#[test]
fn a_scraper_sees_a_new_series_from_zero() {
    let registry = Registry::new(100);
    let opened = registry.counter("opened", "Opened", &[&["x"]]);
    let took = registry.histogram("took", "Took", &[&["x"]], Buckets::exponential(1.0, 2.0, 1));
    let shown = |scraper| {
        let text = registry.encode(Format::Text, scraper);
        let samples = text.lines().filter(|line| {
            !line.starts_with('#') && !line.contains("series") && !line.contains("_bucket")
        });
        let short = |line: &str| line.replace("runwire_", "").replace("{x=\"1\"}", "");
        samples.map(short).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(shown(scraper(1)), "");
    opened.add(Labels::new(&["1"]), 5);
    took.observe(Labels::new(&["1"]), 0.5);
    let real = "opened_total 5, took_sum 0.5, took_count 1";
    assert_eq!(shown(None), real, "who does not scrape");
    assert_eq!(
        shown(scraper(1)),
        "opened_total 0, took_sum 0, took_count 0"
    );
    assert_eq!(shown(scraper(2)), real, "a scraper without past");
    assert_eq!(shown(scraper(1)), real);
    opened.add(Labels::new(&["1"]), 1);
    assert_eq!(
        shown(scraper(1)),
        "opened_total 6, took_sum 0.5, took_count 1"
    );
}

#[test]
fn a_scraper_that_was_answered_too_late_sees_zero_once_more() {
    let registry = Registry::new(100);
    let opened = registry.counter("opened", "Opened", &[&["x"]]);
    let shown = || {
        let text = registry.encode(Format::Text, scraper(1));
        let line = text.lines().find(|line| line.starts_with("runwire_opened"));
        line.unwrap_or_default().to_owned()
    };
    let zero = "runwire_opened_total{x=\"1\"} 0";
    let real = "runwire_opened_total{x=\"1\"} 5";
    let late = || registry.was_late(&scraper(1).unwrap());
    shown();
    opened.add(Labels::new(&["1"]), 5);
    assert_eq!(shown(), zero);
    late();
    assert_eq!(shown(), zero, "the first answer may have been lost");
    late();
    assert_eq!(shown(), real, "where all is slow, what is counted is seen");
    late();
    assert_eq!(shown(), real, "what was seen stays");
}

#[test]
fn only_signals_that_are_on_are_shown() {
    let registry = Registry::new(100);
    let dns = registry.for_signal("dns");
    dns.counter("dns_queries", "Queries", &[])
        .add(Labels::default(), 1);
    registry.for_signal("rtt").counter("shared", "Shared", &[]);
    dns.counter("shared", "Shared", &[]);
    registry.enable("dns", false);
    let text = registry.encode(Format::Text, None);
    assert_eq!(family(&text, "dns"), "");
    assert_eq!(
        family(&text, "series{"),
        "runwire_series{metric=\"shared\"} 0"
    );
    registry.enable("dns", true);
    let text = registry.encode(Format::Text, None);
    assert!(text.contains("\nrunwire_dns_queries_total 1\n"), "{text}");
}

#[test]
fn series_of_gone_workloads_are_forgotten_after_a_while() {
    let registry = Registry::new(100);
    let opened = registry.counter("opened", "Opened", &[EDGE]);
    let to = |name: &str| edge(&workload("web"), &workload(name));
    opened.add(to("alive"), 1);
    opened.add(to("gone"), 1);
    let sweep = || registry.sweep(2, |_, name, _| name != "gone");
    let has_gone = || registry.encode(Format::Text, None).contains("gone");
    sweep();
    sweep();
    assert!(has_gone(), "moved before the first sweep");
    opened.add(to("gone"), 1);
    sweep();
    sweep();
    assert!(has_gone(), "and moved again");
    sweep();
    assert!(!has_gone());
    assert!(registry.encode(Format::Text, None).contains("alive"));
}

#[test]
fn series_of_gone_workloads_make_room_in_a_family_that_is_full() {
    let registry = Registry::new(40);
    let opened = registry.counter("opened", "Opened", &[EDGE]);
    let to = |name: &str| edge(&workload("web"), &workload(name));
    for i in 0..50 {
        opened.add(to(&format!("gone{i}")), 1);
    }
    let sweep = || registry.sweep(5, |_, name, _| !name.starts_with("gone"));
    let shown = |name: &str| registry.encode(Format::Text, None).contains(name);
    sweep();
    assert!(shown("gone0"), "moved before this sweep");
    sweep();
    assert!(!shown("gone0"));
    opened.add(to("new"), 1);
    assert!(shown("new"));
}

#[test]
fn the_buckets_of_every_histogram_can_be_chosen() {
    let catalogue = include_str!("../../metrics.prom");
    let histograms = catalogue.lines().filter_map(|line| {
        line.strip_prefix("# TYPE runwire_")?
            .strip_suffix(" histogram")
    });
    for name in histograms {
        let known = HISTOGRAMS.iter().any(|(known, _)| *known == name);
        assert!(known, "{name} is not in HISTOGRAMS of signals.rs");
    }
    let registry = Registry::with_buckets(100, [("took".to_owned(), vec![0.5, 7.0])].into());
    let took = registry.histogram("took", "Took", &[], Buckets::exponential(1.0, 2.0, 9));
    took.observe(Labels::default(), 1.0);
    let text = registry.encode(Format::Text, None);
    let buckets = text.lines().filter(|line| line.contains("_bucket"));
    let buckets: Vec<&str> = buckets.collect();
    assert_eq!(
        buckets,
        [
            "runwire_took_bucket{le=\"0.5\"} 0",
            "runwire_took_bucket{le=\"7.0\"} 1",
            "runwire_took_bucket{le=\"+Inf\"} 1"
        ]
    );
    assert_eq!(took.bounds(1e9), [500_000_000, 7_000_000_000]);
}

#[test]
fn a_budget_that_is_raised_makes_room() {
    let registry = Registry::new(10);
    let opened = registry.counter("opened", "Opened", &[&["x"]]);
    let add = |n: u32| opened.add(Labels::new(&[&n.to_string()]), 1);
    (0..50).for_each(add);
    let series = || {
        let text = registry.encode(Format::Text, None);
        text.lines()
            .filter(|line| line.starts_with("runwire_opened_total{"))
            .count()
    };
    assert!(series() <= 10);
    registry.set_budget(100);
    (50..80).for_each(add);
    assert!((30..=40).contains(&series()), "{}", series());
}
