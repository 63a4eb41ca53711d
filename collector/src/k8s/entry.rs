//! What the index takes in: what is kept of an object.

use std::sync::Arc;

use super::node::{NodeMeta, NodeNews};
use super::owner::OwnerMeta;
use super::pod::PodMeta;
use super::service::{ServiceMeta, SliceMeta};

/// Namespace (empty for what has none) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(super) fn of(meta: &kube::core::ObjectMeta) -> Self {
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Pod(PodMeta),
    Service(ServiceMeta),
    EndpointSlice(SliceMeta),
    Node(NodeMeta),
    NodeNews(NodeNews),
    Namespace,
    /// A ReplicaSet or Job.
    Owner(OwnerMeta),
}
