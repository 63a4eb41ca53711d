//! The pods of the index: their workloads, and the ways to find them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::enrich::{Kind, Reason, Workload};

use super::super::Resource;
use super::super::entry::ObjectKey;
use super::super::owner::{AppLabels, Owner};
use super::super::pod::{Phase, PodMeta};
use super::Index;

/// What is remembered of a pod.
pub(super) struct Record {
    pub(super) resource: Resource,
    pub(super) node: Option<Arc<str>>,
    pub(super) phase: Phase,
    pub(super) workload: Workload,
    pub(super) app: Option<Box<AppLabels>>,
    /// The owner, if its own owner must be asked for.
    asked: Option<Box<Owner>>,
    /// It is not known yet.
    is_pending: bool,
    since: Instant,
    created: i64,
    uid: Box<str>,
    config_hash: Option<Box<str>>,
    containers: Box<[Box<str>]>,
    /// None once it is over.
    addresses: Box<[IpAddr]>,
}

impl Record {
    /// The owner whose own owner is not known yet.
    fn pending(&self) -> Option<&Owner> {
        self.asked.as_deref().filter(|_| self.is_pending)
    }
}

/// What the kernel says about a pod of this node.
#[derive(Clone, Copy, Debug)]
pub struct PodHint<'a> {
    /// As in the path of its cgroup.
    pub uid: Option<&'a str>,
    pub container: Option<&'a str>,
}

impl Index {
    pub(super) fn apply_pod(
        &mut self,
        resource: Resource,
        key: ObjectKey,
        pod: PodMeta,
        now: Instant,
    ) {
        if (self.pods.get(&key)).is_some_and(|known| is_older(resource, &pod, known)) {
            return;
        }
        let known = self.pods.get(&key).filter(|known| known.uid == pod.uid);
        let since = known.map_or(now, |known| known.since);
        let addresses = match pod.phase.is_over() {
            true => Box::default(),
            false => pod.addresses.clone(),
        };
        // Stays in place where nothing changed, so that the order of claims is that of events.
        let keeps = known.is_some_and(|known| known.addresses == addresses);
        let old = self.pods.remove(&key);
        if let Some(old) = &old {
            self.forget_ids(&key, old);
            if !keeps {
                self.release(&key, old, now);
            }
        }
        let known = old.filter(|old| old.uid == pod.uid);
        let asked = asked(&pod).cloned();
        let (workload, is_pending) = self.workload_of(&key, &pod, known.as_ref());
        if let Some(owner) = asked.as_ref().filter(|_| is_pending) {
            let waiting = self.waiting.entry(owner_key(&key, owner)).or_default();
            waiting.push(key.clone());
        }
        if !keeps {
            // What is there from the start came in no order.
            let order = match self.synced.contains(&resource) {
                true => self.version,
                false => 0,
            };
            for &address in &addresses {
                self.claims.add(address, &key, (order, pod.created));
            }
        }
        let is_local = resource == Resource::LocalPods;
        let containers = match is_local {
            true => pod.containers,
            false => Box::default(),
        };
        if is_local {
            for uid in [Some(&pod.uid), pod.config_hash.as_ref()]
                .into_iter()
                .flatten()
            {
                self.uids.insert(uid.clone(), key.clone());
            }
            for container in &containers {
                self.containers.insert(container.clone(), key.clone());
            }
        }
        let record = Record {
            resource,
            node: pod.node.map(|node| self.names.get(&node)),
            phase: pod.phase,
            workload,
            app: pod.app.filter(|_| is_local),
            asked: asked.map(Box::new),
            is_pending,
            since,
            created: pod.created,
            uid: pod.uid,
            config_hash: pod.config_hash,
            containers,
            addresses,
        };
        self.pods.insert(key, record);
    }

    pub(super) fn delete_pod(&mut self, resource: Resource, key: &ObjectKey, now: Instant) {
        // A pod that got a node leaves the watch of the others, before or after it came here.
        if (self.pods.get(key)).is_none_or(|known| known.resource != resource) {
            return;
        }
        if let Some(old) = self.pods.remove(key) {
            self.forget_ids(key, &old);
            self.release(key, &old, now);
        }
    }

    fn forget_ids(&mut self, key: &ObjectKey, old: &Record) {
        if let Some(owner) = old.pending() {
            let owner = owner_key(key, owner);
            if let Some(waiting) = self.waiting.get_mut(&owner) {
                waiting.retain(|pod| pod != key);
                if waiting.is_empty() {
                    self.waiting.remove(&owner);
                }
            }
        }
        for uid in [Some(&old.uid), old.config_hash.as_ref()]
            .into_iter()
            .flatten()
        {
            if self.uids.get(uid) == Some(key) {
                self.uids.remove(uid);
            }
        }
        for container in &old.containers {
            if self.containers.get(container) == Some(key) {
                self.containers.remove(container);
            }
        }
    }

    fn release(&mut self, key: &ObjectKey, old: &Record, now: Instant) {
        for &address in &old.addresses {
            self.claims.remove(address, key, &old.workload, now);
        }
    }

