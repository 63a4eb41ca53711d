//! What is known about namespaces, addresses and cgroups. Does no IO and never waits.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{CgroupId, NetnsId, Workload};

/// Cgroups remembered at a time. They are few; what comes and goes is forgotten all at once.
const MAX_CGROUPS: usize = 16_384;

/// Namespaces that are gone and remembered at a time. Where a thousand come and go every minute,
/// the last words of those that went first have long been heard.
const MAX_GONE: usize = 4096;

/// Why an end has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NetnsUnknown,
    /// Not asked for yet; a cgroup that was asked for and belongs to nobody is no reason.
    CgroupUnknown,
    /// Several namespaces have the address, and the one that asks is none of them.
    AddressAmbiguous,
    /// A Service address whose connections go to several workloads.
    SeveralBackends,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetnsUnknown => "netns_unknown",
            Self::CgroupUnknown => "cgroup_unknown",
            Self::AddressAmbiguous => "address_ambiguous",
            Self::SeveralBackends => "several_backends",
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
}

#[derive(Default)]
pub struct Identities {
    namespaces: HashMap<NetnsId, Namespace>,
    addresses: HashMap<IpAddr, Holder>,
    /// `None`: asked for, and nobody's.
    cgroups: HashMap<CgroupId, Option<Workload>>,
}

struct Namespace {
    identity: NamespaceIdentity,
    gone: Option<Instant>,
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
        if !identity.shared || cgroup == CgroupId(0) {
            return Ok(identity.owner.clone());
        }
        match self.cgroups.get(&cgroup) {
            Some(Some(workload)) => Ok(workload.clone()),
            Some(None) => Ok(identity.owner.clone()),
            None => Err(Reason::CgroupUnknown),
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
            Some(Holder::Several) => {
                let own = self.namespaces.get(&netns).map(|own| &own.identity);
                match own {
                    Some(own) if own.addresses.contains(&address) => Ok(Some(own.owner.clone())),
                    _ => self.common_owner(address).map(Some),
                }
            }
        }
    }

    /// Several namespaces may have an address and still be one workload.
    fn common_owner(&self, address: IpAddr) -> Result<Workload, Reason> {
        let mut owners = (self.live())
            .filter(|(_, namespace)| namespace.addresses.contains(&address))
            .map(|(_, namespace)| &namespace.owner);
        match owners.next() {
            Some(first) if owners.all(|other| other == first) => Ok(first.clone()),
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
            .map(|(netns, identity)| (netns, identity.owner.clone()))
            .collect()
    }

    pub fn workloads(&self) -> HashSet<Workload> {
        let mut workloads: HashSet<Workload> = self
            .live()
            .map(|(_, identity)| identity.owner.clone())
            .collect();
        workloads.extend(self.cgroups.values().flatten().cloned());
        workloads
    }

    fn live(&self) -> impl Iterator<Item = (NetnsId, &NamespaceIdentity)> {
        (self.namespaces.iter())
            .filter(|(_, namespace)| namespace.gone.is_none())
            .map(|(&netns, namespace)| (netns, &namespace.identity))
    }

    /// Says who has the namespace from now on; whoever had it before is forgotten.
    pub fn set_namespace(&mut self, netns: NetnsId, identity: NamespaceIdentity) {
        let namespace = Namespace {
            identity,
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
            old.remove(&netns);
            let gone = None;
            self.namespaces.insert(netns, Namespace { identity, gone });
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
            self.index_addresses();
        }
    }

    pub fn set_cgroup(&mut self, cgroup: CgroupId, workload: Option<Workload>) {
        if self.cgroups.len() >= MAX_CGROUPS {
            self.cgroups.clear();
        }
        self.cgroups.insert(cgroup, workload);
    }

    /// Forgets cgroups that do not exist any more.
    pub fn retain_cgroups(&mut self, existing: &HashMap<CgroupId, Option<Workload>>) {
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

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    const CART: NetnsId = NetnsId(1);
    const SHOP: NetnsId = NetnsId(2);
    const HOST: NetnsId = NetnsId(3);

    fn namespace(name: &str, addresses: &[&str]) -> NamespaceIdentity {
        NamespaceIdentity {
            owner: Workload::local(name, Kind::Netns),
            shared: false,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
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
    fn a_cgroup_tells_who_in_a_shared_namespace() {
        let mut identities = identities();
        let cgroup = CgroupId(7);
        assert_eq!(identities.owner(HOST, cgroup), Err(Reason::CgroupUnknown));
        identities.set_cgroup(cgroup, Some(Workload::local("nginx.service", Kind::Unit)));
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
