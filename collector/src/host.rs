//! What this host says about itself: network namespaces, cgroups, containers.

pub mod cgroup;
pub mod containers;
pub mod netns;
pub mod snmp;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::enrich::{CgroupId, Identities, Kind, NamespaceIdentity, NetnsId, Workload};
use cgroup::{CgroupOwner, Cgroups, TooEarly};
use containers::StatePaths;
use netns::Found;

/// Every process is looked at this often for namespaces without a name. Named ones are looked for
/// at each refresh.
const SCAN_PROCESSES: Duration = Duration::from_secs(15);
/// A namespace that is new gets its addresses moments later, one by one.
const YOUNG: Duration = Duration::from_secs(15);
const READ_ADDRESSES: Duration = Duration::from_secs(5);
/// A search may take at most this part of the time.
const SEARCH_SHARE: u32 = 50;
const SEARCH_PAUSE: Duration = Duration::from_millis(100);
/// An address that was not found is not looked for again for so long.
const NOT_FOUND: Duration = Duration::from_secs(5);
const MAX_NOT_FOUND: usize = 65_536;

/// Where the kernel's file systems and the runtimes' state are.
#[derive(Clone, Debug)]
pub struct Paths {
    pub netns: PathBuf,
    pub proc: PathBuf,
    pub state: StatePaths,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            netns: "/run/netns".into(),
            proc: "/proc".into(),
            state: StatePaths::default(),
        }
    }
}

pub struct Host {
    paths: Paths,
    /// The namespaces of init and of this process.
    own: HashSet<NetnsId>,
    namespaces: HashMap<NetnsId, Namespace>,
    cgroups: Cgroups,
    processes_scanned: Option<Instant>,
    /// No search for something unknown before this.
    search_after: Option<Instant>,
    not_found: HashMap<IpAddr, Instant>,
    changed: bool,
}

struct Namespace {
    found: Found,
    owner: Workload,
    shared: bool,
    since: Instant,
    addresses: Vec<IpAddr>,
    addresses_read: Option<Instant>,
}

impl Host {
    pub fn new(paths: Paths) -> Self {
        let own = netns::own(&paths);
        Self {
            cgroups: Cgroups::new(&paths.proc, paths.state.clone()),
            paths,
            own,
            namespaces: HashMap::new(),
            processes_scanned: None,
            search_after: None,
            not_found: HashMap::new(),
            changed: true,
        }
    }

    pub fn refresh(&mut self, now: Instant) {
        let scan = (self.processes_scanned).is_none_or(|at| now - at >= SCAN_PROCESSES);
        self.find_namespaces(now, scan);
        self.read_addresses(now, |namespace| {
            let age = (now - namespace.since).min(YOUNG);
            let pause = if age < YOUNG {
                Duration::from_millis(900)
            } else {
                READ_ADDRESSES
            };
            (namespace.addresses_read).is_none_or(|at| now - at >= pause)
        });
    }

    /// Looks for a namespace that the kernel named. True if it is there now.
    pub fn find_netns(&mut self, netns: NetnsId, now: Instant) -> bool {
        if self.namespaces.contains_key(&netns) {
            return true;
        }
        if self.search_after.is_some_and(|after| now < after) {
            return false;
        }
        self.find_namespaces(now, false);
        if !self.namespaces.contains_key(&netns) {
            self.find_namespaces(now, true);
        }
        self.read_addresses(now, |namespace| namespace.addresses_read.is_none());
        self.pause_searches(now);
        self.namespaces.contains_key(&netns)
    }

    /// Reads the addresses of every namespace again to find whose this is. True if one has it.
    pub fn find_address(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = address.to_canonical();
        let recently = |at: &Instant| now.saturating_duration_since(*at) < NOT_FOUND;
        if self.not_found.get(&address).is_some_and(recently)
            || self.search_after.is_some_and(|after| now < after)
        {
            return false;
        }
        self.find_namespaces(now, false);
        self.read_addresses(now, |namespace| {
            namespace
                .addresses_read
                .is_none_or(|at| now - at >= SEARCH_PAUSE)
        });
        self.pause_searches(now);
        let found =
            (self.namespaces.values()).any(|namespace| namespace.addresses.contains(&address));
        if !found {
            if self.not_found.len() >= MAX_NOT_FOUND {
                self.not_found.clear();
            }
            self.not_found.insert(address, now);
        }
        found
    }

    /// Whose cgroup this is; `None` if nobody's.
    pub fn find_cgroup(
        &mut self,
        cgroup: CgroupId,
        now: Instant,
    ) -> Result<Option<Workload>, TooEarly> {
        let owner = self.cgroups.owner(cgroup, now)?;
        Ok(owner.map(|owner| self.workload(&owner)))
    }

    /// Every cgroup there is, and whose it is.
    pub fn all_cgroups(&mut self, now: Instant) -> HashMap<CgroupId, Option<Workload>> {
        let owners = self.cgroups.all(now);
        (owners.into_iter())
            .map(|(cgroup, owner)| (cgroup, owner.map(|owner| self.workload(&owner))))
            .collect()
    }

