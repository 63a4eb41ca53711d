//! Whose a pod is: from its direct owner up to the workload that a person deploys.

use kube::core::ObjectMeta;

use crate::enrich::Kind;

/// A controller, as an owner reference names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: Kind,
    pub name: Box<str>,
}

/// What is kept of a ReplicaSet or a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerMeta {
    pub owner: Option<Owner>,
}

/// Recommended labels, by their names without `app.kubernetes.io/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppLabels(pub [Box<str>; 6]);

impl AppLabels {
    pub const NAMES: [&str; 6] = [
        "name",
        "instance",
        "version",
        "component",
        "part-of",
        "managed-by",
    ];

    /// `None` if it has none of them.
    pub(super) fn of(meta: &ObjectMeta) -> Option<Box<Self>> {
        let labels = meta.labels.as_ref()?;
        let value = |name| {
            labels
                .get(&format!("app.kubernetes.io/{name}"))
                .map_or("", String::as_str)
                .into()
        };
        let found = Self(Self::NAMES.map(value));
        (found.0.iter().any(|value| !value.is_empty())).then(|| Box::new(found))
    }
}

pub fn owner(meta: &ObjectMeta) -> OwnerMeta {
    OwnerMeta {
        owner: controller(meta),
    }
}

/// The owner that manages the object; others may own it too, for garbage collection.
pub(super) fn controller(meta: &ObjectMeta) -> Option<Owner> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(Owner {
        kind: kind(&owner.api_version, &owner.kind),
        name: owner.name.as_str().into(),
    })
}

fn kind(api_version: &str, kind: &str) -> Kind {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("apps", "Deployment") => Kind::Deployment,
        ("apps", "ReplicaSet") => Kind::ReplicaSet,
        ("apps", "StatefulSet") => Kind::StatefulSet,
        ("apps", "DaemonSet") => Kind::DaemonSet,
        ("batch", "Job") => Kind::Job,
        ("batch", "CronJob") => Kind::CronJob,
        ("", "ReplicationController") => Kind::ReplicationController,
        ("", "Node") => Kind::Node,
        // Whoever invents kinds, such as Argo's Rollout.
        _ => Kind::Controller,
    }
}
