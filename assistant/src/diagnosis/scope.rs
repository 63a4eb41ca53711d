//! `Scope`: which part of the cluster a question is about; checked when it is made, so nobody checks again.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::place::{Place, Workload, host_of};
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

/// Labels of alerts that name the same, as Prometheus' service discovery, OpenTelemetry and Datadog spell them; the surest first.
const NAMESPACE: [&str; 4] = [
    "namespace",
    "kubernetes_namespace",
    "k8s_namespace_name",
    "kube_namespace",
];
const OWNER: [&str; 10] = [
    "workload",
    "deployment",
    "statefulset",
    "daemonset",
    "k8s_deployment_name",
    "k8s_statefulset_name",
    "k8s_daemonset_name",
    "kube_deployment",
    "kube_stateful_set",
    "kube_daemon_set",
];
/// The name of a job is that of its cron job and a number, as a pod's is that of its owner and something.
const POD: [&str; 5] = [
    "pod",
    "pod_name",
    "kubernetes_pod_name",
    "k8s_pod_name",
    "job_name",
];
/// These may be the exporter's, as every series of kube-state-metrics has its Service: a pod says more.
const SERVICE: [&str; 5] = ["service", "service_name", "app", "container_name", "netns"];
const NODE: [&str; 3] = ["node", "kubernetes_node", "k8s_node_name"];
/// The job whose series tell about others, and the name of its own pods.
const STATE: &str = "kube-state-metrics";

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

    /// As an answer shows it: with the other end, which no request may name.
    pub(super) fn of_answer<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut fields = serde_json::Map::deserialize(from)?;
        let mut take = |name: &str| Some(fields.remove(name)?.as_str()?.to_owned());
        let (peer_namespace, peer_workload) = (take("peer_namespace"), take("peer_workload"));
        let named: Self = serde_json::from_value(fields.into()).map_err(D::Error::custom)?;
        Ok(Self {
            peer_namespace,
            peer_workload,
            ..named
        })
    }

    /// The scope that an alert's labels name. Values that cannot be names are left out.
    pub fn of_alert(labels: &BTreeMap<String, String>) -> Self {
        let own = |name: &str| {
            let value = labels.get(name)?.clone();
            let scope = Self {
                workload: Some(value.clone()),
                ..Self::default()
            };
            (scope.check().is_ok() && !value.starts_with('~')).then_some(value)
        };
        // Without `honor_labels` the plain label is the exporter's, and the one of what it tells about is renamed.
        let get = |name: &str| own(&format!("exported_{name}")).or_else(|| own(name));
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));
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
                let job = labels.get("job").map_or("", String::as_str);
                let namespace = first(&NAMESPACE);
                if job.ends_with("node-exporter") {
                    let instance = own("instance");
                    let host = instance.as_deref().map(host_of).map(str::to_owned);
                    return Self {
                        node: first(&NODE).or(host),
                        ..Self::default()
                    };
                }
                // The Service of one that tells about others is its own.
                let service = || first(&SERVICE).filter(|_| !job.ends_with(STATE));
                let owner = first(&OWNER);
                let pods = POD.iter().filter_map(|name| get(name));
                let mut pods = pods.filter(|pod| owner.is_none() && !is_of_state(job, pod));
                let pod = pods.next();
                let workload = owner.or_else(|| service().filter(|_| pod.is_none()));
                let node = first(&NODE).filter(|_| workload.is_none() && pod.is_none());
                Self {
                    // Beside a node alone it is mostly that of the exporter.
                    namespace: namespace.filter(|_| node.is_none()),
                    workload,
                    pod,
                    node,
                    ..Self::default()
                }
            }
        }
    }

    /// Whether it is about some workloads and not about all.
    pub(super) fn names_workloads(&self) -> bool {
        self.namespace.is_some() || self.workload.is_some()
    }

    pub(super) fn is_end(&self, end: &Workload) -> bool {
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
        if !self.names_workloads() {
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
        if !self.names_workloads() {
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

    /// What the pod's name has behind that of its workload, where it is more than what controllers add: it may be that of another
    /// workload, of which no series tells.
    pub fn words_behind_workload(&self) -> Option<&str> {
        // Without vowels and what looks alike, so that no words come about.
        const RANDOM: &str = "bcdfghjklmnpqrstvwxz2456789";
        const SHORTEST: usize = 5;
        let is_made = |part: &str| {
            let is_random = part.len() >= SHORTEST && part.chars().all(|c| RANDOM.contains(c));
            is_random || part.bytes().all(|byte| byte.is_ascii_digit())
        };
        let rest = self.pod.as_ref()?.strip_prefix(self.workload.as_ref()?)?;
        let rest = rest.strip_prefix('-')?;
        (!rest.split('-').all(is_made)).then_some(rest)
    }

    /// `shop/cart`, `pod shop/cart-0 on node n1`, as a person would say it.
    pub fn describe(&self) -> String {
        let whom = match (&self.namespace, &self.workload, &self.pod) {
            (Some(namespace), Some(workload), _) => Workload {
                namespace: namespace.as_str().into(),
                name: workload.as_str().into(),
            }
            .to_string(),
            (None, Some(workload), _) => workload.clone(),
            (Some(namespace), None, Some(pod)) => format!("pod {namespace}/{pod}"),
            (None, None, Some(pod)) => format!("pod {pod}"),
            (Some(namespace), None, None) => format!("namespace {namespace}"),
            (None, None, None) => {
                return match &self.node {
                    Some(node) => format!("node {node}"),
                    None => "all workloads".into(),
                };
            }
        };
        match &self.node {
            Some(node) => format!("{whom} on node {node}"),
            None => whom,
        }
    }
}

/// Whether the pod is that of kube-state-metrics itself: on what has no pod of its own, as a job, it is only where it was scraped.
fn is_of_state(job: &str, pod: &str) -> bool {
    job.ends_with(STATE) && pod.contains(STATE)
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
        let on_node = Scope {
            node: Some("n1".into()),
            ..alert(&[("namespace", "shop"), ("pod", "cart-0")])
        };
        assert_eq!(on_node.describe(), "pod shop/cart-0 on node n1");
    }

    #[test]
    fn what_an_exporter_says_of_itself_is_not_what_an_alert_is_about() {
        let state = [
            ("job", "kube-state-metrics"),
            ("service", "kps-kube-state-metrics"),
            ("container", "kube-state-metrics"),
            ("instance", "10.0.0.9:8080"),
        ];
        let node = [
            ("job", "node-exporter"),
            ("namespace", "monitoring"),
            ("pod", "node-exporter-x2x4z"),
            ("service", "node-exporter"),
        ];
        for (common, own, expected) in [
            // KubePodCrashLooping of kube-prometheus-stack.
            (
                state,
                vec![("namespace", "shop"), ("pod", "cart-7d9f8b6c5-x2x4z")],
                "pod shop/cart-7d9f8b6c5-x2x4z",
            ),
            // KubeJobFailed.
            (
                state,
                vec![
                    ("namespace", "shop"),
                    ("pod", "kps-kube-state-metrics-5c-x2x4z"),
                    ("job_name", "backup-29012345"),
                ],
                "pod shop/backup-29012345",
            ),
            (
                state,
                vec![("namespace", "monitoring"), ("node", "n1")],
                "node n1",
            ),
            // Scraped without `honor_labels`.
            (
                state,
                vec![
                    ("namespace", "monitoring"),
                    ("pod", "kps-kube-state-metrics-5c-x2x4z"),
                    ("exported_namespace", "shop"),
                    ("exported_pod", "cart-0"),
                ],
                "pod shop/cart-0",
            ),
            (node, vec![("instance", "n1:9100")], "node n1"),
            (
                [
                    ("service", "cart"),
                    ("app", "x"),
                    ("k8s_namespace_name", "shop"),
                    ("a", "b"),
                ],
                vec![],
                "shop/cart",
            ),
        ] {
            let scope = alert(&[&common[..], &own].concat());
            assert_eq!(scope.describe(), expected, "{own:?}");
            assert!(scope.pod.is_none() || scope.workload.is_none());
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
    fn a_pod_whose_name_has_more_words_may_be_another_workload_s() {
        for (pod, words) in [
            ("cart", None),
            ("cart-0", None),
            ("cart-x2x4z", None),
            ("cart-7d9f8b6c5-x2x4z", None),
            ("cart-29012345-x2x4z", None),
            ("cart-db-0", Some("db-0")),
            (
                "cart-worker-7d9f8b6c5-x2x4z",
                Some("worker-7d9f8b6c5-x2x4z"),
            ),
        ] {
            let scope = Scope {
                workload: Some("cart".into()),
                pod: Some(pod.into()),
                ..Scope::default()
            };
            assert_eq!(scope.words_behind_workload(), words, "{pod}");
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
