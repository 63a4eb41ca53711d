//! Where on the way between the ends it happens: the router that drops, the interface whose queue is long; pure.

use crate::diagnosis::evidence::{Evidence, Outcome, Reading};
use crate::diagnosis::place::{Ends, Place, Workload};
use crate::diagnosis::rank::Mode;
use crate::diagnosis::response::Affected;
use crate::diagnosis::snapshot::Series;
use crate::runbook::Role;

/// More than that are no place to go to.
const MAX_SPOTS: usize = 3;

/// Says `namespace/workload` of whoever a packet was with, and is not one of its ends' labels.
const LABEL: &str = "place";

/// One place on the way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spot {
    pub(super) at: Workload,
    node: Option<String>,
    device: Option<String>,
    /// What carried the packets there.
    tunnel: Option<String>,
}

impl Spot {
    fn of(series: &Series) -> Option<Self> {
        let (namespace, name) = series.labels.get(LABEL)?.split_once('/')?;
        let at = Workload {
            namespace: namespace.into(),
            name: name.into(),
        };
        (!at.is_anonymous()).then(|| Self {
            at,
            node: series.position.node.as_deref().map(str::to_owned),
            device: series.labels.get("interface").cloned(),
            tunnel: series.labels.get("tunnel").cloned(),
        })
    }

    /// `edge (eth1)`, of a node itself `node n1 (eth1)`, and of what a tunnel carries `edge (eth1, in vxlan)`.
    pub(super) fn in_words(&self) -> String {
        let at = match &self.node {
            Some(node) if &*self.at.name == "~host" => format!("node {node}"),
            _ => self.at.to_string(),
        };
        match (&self.device, &self.tunnel) {
            (Some(device), Some(tunnel)) => format!("{at} ({device}, in {tunnel})"),
            (Some(device), None) => format!("{at} ({device})"),
            (None, Some(tunnel)) => format!("{at} (in {tunnel})"),
            (None, None) => at,
        }
    }

    pub(super) fn affected(&self) -> Affected {
        Affected {
            namespace: Some(self.at.namespace.to_string()),
            workload: Some(self.at.name.to_string()),
            peer_namespace: None,
            peer_workload: None,
            node: self.node.clone(),
            device: self.device.clone(),
        }
    }
}

/// What the evidence that speaks for a mode at `place` says of it, the strongest first.
pub(super) fn spots(mode: &Mode, place: &Place) -> Vec<Spot> {
    let mut spots = Vec::new();
    for evidence in mode.evidence.iter().filter(speaks_for) {
        let Ok(reading) = &evidence.reading else {
            continue;
        };
        if !matches!(
            reading.outcome(&reading.seen_at(place)),
            Outcome::Present(_)
        ) {
            continue;
        }
        let mut series: Vec<&Series> = reading
            .beyond()
            .filter(|series| is_of(place, evidence, reading, series))
            .collect();
        series.sort_by(|a, b| reading.order(a, b));
        let mut found: Vec<Spot> = Vec::new();
        for spot in series.into_iter().filter_map(Spot::of) {
            if !found.contains(&spot) && found.len() < MAX_SPOTS {
                found.push(spot);
            }
        }
        found.retain(|spot| !spots.contains(spot));
        spots.extend(found);
    }
    spots.truncate(MAX_SPOTS);
    spots
}

fn speaks_for(evidence: &&Evidence) -> bool {
    evidence.query.role != Role::Contradicts
}

/// What names no pair is tied to this one only where the mode cannot be without it.
fn is_of(place: &Place, evidence: &Evidence, reading: &Reading, series: &Series) -> bool {
    let tied =
        matches!(series.position.ends, Ends::Pair { .. }) || evidence.query.role == Role::Requires;
    tied && reading.is_about(place, &series.position)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::diagnosis::evidence::Look;
    use crate::diagnosis::expression::Expression;
    use crate::diagnosis::place::Position;
    use crate::runbook::{End, EvidenceQuery, Severity, Verdict};

    const PAIR: [(&str, &str); 4] = [
        ("src_namespace", "host"),
        ("src_workload", "a"),
        ("dst_namespace", "host"),
        ("dst_workload", "b"),
    ];

    fn mode(role: Role, series: &[(Vec<(&str, &str)>, f64)]) -> Mode {
        let series: Arc<[Series]> = series
            .iter()
            .map(|(labels, value)| {
                let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into()));
                let labels: BTreeMap<String, String> = labels.collect();
                Series {
                    position: Position::of(&labels),
                    labels,
                    value: *value,
                    earlier: None,
                }
            })
            .collect();
        let look = |seconds| Look {
            query: String::new(),
            length: Duration::from_secs(seconds),
            series: series.clone(),
            failed: false,
        };
        let evidence = Evidence {
            query: EvidenceQuery {
                id: "e".into(),
                role,
                title: String::new(),
                expr: "x > 0.1".into(),
                unit: None,
                weight: None,
                at: End::Pair,
                group: None,
                optional: false,
                baseline: None,
            },
            reading: Ok(Reading {
                expression: Arc::new(Expression::parse("x > 0.1").unwrap()),
                at: End::Pair,
                window: look(300),
                recent: look(30),
                unfloored: Vec::new(),
                gap: None,
                compare: None,
                topology: Arc::default(),
            }),
        };
        Mode {
            id: "m".into(),
            verdict: Verdict::Fault,
            prior: 0.05,
            severity: Severity::Warning,
            explains: Vec::new(),
            separates_from: Vec::new(),
            evidence: vec![evidence],
            relevance: 0.0,
        }
    }

    fn in_words(role: Role, series: &[(Vec<(&str, &str)>, f64)]) -> Vec<String> {
        let end = |name: &str| {
            Some(Workload {
                namespace: "host".into(),
                name: name.into(),
            })
        };
        let place = Place::between(end("a"), end("b"));
        let spots = spots(&mode(role, series), &place);
        spots.iter().map(Spot::in_words).collect()
    }

    #[test]
    fn routers_that_drop_packets_of_the_pair_are_named_the_strongest_first() {
        let at = |place| [PAIR.as_slice(), &[("place", place), ("interface", "eth0")]].concat();
        let elsewhere = vec![
            ("src_workload", "a"),
            ("dst_workload", "c"),
            ("place", "host/other"),
        ];
        let series = [
            (at("host/edge"), 2.0),
            (at("net/core"), 3.0),
            (at("host/weak"), 0.05),
            (at("~unknown/~unknown"), 9.0),
            (elsewhere, 9.0),
        ];
        assert_eq!(
            in_words(Role::Supports, &series),
            ["net/core (eth0)", "edge (eth0)"]
        );
        assert!(in_words(Role::Contradicts, &series).is_empty());
    }

    #[test]
    fn of_a_node_itself_the_node_is_told() {
        let labels = vec![
            ("place", "host/~host"),
            ("node", "n1"),
            ("interface", "eth1"),
        ];
        let series = [(labels, 2.0)];
        assert_eq!(in_words(Role::Requires, &series), ["node n1 (eth1)"]);
        // It may be about anybody, and the mode does not need it.
        assert!(in_words(Role::Supports, &series).is_empty());
    }
}
