//! Who talks to whom in the whole cluster: what all collectors have counted of pairs of workloads, as Prometheus has it, made
//! into nodes and edges for Grafana's Node Graph panel. A collector serves the same about its own node, from its flow table.

use futures_util::future::try_join_all;
use regex::Regex;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::prometheus::Prometheus;

mod draw;
mod query;

use draw::Pairs;

/// What is asked of the graph, checked.
#[derive(Debug)]
pub struct Asked {
    /// Of either end.
    pub namespace: Option<String>,
    /// Of either end.
    pub workload: Option<String>,
    /// Pairs where it matches a name or `namespace/name` of an end.
    pub include: Option<Regex>,
    /// And where it does not.
    pub exclude: Option<Regex>,
    /// Milliseconds since 1970.
    pub from: i64,
    /// Milliseconds since 1970, a second after `from` at least.
    pub to: i64,
    /// Edges at most, those with most of the statistic first.
    pub limit: usize,
    pub statistic: Statistic,
}

/// What the two numbers of a node or edge are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Statistic {
    #[default]
    Connection,
    Bytes,
    Duration,
}

impl Statistic {
    /// Named as the collector names them.
    pub const ALL: [(&str, Self); 3] = [
        ("connection", Self::Connection),
        ("bytes", Self::Bytes),
        ("duration", Self::Duration),
    ];
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ClusterGraph)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
}

/// A workload, with what it did as client and as server.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ClusterGraphNode)]
pub struct Node {
    /// Kind, namespace and name.
    #[schema(example = "deployment/shop/cart")]
    pub id: String,
    pub title: String,
    #[serde(rename = "subTitle")]
    pub subtitle: String,
    #[serde(flatten)]
    pub shown: Shown,
    /// Share of connections that were opened.
    #[serde(rename = "arc__1")]
    pub opened: f64,
    /// The rest of them.
    #[serde(rename = "arc__2")]
    pub failed: f64,
    #[serde(flatten)]
    pub details: Details,
}

/// From client to server. Where no collector saw who began, from the end that sent less, if it sent anything.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ClusterGraphEdge)]
pub struct Edge {
    pub id: String,
    pub source: String,
    pub target: String,
    #[serde(flatten)]
    pub shown: Shown,
    #[serde(flatten)]
    pub details: Details,
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ClusterGraphShown)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub main_stat: String,
    pub secondary_stat: String,
}

/// The numbers themselves, shown when a node or edge is clicked. `null` where nothing was measured in the time.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ClusterGraphDetails)]
pub struct Details {
    #[serde(rename = "detail__connections")]
    pub connections: f64,
    #[serde(rename = "detail__failed")]
    pub failed: f64,
    /// Payload of TCP and UDP.
    #[serde(rename = "detail__bytes_sent")]
    pub bytes_sent: f64,
    #[serde(rename = "detail__bytes_received")]
    pub bytes_received: f64,
    #[serde(rename = "detail__duration_average_seconds")]
    pub duration_average_seconds: Option<f64>,
    #[serde(rename = "detail__round_trip_average_seconds")]
    pub round_trip_average_seconds: Option<f64>,
    #[serde(rename = "detail__retransmitted_ratio")]
    pub retransmitted_ratio: Option<f64>,
}

const DETAILS: [(&str, &str); 7] = [
    ("detail__connections", "Connections"),
    ("detail__failed", "Failed connections"),
    ("detail__bytes_sent", "Bytes sent"),
    ("detail__bytes_received", "Bytes received"),
    ("detail__duration_average_seconds", "Average duration (s)"),
    (
        "detail__round_trip_average_seconds",
        "Average round trip (s)",
    ),
    (
        "detail__retransmitted_ratio",
        "Share of segments sent again",
    ),
];

/// The names of the members of [`Graph`], with what a panel calls and how it paints them.
pub fn fields(statistic: Statistic) -> Value {
    let [main, secondary] = match statistic {
        Statistic::Connection => ["Connections", "Failed"],
        Statistic::Bytes => ["Sent", "Received"],
        Statistic::Duration => ["Average duration", "Average round trip"],
    };
    let field = |name: &str, of: &str, shown: &str| json!({"field_name": name, "type": of, "displayName": shown});
    let text = |name: &str| json!({"field_name": name, "type": "string"});
    let mut edges = vec![text("id"), text("source"), text("target")];
    let mut nodes = vec![text("id"), text("title"), text("subTitle")];
    for fields in [&mut edges, &mut nodes] {
        fields.push(field("mainStat", "string", main));
        fields.push(field("secondaryStat", "string", secondary));
    }
    for (name, shown, colour) in [("arc__1", "Opened", "green"), ("arc__2", "Failed", "red")] {
        let mut arc = field(name, "number", shown);
        arc["color"] = colour.into();
        nodes.push(arc);
    }
    for fields in [&mut edges, &mut nodes] {
        fields.extend(DETAILS.map(|(name, shown)| field(name, "number", shown)));
    }
    json!({"edges_fields": edges, "nodes_fields": nodes})
}

/// Asks for everything at once. Where one query fails, or its answer lacks series, there is no graph but a sentence that says why:
/// a part of the numbers would look like all of them.
pub async fn ask(prometheus: &Prometheus, asked: &Asked) -> Result<Graph, String> {
    let answers = query::all(asked).into_iter().map(|query| async move {
        let vector = prometheus.instant(&query.text, asked.to).await;
        let vector = vector.map_err(|error| error.to_string())?;
        match vector.partial {
            Some(reason) => Err(reason),
            None => Ok((query.into, vector.samples)),
        }
    });
    let mut pairs = Pairs::default();
    for (into, samples) in try_join_all(answers).await? {
        pairs.add(into, &samples);
    }
    Ok(pairs.draw(asked))
}
