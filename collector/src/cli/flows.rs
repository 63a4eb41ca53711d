//! `runwire-collector flows`: the connections that the running collector knows, as a table.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches};
use serde::Deserialize;
use serde_json::Value;

use super::http::get_stored;
use super::table::{Cell, Colour, cell, coloured, colours, render};
use crate::config::Config;
use crate::flows::unit::{size, time};

/// Rows that fit a screen.
const ROWS: &str = "20";
/// Where nobody says how wide the screen is.
const COLUMNS: usize = 80;
/// Letters of a name: at most, and at least, however narrow the screen.
const NAMES: RangeInclusive<usize> = 12..=60;

/// The parameters of `/api/flows`, with what they are.
const FILTERS: [(&str, &str, &str); 14] = [
    ("namespace", "NAME", "Of either end"),
    ("workload", "NAME", "Of either end"),
    (
        "src",
        "ADDRESS|NAME",
        "The client: an address, a network or a workload",
    ),
    (
        "dst",
        "ADDRESS|NAME",
        "The server or Service: an address, a network or a workload",
    ),
    ("port", "NUMBER", "Of the server or Service"),
    ("protocol", "tcp|udp", "The protocol"),
    (
        "state",
        "STATE",
        "connecting, open, closing, closed or failed",
    ),
    (
        "role",
        "client|server",
        "The end that was seen on this host",
    ),
    (
        "include",
        "REGEX",
        "Only where it matches a name or address of either end",
    ),
    ("exclude", "REGEX", "Only where it matches neither end"),
    (
        "from",
        "TIME",
        "Only what moved since: 2026-11-20T03:10:00Z, or seconds since 1970",
    ),
    ("to", "TIME", "Only what moved until then"),
    (
        "sort",
        "ORDER",
        "The most first: recent, started, bytes, sent, received or duration",
    ),
    ("limit", "NUMBER", "Rows at most"),
];

/// What is shown of a row.
#[derive(Deserialize)]
struct Flow {
    protocol: String,
    state: String,
    reason: Option<String>,
    src_address: String,
    src_workload: String,
    src_kind: String,
    dst_address: String,
    dst_port: u16,
    dst_workload: String,
    dst_kind: String,
    bytes_sent: u64,
    bytes_received: u64,
    duration_seconds: f64,
}

pub(super) fn arguments() -> Vec<Arg> {
    let filters = FILTERS.map(|(name, value, help)| {
        let argument = Arg::new(name).long(name).value_name(value).help(help);
        match name {
            "limit" => argument.default_value(ROWS),
            _ => argument,
        }
    });
    filters.to_vec()
}

#[expect(clippy::print_stdout, reason = "what the user asked for")]
pub fn flows(config: &Config, arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut query = String::new();
    for (name, ..) in FILTERS {
        if let Some(value) = arguments.get_one::<String>(name) {
            _ = write!(query, "&{name}={}", encoded(value));
        }
    }
    let body = get_stored(config.listen, &format!("/api/flows?{}", &query[1..]))?;
    let answer: Value = serde_json::from_str(&body).with_context(|| {
        format!(
            "what {} answers is not a collector's /api/flows",
            config.listen
        )
    })?;
    if let Some(refusal) = answer.get("detail").and_then(Value::as_str) {
        if answer["status"] == 400 {
            return Ok(super::fail(2, &refusal));
        }
        bail!("{refusal}");
    }
    if arguments.get_flag("json") {
        println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(ExitCode::SUCCESS);
    }
    let flows: Vec<Flow> = serde_json::from_value(answer).context("a row is not what it was")?;
    if flows.is_empty() {
        println!("no flows");
    } else {
        let columns = std::env::var("COLUMNS").ok();
        let columns = columns.and_then(|text| text.parse().ok());
        let rows = fitting(&flows, columns.unwrap_or(COLUMNS));
        print!("{}", render(&rows, colours()));
    }
    Ok(ExitCode::SUCCESS)
}

/// With names as long as fit.
fn fitting(flows: &[Flow], columns: usize) -> Vec<Vec<Cell>> {
    let fits = |rows: &[Vec<Cell>]| {
        let text = render(rows, false);
        text.lines().all(|line| line.chars().count() <= columns)
    };
    let mut wider = NAMES.rev().map(|most| rows(flows, most));
    wider
        .find(|rows| fits(rows))
        .unwrap_or_else(|| rows(flows, *NAMES.start()))
}

fn rows(flows: &[Flow], most: usize) -> Vec<Vec<Cell>> {
    let header = ["PROTO", "STATE", "FROM", "TO", "SENT", "RECV", "TIME"];
    let mut rows = vec![header.map(cell).into()];
    for flow in flows {
        let state = match (&flow.reason, flow.state.as_str()) {
            (Some(reason), _) => coloured(short(reason, 11), Colour::Bad),
            (None, state @ "open") => coloured(state, Colour::Good),
            (None, state) => cell(state),
        };
        let from = name(&flow.src_workload, &flow.src_kind, &flow.src_address);
        let to = name(&flow.dst_workload, &flow.dst_kind, &flow.dst_address);
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        let [sent, received] = [flow.bytes_sent, flow.bytes_received].map(|bytes| bytes as f64);
        rows.push(vec![
            cell(&flow.protocol),
            state,
            cell(short(&from, most)),
            cell(format!("{}:{}", short(&to, most), flow.dst_port)),
            cell(size(sent)),
            cell(size(received)),
            cell(time(flow.duration_seconds)),
        ]);
    }
    rows
}

/// Who is no workload of this host is known by address alone.
fn name(workload: &str, kind: &str, address: &str) -> String {
    match kind {
        "external" | "unknown" if address.contains(':') => format!("[{address}]"),
        "external" | "unknown" => address.to_owned(),
        _ => workload.to_owned(),
    }
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let start: String = text.chars().take(most - 1).collect();
    format!("{start}…")
}

fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[test]
fn a_table_fits_80_columns() {
    let flow = |long: bool| Flow {
        protocol: "tcp".into(),
        state: "failed".into(),
        reason: Some("network_unreachable".into()),
        src_address: "10.0.0.1".into(),
        src_workload: if long {
            "a-workload-with-a-long-name"
        } else {
            "shop"
        }
        .into(),
        src_kind: "netns".into(),
        dst_address: "2001:db8:1234:5678:9abc:def0:1234:5678".into(),
        dst_port: 65_535,
        dst_workload: "~external".into(),
        dst_kind: if long { "external" } else { "netns" }.into(),
        bytes_sent: 123_456,
        bytes_received: 1_234_567_890,
        duration_seconds: 0.0123,
    };
    let text = |flows: &[Flow]| render(&fitting(flows, 80), false);
    for flows in [vec![flow(true), flow(false)], vec![flow(false)]] {
        for line in text(&flows).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
    let table = text(&[flow(true)]);
    assert!(
        table.contains("a-workload-w…  [2001:db8:12…:65535"),
        "{table}"
    );
    let table = text(&[flow(false)]);
    assert!(table.contains("shop  ~external:65535"), "{table}");
    assert_eq!(encoded("a b&=(é"), "a%20b%26%3D%28%C3%A9");
}