    /// The pod of this node that a namespace or cgroup belongs to.
    pub fn local_pod(&self, hint: PodHint<'_>, now: Instant) -> Option<Result<Workload, Reason>> {
        let key = (hint.uid.and_then(|uid| self.uids.get(uid)))
            .or_else(|| self.containers.get(hint.container?))?;
        Some(self.pod_workload(key, now))
    }

    /// The pod of this node that has an address of its own.
    pub fn local_pod_at(&self, address: IpAddr, now: Instant) -> Option<Result<Workload, Reason>> {
        let key = self.claims.holder(address.to_canonical())?;
        let is_local = self.pods.get(key)?.resource == Resource::LocalPods;
        is_local.then(|| self.pod_workload(key, now))
    }

    pub(super) fn pod_workload(&self, key: &ObjectKey, now: Instant) -> Result<Workload, Reason> {
        let record = &self.pods[key];
        let is_late = now.saturating_duration_since(record.since) >= self.settings.grace;
        match record.is_pending && !is_late {
            true => Err(Reason::OwnerUnknown),
            false => Ok(record.workload.clone()),
        }
    }

    /// Whether there is a pod whose owner must be looked up there.
    pub fn needs(&self, resource: Resource) -> bool {
        let kind = match resource {
            Resource::ReplicaSets => Kind::ReplicaSet,
            Resource::Jobs => Kind::Job,
            _ => return true,
        };
        let mut pending = self.pods.values().filter_map(Record::pending);
        pending.any(|owner| owner.kind == kind)
    }

    /// The top owner; the direct one and true, if what is above it is not known.
    fn workload_of(
        &mut self,
        key: &ObjectKey,
        pod: &PodMeta,
        known: Option<&Record>,
    ) -> (Workload, bool) {
        let Some(owner) = &pod.owner else {
            return (self.workload(key, Kind::Pod, &key.name), false);
        };
        let above = match owner.kind {
            Kind::ReplicaSet => match deployment(pod, owner) {
                Some(name) => return (self.workload(key, Kind::Deployment, name), false),
                None => self.replica_sets.get(&owner_key(key, owner)),
            },
            Kind::Job => self.jobs.get(&owner_key(key, owner)),
            // A static pod: its name ends with the node's.
            Kind::Node => {
                let node = pod.node.as_deref().unwrap_or_default();
                let name = (key.name.strip_suffix(node))
                    .and_then(|name| name.strip_suffix('-'))
                    .unwrap_or(&key.name);
                return (self.workload(key, Kind::Pod, name), false);
            }
            kind => return (self.workload(key, kind, &owner.name), false),
        };
        match above.map(|meta| meta.owner.clone()) {
            Some(Some(top)) => (self.workload(key, top.kind, &top.name), false),
            Some(None) => (self.workload(key, owner.kind, &owner.name), false),
            None => match known {
                // An owner may be deleted before its pods, which go on for a while.
                Some(known) if !known.is_pending && known.asked.as_deref() == Some(owner) => {
                    (known.workload.clone(), false)
                }
                _ => (self.workload(key, owner.kind, &owner.name), true),
            },
        }
    }

    /// An owner is known now: so are the workloads of its pods.
    pub(super) fn name_pods_of(&mut self, owner: &ObjectKey) {
        let waiting = self.waiting.remove(owner).unwrap_or_default();
        for key in waiting {
            let record = self.pods.get(&key);
            let Some(pending) = record.and_then(|record| record.pending().cloned()) else {
                continue;
            };
            let above = match pending.kind {
                Kind::Job => self.jobs.get(owner),
                _ => self.replica_sets.get(owner),
            };
            let Some(meta) = above else {
                continue;
            };
            let top = meta.owner.clone().unwrap_or(pending);
            let workload = self.workload(&key, top.kind, &top.name);
            if let Some(record) = self.pods.get_mut(&key) {
                record.workload = workload;
                record.is_pending = false;
            }
        }
    }

    fn workload(&mut self, key: &ObjectKey, kind: Kind, name: &str) -> Workload {
        Workload {
            namespace: key.namespace.clone(),
            name: self.names.get(name),
            kind,
        }
    }
}

/// The two watches are not in step. What the other one says of a pod of this node is older, and so is
/// what it says of one that had the name before.
fn is_older(resource: Resource, pod: &PodMeta, known: &Record) -> bool {
    match known.uid == pod.uid {
        true => resource == Resource::RemotePods && known.resource == Resource::LocalPods,
        false => resource != known.resource && pod.created < known.created,
    }
}

/// The owner, if its own owner must be asked for.
fn asked(pod: &PodMeta) -> Option<&Owner> {
    let owner = pod.owner.as_ref()?;
    match owner.kind {
        Kind::ReplicaSet => deployment(pod, owner).is_none().then_some(owner),
        Kind::Job => Some(owner),
        _ => None,
    }
}

fn owner_key(pod: &ObjectKey, owner: &Owner) -> ObjectKey {
    ObjectKey {
        namespace: pod.namespace.clone(),
        name: (*owner.name).into(),
    }
}

/// A Deployment calls its ReplicaSets after itself and the hash that it puts on their pods, so that
/// nobody needs to watch them.
fn deployment<'a>(pod: &PodMeta, replica_set: &'a Owner) -> Option<&'a str> {
    let hash = pod.template_hash.as_deref()?;
    replica_set.name.strip_suffix(hash)?.strip_suffix('-')
}
