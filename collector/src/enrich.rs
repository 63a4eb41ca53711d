//! Whose a socket is: identifiers of the kernel → the workload that a person knows by name.
//!
//! [`Identities`] is what is known, and pure. [`Enricher`] keeps it up to date: it asks [`Host`]
//! again when the kernel names a namespace that is not known yet.

mod external;
mod identities;
mod translations;
mod workload;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

pub use external::ExternalNames;
pub use identities::{Identities, NamespaceIdentity, Occupant, Reason};
pub use translations::{FiveTuple, Translation, Translations, Untranslated};
pub(crate) use translations::{MAX_HOPS, MAX_TRANSLATIONS};
pub use workload::{Kind, Workload};

use crate::export::{Counter, Labels, Registry};
use crate::host::netns::Place;
use crate::host::{Host, Learned};
use crate::k8s::{Cluster, Found, Index, ObjectKey};
use crate::kernel::monotonic_nanoseconds;

/// A network namespace: the low half of its cookie, which the kernel gives out only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId(pub u32);

impl NetnsId {
    pub fn of_cookie(cookie: u64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "as in bpf/include/socket.bpf.h: four thousand million namespaces later they repeat"
        )]
        let low_half = cookie as u32;
        Self(low_half)
    }
}

/// Inode number of a directory in the cgroup2 hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupId(pub u64);

/// Which of the connections that were asked for are known now.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered {
    All,
    /// So many of the first.
    First(usize),
}

/// Names the two ends of what the kernel counted. May be shared between threads.
pub struct Enricher {
    identities: RwLock<Identities>,
    translations: RwLock<Translations>,
    translations_known_until: AtomicU64,
    external_names: Mutex<ExternalNames>,
    host: Option<Mutex<Host>>,
    cluster: Arc<Cluster>,
    unattributed: Counter,
    fixed: [Workload; 3],
}

impl Enricher {
    /// Knows what `identities` says and looks nowhere else.
    pub fn of(identities: Identities, registry: &Registry) -> Self {
        Self {
            identities: RwLock::new(identities),
            translations: RwLock::default(),
            translations_known_until: AtomicU64::new(0),
            external_names: Mutex::default(),
            host: None,
            cluster: Arc::default(),
            unattributed: registry.counter(
                "unattributed",
                "Look-ups of a workload that found none",
                &[&["reason"]],
            ),
            fixed: [Workload::host(), Workload::external(), Workload::unknown()],
        }
    }

    /// Names what lives on this host.
    pub fn of_host(host: Host, registry: &Registry) -> Self {
        let mut enricher = Self::of(Identities::default(), registry);
        enricher.host = Some(Mutex::new(host));
        enricher.refresh();
        enricher
    }

    /// From now on pods are named as this cluster names them.
    #[must_use]
    pub fn in_cluster(mut self, cluster: Arc<Cluster>) -> Self {
        self.cluster = cluster;
        self
    }

    /// The cluster that this host belongs to, if any.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Whose socket this is. `CgroupId(0)`: not known.
    pub fn owner(&self, netns: NetnsId, cgroup: CgroupId) -> Workload {
        let found = self.read().owner(netns, cgroup);
        let found = match found {
            Err(Reason::CgroupUnknown) => {
                self.learn_cgroup(cgroup);
                self.read().owner(netns, cgroup)
            }
            Err(Reason::NetnsUnknown) if self.learn_netns(netns) => {
                self.read().owner(netns, cgroup)
            }
            found => found,
        };
        // Too early to look a new cgroup up again: the namespace says enough.
        if found == Err(Reason::CgroupUnknown) {
            return self.owner(netns, CgroupId(0));
        }
        self.or_unknown(found)
    }

    /// Whose address this is, as seen from `netns`. A Service address is its backend's, if all
    /// connections from `netns` went to backends of one workload.
    pub fn peer(&self, netns: NetnsId, address: IpAddr) -> Workload {
        self.peer_of_clients(netns, None, address)
    }

