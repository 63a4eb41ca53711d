//! What was counted of pairs of workloads, as nodes and edges; pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::{Asked, Details, Edge, Graph, Node, Shown, Statistic};
use crate::diagnosis::quantity;
use crate::prometheus::Sample;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Workload {
    kind: String,
    namespace: String,
    name: String,
}

impl Workload {
    fn of(labels: &BTreeMap<String, String>, end: &str) -> Self {
        let label = |name: &str| labels.get(&format!("{end}_{name}")).cloned();
        Self {
            kind: label("kind").unwrap_or_default(),
            namespace: label("namespace").unwrap_or_default(),
            name: label("workload").unwrap_or_default(),
        }
    }

    fn id(&self) -> String {
        format!("{}/{}/{}", self.kind, self.namespace, self.name)
    }

    fn matches(&self, pattern: &Regex) -> bool {
        pattern.is_match(&self.name)
            || pattern.is_match(&format!("{}/{}", self.namespace, self.name))
    }
}

/// A sum and of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Mean {
    pub(super) sum: f64,
    pub(super) count: f64,
}

impl Mean {
    fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// From one workload to another: connections by client and server, payload and segments by sender and receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Totals {
    /// `None`: nobody has seen the first be the client of the second.
    pub(super) opened: Option<f64>,
    pub(super) failed: Option<f64>,
    pub(super) tcp_payload: f64,
    pub(super) udp_payload: f64,
    pub(super) lived: Mean,
    pub(super) round_trips: Mean,
    /// Segments sent again, and all.
    pub(super) repeated: Mean,
}

impl Totals {
    fn client(&self) -> Client {
        match (self.opened, self.failed) {
            (None, None) => Client::Unknown,
            (opened, failed) if opened.unwrap_or_default() + failed.unwrap_or_default() > 0.0 => {
                Client::Now
            }
            _ => Client::Before,
        }
    }

    fn payload(&self) -> f64 {
        self.tcp_payload + self.udp_payload
    }
}

/// When the first end of a pair was seen to be the client of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    Unknown,
    Before,
    Now,
}

/// Of an edge or a node.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Activity {
    opened: f64,
    failed: f64,
    sent: f64,
    received: f64,
    lived: Mean,
    round_trips: Mean,
    repeated: Mean,
}

impl Activity {
    /// Connections in one direction, and what was said in both.
    fn of(there: &Totals, back: &Totals) -> Self {
        let mut activity = Self {
            opened: there.opened.unwrap_or_default(),
            failed: there.failed.unwrap_or_default(),
            sent: there.payload(),
            received: back.payload(),
            lived: there.lived,
            round_trips: there.round_trips,
            repeated: there.repeated,
        };
        activity.round_trips.add(back.round_trips);
        activity.repeated.add(back.repeated);
        activity
    }

    fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.failed += other.failed;
        self.sent += other.sent;
        self.received += other.received;
        self.lived.add(other.lived);
        self.round_trips.add(other.round_trips);
        self.repeated.add(other.repeated);
    }

    fn connections(&self) -> f64 {
        self.opened + self.failed
    }

    fn amount(&self, statistic: Statistic) -> f64 {
        match statistic {
            Statistic::Connection => self.connections(),
            Statistic::Bytes => self.sent + self.received,
            Statistic::Duration => self.lived.value().unwrap_or_default(),
        }
    }

    fn shown(&self, statistic: Statistic) -> Shown {
        let mean = |mean: Mean| {
            let value = mean.value();
            value.map_or_else(|| "–".to_owned(), |value| quantity(value, Some("seconds")))
        };
        let size = |bytes: f64| quantity(bytes, Some("bytes"));
        let [main_stat, secondary_stat] = match statistic {
            Statistic::Connection => [
                format!("all: {}", self.connections().round()),
                format!("failed: {}", self.failed.round()),
            ],
            Statistic::Bytes => [
                format!("sent: {}", size(self.sent)),
                format!("recv: {}", size(self.received)),
            ],
            Statistic::Duration => [
                format!("avg: {}", mean(self.lived)),
                format!("rtt: {}", mean(self.round_trips)),
            ],
        };
        Shown {
            main_stat,
            secondary_stat,
        }
    }

    fn details(&self) -> Details {
        Details {
            connections: self.connections().round(),
            failed: self.failed.round(),
            bytes_sent: self.sent.round(),
            bytes_received: self.received.round(),
            duration_average_seconds: self.lived.value(),
            round_trip_average_seconds: self.round_trips.value(),
            retransmitted_ratio: self.repeated.value(),
        }
    }
}

#[derive(Default)]
pub(super) struct Pairs(BTreeMap<(Workload, Workload), Totals>);

impl Pairs {
    pub(super) fn add(&mut self, into: fn(&mut Totals) -> &mut f64, samples: &[Sample]) {
        for sample in samples.iter().filter(|sample| sample.value.is_finite()) {
            let [source, target] = ["src", "dst"].map(|end| Workload::of(&sample.labels, end));
            *into(self.0.entry((source, target)).or_default()) += sample.value;
        }
    }

