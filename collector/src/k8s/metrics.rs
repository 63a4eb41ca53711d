//! What the cluster looks like from here, and how up to date that is, as metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::export::{Counter, Gauge, Labels, Registry, owner};

use super::Cluster;

pub struct KubernetesMetrics {
    pods: Gauge,
    services: Gauge,
    objects: Gauge,
    synced: Gauge,
    failures: Counter,
    workload_labels: Gauge,
    node_info: Gauge,
    /// Failures that are in our metrics already.
    counted: BTreeMap<(&'static str, &'static str), u64>,
    app_labels: bool,
    registry: Registry,
}

/// Under these names the families are shown, or hidden where nobody measures them.
pub const CLUSTER: &str = "kubernetes";
const APP_LABELS: &str = "kubernetes_app_labels";

impl KubernetesMetrics {
    /// Shown if `cluster` is asked at all.
    pub fn register(registry: &Registry, cluster: &Cluster) -> Self {
        registry.enable(CLUSTER, cluster.index().is_on());
        registry.enable(APP_LABELS, false);
        let of_labels = registry.for_signal(APP_LABELS);
        let registry = registry.for_signal(CLUSTER);
        Self {
            pods: registry.gauge(
                "kubernetes_pods",
                "Pods of a Kubernetes namespace that are not over, as far as this collector asks for them",
                &[&["namespace"]],
            ),
            services: registry.gauge(
                "kubernetes_services",
                "Services of a Kubernetes namespace",
                &[&["namespace"]],
            ),
            objects: registry.gauge(
                "kubernetes_objects",
                "Objects of the Kubernetes API that are known",
                &[&["resource"]],
            ),
            synced: registry.gauge(
                "kubernetes_watch_synced",
                "Whether all objects of a resource are known and changes are followed",
                &[&["resource"]],
            ),
            failures: registry.counter(
                "kubernetes_watch_failures",
                "Lists and watches of the Kubernetes API that failed or were cut",
                &[&["resource", "reason"]],
            ),
            workload_labels: of_labels.gauge(
                "workload_labels",
                "The app.kubernetes.io labels of this node's workloads, if kubernetes_app_labels is on; always 1",
                &[
                    crate::export::OWNER,
                    &["name", "instance", "version", "component", "part_of", "managed_by"],
                ],
            ),
            node_info: registry.gauge(
                "kubernetes_node_info",
                "This node in Kubernetes, and the zone that it is in; always 1",
                &[&["node", "zone"]],
            ),
            counted: BTreeMap::new(),
            app_labels: false,
            registry,
        }
    }

    /// Whether recommended labels are exported.
    pub fn set_app_labels(&mut self, on: bool) {
        self.app_labels = on;
        self.registry.enable(APP_LABELS, on);
    }

    pub fn update(&mut self, cluster: &Cluster) {
        let Some(health) = cluster.health(Instant::now()) else {
            return;
        };
        let watches = || health.resources.iter();
        let label = |name: &'static str| Labels::new(&[name]);
        let objects = watches().map(|it| (label(it.resource), number(it.objects)));
        self.objects.replace_all(objects.collect());
        let synced = watches().map(|it| {
            let is_followed = it.synced && it.reason.is_none();
            (label(it.resource), f64::from(u8::from(is_followed)))
        });
        self.synced.replace_all(synced.collect());
        for watch in watches() {
            for (&reason, &failures) in &watch.failures {
                let counted = self.counted.entry((watch.resource, reason)).or_default();
                let labels = Labels::new(&[watch.resource, reason]);
                self.failures.add(labels, failures - *counted);
                *counted = failures;
            }
        }
        let index = cluster.index();
        let zone = index.own_zone().unwrap_or_default();
        let info = (health.node.iter()).map(|node| (Labels::new(&[node, zone]), 1.0));
        self.node_info.replace_all(info.collect());
        let namespaces = index.namespaces();
        let of = |name: &str| Labels::new(&[name]);
        let pods = (namespaces.iter()).map(|(name, (pods, _))| (of(name), number(*pods)));
        self.pods.replace_all(pods.collect());
        let services =
            (namespaces.iter()).map(|(name, (_, services))| (of(name), number(*services)));
        self.services.replace_all(services.collect());
        let labels = index.app_labels().into_iter().filter(|_| self.app_labels);
        let labels = labels.map(|(workload, app)| {
            let values: Vec<&str> = app.0.iter().map(AsRef::as_ref).collect();
            (owner(&workload).with(&values), 1.0)
        });
        self.workload_labels.replace_all(labels.collect());
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exposition values are doubles: exact up to 2^53"
)]
fn number(count: usize) -> f64 {
    count as f64
}