    /// As [`Enricher::peer`], and behind a Service's address who answers this client.
    pub fn peer_behind(&self, netns: NetnsId, client: IpAddr, address: IpAddr) -> Workload {
        self.peer_of_clients(netns, Some(client), address)
    }

    /// As [`Enricher::peer`], for connections of one address if `client` is given, and else for those of all
    /// addresses of `netns`.
    fn peer_of_clients(&self, netns: NetnsId, client: Option<IpAddr>, address: IpAddr) -> Workload {
        let behind = || self.behind(netns, client, address);
        let found = match self.peer_of(netns, address) {
            Err(Reason::NetnsUnknown) if self.learn_netns(netns) => self.peer_of(netns, address),
            Ok(Peer::Nobody) if self.learn_address(address) => self.peer_of(netns, address),
            found => found,
        };
        let found = match found {
            Ok(Peer::Workload(workload)) => Ok(workload),
            Ok(Peer::Services(services)) => {
                self.learn_translations();
                let backend = behind().ok().flatten();
                backend.map_or_else(|| self.one_of(&services), Ok)
            }
            Ok(Peer::Nobody) => {
                behind().map(|backend| backend.unwrap_or_else(|| self.outside(netns, address)))
            }
            // A Service's address, for all we know.
            Err(Reason::KubernetesIncomplete) => {
                self.learn_translations();
                let backend = behind().ok().flatten();
                backend.ok_or(Reason::KubernetesIncomplete)
            }
            Err(reason) => Err(reason),
        };
        self.or_unknown(found)
    }

    /// Whom a packet from `source` that `netns` saw was meant for.
    pub fn meant(&self, netns: NetnsId, source: IpAddr, destination: IpAddr) -> Workload {
        let meant = self.read().meant(source, destination);
        meant.unwrap_or_else(|| self.peer(netns, destination))
    }

    /// As [`Enricher::meant`], and behind a Service's address whom connection tracking sends this source to.
    pub fn meant_behind(&self, netns: NetnsId, source: IpAddr, destination: IpAddr) -> Workload {
        let meant = self.read().meant(source, destination);
        meant.unwrap_or_else(|| self.peer_behind(netns, source, destination))
    }

    /// Says that `netns` was answered from an address. Should another namespace take the address too, it
    /// is told by this whom `netns` means.
    pub fn note_reached(&self, netns: NetnsId, address: IpAddr) {
        if self.read().is_news(netns, address) {
            self.write().note_reached(netns, address);
        }
    }

    /// Whom these Services stand for, if that is one workload.
    fn one_of(&self, services: &[ObjectKey]) -> Result<Workload, Reason> {
        let (index, now) = (self.cluster.index(), Instant::now());
        let mut found = services.iter().map(|service| index.behind(service, now));
        let first = found.next().ok_or(Reason::SeveralServices)?;
        match found.all(|other| other == first) {
            true => Ok(first),
            false => Err(Reason::SeveralServices),
        }
    }

    /// An end outside, by the name that `netns` knows it by if names are wanted.
    fn outside(&self, netns: NetnsId, address: IpAddr) -> Workload {
        let name = self.external_names().at(netns, address);
        name.unwrap_or_else(|| self.fixed[1].clone())
    }