    pub(super) fn draw(&self, asked: &Asked) -> Graph {
        let statistic = asked.statistic;
        let ends: BTreeSet<(&Workload, &Workload)> = self
            .0
            .keys()
            .flat_map(|(source, target)| [(source, target), (target, source)])
            .collect();
        let mut edges: Vec<(&Workload, &Workload, Activity)> = Vec::new();
        for (source, target) in ends {
            let there = self.at(source, target);
            let back = match source == target {
                true => Totals::default(),
                false => self.at(target, source),
            };
            let activity = Activity::of(&there, &back);
            let is_seen = activity.connections() + activity.sent + activity.received > 0.0;
            if is_seen && is_wanted(asked, source, target) && goes(source, target, &there, &back) {
                edges.push((source, target, activity));
            }
        }
        edges.sort_by(|a, b| {
            let amount = |edge: &(_, _, Activity)| edge.2.amount(statistic);
            let most = amount(b).partial_cmp(&amount(a)).unwrap_or(Ordering::Equal);
            most.then_with(|| (a.0, a.1).cmp(&(b.0, b.1)))
        });
        edges.truncate(asked.limit);
        edges.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let nodes = self.nodes(&edges, statistic);
        let edges = edges
            .iter()
            .map(|(source, target, activity)| Edge {
                id: format!("{} -> {}", source.id(), target.id()),
                source: source.id(),
                target: target.id(),
                shown: activity.shown(statistic),
                details: activity.details(),
            })
            .collect();
        Graph { nodes, edges }
    }

    fn at(&self, source: &Workload, target: &Workload) -> Totals {
        let pair = (source.clone(), target.clone());
        self.0.get(&pair).copied().unwrap_or_default()
    }

    /// The ends of edges. Two that are each other's client have two edges, and what they said is counted once.
    fn nodes(&self, edges: &[(&Workload, &Workload, Activity)], statistic: Statistic) -> Vec<Node> {
        let pairs: BTreeSet<(&Workload, &Workload)> = edges
            .iter()
            .flat_map(|(source, target, _)| [(*source, *target), (*target, *source)])
            .collect();
        let mut nodes: BTreeMap<&Workload, Activity> = BTreeMap::new();
        for (source, target) in pairs {
            let as_client = Activity::of(&self.at(source, target), &Totals::default());
            let as_server = Activity {
                sent: 0.0,
                received: as_client.sent,
                ..as_client
            };
            nodes.entry(source).or_default().add(&as_client);
            if source == target {
                nodes.entry(source).or_default().received += as_client.sent;
            } else {
                nodes.entry(target).or_default().add(&as_server);
            }
        }
        nodes
            .into_iter()
            .map(|(workload, activity)| {
                let whole = activity.connections();
                // Without connections there is no ring.
                let share = |part: f64| if whole > 0.0 { part / whole } else { 0.0 };
                Node {
                    id: workload.id(),
                    title: workload.name.clone(),
                    subtitle: workload.namespace.clone(),
                    shown: activity.shown(statistic),
                    opened: share(activity.opened),
                    failed: share(activity.failed),
                    details: activity.details(),
                }
            })
            .collect()
    }
}

fn is_wanted(asked: &Asked, source: &Workload, target: &Workload) -> bool {
    let matches = |pattern: &Regex| source.matches(pattern) || target.matches(pattern);
    asked.include.as_ref().is_none_or(matches) && !asked.exclude.as_ref().is_some_and(matches)
}

