//! What is known about namespaces, addresses and cgroups. Does no IO and never waits.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{CgroupId, NetnsId, Workload};
use crate::host::cgroup::Container;
use crate::k8s::{Index, PodHint};

/// Cgroups remembered at a time. They are few; what comes and goes is forgotten all at once.
const MAX_CGROUPS: usize = 16_384;

/// Namespaces that are gone and remembered at a time. Where a thousand come and go every minute,
/// the last words of those that went first have long been heard.
const MAX_GONE: usize = 4096;

/// Pairs of a client and an address it reached remembered at a time.
const MAX_REACHED: usize = 16_384;

/// Why an end has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NetnsUnknown,
    /// Not asked for yet; a cgroup that was asked for and belongs to nobody is no reason.
    CgroupUnknown,
    /// Several namespaces have the address, and the one that asks is none of them and reached none while
    /// it was the only one.
    AddressAmbiguous,
    /// A Service address whose connections go to several workloads.
    SeveralBackends,
    /// The Kubernetes API has not told any pods yet.
    KubernetesUnsynced,
    /// The Kubernetes API does not let us list something that may have the address.
    KubernetesIncomplete,
    /// Several Services share the address, and are not one workload.
    SeveralServices,
    /// A pod, by its cgroup or network, of which the Kubernetes API has not told yet.
    PodUnknown,
    /// A pod whose owner's owner the Kubernetes API has not told yet.
    OwnerUnknown,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetnsUnknown => "netns_unknown",
            Self::CgroupUnknown => "cgroup_unknown",
            Self::AddressAmbiguous => "address_ambiguous",
            Self::SeveralBackends => "several_backends",
            Self::KubernetesUnsynced => "kubernetes_unsynced",
            Self::KubernetesIncomplete => "kubernetes_incomplete",
            Self::SeveralServices => "several_services",
            Self::PodUnknown => "pod_unknown",
            Self::OwnerUnknown => "owner_unknown",
        }
    }
}

/// A network namespace, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceIdentity {
    pub owner: Workload,
    /// Several workloads live in it, and only the cgroup of a socket tells them apart: the host's
    /// own namespace, or one that containers share.
    pub shared: bool,
    pub addresses: Vec<IpAddr>,
    /// The container that its first process is in.
    pub container: Option<Container>,
    /// The node's own, whose addresses are no pod's.
    pub is_hosts: bool,
}

/// Whose a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    pub workload: Workload,
    pub container: Option<Container>,
}

#[derive(Default)]
pub struct Identities {
    namespaces: HashMap<NetnsId, Namespace>,
    addresses: HashMap<IpAddr, Holder>,
    /// `None`: asked for, and nobody's.
    cgroups: HashMap<CgroupId, Option<Cgroup>>,
    /// Who answered a namespace at an address while nobody else had it.
    reached: HashMap<(NetnsId, IpAddr), NetnsId>,
}

struct Namespace {
    identity: NamespaceIdentity,
    pod: Pod,
    gone: Option<Instant>,
}

struct Cgroup {
    occupant: Occupant,
    pod: Pod,
}

/// The pod that a namespace or cgroup belongs to, as Kubernetes tells it.
#[derive(Default)]
struct Pod {
    /// Kept when the pod goes, because its namespace goes later.
    name: Option<Result<Workload, Reason>>,
    /// When it was looked for first.
    since: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    One(NetnsId),
    Several,
}

impl Identities {
    pub fn owner(&self, netns: NetnsId, cgroup: CgroupId) -> Result<Workload, Reason> {
        let namespace = self.namespaces.get(&netns).ok_or(Reason::NetnsUnknown)?;
        let identity = &namespace.identity;
        // All containers of a pod are one workload.
        if namespace.pod.name.is_some() || !identity.shared || cgroup == CgroupId(0) {
            return namespace.owner();
        }
        match self.cgroups.get(&cgroup) {
            Some(Some(cgroup)) => cgroup.owner(),
            Some(None) => Ok(identity.owner.clone()),
            None => Err(Reason::CgroupUnknown),
        }
    }

    /// Whether a namespace that exists now has the address.
    pub fn has_live(&self, address: IpAddr) -> bool {
        match self.addresses.get(&address.to_canonical()) {
            Some(Holder::One(netns)) => {
                (self.namespaces.get(netns)).is_some_and(|namespace| namespace.gone.is_none())
            }
            Some(Holder::Several) => true,
            None => false,
        }
    }