    /// Names of ends outside, for who learns them.
    pub fn external_names(&self) -> MutexGuard<'_, ExternalNames> {
        let names = self.external_names.lock();
        names.unwrap_or_else(PoisonError::into_inner)
    }

    /// The Service whose address this is.
    pub fn service(&self, address: IpAddr) -> Option<Arc<str>> {
        let index = self.cluster.index();
        Some(index.service_at(address)?.name.clone())
    }

    /// The zone of whoever has this address, as Kubernetes knows it.
    pub fn zone(&self, address: IpAddr) -> Option<Arc<str>> {
        self.cluster.index().zone_at(address).map(Into::into)
    }

    /// Whose a namespace is that is read as a whole.
    pub(crate) fn owner_of_place(&self, place: &Place) -> Workload {
        let known = (place.id).map(|netns| self.read().owner(netns, CgroupId(0)));
        match known {
            Some(Ok(workload)) => workload,
            Some(Err(Reason::PodUnknown | Reason::OwnerUnknown)) => self.fixed[2].clone(),
            Some(Err(_)) | None => place.owner.clone(),
        }
    }

    fn peer_of(&self, netns: NetnsId, address: IpAddr) -> Result<Peer, Reason> {
        let (identities, index) = (self.read(), self.cluster.index());
        peer_of(&identities, &index, netns, address, Instant::now())
    }

    /// Where a connection arrives, if not where its client sent it.
    pub fn translated(&self, tuple: &FiveTuple) -> Option<FiveTuple> {
        let translations = read(&self.translations);
        (!translations.is_empty())
            .then(|| translations.follow(tuple))
            .flatten()
    }

    /// What connection tracking can still tell about the senders of these packets, and about the receivers, where it
    /// hides either behind an address of its own.
    pub fn untranslated(&self, packets: impl IntoIterator<Item = FiveTuple>) -> Untranslated {
        let both_ways = (packets.into_iter()).flat_map(|packet| [packet, packet.reversed()]);
        let packets: Vec<FiveTuple> = both_ways.collect();
        match self.host() {
            Some(host) if !packets.is_empty() => Untranslated::of(host.untranslated(&packets)),
            _ => Untranslated::default(),
        }
    }

    /// Adds translations that were learned elsewhere than from this host's connection tracking.
    pub fn add_translations(&self, translations: impl IntoIterator<Item = Translation>) {
        write(&self.translations).add(translations, Instant::now());
    }

    /// What began before this, of the monotonic clock, [`Enricher::translated`] knows of.
    pub fn translations_known_until(&self) -> u64 {
        self.translations_known_until.load(Ordering::Relaxed)
    }

    /// What is named from now on was counted before: see [`Host::begin_collection`].
    pub fn begin_collection(&self) {
        if let Some(mut host) = self.host() {
            host.begin_collection();
        }
    }

    /// Reads from connection tracking, unless that was done too short a while ago for what it
    /// costs. Afterwards connections older than this call are known.
    pub fn learn_translations(&self) -> bool {
        self.learn_translations_of(&[]) == Answered::All
    }

    /// As [`Enricher::learn_translations`], where the answer for these connections is enough if
    /// there are too many to read all.
    pub fn learn_translations_of(&self, wanted: &[FiveTuple]) -> Answered {
        let start = monotonic_nanoseconds();
        let known_until = &self.translations_known_until;
        let Some(mut host) = self.host() else {
            // There is nothing to learn from.
            known_until.fetch_max(start, Ordering::Relaxed);
            return Answered::All;
        };
        let learned = host.translations(Instant::now(), wanted);
        drop(host);
        match learned {
            Learned::Everything(found) => {
                self.add_translations(found);
                known_until.fetch_max(start, Ordering::Relaxed);
                Answered::All
            }
            Learned::Of(first, found) => {
                self.add_translations(found);
                Answered::First(first)
            }
            Learned::Nothing => Answered::First(0),
        }
    }

    /// From now on nothing waits for connection tracking, since there is no time left to ask it:
    /// what it was not asked about is taken to go where its client sent it.
    pub fn stop_learning(&self) {
        self.translations_known_until
            .store(u64::MAX, Ordering::Relaxed);
    }

    fn behind(
        &self,
        netns: NetnsId,
        client: Option<IpAddr>,
        address: IpAddr,
    ) -> Result<Option<Workload>, Reason> {
        let translations = read(&self.translations);
        if translations.is_empty() {
            return Ok(None);
        }
        let (identities, index) = (self.read(), self.cluster.index());
        let is_service = !index.services_at(address).is_empty();
        let mut found: Option<Workload> = None;
        let clients: Vec<IpAddr> = match client {
            Some(client) => vec![client.to_canonical()],
            None => identities.addresses(netns).collect(),
        };
        for client in clients {
            for backend in translations.backends(client, address.to_canonical()) {
                let workload = match peer_of(&identities, &index, netns, backend, Instant::now())? {
                    Peer::Workload(workload) => workload,
                    Peer::Services(services) => match &*services {
                        [service] => Workload::service(service),
                        _ => return Err(Reason::SeveralServices),
                    },
                    // Of a Service, it may be a pod on another node that is not asked for.
                    Peer::Nobody if is_service && !index.knows_outside() => return Ok(None),
                    Peer::Nobody => Workload::external(),
                };
                match &found {
                    Some(other) if *other != workload => return Err(Reason::SeveralBackends),
                    _ => found = Some(workload),
                }
            }
        }
        Ok(found)
    }

    /// Namespaces that exist now, with the workload each belongs to.
    pub fn namespaces(&self) -> Vec<(NetnsId, Workload)> {
        self.read().namespaces()
    }

    /// Workloads that exist now.
    pub fn workloads(&self) -> HashSet<Workload> {
        self.read().workloads()
    }

    /// Sockets in TIME_WAIT of every namespace, as `ss` counts them.
    pub fn time_wait_sockets(&self) -> Vec<(NetnsId, u64)> {
        self.host()
            .map(|mut host| host.time_wait_sockets())
            .unwrap_or_default()
    }

    /// Looks for namespaces that came or went, and for addresses that changed. Cheap enough to be
    /// called every second.
    pub fn refresh(&self) {
        match self.host() {
            Some(mut host) => {
                host.refresh(Instant::now());
                self.publish(&mut host);
            }
            None => self.name_pods(),
        }
    }

    /// Gives namespaces and cgroups the names of their pods, as they are now.
    fn name_pods(&self) {
        let mut identities = self.write();
        let index = self.cluster.index();
        if index.is_on() {
            identities.name_pods(&index, Instant::now());
        }
    }

    /// Everything that lives on this host, whether the kernel counted something for it or not.
    /// Also forgets cgroups that went. Walks the whole hierarchy, so not for every second.
    pub fn alive(&self) -> HashSet<Workload> {
        let mut alive = self.workloads();
        let cgroups = self.host().map(|mut host| host.all_cgroups(Instant::now()));
        if let Some(cgroups) = cgroups {
            self.write().retain_cgroups(&cgroups);
            let occupants = cgroups.into_values().flatten();
            alive.extend(occupants.map(|occupant| occupant.workload));
        }
        alive.extend(self.cluster.index().workloads());
        alive
    }

    /// The host behind this enricher, for what else is read from it.
    pub(crate) fn host(&self) -> Option<MutexGuard<'_, Host>> {
        self.host
            .as_ref()
            .map(|host| host.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn learn_netns(&self, netns: NetnsId) -> bool {
        // Packets and sockets that belong to none.
        if netns == NetnsId(0) {
            return false;
        }
        let Some(mut host) = self.host() else {
            return false;
        };
        let found = host.find_netns(netns, Instant::now());
        if found {
            self.publish(&mut host);
        }
        found
    }

    fn learn_address(&self, address: IpAddr) -> bool {
        let Some(mut host) = self.host() else {
            return false;
        };
        if let Ok(true) = host.find_address(address, Instant::now()) {
            self.publish(&mut host);
            return true;
        }
        drop(host);
        self.learn_translations();
        false
    }

    fn learn_cgroup(&self, cgroup: CgroupId) {
        let found = match self.host() {
            Some(mut host) => host.find_cgroup(cgroup, Instant::now()),
            None => Ok(None),
        };
        if let Ok(occupant) = found {
            self.write().set_cgroup(cgroup, occupant);
            self.name_pods();
        }
    }

    fn publish(&self, host: &mut Host) {
        let mut identities = self.write();
        host.publish(&mut identities);
        identities.forget_gone(Instant::now(), Duration::from_secs(300));
        let index = self.cluster.index();
        if index.is_on() {
            identities.name_pods(&index, Instant::now());
        }
    }

    fn or_unknown(&self, found: Result<Workload, Reason>) -> Workload {
        found.unwrap_or_else(|reason| {
            self.unattributed.add(Labels::new(&[reason.as_str()]), 1);
            self.fixed[2].clone()
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Identities> {
        read(&self.identities)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Identities> {
        write(&self.identities)
    }
}

/// Whose an address is, as far as that is known without asking anybody.
enum Peer {
    Workload(Workload),
    /// One, or several that share the address. The backend is to be found.
    Services(Box<[ObjectKey]>),
    Nobody,
}

/// What lives on this host has its address for certain, but for those of Services, which IPVS puts
/// on an interface of every node. Kubernetes knows the others; who had it before they did is last.
fn peer_of(
    identities: &Identities,
    index: &Index,
    netns: NetnsId,
    address: IpAddr,
    now: Instant,
) -> Result<Peer, Reason> {
    let is_own = address.is_loopback() || address.is_unspecified();
    if index.is_on() && !is_own {
        let services = index.services_at(address);
        if !services.is_empty() {
            return Ok(Peer::Services(services.into()));
        }
        if !identities.has_live(address) {
            match index.at(address, now) {
                Found::Workload(workload) => return Ok(Peer::Workload(workload)),
                Found::Service(service) => return Ok(Peer::Services([service].into())),
                Found::Services(services) => return Ok(Peer::Services(services)),
                Found::Unknown(reason) => return Err(reason),
                Found::Nobody => {}
            }
        }
    }
    let peer = identities.peer(netns, address)?;
    Ok(peer.map_or(Peer::Nobody, Peer::Workload))
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::{Entry, Resource, ServiceMeta};

    const SHOP: NetnsId = NetnsId(1);

    /// The shop, on the node `a` of a cluster in which everything is listed that is asked for.
    fn enricher(remote_pods: bool, services: &[&str]) -> Enricher {
        let mut identities = Identities::default();
        let identity = NamespaceIdentity {
            owner: Workload::local("shop", Kind::Netns),
            shared: false,
            addresses: vec![IpAddr::from([10, 0, 0, 1])],
            container: None,
            is_hosts: false,
        };
        identities.set_namespace(SHOP, identity);
        let cluster = Cluster::new(Some("a"), Duration::from_secs(30));
        let now = Instant::now();
        for resource in Resource::ALL {
            if remote_pods || resource != Resource::RemotePods {
                cluster.expect(resource);
                cluster.change().reset(resource, &HashSet::new(), now);
            }
        }
        for name in services {
            let service = ServiceMeta {
                addresses: vec![IpAddr::from([10, 96, 0, 1])],
                ports: Vec::new(),
            };
            let key = ObjectKey::new("shop", name);
            (cluster.change()).apply(Resource::Services, &key, Entry::Service(service), now);
        }
        let enricher = Enricher::of(identities, &Registry::new(100)).in_cluster(cluster.into());
        let tuple = |server: &str| FiveTuple {
            protocol: 6,
            client: "10.0.0.1:40000".parse().unwrap(),
            server: server.parse().unwrap(),
        };
        enricher.add_translations([Translation {
            from: tuple("10.96.0.1:80"),
            to: tuple("10.0.7.7:8080"),
        }]);
        enricher
    }

    #[test]
    fn a_backend_that_is_not_asked_for_is_its_service_and_not_outside() {
        let address = IpAddr::from([10, 96, 0, 1]);
        for (remote_pods, services, expected) in [
            (false, &["cart"][..], "service/cart"),
            // Several that share the address, of which none may be named.
            (false, &["cart", "web"][..], "unknown/~unknown"),
            // Where all pods are known, it is none.
            (true, &["cart"][..], "external/~external"),
            // Translated, and no Service's.
            (false, &[][..], "external/~external"),
        ] {
            let peer = enricher(remote_pods, services).peer(SHOP, address);
            let found = format!("{}/{}", peer.kind.as_str(), peer.name);
            assert_eq!(found, expected, "{remote_pods} {services:?}");
        }
    }
}