/// Whether an edge goes this way: from who was the client in this time, else from who is known to have been, else from
/// who sent less, if anything.
fn goes(source: &Workload, target: &Workload, there: &Totals, back: &Totals) -> bool {
    match (there.client(), back.client()) {
        (Client::Unknown, Client::Unknown) if there.payload() == 0.0 => false,
        (Client::Unknown, Client::Unknown) if back.payload() == 0.0 => true,
        (Client::Unknown, Client::Unknown) => {
            let least = there.payload().total_cmp(&back.payload());
            least.then_with(|| source.cmp(target)) == Ordering::Less
        }
        (there, back) => there != Client::Unknown && there >= back,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str) -> Workload {
        Workload {
            kind: "deployment".into(),
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn asked(statistic: Statistic) -> Asked {
        Asked {
            namespace: None,
            workload: None,
            include: None,
            exclude: None,
            from: 0,
            to: 300_000,
            limit: 100,
            statistic,
        }
    }

    fn pairs(of: &[(&str, &str, Totals)]) -> Pairs {
        let pair = |(source, target, totals): &(&str, &str, Totals)| {
            ((workload(source), workload(target)), *totals)
        };
        Pairs(of.iter().map(pair).collect())
    }

    fn said(bytes: f64) -> Totals {
        Totals {
            tcp_payload: bytes,
            ..Totals::default()
        }
    }

    fn edges(graph: &Graph) -> Vec<(&str, &str, f64, f64, f64)> {
        let edges = graph.edges.iter().map(|edge| {
            let Details {
                connections,
                bytes_sent,
                bytes_received,
                ..
            } = edge.details;
            let [source, target] =
                [&edge.source, &edge.target].map(|id| id.rsplit('/').next().unwrap_or(id));
            (source, target, connections, bytes_sent, bytes_received)
        });
        edges.collect()
    }

    #[test]
    fn an_edge_goes_from_the_client_and_has_what_was_said_both_ways() {
        let client = Totals {
            opened: Some(10.0),
            failed: Some(2.0),
            lived: Mean {
                sum: 5.0,
                count: 10.0,
            },
            ..said(900.0)
        };
        let graph = pairs(&[("a", "b", client), ("b", "a", said(100.0))])
            .draw(&asked(Statistic::Connection));
        assert_eq!(edges(&graph), [("a", "b", 12.0, 900.0, 100.0)]);
        assert_eq!(graph.edges[0].shown.main_stat, "all: 12");
        assert_eq!(graph.edges[0].shown.secondary_stat, "failed: 2");
        assert_eq!(graph.edges[0].details.duration_average_seconds, Some(0.5));
        assert_eq!(graph.edges[0].details.retransmitted_ratio, None);
        let node = |title: &str| graph.nodes.iter().find(|node| node.title == title).unwrap();
        let numbers = |title: &str| {
            let details = &node(title).details;
            (
                details.connections,
                details.bytes_sent,
                details.bytes_received,
            )
        };
        assert_eq!(numbers("a"), (12.0, 900.0, 100.0));
        assert_eq!(numbers("b"), (12.0, 100.0, 900.0));
        assert_eq!(node("a").failed, 2.0 / 12.0);
    }

    #[test]
    fn who_sent_less_is_the_client_where_nobody_saw_who_began() {
        for (there, back, expected) in [
            (100.0, 900.0, ("a", "b", 0.0, 100.0, 900.0)),
            (900.0, 100.0, ("b", "a", 0.0, 100.0, 900.0)),
            (100.0, 0.0, ("a", "b", 0.0, 100.0, 0.0)),
            (100.0, 100.0, ("a", "b", 0.0, 100.0, 100.0)),
        ] {
            let both = pairs(&[("a", "b", said(there)), ("b", "a", said(back))]);
            assert_eq!(edges(&both.draw(&asked(Statistic::Bytes))), [expected]);
        }
        let one = pairs(&[("a", "b", said(100.0))]);
        let graph = one.draw(&asked(Statistic::Bytes));
        assert_eq!(edges(&graph), [("a", "b", 0.0, 100.0, 0.0)]);
        assert_eq!((graph.nodes[0].opened, graph.nodes[0].failed), (0.0, 0.0));
    }

    #[test]
    fn two_that_call_each_other_have_two_edges_and_bytes_are_counted_once() {
        let client = |opened: f64, bytes: f64| Totals {
            opened: Some(opened),
            ..said(bytes)
        };
        let graph = pairs(&[("a", "b", client(1.0, 10.0)), ("b", "a", client(2.0, 20.0))])
            .draw(&asked(Statistic::Bytes));
        assert_eq!(
            edges(&graph),
            [("a", "b", 1.0, 10.0, 20.0), ("b", "a", 2.0, 20.0, 10.0)]
        );
        for node in &graph.nodes {
            assert_eq!(node.details.bytes_sent + node.details.bytes_received, 30.0);
            assert_eq!(node.details.connections, 3.0);
        }
        // One of them was a client before this time only.
        let graph = pairs(&[("a", "b", client(0.0, 10.0)), ("b", "a", client(2.0, 20.0))])
            .draw(&asked(Statistic::Bytes));
        assert_eq!(edges(&graph), [("b", "a", 2.0, 20.0, 10.0)]);
        let graph = pairs(&[("a", "b", client(0.0, 10.0)), ("b", "a", said(20.0))])
            .draw(&asked(Statistic::Bytes));
        assert_eq!(edges(&graph), [("a", "b", 0.0, 10.0, 20.0)]);
    }

    #[test]
    fn of_many_edges_the_largest_are_drawn_and_patterns_choose() {
        let opened = |count: f64| Totals {
            opened: Some(count),
            ..Totals::default()
        };
        let many = pairs(&[
            ("a", "b", opened(1.0)),
            ("a", "c", opened(3.0)),
            ("d", "e", opened(2.0)),
            ("f", "f", opened(0.0)),
        ]);
        let drawn = |asked: &Asked| {
            let graph = many.draw(asked);
            let names = edges(&graph);
            names
                .iter()
                .map(|edge| format!("{}{}", edge.0, edge.1))
                .collect::<Vec<_>>()
        };
        let mut asked = asked(Statistic::Connection);
        assert_eq!(drawn(&asked), ["ab", "ac", "de"]);
        asked.limit = 2;
        assert_eq!(drawn(&asked), ["ac", "de"]);
        asked.include = Some(Regex::new("^shop/[ab]$").unwrap());
        assert_eq!(drawn(&asked), ["ab", "ac"]);
        asked.exclude = Some(Regex::new("^c$").unwrap());
        assert_eq!(drawn(&asked), ["ab"]);
    }
}