    /// Gives namespaces and cgroups of pods the names that Kubernetes knows them by.
    pub fn name_pods(&mut self, index: &Index, now: Instant) {
        for namespace in self.namespaces.values_mut() {
            let identity = &namespace.identity;
            if namespace.gone.is_some() || identity.is_hosts {
                continue;
            }
            let container = identity.container.as_ref();
            namespace
                .pod
                .look_up(index, container, &identity.addresses, now);
        }
        for cgroup in self.cgroups.values_mut().flatten() {
            let container = cgroup.occupant.container.as_ref();
            if container.is_some() {
                cgroup.pod.look_up(index, container, &[], now);
            }
        }
    }

    /// `None`: nobody's on this host.
    pub fn peer(&self, netns: NetnsId, address: IpAddr) -> Result<Option<Workload>, Reason> {
        let address = address.to_canonical();
        if address.is_loopback() || address.is_unspecified() {
            return self.owner(netns, CgroupId(0)).map(Some);
        }
        match self.addresses.get(&address) {
            None => Ok(None),
            Some(&Holder::One(holder)) => self.owner(holder, CgroupId(0)).map(Some),
            Some(Holder::Several) => match self.namespaces.get(&netns) {
                Some(own) if own.identity.addresses.contains(&address) => own.owner().map(Some),
                _ => match self.holder_reached(netns, address) {
                    Some(holder) => self.owner(holder, CgroupId(0)).map(Some),
                    None => self.common_owner(address).map(Some),
                },
            },
        }
    }

    /// Whom a packet was meant for, if that is not who has its destination's address where the packet is:
    /// another host that took an address gets what is sent to the one that had it.
    pub fn meant(&self, source: IpAddr, destination: IpAddr) -> Option<Workload> {
        let (source, destination) = (source.to_canonical(), destination.to_canonical());
        let (Some(&Holder::One(client)), Some(Holder::Several)) = (
            self.addresses.get(&source),
            self.addresses.get(&destination),
        ) else {
            return None;
        };
        let holder = self.holder_reached(client, destination)?;
        self.owner(holder, CgroupId(0)).ok()
    }

    /// Networks of containers overlap, so an address alone does not tell which of its holders a client
    /// means. Who answered when there was one to answer does, for as long as it has the address.
    fn holder_reached(&self, client: NetnsId, address: IpAddr) -> Option<NetnsId> {
        let holder = *self.reached.get(&(client, address))?;
        let namespace = self.namespaces.get(&holder)?;
        let has_it = namespace.gone.is_none() && namespace.identity.addresses.contains(&address);
        has_it.then_some(holder)
    }

    /// Whether [`Identities::note_reached`] would change anything.
    pub fn is_news(&self, client: NetnsId, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self.addresses.get(&address) {
            Some(&Holder::One(holder)) if holder != client => {
                match self.reached.get(&(client, address)) {
                    Some(known) => *known != holder,
                    None => self.reached.len() < MAX_REACHED,
                }
            }
            _ => false,
        }
    }

    /// A connection or datagrams of `client` were answered from the address.
    pub fn note_reached(&mut self, client: NetnsId, address: IpAddr) {
        let address = address.to_canonical();
        if let Some(&Holder::One(holder)) = self.addresses.get(&address)
            && self.is_news(client, address)
        {
            self.reached.insert((client, address), holder);
        }
    }

    /// Several namespaces may have an address and still be one workload.
    fn common_owner(&self, address: IpAddr) -> Result<Workload, Reason> {
        let mut owners = (self.live())
            .filter(|(_, namespace)| namespace.identity.addresses.contains(&address))
            .map(|(_, namespace)| namespace.owner());
        match owners.next() {
            Some(first) if owners.all(|other| other == first) => first,
            _ => Err(Reason::AddressAmbiguous),
        }
    }

    /// The addresses of a namespace.
    pub fn addresses(&self, netns: NetnsId) -> impl Iterator<Item = IpAddr> {
        let namespace = self.namespaces.get(&netns);
        let addresses = namespace.map(|namespace| namespace.identity.addresses.iter());
        addresses.into_iter().flatten().copied()
    }

    pub fn namespaces(&self) -> Vec<(NetnsId, Workload)> {
        (self.live())
            .filter_map(|(netns, namespace)| Some((netns, namespace.owner().ok()?)))
            .collect()
    }

    pub fn workloads(&self) -> HashSet<Workload> {
        let mut workloads: HashSet<Workload> = self
            .live()
            .filter_map(|(_, namespace)| namespace.owner().ok())
            .collect();
        let cgroups = self.cgroups.values().flatten();
        workloads.extend(cgroups.filter_map(|cgroup| cgroup.owner().ok()));
        workloads
    }

