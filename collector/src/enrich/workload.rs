//! What a person knows by name, and what kind of thing it is.

use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Netns,
    Container,
    Unit,
    Host,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    ReplicationController,
    Job,
    CronJob,
    /// A pod that nobody but a person or a node manages.
    Pod,
    /// Something else that manages pods, by a name of its own.
    Controller,
    /// A Service whose backend is not known, or that has none.
    Service,
    /// Another node.
    Node,
    External,
    Unknown,
}

impl Kind {
    /// Of workloads that come and go.
    pub const PASSING: [Self; 13] = [
        Self::Netns,
        Self::Container,
        Self::Unit,
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::ReplicationController,
        Self::Job,
        Self::CronJob,
        Self::Pod,
        Self::Controller,
        Self::Service,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Container => "container",
            Self::Unit => "unit",
            Self::Host => "host",
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::ReplicaSet => "replicaset",
            Self::ReplicationController => "replicationcontroller",
            Self::Job => "job",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
            Self::Controller => "controller",
            Self::Service => "service",
            Self::Node => "node",
            Self::External => "external",
            Self::Unknown => "unknown",
        }
    }
}

impl Workload {
    /// The namespace of every end outside, and the name of those that have no other.
    pub const EXTERNAL: &str = "~external";

    pub fn new(namespace: &str, name: &str, kind: Kind) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            kind,
        }
    }

    /// A workload of this host that has a name.
    pub fn local(name: &str, kind: Kind) -> Self {
        Self::new("host", name, kind)
    }

    /// What runs on this host and is nobody's in particular.
    pub fn host() -> Self {
        Self::local("~host", Kind::Host)
    }

    /// An end outside this host.
    pub fn external() -> Self {
        Self::new(Self::EXTERNAL, Self::EXTERNAL, Kind::External)
    }

    /// A local end that could not be named.
    pub fn unknown() -> Self {
        Self::new("~unknown", "~unknown", Kind::Unknown)
    }
}
