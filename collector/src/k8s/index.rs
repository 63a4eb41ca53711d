//! Entries in, names out. Does no IO and never waits; times are handed in.

mod addresses;
mod nodes;
mod pods;
mod services;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::enrich::{Kind, Reason, Workload};

use super::Resource;
use super::entry::{Entry, ObjectKey};
use super::names::Names;
use super::node::NodeMeta;
use super::owner::{AppLabels, OwnerMeta};
use addresses::Claims;
pub use nodes::NodeInDoubt;
use nodes::Nodes;
pub use pods::PodHint;
use pods::Record;
use services::Services;

/// What runs in the cluster, by the numbers that the kernel knows.
#[derive(Default)]
pub struct Index {
    settings: Settings,
    names: Names,
    pods: HashMap<ObjectKey, Record>,
    /// By owner: pods whose workload is not known before the owner is.
    waiting: HashMap<ObjectKey, Vec<ObjectKey>>,
    /// Of this node's pods only, as are containers: others' are never asked for.
    uids: HashMap<Box<str>, ObjectKey>,
    containers: HashMap<Box<str>, ObjectKey>,
    claims: Claims,
    services: Services,
    nodes: Nodes,
    namespaces: BTreeSet<Arc<str>>,
    replica_sets: HashMap<ObjectKey, OwnerMeta>,
    jobs: HashMap<ObjectKey, OwnerMeta>,
    expected: HashSet<Resource>,
    synced: HashSet<Resource>,
    /// Since when they cannot be listed.
    failing: HashMap<Resource, Instant>,
    version: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Kubernetes is there and asked, though it may not have answered yet.
    pub on: bool,
    /// What this node is called.
    pub node: Option<Arc<str>>,
    /// So long an end may be `~unknown` because of metadata that is late.
    pub grace: Duration,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Workload(Workload),
    /// A Service's own address. Which backend answered is not known here.
    Service(ObjectKey),
    /// Of several Services, told apart by their ports. By their names.
    Services(Box<[ObjectKey]>),
    /// Somebody's in the cluster, who is not known yet.
    Unknown(Reason),
    Nobody,
}

impl Index {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Whether Kubernetes is asked at all.
    pub fn is_on(&self) -> bool {
        self.settings.on
    }

    /// Whether somebody who was first seen then may turn out to be a pod.
    pub fn awaits_pod(&self, since: Instant, now: Instant) -> bool {
        self.settings.on && now.saturating_duration_since(since) < self.settings.grace
    }

    /// Changes with every entry that comes or goes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// This resource is asked for. Until it is listed, an address that nobody has may be one of its.
    pub(super) fn expect(&mut self, resource: Resource) {
        self.expected.insert(resource);
    }

    pub fn apply(&mut self, resource: Resource, key: &ObjectKey, entry: Entry, now: Instant) {
        self.version += 1;
        let key = self.intern(key);
        match entry {
            Entry::Pod(pod) => self.apply_pod(resource, key, pod, now),
            Entry::Service(service) => self.services.apply(key, service),
            Entry::EndpointSlice(slice) => self.services.apply_slice(key, slice),
            Entry::Node(node) => self.nodes.apply(key.name, node),
            Entry::NodeNews(news) => self.nodes.hear(key.name, news, now),
            Entry::Namespace => _ = self.namespaces.insert(key.name),
            Entry::Owner(owner) => {
                self.owners(resource).insert(key.clone(), owner);
                self.name_pods_of(&key);
            }
        }
    }

    pub fn delete(&mut self, resource: Resource, key: &ObjectKey, now: Instant) {
        self.version += 1;
        match resource {
            Resource::LocalPods | Resource::RemotePods => self.delete_pod(resource, key, now),
            Resource::Services => self.services.delete(key),
            Resource::EndpointSlices => self.services.delete_slice(key),
            Resource::Nodes => self.nodes.delete(&key.name),
            Resource::Namespaces => _ = self.namespaces.remove(&key.name),
            // Names of their pods stay what they are.
            Resource::ReplicaSets | Resource::Jobs => _ = self.owners(resource).remove(key),
        }
    }