    fn live(&self) -> impl Iterator<Item = (NetnsId, &Namespace)> {
        (self.namespaces.iter())
            .filter(|(_, namespace)| namespace.gone.is_none())
            .map(|(&netns, namespace)| (netns, namespace))
    }

    /// Says who has the namespace from now on; whoever had it before is forgotten.
    pub fn set_namespace(&mut self, netns: NetnsId, identity: NamespaceIdentity) {
        let namespace = Namespace {
            identity,
            pod: Pod::default(),
            gone: None,
        };
        self.namespaces.insert(netns, namespace);
        self.index_addresses();
    }

    /// These namespaces exist and no others. Those that went keep their name for a while, because
    /// the kernel's last words about them come later.
    pub fn set_namespaces(
        &mut self,
        namespaces: impl IntoIterator<Item = (NetnsId, NamespaceIdentity)>,
        now: Instant,
    ) {
        let mut old = std::mem::take(&mut self.namespaces);
        for (netns, identity) in namespaces {
            let pod = (old.remove(&netns)).map_or_else(Pod::default, |known| known.pod);
            let gone = None;
            let namespace = Namespace {
                identity,
                pod,
                gone,
            };
            self.namespaces.insert(netns, namespace);
        }
        for (netns, mut namespace) in old {
            namespace.gone.get_or_insert(now);
            self.namespaces.insert(netns, namespace);
        }
        self.index_addresses();
    }

    pub fn forget_gone(&mut self, now: Instant, keep: Duration) {
        let mut gone: Vec<(Instant, NetnsId)> = (self.namespaces.iter())
            .filter_map(|(&netns, namespace)| Some((namespace.gone?, netns)))
            .collect();
        gone.sort_unstable();
        let too_many = gone.len().saturating_sub(MAX_GONE);
        let too_old = gone.partition_point(|(since, _)| now.duration_since(*since) >= keep);
        let forget = too_many.max(too_old);
        for (_, netns) in &gone[..forget] {
            self.namespaces.remove(netns);
        }
        if forget > 0 {
            let known = &self.namespaces;
            (self.reached).retain(|(client, _), holder| {
                known.contains_key(client) && known.contains_key(holder)
            });
            self.index_addresses();
        }
    }

    pub fn set_cgroup(&mut self, cgroup: CgroupId, occupant: Option<Occupant>) {
        if self.cgroups.len() >= MAX_CGROUPS {
            self.cgroups.clear();
        }
        let pod = Pod::default();
        let known = occupant.map(|occupant| Cgroup { occupant, pod });
        self.cgroups.insert(cgroup, known);
    }

    /// Forgets cgroups that do not exist any more.
    pub fn retain_cgroups(&mut self, existing: &HashMap<CgroupId, Option<Occupant>>) {
        self.cgroups
            .retain(|cgroup, _| existing.contains_key(cgroup));
    }

    /// An address of a live namespace is that one's; addresses of those that are gone count only
    /// where no live one has them, and the one that went last is meant.
    fn index_addresses(&mut self) {
        self.addresses.clear();
        let mut gone: Vec<(Instant, NetnsId, &NamespaceIdentity)> = Vec::new();
        for (&netns, namespace) in &self.namespaces {
            if let Some(since) = namespace.gone {
                // Kubernetes knows better who has a pod's address now.
                if namespace.pod.name.is_some() {
                    continue;
                }
                gone.push((since, netns, &namespace.identity));
                continue;
            }
            for &address in &namespace.identity.addresses {
                (self.addresses.entry(address))
                    .and_modify(|holder| *holder = Holder::Several)
                    .or_insert(Holder::One(netns));
            }
        }
        gone.sort_by_key(|&(since, netns, _)| (std::cmp::Reverse(since), netns));
        for (_, netns, identity) in gone {
            for &address in &identity.addresses {
                (self.addresses.entry(address)).or_insert(Holder::One(netns));
            }
        }
    }
}

impl Namespace {
    fn owner(&self) -> Result<Workload, Reason> {
        let owner = || Ok(self.identity.owner.clone());
        self.pod.name.clone().unwrap_or_else(owner)
    }
}

impl Cgroup {
    fn owner(&self) -> Result<Workload, Reason> {
        let owner = || Ok(self.occupant.workload.clone());
        self.pod.name.clone().unwrap_or_else(owner)
    }
}

