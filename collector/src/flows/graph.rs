//! Who talks to whom, for the Node Graph panel of Grafana: nodes are workloads, edges go from client
//! to server.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::history::Totals;
use super::query::{Filter, Span};
use super::table::FlowTable;
use super::unit::{size, time};
use crate::enrich::Workload;

/// What the two numbers of a node or edge, and its ring, are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Statistic {
    #[default]
    Connection,
    Bytes,
    Duration,
}

impl Statistic {
    pub const ALL: [(&'static str, Self); 3] = [
        ("connection", Self::Connection),
        ("bytes", Self::Bytes),
        ("duration", Self::Duration),
    ];
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub edges: Vec<Link>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Node {
    pub id: String,
    pub title: String,
    #[serde(rename = "subTitle")]
    pub subtitle: String,
    #[serde(flatten)]
    pub shown: Shown,
    #[serde(rename = "arc__1")]
    pub arc1: f64,
    #[serde(rename = "arc__2")]
    pub arc2: f64,
    #[serde(rename = "arc__3")]
    pub arc3: f64,
    #[serde(flatten)]
    pub details: Details,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Link {
    pub id: String,
    pub source: String,
    pub target: String,
    #[serde(flatten)]
    pub shown: Shown,
    #[serde(flatten)]
    pub details: Details,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub main_stat: String,
    pub secondary_stat: String,
}

/// The exact numbers, shown when a node or edge is clicked.
#[derive(Debug, PartialEq, Serialize)]
pub struct Details {
    #[serde(rename = "detail__connections")]
    connections: u64,
    #[serde(rename = "detail__persistent")]
    persistent: u64,
    #[serde(rename = "detail__failed")]
    failed: u64,
    #[serde(rename = "detail__bytes_sent")]
    bytes_sent: u64,
    #[serde(rename = "detail__bytes_received")]
    bytes_received: u64,
    #[serde(rename = "detail__duration_average_seconds")]
    duration_average_seconds: f64,
    #[serde(rename = "detail__duration_longest_seconds")]
    duration_longest_seconds: f64,
}

const DETAILS: [(&str, &str); 7] = [
    ("detail__connections", "Connections"),
    ("detail__persistent", "Persistent connections"),
    ("detail__failed", "Failed connections"),
    ("detail__bytes_sent", "Bytes sent"),
    ("detail__bytes_received", "Bytes received"),
    ("detail__duration_average_seconds", "Average duration (s)"),
    ("detail__duration_longest_seconds", "Longest duration (s)"),
];

/// The names of the members of [`Graph`], with what a panel calls and how it paints them.
pub fn fields(statistic: Statistic) -> Value {
    let text = |name: &str| json!({"field_name": name, "type": "string"});
    let named = |name: &str, shown: &str| json!({"field_name": name, "type": "string", "displayName": shown});
    let arc = |name: &str, shown: &str, colour: &str| json!({"field_name": name, "type": "number", "displayName": shown, "color": colour});
    let (node, edge, arcs) = match statistic {
        Statistic::Connection => (
            ["Connections", "Persistent"],
            ["Connections", "Persistent"],
            ["Persistent", "Short-lived", "Failed"],
        ),
        Statistic::Bytes => (
            ["Received", "Sent"],
            ["Sent", "Received"],
            ["Received", "Sent", "No data"],
        ),
        Statistic::Duration => (
            ["Average duration", "Longest duration"],
            ["Average duration", "Longest duration"],
            ["Persistent", "Short-lived", "No time"],
        ),
    };
    let details = || {
        DETAILS.map(
            |(name, shown)| json!({"field_name": name, "type": "number", "displayName": shown}),
        )
    };
    let mut edges = vec![
        text("id"),
        text("source"),
        text("target"),
        named("mainStat", edge[0]),
        named("secondaryStat", edge[1]),
    ];
    edges.extend(details());
    let mut nodes = vec![
        text("id"),
        text("title"),
        text("subTitle"),
        named("mainStat", node[0]),
        named("secondaryStat", node[1]),
        arc("arc__1", arcs[0], "green"),
        arc("arc__2", arcs[1], "blue"),
        arc("arc__3", arcs[2], "red"),
    ];
    nodes.extend(details());
    json!({"edges_fields": edges, "nodes_fields": nodes})
}

impl FlowTable {
    /// The graph of what a filter selects, of all that is remembered or of a span. `now`: of the
    /// monotonic clock.
    pub fn graph(&self, filter: &Filter, statistic: Statistic, now: u64) -> Graph {
        let span = filter.span.unwrap_or_else(Span::everything);
        let mut edges: BTreeMap<(Workload, Workload), Totals> = BTreeMap::new();
        let mut add = |source: &Workload, destination: &Workload, totals: &Totals| {
            let ends = (source.clone(), destination.clone());
            edges.entry(ends).or_default().add(totals);
        };
        for flow in self.flows().filter(|flow| filter.has_edge(&flow.edge)) {
            let edge = &flow.edge;
            if flow.was_alive(span) {
                let is_persistent = self.is_persistent(flow, now);
                let connection = Totals::of_connection(flow, is_persistent, now);
                add(&edge.source, &edge.destination, &connection);
            }
            if (span.from..=span.to).contains(&flow.active) {
                let last = flow.step();
                let bytes = Totals::of_bytes(last.sent, last.received);
                add(&edge.source, &edge.destination, &bytes);
            }
        }
        for step in self.history.steps(span.from, span.to) {
            if filter.has_edge(&step.edge) {
                let bytes = Totals::of_bytes(step.sent, step.received);
                add(&step.edge.source, &step.edge.destination, &bytes);
            }
        }
        for (edge, totals) in self.history.minutes(span.from, span.to) {
            if filter.has_edge(edge) {
                add(&edge.source, &edge.destination, totals);
            }
        }
        edges.retain(|_, totals| *totals != Totals::default());
        // Nothing has happened yet in what is still to come.
        let length = |span: Span| span.to.min(now).saturating_sub(span.from);
        let seconds = filter.span.map(|span| seconds(length(span)));
        draw(&edges, statistic, seconds)
    }
}

fn draw(
    edges: &BTreeMap<(Workload, Workload), Totals>,
    statistic: Statistic,
    seconds: Option<f64>,
) -> Graph {
    let mut nodes: BTreeMap<&Workload, Totals> = BTreeMap::new();
    for ((source, destination), totals) in edges {
        let node = nodes.entry(source).or_default();
        node.add(totals);
        if source != destination {
            let turned = Totals {
                sent: totals.received,
                received: totals.sent,
                ..*totals
            };
            nodes.entry(destination).or_default().add(&turned);
        }
    }
    let edges = edges
        .iter()
        .map(|((source, destination), totals)| {
            let (source, target) = (id(source), id(destination));
            Link {
                id: format!("{source} -> {target}"),
                source,
                target,
                shown: shown_of_edge(totals, statistic, seconds),
                details: totals.details(),
            }
        })
        .collect();
    let nodes = nodes
        .into_iter()
        .map(|(workload, totals)| {
            let [first, second, third] = arcs(&totals, statistic);
            Node {
                id: id(workload),
                title: workload.name.to_string(),
                subtitle: workload.namespace.to_string(),
                shown: shown_of_node(&totals, statistic, seconds),
                arc1: first,
                arc2: second,
                arc3: third,
                details: totals.details(),
            }
        })
        .collect();
    Graph { nodes, edges }
}

fn id(workload: &Workload) -> String {
    format!(
        "{}/{}/{}",
        workload.kind.as_str(),
        workload.namespace,
        workload.name
    )
}

fn shown_of_node(totals: &Totals, statistic: Statistic, seconds: Option<f64>) -> Shown {
    let (main_stat, secondary_stat) = match statistic {
        Statistic::Bytes => (
            format!("recv: {}", amount(totals.received, seconds)),
            format!("resp: {}", amount(totals.sent, seconds)),
        ),
        _ => return shown_of_edge(totals, statistic, seconds),
    };
    Shown {
        main_stat,
        secondary_stat,
    }
}

fn shown_of_edge(totals: &Totals, statistic: Statistic, over: Option<f64>) -> Shown {
    let (main_stat, secondary_stat) = match statistic {
        Statistic::Connection => (
            format!("all: {}", totals.connections),
            format!("persistent: {}", totals.persistent),
        ),
        Statistic::Bytes => (
            format!("sent: {}", amount(totals.sent, over)),
            format!("recv: {}", amount(totals.received, over)),
        ),
        Statistic::Duration => (
            format!("avg: {}", time(totals.average_duration())),
            format!("max: {}", time(seconds(totals.longest))),
        ),
    };
    Shown {
        main_stat,
        secondary_stat,
    }
}

/// Three parts that make one.
fn arcs(totals: &Totals, statistic: Statistic) -> [f64; 3] {
    let (first, second, third) = match statistic {
        Statistic::Connection => (
            totals.persistent,
            totals.connections - totals.persistent - totals.failed,
            totals.failed,
        ),
        Statistic::Bytes => (totals.received, totals.sent, 0),
        Statistic::Duration => (
            totals.persistent_duration,
            totals.duration - totals.persistent_duration,
            0,
        ),
    };
    #[expect(clippy::cast_precision_loss, reason = "parts of a ring on a screen")]
    let parts = [first, second, third].map(|part| part as f64);
    let whole: f64 = parts.iter().sum();
    if whole > 0.0 {
        parts.map(|part| part / whole)
    } else {
        [0.0, 0.0, 1.0]
    }
}

impl Totals {
    fn average_duration(&self) -> f64 {
        let opened = self.connections - self.failed;
        #[expect(clippy::cast_precision_loss, reason = "an average for people")]
        let opened = opened.max(1) as f64;
        seconds(self.duration) / opened
    }

    fn details(&self) -> Details {
        Details {
            connections: self.connections,
            persistent: self.persistent,
            failed: self.failed,
            bytes_sent: self.sent,
            bytes_received: self.received,
            duration_average_seconds: self.average_duration(),
            duration_longest_seconds: seconds(self.longest),
        }
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of centuries")]
    let seconds = nanoseconds as f64 / 1e9;
    seconds
}

/// Bytes; or, over a time, bytes a second.
fn amount(bytes: u64, over: Option<f64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let bytes = bytes as f64;
    match over {
        Some(seconds) if seconds > 0.0 => format!("{}/s", size(bytes / seconds)),
        _ => size(bytes),
    }
}
