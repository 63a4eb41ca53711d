//! Who runs on which node and who calls whom, as far as the metrics tell; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::place::{Place, Workload};

/// How far a fault may lie behind the one who asks: it calls a program that calls a program.
const HOPS: usize = 2;
/// Callers of one workload that are looked at for its sake; a name server has them all.
const MAX_CALLERS: usize = 20;

/// What is known of the moment besides the evidence.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Topology {
    pub workloads: BTreeSet<Workload>,
    /// Those that were there in the window and are not any more: of them silence says that it is over.
    pub gone: BTreeSet<Workload>,
    /// Nodes whose collector was scraped in the window and is not any more: of what runs there nothing can be told.
    pub silent: BTreeSet<Arc<str>>,
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

    /// Of the nodes that a question about `node`, or about `asked`, or about everything is about: those that are silent, and whether
    /// there is any other.
    pub fn unseen(&self, node: Option<&str>, asked: &BTreeSet<Workload>) -> (Vec<&str>, bool) {
        let is_meant = |name: &str| match node {
            Some(node) => node == name,
            None => asked.is_empty() || asked.iter().any(|workload| self.is_on(workload, name)),
        };
        let meant = self.nodes.keys().filter(|name| is_meant(name));
        let (silent, heard): (Vec<_>, Vec<_>) = meant.partition(|name| self.silent.contains(*name));
        let silent = silent.into_iter().map(|name| &**name).collect();
        (silent, !heard.is_empty())
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

    /// The ones in question, those whom they depend on, and the callers of any of these that has not many.
    pub fn around(&self, asked: &BTreeSet<Workload>) -> BTreeSet<Workload> {
        let mut near: BTreeSet<Workload> = self.behind(asked).into_keys().collect();
        near.extend(asked.iter().cloned());
        let mut callers: BTreeMap<&Workload, Vec<&Workload>> = BTreeMap::new();
        for (caller, callees) in &self.calls {
            for callee in callees.intersection(&near) {
                callers.entry(callee).or_default().push(caller);
            }
        }
        let few = callers
            .into_values()
            .filter(|callers| callers.len() <= MAX_CALLERS);
        let few: Vec<Workload> = few.flatten().cloned().collect();
        near.extend(few);
        near
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
    fn who_runs_only_where_nothing_is_scraped_is_unseen() {
        let mut topology = Topology::default();
        for (node, name) in [("n1", "a"), ("n1", "b"), ("n2", "b")] {
            topology.add_to_node(&node.into(), &workload(name));
        }
        topology.silent.insert("n1".into());
        for (node, asked, silent, others) in [
            (None, Some("a"), &["n1"][..], false),
            (None, Some("b"), &["n1"], true),
            (None, None, &["n1"], true),
            (Some("n1"), None, &["n1"], false),
            (Some("n2"), Some("b"), &[], true),
        ] {
            let asked = asked.into_iter().map(workload).collect();
            let unseen = topology.unseen(node, &asked);
            assert_eq!(unseen, (silent.to_vec(), others), "{node:?} {asked:?}");
        }
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

    #[test]
    fn around_are_those_behind_and_the_callers_of_what_has_few() {
        let mut edges = vec![("a", "b"), ("b", "c"), ("x", "b"), ("y", "a"), ("z", "y")];
        let many: Vec<String> = (0..=MAX_CALLERS).map(|n| format!("n{n}")).collect();
        edges.push(("a", "names"));
        edges.extend(many.iter().map(|caller| (caller.as_str(), "names")));
        let around = calls(&edges).around(&BTreeSet::from([workload("a")]));
        let names: Vec<&str> = around.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["a", "b", "c", "names", "x", "y"]);
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