    /// These objects are there, and no others of this resource. Until it was called first, the
    /// resource is not known as a whole.
    pub fn reset(&mut self, resource: Resource, there: &HashSet<ObjectKey>, now: Instant) {
        for key in self.keys(resource) {
            if !there.contains(&key) {
                self.delete(resource, &key, now);
            }
        }
        self.version += 1;
        self.synced.insert(resource);
        self.failing.remove(&resource);
    }

    /// It cannot be listed or followed, for a reason that does not pass by itself.
    pub(super) fn fail(&mut self, resource: Resource, now: Instant) {
        if !self.is_synced(resource) {
            self.failing.entry(resource).or_insert(now);
        }
    }

    pub fn is_synced(&self, resource: Resource) -> bool {
        self.synced.contains(&resource)
    }

    fn keys(&self, resource: Resource) -> Vec<ObjectKey> {
        let named = |name: &Arc<str>| ObjectKey {
            namespace: "".into(),
            name: name.clone(),
        };
        match resource {
            Resource::LocalPods | Resource::RemotePods => (self.pods.iter())
                .filter(|(_, record)| record.resource == resource)
                .map(|(key, _)| key.clone())
                .collect(),
            Resource::Services => self.services.keys(),
            Resource::EndpointSlices => self.services.slice_keys(),
            Resource::Nodes => self.nodes.names().map(named).collect(),
            Resource::Namespaces => self.namespaces.iter().map(named).collect(),
            Resource::ReplicaSets => self.replica_sets.keys().cloned().collect(),
            Resource::Jobs => self.jobs.keys().cloned().collect(),
        }
    }

    /// This node's name, if all nodes are known and none is called so.
    pub fn missing_node(&self) -> Option<&str> {
        let node = self.settings.node.as_ref()?;
        let is_missing = self.is_synced(Resource::Nodes) && self.nodes.get(node).is_none();
        is_missing.then_some(&**node)
    }

    /// Objects that are known of a resource.
    pub fn count(&self, resource: Resource) -> usize {
        match resource {
            Resource::LocalPods | Resource::RemotePods => {
                let records = self.pods.values();
                records.filter(|it| it.resource == resource).count()
            }
            Resource::Services => self.services.count(),
            Resource::EndpointSlices => self.services.count_slices(),
            Resource::Nodes => self.nodes.count(),
            Resource::Namespaces => self.namespaces.len(),
            Resource::ReplicaSets => self.replica_sets.len(),
            Resource::Jobs => self.jobs.len(),
        }
    }

    /// Whose address this is, in the whole cluster.
    pub fn at(&self, address: IpAddr, now: Instant) -> Found {
        if !self.settings.on {
            return Found::Nobody;
        }
        let address = address.to_canonical();
        if let Some(key) = self.claims.holder(address) {
            return match self.pod_workload(key, now) {
                Ok(workload) => Found::Workload(workload),
                Err(reason) => Found::Unknown(reason),
            };
        }
        if let Some(node) = self.nodes.at(address) {
            return Found::Workload(match self.settings.node.as_ref() == Some(node) {
                true => Workload::host(),
                false => Workload::node(),
            });
        }
        match self.services.at(address) {
            [] => {}
            [key] => return Found::Service(key.clone()),
            several => return Found::Services(several.into()),
        }
        if let Some(workload) = self.claims.departed(address, now) {
            return Found::Workload(workload.clone());
        }
        match self.missing(now) {
            Some(Reason::KubernetesIncomplete) if !is_internal(address) => Found::Nobody,
            Some(reason) => Found::Unknown(reason),
            None if self.nodes.has_pods_at(address) => Found::Unknown(Reason::PodUnknown),
            None if is_internal(address) => {
                (self.new_nodes(now)).map_or(Found::Nobody, Found::Unknown)
            }
            None => Found::Nobody,
        }
    }

