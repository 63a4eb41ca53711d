//! `Scope`: which part of the cluster a question is about; checked when it is made, so nobody checks again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::place::{Place, Workload};
use super::topology::Topology;

/// Which workloads are meant. Empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 253,
        pattern = r#"^[^\s"'`{}$\x00-\x1f\x7f-\x9f]+$"#
    )]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 253,
        pattern = r#"^[^\s"'`{}$\x00-\x1f\x7f-\x9f]+$"#
    )]
    pub workload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 253,
        pattern = r#"^[^\s"'`{}$\x00-\x1f\x7f-\x9f]+$"#
    )]
    pub pod: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 253,
        pattern = r#"^[^\s"'`{}$\x00-\x1f\x7f-\x9f]+$"#
    )]
    pub node: Option<String>,
    /// The other end, where an alert names both.
    #[serde(default, skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub peer_namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub peer_workload: Option<String>,
}

/// Label values are names. Nothing here goes into PromQL, so this is about catching mistakes, not about escaping.
const MAX_NAME: usize = 253;

impl Scope {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first field that cannot be a name, and why.
    pub fn check(&self) -> Result<(), String> {
        let fields = [
            ("scope.namespace", &self.namespace),
            ("scope.workload", &self.workload),
            ("scope.pod", &self.pod),
            ("scope.node", &self.node),
        ];
        for (field, value) in fields {
            let Some(value) = value else { continue };
            if value.is_empty() {
                return Err(format!("`{field}` is empty: leave it out to mean all"));
            }
            if value.len() > MAX_NAME {
                return Err(format!("`{field}` is longer than {MAX_NAME} characters"));
            }
            if let Some(bad) = value
                .chars()
                .find(|c| c.is_control() || c.is_whitespace() || "\"'`{}$".contains(*c))
            {
                return Err(format!(
                    "`{field}` contains {bad:?}, which no name has: write the plain name of the {}",
                    field.trim_start_matches("scope.")
                ));
            }
        }
        Ok(())
    }

    /// The scope that an alert's labels name. Values that cannot be names are left out.
    pub fn of_alert(labels: &BTreeMap<String, String>) -> Self {
        const WORKLOAD: [&str; 8] = [
            "workload",
            "deployment",
            "statefulset",
            "daemonset",
            "service",
            "app",
            "container_name",
            "netns",
        ];
        let get = |name: &str| {
            let value = labels.get(name)?.clone();
            let scope = Self {
                workload: Some(value.clone()),
                ..Self::default()
            };
            (scope.check().is_ok() && !value.starts_with('~')).then_some(value)
        };
        let src = (get("src_namespace"), get("src_workload"));
        let dst = (get("dst_namespace"), get("dst_workload"));
        match (src.1.is_some(), dst.1.is_some()) {
            (true, _) => Self {
                namespace: src.0,
                workload: src.1,
                peer_namespace: dst.1.as_ref().and(dst.0),
                peer_workload: dst.1,
                ..Self::default()
            },
            (false, true) => Self {
                namespace: dst.0,
                workload: dst.1,
                ..Self::default()
            },
            (false, false) => {
                let workload = WORKLOAD.iter().find_map(|name| get(name));
                Self {
                    namespace: get("namespace"),
                    pod: get("pod").filter(|_| workload.is_none()),
                    workload,
                    ..Self::default()
                }
            }
        }
    }

    fn is_end(&self, end: &Workload) -> bool {
        matches(&self.namespace, &end.namespace) && matches(&self.workload, &end.name)
    }

    fn is_peer(&self, end: &Workload) -> bool {
        matches(&self.peer_namespace, &end.namespace) && matches(&self.peer_workload, &end.name)
    }

    /// Whether a place is in the scope: one of its ends is the workload, and the other, where known, the peer. A node is in
    /// the scope of what runs on it.
    pub fn contains(&self, place: &Place, topology: &Topology) -> bool {
        if *place == Place::ANYWHERE {
            return true;
        }
        let on_node = |node: &String| topology.touches(place, node);
        if self.node.as_ref().is_some_and(|node| !on_node(node)) {
            return false;
        }
        if self.namespace.is_none() && self.workload.is_none() {
            return true;
        }
        if place.is_machine()
            && let Some(node) = &place.node
            && topology.on_node(node).any(|workload| self.is_end(workload))
        {
            return true;
        }
        let ends = |end: &Option<Workload>, other: &Option<Workload>| {
            end.as_ref().is_some_and(|end| self.is_end(end))
                && other.as_ref().is_none_or(|other| self.is_peer(other))
        };
        ends(&place.src, &place.dst) || ends(&place.dst, &place.src)
    }

    /// The workloads that are meant; none where it is not about workloads.
    pub fn workloads(&self, topology: &Topology) -> BTreeSet<Workload> {
        if self.namespace.is_none() && self.workload.is_none() {
            return BTreeSet::new();
        }
        let known = topology.workloads.iter();
        known
            .filter(|workload| self.is_end(workload))
            .cloned()
            .collect()
    }

