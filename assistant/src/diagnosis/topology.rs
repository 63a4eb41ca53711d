//! Who runs on which node and who calls whom, as far as the metrics tell; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::place::{Place, Workload};

/// How far a fault may lie behind the one who asks: it calls a program that calls a program.
const HOPS: usize = 2;

/// What is known of the moment besides the evidence.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    pub workloads: BTreeSet<Workload>,
    /// Those that were there in the window and are not any more: of them silence says that it is over.
    pub gone: BTreeSet<Workload>,
    nodes: BTreeMap<Arc<str>, BTreeSet<Workload>>,
    calls: BTreeMap<Workload, BTreeSet<Workload>>,
}

impl Topology {
    pub fn add_to_node(&mut self, node: &Arc<str>, workload: &Workload) {
        self.nodes
            .entry(node.clone())
            .or_default()
            .insert(workload.clone());
    }

    /// `from` opens connections to `to`. Names that stand for everybody connect nobody.
    pub fn add_call(&mut self, from: &Workload, to: &Workload) {
        if from != to && !from.name.starts_with('~') && !to.name.starts_with('~') {
            self.calls
                .entry(from.clone())
                .or_default()
                .insert(to.clone());
        }
    }

    pub fn knows_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    pub fn knows_node(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    pub fn is_on(&self, workload: &Workload, node: &str) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|workloads| workloads.contains(workload))
    }

    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Workload> {
        self.nodes.get(node).into_iter().flatten()
    }

    /// Whether one end of the place is on that node, or it is the place itself.
    pub fn touches(&self, place: &Place, node: &str) -> bool {
        place.node.as_deref() == Some(node) || place.workloads().any(|end| self.is_on(end, node))
    }

    /// Those whom the ones in question depend on, with how many calls away each is; themselves left out.
    pub fn behind(&self, asked: &BTreeSet<Workload>) -> BTreeMap<Workload, usize> {
        let mut found: BTreeMap<Workload, usize> = BTreeMap::new();
        let mut front: BTreeSet<Workload> = asked.clone();
        for hop in 1..=HOPS {
            let next: BTreeSet<Workload> = front
                .iter()
                .filter_map(|caller| self.calls.get(caller))
                .flatten()
                .filter(|callee| !asked.contains(*callee) && !found.contains_key(*callee))
                .cloned()
                .collect();
            found.extend(next.iter().map(|callee| (callee.clone(), hop)));
            front = next;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn workload(name: &str) -> Workload {
        Workload {
            namespace: "host".into(),
            name: name.into(),
        }
    }

    fn calls(edges: &[(&str, &str)]) -> Topology {
        let mut topology = Topology::default();
        for (from, to) in edges {
            topology.add_call(&workload(from), &workload(to));
        }
        topology
    }

    #[test]
    fn two_calls_are_followed_and_nobody_calls_through_everybody() {
        let topology = calls(&[
            ("a", "b"),
            ("b", "c"),
            ("c", "d"),
            ("x", "a"),
            ("a", "~external"),
            ("~external", "y"),
        ]);
        let behind = topology.behind(&BTreeSet::from([workload("a")]));
        let expected = BTreeMap::from([(workload("b"), 1), (workload("c"), 2)]);
        assert_eq!(behind, expected);
    }

    proptest! {
        #[test]
        fn nobody_is_behind_itself_and_every_way_is_short(edges in prop::collection::vec((0_u8..6, 0_u8..6), 0..20)) {
            let names: Vec<(String, String)> = edges.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
            let pairs: Vec<(&str, &str)> = names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let asked = BTreeSet::from([workload("0")]);
            let behind = calls(&pairs).behind(&asked);
            prop_assert!(!behind.contains_key(&workload("0")));
            for (callee, hops) in &behind {
                prop_assert!((1..=HOPS).contains(hops));
                let direct = names.iter().any(|(a, b)| a == "0" && **b == *callee.name);
                prop_assert_eq!(*hops == 1, direct);
            }
        }
    }
}