    /// Why an address inside that nobody has may be a new node's: a watch tells that there is one,
    /// and its addresses are known when it was looked at.
    fn new_nodes(&self, now: Instant) -> Option<Reason> {
        let is_late = |since: Instant| now.saturating_duration_since(since) >= self.settings.grace;
        let reason = (self.nodes.new_since()).map(|since| match is_late(since) {
            true => Reason::KubernetesIncomplete,
            false => Reason::KubernetesUnsynced,
        });
        // Of several, the one that waiting may mend.
        reason.min_by_key(|&reason| reason == Reason::KubernetesIncomplete)
    }

    /// Why an address that nobody has may be somebody's: not everything that has addresses is
    /// listed, as far as it is asked for. What was refused for longer than the grace period is not
    /// waited for: addresses that only an end inside can have stay unknown, and others do not.
    fn missing(&self, now: Instant) -> Option<Reason> {
        if !self.is_synced(Resource::LocalPods) {
            return Some(Reason::KubernetesUnsynced);
        }
        let with_addresses = [Resource::RemotePods, Resource::Services, Resource::Nodes];
        let late = (with_addresses.iter())
            .filter(|&it| self.expected.contains(it) && !self.synced.contains(it));
        let is_given_up = |it: &Resource| {
            let since = self.failing.get(it);
            since.is_some_and(|&it| now.saturating_duration_since(it) >= self.settings.grace)
        };
        late.map(|it| match is_given_up(it) {
            true => Reason::KubernetesIncomplete,
            false => Reason::KubernetesUnsynced,
        })
        // Of several, the one that waiting may mend.
        .min_by_key(|&reason| reason == Reason::KubernetesIncomplete)
    }

    /// Whether an address that is nobody's is outside the cluster. Where only this node's pods are
    /// asked for, it may be another node's pod as well.
    pub fn knows_outside(&self) -> bool {
        self.settings.node.is_none() || self.expected.contains(&Resource::RemotePods)
    }

    /// The Service whose own address this is. Several may share one, and some balancers announce
    /// addresses of nodes: only ports tell then who is meant.
    pub fn service_at(&self, address: IpAddr) -> Option<&ObjectKey> {
        match self.services_at(address) {
            [key] => Some(key),
            _ => None,
        }
    }

    /// The Services that have this address and no node has; by their names.
    pub fn services_at(&self, address: IpAddr) -> &[ObjectKey] {
        let address = address.to_canonical();
        match self.nodes.at(address) {
            Some(_) => &[],
            None => self.services.at(address),
        }
    }

    /// The Service that is asked for there, by the number of its protocol.
    pub fn service_behind(&self, asked: SocketAddr, protocol: u8) -> Option<&ObjectKey> {
        let address = asked.ip().to_canonical();
        let sharing = self.services.at(address);
        let on_port = self.services.on_port(sharing, (protocol, asked.port()));
        on_port.or_else(|| self.service_at(address))
    }

    /// Whom a Service stands for: the one workload that its endpoints belong to, else itself.
    pub fn behind(&self, service: &ObjectKey, now: Instant) -> Workload {
        let mut found: Option<Workload> = None;
        for address in self.services.endpoints(service) {
            let workload = match self.at(address, now) {
                Found::Workload(workload) => workload,
                Found::Nobody if self.knows_outside() => Workload::external(),
                Found::Nobody | Found::Service(_) | Found::Services(_) | Found::Unknown(_) => {
                    return Workload::service(service);
                }
            };
            match &found {
                Some(other) if *other != workload => return Workload::service(service),
                _ => found = Some(workload),
            }
        }
        found.unwrap_or_else(|| Workload::service(service))
    }

    /// The node to look at next, since its metadata tells that more may have changed.
    pub fn node_in_doubt(&self) -> Option<NodeInDoubt> {
        self.nodes.in_doubt(self.settings.node.as_ref())
    }