    /// Whether any known workload is meant.
    pub fn is_known(&self, workloads: &BTreeSet<Workload>) -> bool {
        workloads.iter().any(|workload| self.is_end(workload))
    }

    /// Replaces the pod by the workload it belongs to: the known workload with the longest name that begins the pod's.
    pub fn resolve_pod(&mut self, workloads: &BTreeSet<Workload>) -> Result<(), String> {
        let Some(pod) = self.pod.clone() else {
            return Ok(());
        };
        if self.workload.is_some() {
            return Ok(());
        }
        let owner = workloads
            .iter()
            .filter(|workload| matches(&self.namespace, &workload.namespace))
            .filter(|workload| {
                pod.strip_prefix(&*workload.name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            })
            .max_by_key(|workload| workload.name.len());
        match owner {
            Some(owner) => {
                self.workload = Some(owner.name.to_string());
                Ok(())
            }
            None => Err(format!(
                "no series knows a workload that pod `{pod}` could belong to"
            )),
        }
    }

    /// `shop/cart`, as a person would say it.
    pub fn describe(&self) -> String {
        match (&self.namespace, &self.workload) {
            (Some(namespace), Some(workload)) => Workload {
                namespace: namespace.as_str().into(),
                name: workload.as_str().into(),
            }
            .to_string(),
            (None, Some(workload)) => workload.clone(),
            (Some(namespace), None) => format!("namespace {namespace}"),
            (None, None) => match &self.node {
                Some(node) => format!("node {node}"),
                None => "all workloads".into(),
            },
        }
    }
}

fn matches(wanted: &Option<String>, value: &str) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str) -> Workload {
        Workload {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn alert(labels: &[(&str, &str)]) -> Scope {
        Scope::of_alert(
            &labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn an_alert_names_its_scope_in_many_ways() {
        for (labels, expected) in [
            (
                vec![("namespace", "shop"), ("deployment", "cart")],
                "shop/cart",
            ),
            (
                vec![
                    ("src_namespace", "shop"),
                    ("src_workload", "a"),
                    ("dst_workload", "b"),
                ],
                "shop/a",
            ),
            (vec![("dst_workload", "b")], "b"),
            (vec![("namespace", "shop")], "namespace shop"),
            (vec![("alertname", "X")], "all workloads"),
            (vec![("workload", "~external")], "all workloads"),
            (vec![("workload", "a\"} or {")], "all workloads"),
        ] {
            assert_eq!(alert(&labels).describe(), expected, "{labels:?}");
        }
    }

    #[test]
    fn both_ends_of_an_alert_must_match() {
        let scope = alert(&[("src_workload", "a"), ("dst_workload", "b")]);
        let contains = |src, dst| {
            let place = Place::between(Some(workload(src)), Some(workload(dst)));
            scope.contains(&place, &Topology::default())
        };
        assert!(contains("a", "b") && contains("b", "a"));
        assert!(!contains("a", "c"));
    }

    #[test]
    fn a_node_is_in_the_scope_of_what_runs_on_it_and_the_other_way_round() {
        let mut topology = Topology::default();
        topology.add_to_node(&"n1".into(), &workload("a"));
        let node = Place {
            node: Some("n1".into()),
            ..Place::ANYWHERE
        };
        let pair = |src, dst| Place::between(Some(workload(src)), Some(workload(dst)));
        let of_node = |name: &str| Scope {
            node: Some(name.into()),
            ..Scope::default()
        };
        assert!(of_node("n1").contains(&node, &topology));
        assert!(of_node("n1").contains(&pair("b", "a"), &topology));
        assert!(!of_node("n1").contains(&pair("b", "c"), &topology));
        assert!(!of_node("n2").contains(&node, &topology));
        assert!(alert(&[("workload", "a")]).contains(&node, &topology));
        assert!(!alert(&[("workload", "b")]).contains(&node, &topology));
    }

    #[test]
    fn a_pod_is_found_by_the_name_of_its_workload() {
        let known = BTreeSet::from([workload("cart"), workload("cart-db"), workload("car")]);
        for (pod, expected) in [
            ("cart-7d9f8b6c5-x2x4z", Some("cart")),
            ("cart-db-0", Some("cart-db")),
            ("car", Some("car")),
            ("carts-1", None),
        ] {
            let mut scope = Scope {
                pod: Some(pod.into()),
                ..Scope::default()
            };
            assert_eq!(
                scope.resolve_pod(&known).is_ok(),
                expected.is_some(),
                "{pod}"
            );
            assert_eq!(scope.workload.as_deref(), expected);
        }
    }

    #[test]
    fn what_no_name_has_is_refused() {
        for (workload, ok) in [
            ("cart", true),
            ("a b", false),
            ("", false),
            ("x\"}", false),
            ("~host", true),
        ] {
            let scope = Scope {
                workload: Some(workload.into()),
                ..Scope::default()
            };
            assert_eq!(scope.check().is_ok(), ok, "{workload}");
        }
    }
}