impl Pod {
    fn look_up(
        &mut self,
        index: &Index,
        container: Option<&Container>,
        addresses: &[IpAddr],
        now: Instant,
    ) {
        let since = *self.since.get_or_insert(now);
        let hint = PodHint {
            uid: container.and_then(|container| container.pod.as_deref()),
            container: container.map(|container| container.id.as_str()),
        };
        let by_address = || {
            let mut addresses = addresses.iter();
            addresses.find_map(|&address| index.local_pod_at(address, now))
        };
        let found = index.local_pod(hint, now).or_else(by_address);
        match (&self.name, found) {
            (_, Some(found)) => self.name = Some(found),
            (Some(Ok(_)), None) => {}
            // The kubelet's cgroup says that it is a pod.
            (_, None) => {
                let is_awaited = hint.uid.is_some() && index.awaits_pod(since, now);
                self.name = is_awaited.then_some(Err(Reason::PodUnknown));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use crate::k8s::{Cluster, Entry, ObjectKey, Phase, PodMeta, Resource};

    const CART: NetnsId = NetnsId(1);
    const SHOP: NetnsId = NetnsId(2);
    const HOST: NetnsId = NetnsId(3);

    fn namespace(name: &str, addresses: &[&str]) -> NamespaceIdentity {
        NamespaceIdentity {
            owner: Workload::local(name, Kind::Netns),
            shared: false,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            container: None,
            is_hosts: false,
        }
    }

    fn identities() -> Identities {
        let mut identities = Identities::default();
        identities.set_namespace(
            CART,
            namespace("cart", &["10.0.0.1", "fd00::1", "10.0.9.9"]),
        );
        identities.set_namespace(SHOP, namespace("shop", &["10.0.0.2", "10.0.9.9"]));
        let mut host = namespace("~host", &["192.0.2.1"]);
        host.shared = true;
        identities.set_namespace(HOST, host);
        identities
    }

    fn peer(identities: &Identities, netns: NetnsId, address: &str) -> String {
        match identities.peer(netns, address.parse().unwrap()) {
            Ok(Some(workload)) => workload.name.to_string(),
            Ok(None) => "external".to_owned(),
            Err(reason) => reason.as_str().to_owned(),
        }
    }

    #[test]
    fn an_address_is_its_namespaces() {
        let identities = identities();
        for (netns, address, expected) in [
            (SHOP, "10.0.0.1", "cart"),
            (SHOP, "::ffff:10.0.0.1", "cart"),
            (SHOP, "fd00::1", "cart"),
            (SHOP, "127.0.0.1", "shop"),
            (SHOP, "::1", "shop"),
            (SHOP, "0.0.0.0", "shop"),
            (SHOP, "198.51.100.7", "external"),
            (CART, "10.0.9.9", "cart"),
            (HOST, "10.0.9.9", "address_ambiguous"),
            (NetnsId(99), "127.0.0.1", "netns_unknown"),
        ] {
            assert_eq!(peer(&identities, netns, address), expected, "{address}");
        }
    }

    #[test]
    fn an_address_that_another_takes_stays_the_one_that_answered() {
        let mut identities = identities();
        let [cart, host] = ["10.0.0.1", "192.0.2.1"].map(|text| text.parse().unwrap());
        let twin = || namespace("twin", &["10.0.0.7", "10.0.0.1"]);
        assert!(identities.is_news(SHOP, cart));
        identities.note_reached(SHOP, cart);
        assert!(!identities.is_news(SHOP, cart));
        identities.set_namespace(NetnsId(7), twin());
        // Whoever has it means itself, whoever reached it means who answered, and nobody else can tell.
        assert_eq!(peer(&identities, SHOP, "10.0.0.1"), "cart");
        assert_eq!(peer(&identities, CART, "10.0.0.1"), "cart");
        assert_eq!(peer(&identities, NetnsId(7), "10.0.0.1"), "twin");
        assert_eq!(peer(&identities, HOST, "10.0.0.1"), "address_ambiguous");
        let meant = |source: &str| {
            let meant = identities.meant(source.parse().unwrap(), cart);
            meant.map(|workload| workload.name.to_string())
        };
        assert_eq!(meant("10.0.0.2").as_deref(), Some("cart"));
        assert_eq!(meant("192.0.2.1"), None);
        assert_eq!(identities.meant(cart, host), None);
        // What is not one's alone when it answers says nothing.
        assert!(!identities.is_news(HOST, cart));
        identities.note_reached(HOST, cart);
        assert_eq!(peer(&identities, HOST, "10.0.0.1"), "address_ambiguous");
        // Given up by the one that answered, it is the other's.
        identities.set_namespace(CART, namespace("cart", &["10.0.0.3"]));
        assert_eq!(peer(&identities, SHOP, "10.0.0.1"), "twin");
    }

    #[test]
    fn what_was_reached_is_bounded_and_goes_with_its_namespaces() {
        let mut identities = identities();
        let cart: IpAddr = "10.0.0.1".parse().unwrap();
        let many = u32::try_from(MAX_REACHED).unwrap();
        for client in 0..many + 9 {
            identities.note_reached(NetnsId(1000 + client), cart);
        }
        assert_eq!(identities.reached.len(), MAX_REACHED);
        assert!(!identities.is_news(SHOP, cart));
        let now = Instant::now();
        let host = namespace("~host", &["192.0.2.1"]);
        let left = [(CART, namespace("cart", &["10.0.0.1"])), (HOST, host)];
        identities.set_namespaces(left, now);
        identities.forget_gone(now + Duration::from_secs(9), Duration::from_secs(5));
        assert_eq!(identities.reached.len(), 0);
        assert!(identities.is_news(HOST, cart));
    }

    #[test]
    fn a_pod_with_an_address_that_others_have_too_is_that_pod() {
        let now = Instant::now();
        let cluster = Cluster::new(Some("a"), Duration::from_secs(30));
        let pod = PodMeta {
            uid: "1".into(),
            config_hash: None,
            node: Some("a".into()),
            host_network: false,
            phase: Phase::Running,
            addresses: ["10.0.0.1".parse().unwrap()].into(),
            containers: Box::default(),
            owner: None,
            template_hash: None,
            created: 0,
            app: None,
        };
        let key = ObjectKey::new("shop", "cart-0");
        let local = Resource::LocalPods;
        (cluster.change()).apply(local, &key, Entry::Pod(pod), now);
        let mut identities = identities();
        identities.name_pods(&cluster.index(), now);
        assert_eq!(peer(&identities, SHOP, "10.0.0.1"), "cart-0");
        assert_eq!(peer(&identities, CART, "10.0.9.9"), "cart-0");
        assert_eq!(peer(&identities, SHOP, "10.0.9.9"), "shop");
    }

    #[test]
    fn a_cgroup_tells_who_in_a_shared_namespace() {
        let mut identities = identities();
        let cgroup = CgroupId(7);
        assert_eq!(identities.owner(HOST, cgroup), Err(Reason::CgroupUnknown));
        let occupant = Occupant {
            workload: Workload::local("nginx.service", Kind::Unit),
            container: None,
        };
        identities.set_cgroup(cgroup, Some(occupant));
        let owner = identities.owner(HOST, cgroup).unwrap();
        assert_eq!(&*owner.name, "nginx.service");
        let owner = identities.owner(CART, cgroup).unwrap();
        assert_eq!(&*owner.name, "cart");
    }

    #[test]
    fn a_gone_namespace_keeps_its_name_until_it_is_replaced_or_old() {
        let start = Instant::now();
        let keep = Duration::from_secs(300);
        let mut identities = identities();
        identities.set_namespaces([(SHOP, namespace("shop", &["10.0.0.2"]))], start);
        assert_eq!(peer(&identities, SHOP, "10.0.0.1"), "cart");
        assert_eq!(identities.namespaces().len(), 1);

        // The inode comes back as another namespace, the address in a third.
        let again = [
            (SHOP, namespace("shop", &["10.0.0.2"])),
            (CART, namespace("cart2", &[])),
            (NetnsId(4), namespace("web", &["10.0.0.1"])),
        ];
        identities.set_namespaces(again, start);
        let owner = identities.owner(CART, CgroupId(0)).unwrap();
        assert_eq!(&*owner.name, "cart2");
        assert_eq!(peer(&identities, SHOP, "10.0.0.1"), "web");

        identities.forget_gone(start + keep, keep);
        let host = identities.owner(HOST, CgroupId(0));
        assert_eq!(host, Err(Reason::NetnsUnknown));
    }

    #[test]
    fn of_many_that_are_gone_the_last_are_remembered() {
        let start = Instant::now();
        let mut identities = Identities::default();
        for number in 0..10 {
            let first = number * 1000;
            let there = (first..first + 1000).map(|netns| (NetnsId(netns), namespace("x", &[])));
            identities.set_namespaces(there, start + Duration::from_secs(number.into()));
            identities.forget_gone(start, Duration::from_secs(300));
        }
        assert_eq!(identities.namespaces.len(), 1000 + MAX_GONE);
        assert!(identities.owner(NetnsId(8999), CgroupId(0)).is_ok());
        assert!(identities.owner(NetnsId(0), CgroupId(0)).is_err());
    }
}
