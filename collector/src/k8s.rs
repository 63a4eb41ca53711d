//! What the Kubernetes API says of addresses, containers and nodes.
//!
//! ```text
//!  Pod, Service, EndpointSlice, Node … ─► Entry ─► Index ─► enrich
//!  API server ─ list, watch ─► watch ──────┘         │
//!                                └─► Cluster: is it up to date? ─► /readyz, metrics
//! ```
//!
//! [`Index`] is pure: entries in, names out. [`watch`] is the only user of `kube::Client`, and
//! [`Cluster`] what the rest of the collector holds.

mod cluster;
mod entry;
mod index;
mod meta;
mod metrics;
mod names;
mod node;
mod owner;
mod pod;
mod service;
pub mod watch;

pub use cluster::{Cluster, KubernetesHealth, WatchHealth};
pub use entry::{Entry, ObjectKey};
pub use index::{Found, Index, NodeInDoubt, PodHint};
pub use metrics::{CLUSTER, KubernetesMetrics};
pub use node::{Node, NodeMeta, NodeNews, node, node_news};
pub use owner::{AppLabels, Owner, OwnerMeta, owner};
pub use pod::{Phase, Pod, PodMeta, pod};
pub use service::{ServiceMeta, SliceMeta, endpoint_slice, service};

/// What is asked of the API server. Nothing else is, so the rights that the collector needs are
/// `list` and `watch` on these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// Of this node; of every node, if this node's name is not known.
    LocalPods,
    /// Of the other nodes.
    RemotePods,
    Services,
    EndpointSlices,
    /// Listed whole, and followed by their metadata.
    Nodes,
    Namespaces,
    /// Metadata only, and only if there is a pod whose Deployment its labels do not tell.
    ReplicaSets,
    /// Metadata only, and only if there is a pod of a Job.
    Jobs,
}

/// Kubernetes resources with their API group, as a ClusterRole names them.
pub const RIGHTS: &[(&str, &str)] = &[
    ("", "pods"),
    ("", "services"),
    ("", "nodes"),
    ("", "namespaces"),
    ("discovery.k8s.io", "endpointslices"),
    ("apps", "replicasets"),
    ("batch", "jobs"),
];

/// What may be done to [`RIGHTS`].
pub const VERBS: &[&str] = &["list", "watch"];

impl Resource {
    pub const ALL: [Self; 8] = [
        Self::LocalPods,
        Self::RemotePods,
        Self::Services,
        Self::EndpointSlices,
        Self::Nodes,
        Self::Namespaces,
        Self::ReplicaSets,
        Self::Jobs,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::LocalPods => "local_pods",
            Self::RemotePods => "remote_pods",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Nodes => "nodes",
            Self::Namespaces => "namespaces",
            Self::ReplicaSets => "replicasets",
            Self::Jobs => "jobs",
        }
    }

    /// As [`RIGHTS`] has it.
    pub fn right(self) -> (&'static str, &'static str) {
        match self {
            Self::LocalPods | Self::RemotePods => ("", "pods"),
            Self::Services => ("", "services"),
            Self::EndpointSlices => ("discovery.k8s.io", "endpointslices"),
            Self::Nodes => ("", "nodes"),
            Self::Namespaces => ("", "namespaces"),
            Self::ReplicaSets => ("apps", "replicasets"),
            Self::Jobs => ("batch", "jobs"),
        }
    }
}

#[cfg(test)]
mod tests;