    pub fn time_wait_sockets(&mut self) -> Vec<(NetnsId, u64)> {
        let places: Vec<_> = self.places().collect();
        netns::visit(&places, || netns::time_wait().ok())
            .into_iter()
            .filter_map(|(netns, sockets)| Some((netns, sockets?)))
            .collect()
    }

    /// Every namespace and where it can be entered.
    pub fn places(&self) -> impl Iterator<Item = (NetnsId, PathBuf)> {
        (self.namespaces.iter()).map(|(&netns, namespace)| (netns, namespace.found.path.clone()))
    }

    pub fn has(&self, netns: NetnsId) -> bool {
        self.namespaces.contains_key(&netns)
    }

    pub fn owners(&self) -> impl Iterator<Item = (NetnsId, &Workload)> {
        (self.namespaces.iter()).map(|(&netns, namespace)| (netns, &namespace.owner))
    }

    /// Tells what changed since the last time.
    pub fn publish(&mut self, identities: &mut Identities) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let namespaces = self.namespaces.iter().map(|(&netns, namespace)| {
            let identity = NamespaceIdentity {
                owner: namespace.owner.clone(),
                shared: namespace.shared,
                addresses: namespace.addresses.clone(),
            };
            (netns, identity)
        });
        identities.set_namespaces(namespaces, Instant::now());
    }

    fn find_namespaces(&mut self, now: Instant, scan_processes: bool) {
        let mut found = netns::named(&self.paths);
        let of_runtime = |(netns, found): (&NetnsId, &Found)| {
            found.is_of_runtime() && !self.namespaces.contains_key(netns)
        };
        if scan_processes || found.iter().any(of_runtime) {
            self.processes_scanned = Some(now);
            for (netns, process) in netns::of_processes(&self.paths) {
                match found.get_mut(&netns) {
                    Some(named) if named.is_of_runtime() => named.process = process.process,
                    Some(_) => {}
                    None => _ = found.insert(netns, process),
                }
            }
        } else {
            // What only processes tell is as it was at the last scan.
            for (&netns, namespace) in &self.namespaces {
                match found.get_mut(&netns) {
                    Some(named) => named.process = namespace.found.process,
                    None if namespace.found.name.is_none() => {
                        found.insert(netns, namespace.found.clone());
                    }
                    None => {}
                }
            }
        }
        let before = self.namespaces.len();
        self.namespaces.retain(|netns, _| found.contains_key(netns));
        self.changed |= self.namespaces.len() != before;
        for (netns, found) in found {
            self.set_namespace(netns, found, now);
        }
    }

    fn set_namespace(&mut self, netns: NetnsId, found: Found, now: Instant) {
        if (self.namespaces.get(&netns)).is_some_and(|known| known.found == found) {
            return;
        }
        let (owner, shared) = self.owner(netns, &found);
        if let Some(known) = self.namespaces.get_mut(&netns)
            && known.owner == owner
            && known.found.name == found.name
        {
            // Another of its processes was found first.
            known.found = found;
            return;
        }
        let namespace = Namespace {
            found,
            owner,
            shared,
            since: now,
            addresses: Vec::new(),
            addresses_read: None,
        };
        self.namespaces.insert(netns, namespace);
        self.changed = true;
    }

    fn owner(&mut self, netns: NetnsId, found: &Found) -> (Workload, bool) {
        if let Some(name) = &found.name
            && !found.is_of_runtime()
        {
            return (Workload::local(name, Kind::Netns), false);
        }
        if self.own.contains(&netns) {
            return (Workload::host(), true);
        }
        let owner = (found.process).and_then(|process| self.cgroups.owner_of_process(process));
        match (owner, &found.name) {
            (Some(owner @ CgroupOwner::Container(_)), _) => (self.workload(&owner), true),
            (_, Some(name)) => (Workload::local(name, Kind::Netns), false),
            (Some(owner @ CgroupOwner::Unit(_)), None) => (self.workload(&owner), false),
            (None, None) => (Workload::unknown(), false),
        }
    }

    fn workload(&mut self, owner: &CgroupOwner) -> Workload {
        match owner {
            CgroupOwner::Container(id) => {
                Workload::local(&self.cgroups.container_name(id), Kind::Container)
            }
            CgroupOwner::Unit(name) => Workload::local(name, Kind::Unit),
        }
    }

    fn read_addresses(&mut self, now: Instant, due: impl Fn(&Namespace) -> bool) {
        let places: Vec<(NetnsId, PathBuf)> = (self.namespaces.iter())
            .filter(|(_, namespace)| due(namespace))
            .map(|(&netns, namespace)| (netns, namespace.found.path.clone()))
            .collect();
        for (netns, addresses) in netns::visit(&places, || netns::addresses().ok()) {
            let Some(namespace) = self.namespaces.get_mut(&netns) else {
                continue;
            };
            namespace.addresses_read = Some(now);
            if let Some(addresses) = addresses
                && namespace.addresses != addresses
            {
                namespace.addresses = addresses;
                self.changed = true;
            }
        }
    }

    fn pause_searches(&mut self, started: Instant) {
        let took = started.elapsed();
        self.search_after = Some(Instant::now() + (took * SEARCH_SHARE).max(SEARCH_PAUSE));
    }
}