    pub fn nodes_in_doubt(&self) -> usize {
        self.nodes.doubts()
    }

    /// This node's name, as the API has it.
    pub fn own_node(&self) -> Option<&Arc<str>> {
        self.settings.node.as_ref()
    }

    /// Looks at this node again: that costs next to nothing.
    pub fn doubt_own_node(&mut self, now: Instant) {
        let own = self.settings.node.clone();
        if let Some(own) = own.filter(|own| self.nodes.get(own).is_some()) {
            // Whatever the server has in its memory.
            self.nodes.doubt(&own, "0".into(), now);
        }
    }

    /// How a node is that was in doubt; `None` if there is none of that name any more.
    pub fn look_at_node(&mut self, doubt: &NodeInDoubt, node: Option<NodeMeta>) {
        self.version += 1;
        self.nodes.look(doubt, node);
    }

    /// The zone of whoever has this address.
    pub fn zone_at(&self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        let node = match self.claims.holder(address) {
            Some(key) => self.pods.get(key)?.node.as_ref()?,
            None => self.nodes.at(address)?,
        };
        self.nodes.get(node)?.zone.as_deref()
    }

    /// The zone of this node.
    pub fn own_zone(&self) -> Option<&str> {
        self.nodes
            .get(self.settings.node.as_ref()?)?
            .zone
            .as_deref()
    }

    /// By namespace: pods that are not over, and Services. Namespaces with none are there too.
    pub fn namespaces(&self) -> BTreeMap<Arc<str>, (usize, usize)> {
        let mut counts: BTreeMap<Arc<str>, (usize, usize)> = BTreeMap::new();
        for name in &self.namespaces {
            counts.entry(name.clone()).or_default();
        }
        for (key, record) in &self.pods {
            let over = record.phase.is_over();
            counts.entry(key.namespace.clone()).or_default().0 += usize::from(!over);
        }
        for key in self.services.keys() {
            counts.entry(key.namespace).or_default().1 += 1;
        }
        counts
    }

    /// Workloads of the whole cluster.
    pub fn workloads(&self) -> HashSet<Workload> {
        let pods = self.pods.values().map(|record| record.workload.clone());
        let services = self.services.keys();
        let services = services.iter().map(Workload::service);
        pods.chain(services).collect()
    }

    /// Recommended labels of the workloads of this node.
    pub fn app_labels(&self) -> BTreeMap<Workload, &AppLabels> {
        (self.pods.values())
            .filter(|record| record.resource == Resource::LocalPods)
            .filter_map(|record| Some((record.workload.clone(), record.app.as_deref()?)))
            .collect()
    }

    fn owners(&mut self, resource: Resource) -> &mut HashMap<ObjectKey, OwnerMeta> {
        match resource {
            Resource::Jobs => &mut self.jobs,
            _ => &mut self.replica_sets,
        }
    }

    fn intern(&mut self, key: &ObjectKey) -> ObjectKey {
        ObjectKey {
            namespace: self.names.get(&key.namespace),
            name: self.names.get(&key.name),
        }
    }
}

/// Whether the address is of those that no end elsewhere in the Internet has: private, shared,
/// unique local (RFC 1918, 6598, 4193) or link-local.
fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => {
            let is_shared = it.octets()[0] == 100 && it.octets()[1] & 0xc0 == 64;
            it.is_private() || it.is_link_local() || is_shared
        }
        IpAddr::V6(it) => it.is_unique_local() || it.is_unicast_link_local(),
    }
}

impl Workload {
    /// An address of another node: its kubelet, or any pod that uses its node's network.
    pub fn node() -> Self {
        Self::local("~node", Kind::Node)
    }

    /// A Service whose backend is not known, or that has none.
    pub fn service(key: &ObjectKey) -> Self {
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            kind: Kind::Service,
        }
    }
}
