//! `runwire-collector trace`: what happens on this host's network, as it happens, for a while.
//!
//! Looks at the collector's counters twice a second and prints what moved. Nothing is turned on for
//! it in the kernel or in the collector, so nothing has to be turned off when the time is over or the
//! terminal is closed.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::exposition::{Sample, samples};
use super::http::Connection;
use super::{configurable, json_flag};
use crate::config::Config;
use crate::export::PREFIX;

const BETWEEN: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(3600);

/// Of the process itself, or too many to read.
const LEFT_OUT: [&str; 12] = [
    "netns_mib",
    "bpf_",
    "series",
    "process_",
    "scrape_",
    "collect_",
    "config_",
    "tcp_busy",
    "tcp_segments",
    "tcp_data_segments",
    "tcp_bytes",
    "interface_",
];

const EXAMPLES: &str = "\
Each line is a counter that moved: the time, by how much, the metric, who did it to whom, and the rest.

Try it:
  runwire-collector trace                          everything, for 30 seconds
  runwire-collector trace --for 5m --only failures
  runwire-collector trace --only dns --json        for a program to read";

pub(super) fn command() -> Command {
    configurable(Command::new("trace"))
        .about("Show connections, failures, drops and DNS as they happen; ends by itself")
        .after_help(EXAMPLES)
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("DURATION")
                .default_value("30s")
                .value_parser(parse_duration)
                .help("How long; at most 1h"),
        )
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("TEXT")
                .help("Lines that hold this text: part of a metric's name, a workload, a reason"),
        )
        .arg(json_flag())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() && duration <= LONGEST => Ok(duration),
        _ => Err("write a duration up to 1h, such as 30s".to_owned()),
    }
}

pub fn trace(config: &Config, arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let length = *arguments
        .get_one::<Duration>("for")
        .expect("it has a default");
    let only = arguments
        .get_one::<String>("only")
        .map_or("", String::as_str);
    let as_json = arguments.get_flag("json");
    let end = Instant::now() + length;
    let mut collector = Connection::open(config.listen)?;
    let mut seen = totals(&collector.get("/metrics")?);
    let mut out = io::stdout().lock();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(ExitCode::SUCCESS);
        }
        sleep(BETWEEN.min(left));
        let text = collector.get("/metrics")?;
        for sample in samples(&text).filter(is_event) {
            let before = seen.get(sample.series).copied().unwrap_or(0.0);
            let step = sample.value - before;
            if step <= 0.0 || !sample.series.contains(only) {
                continue;
            }
            let line = if as_json {
                in_json(&sample, step)
            } else {
                in_words(&sample, step)
            };
            // Who closes the pipe has seen enough.
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
        }
        seen = totals(&text);
    }
}

fn totals(text: &str) -> HashMap<String, f64> {
    samples(text)
        .filter(is_event)
        .map(|sample| (sample.series.to_owned(), sample.value))
        .collect()
}

fn is_event(sample: &Sample<'_>) -> bool {
    let Some(name) = sample.name.strip_prefix(PREFIX) else {
        return false;
    };
    name.ends_with("_total") && !LEFT_OUT.iter().any(|start| name.starts_with(start))
}

fn short(name: &str) -> &str {
    name.trim_start_matches(PREFIX).trim_end_matches("_total")
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn in_words(sample: &Sample<'_>, step: f64) -> String {
    let who = ["src_workload", "dst_workload", "workload"].map(|name| sample.label(name));
    let who = match who {
        [Some(src), Some(dst), _] => format!("{src} → {dst}"),
        [_, _, Some(owner)] => owner.to_owned(),
        _ => String::new(),
    };
    let is_end = |name: &str| {
        ["namespace", "workload", "kind"]
            .contains(&name.trim_start_matches("src_").trim_start_matches("dst_"))
    };
    let rest: Vec<String> = (sample.labels().into_iter())
        .filter(|(name, _)| !is_end(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let line = format!(
        "{}  +{step}  {}  {who}  {}",
        now(),
        short(sample.name),
        rest.join(" ")
    );
    line.trim_end().to_owned()
}

fn in_json(sample: &Sample<'_>, step: f64) -> String {
    let labels: serde_json::Map<String, serde_json::Value> = (sample.labels().into_iter())
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    json!({"time": now(), "metric": short(sample.name), "count": step, "labels": labels})
        .to_string()
}

#[test]
fn a_line_says_who_did_what() {
    let text = "runwire_tcp_connect_failures_total{src_namespace=\"host\",src_workload=\"a\",src_kind=\"netns\",dst_namespace=\"host\",dst_workload=\"b\",dst_kind=\"netns\",reason=\"refused\"} 5";
    let sample = samples(text).next().unwrap();
    assert!(is_event(&sample));
    let words = in_words(&sample, 2.0);
    assert!(
        words.ends_with("  +2  tcp_connect_failures  a → b  reason=refused"),
        "{words}"
    );
    let json: serde_json::Value = serde_json::from_str(&in_json(&sample, 2.0)).unwrap();
    assert_eq!(json["labels"]["reason"], "refused");
    for other in [
        "runwire_netns_mib_total 1",
        "runwire_tcp_connections 1",
        "go_x_total 1",
    ] {
        assert!(!is_event(&samples(other).next().unwrap()), "{other}");
    }
}
