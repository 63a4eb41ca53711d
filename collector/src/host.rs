//! What this host says about itself: network namespaces, cgroups, containers.

pub mod cgroup;
mod conntrack;
pub mod containers;
mod icmp;
mod interface;
mod neighbour;
pub(crate) mod netlink;
pub mod netns;
mod node;
mod qdisc;
mod readings;
mod snmp;
mod sockets;
mod totals;
mod translation;
mod turns;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use icmp::icmp_messages;
pub use interface::{HostVeths, names as interface_names};
pub use readings::{NAMES as READING_NAMES, ReadingSettings, Readings};

use crate::enrich::{
    CgroupId, FiveTuple, Identities, Kind, MAX_HOPS, MAX_TRANSLATIONS, NamespaceIdentity, NetnsId,
    Occupant, Translation, Workload,
};
use cgroup::{CgroupOwner, Cgroups, Container, TooEarly};
use containers::StatePaths;
use netns::{Found, Inode, Look, Names, Place, Processes, Visitor};
use readings::Moved;
use turns::Turns;

/// Every process is asked for its namespace this often. Named namespaces and new processes are
/// looked for at each refresh.
const READ_PROCESSES: Duration = Duration::from_secs(15);
/// A namespace that is new gets its addresses moments later, one by one.
const YOUNG: Duration = Duration::from_secs(15);
const YOUNG_PAUSE: Duration = Duration::from_millis(900);
const READ_ADDRESSES: Duration = Duration::from_secs(5);
/// More namespaces than these are read less often.
const MANY: usize = 128;
/// A search may take at most this part of the time.
const SEARCH_SHARE: u32 = 50;
/// And the reading of connection tracking, which a busy host asks for all the time, this part.
const TRACKING_SHARE: u32 = 100;
/// A list of all connections that took longer is not asked for again before its part of the time is
/// over. Until then, single connections are asked for, so many at a time.
const CHEAP_LIST: Duration = Duration::from_millis(10);
const MAX_ASKED: usize = 2048;
/// Nor are more listed than are remembered.
const MAX_LISTED: usize = MAX_TRANSLATIONS;
const SEARCH_PAUSE: Duration = Duration::from_millis(100);
const MAX_SEARCH_PAUSE: Duration = Duration::from_secs(1);
/// An address that was not found is not looked for again for so long.
const NOT_FOUND: Duration = Duration::from_secs(5);
const MAX_NOT_FOUND: usize = 65_536;

/// What was learned of where connections went.
pub enum Learned {
    Everything(Vec<Translation>),
    /// Of so many of those that were asked for, the first.
    Of(usize, Vec<Translation>),
    /// It is too early to ask again.
    Nothing,
}

fn flatten(results: Vec<(Inode, io::Result<Vec<Translation>>)>) -> Vec<Translation> {
    let mut all = Vec::new();
    for (_, translations) in results {
        match translations {
            Ok(translations) => all.extend(translations),
            Err(error) => tracing::debug!(%error, "cannot read connection tracking"),
        }
    }
    all
}

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
    own: HashSet<Inode>,
    namespaces: HashMap<Inode, Namespace>,
    cgroups: Cgroups,
    names: Names,
    processes: Processes,
    processes_read: Option<Instant>,
    /// No search for something unknown before this.
    search_after: Option<Instant>,
    /// Connection tracking is not read before this.
    read_translations_after: Option<Instant>,
    list_translations_after: Option<Instant>,
    not_found: HashMap<IpAddr, Instant>,
    changed: bool,
    visitor: Visitor,
    time_wait: HashMap<Inode, (NetnsId, u64)>,
    time_wait_turns: Turns,
}

struct Namespace {
    found: Found,
    owner: Workload,
    container: Option<Container>,
    shared: bool,
    since: Instant,
    /// Until then it is nobody to the kernel's programs.
    inside: Option<Inside>,
    read: Option<Instant>,
}

/// What only the inside of a namespace tells.
#[derive(Clone, PartialEq, Eq)]
struct Inside {
    id: NetnsId,
    addresses: Vec<IpAddr>,
}

impl Host {
    pub fn new(paths: Paths) -> Self {
        let own = netns::own(&paths);
        Self {
            cgroups: Cgroups::new(&paths.proc, paths.state.clone()),
            paths,
            own,
            namespaces: HashMap::new(),
            names: Names::default(),
            processes: Processes::default(),
            processes_read: None,
            search_after: None,
            read_translations_after: None,
            list_translations_after: None,
            not_found: HashMap::new(),
            changed: true,
            visitor: Visitor::default(),
            time_wait: HashMap::new(),
            time_wait_turns: Turns::default(),
        }
    }

    pub fn refresh(&mut self, now: Instant) {
        let is_fresh = |at| now.saturating_duration_since(at) < READ_PROCESSES;
        let look = match self.processes_read {
            Some(at) if is_fresh(at) => Look::New,
            _ => Look::All,
        };
        self.find_namespaces(now, look);
        // Who asks for an unknown address has all of them read at once.
        let many = u32::try_from(self.namespaces.len() / MANY).unwrap_or(u32::MAX);
        let pause_of_old = READ_ADDRESSES * many.max(1);
        self.look_inside(now, |namespace| {
            let age = now - namespace.since;
            let pause = if age < YOUNG {
                YOUNG_PAUSE
            } else {
                pause_of_old
            };
            namespace.is_due(now, pause)
        });
    }

    /// Looks for a namespace that the kernel named. True if it is there now.
    pub fn find_netns(&mut self, netns: NetnsId, now: Instant) -> bool {
        if self.search_after.is_some_and(|after| now < after) {
            return false;
        }
        for look in [Look::New, Look::All] {
            self.find_namespaces(now, look);
            // All, because a namespace may have taken the place of another one.
            self.look_inside(now, |namespace| namespace.is_due(now, SEARCH_PAUSE));
            if self.has(netns) {
                break;
            }
        }
        self.pause_searches(now);
        self.has(netns)
    }

    /// Reads the addresses of every namespace again to find whose this is. True if one has it.
    pub fn find_address(&mut self, address: IpAddr, now: Instant) -> Result<bool, TooEarly> {
        let address = address.to_canonical();
        let recently = |at: &Instant| now.saturating_duration_since(*at) < NOT_FOUND;
        if self.not_found.get(&address).is_some_and(recently)
            || self.search_after.is_some_and(|after| now < after)
        {
            return Err(TooEarly);
        }
        self.find_namespaces(now, Look::New);
        self.look_inside(now, |namespace| namespace.is_due(now, SEARCH_PAUSE));
        self.pause_searches(now);
        let found = (self.insides()).any(|(_, inside)| inside.addresses.contains(&address));
        if !found {
            if self.not_found.len() >= MAX_NOT_FOUND {
                self.not_found.clear();
            }
            self.not_found.insert(address, now);
        }
        Ok(found)
    }

    /// What is collected now is named for good: connection tracking may be asked once, however
    /// short a while ago that was.
    pub fn begin_collection(&mut self) {
        self.read_translations_after = None;
    }

    /// Connections whose destination netfilter has changed, in every namespace: all of them, or, if
    /// they are too many for that, those of the first of `wanted`.
    pub fn translations(&mut self, now: Instant, wanted: &[FiveTuple]) -> Learned {
        let is_early = |after: Option<Instant>| after.is_some_and(|after| now < after);
        if is_early(self.read_translations_after) {
            return Learned::Nothing;
        }
        let mut learned = match is_early(self.list_translations_after) {
            true => Learned::Nothing,
            false => self.list_translations(now),
        };
        if !matches!(learned, Learned::Everything(_)) && !wanted.is_empty() {
            let wanted = &wanted[..wanted.len().min(MAX_ASKED)];
            learned = Learned::Of(wanted.len(), self.ask_translations(wanted));
        }
        let pause = (now.elapsed() * TRACKING_SHARE).clamp(SEARCH_PAUSE, MAX_SEARCH_PAUSE);
        self.read_translations_after = Some(Instant::now() + pause);
        learned
    }

    fn list_translations(&mut self, now: Instant) -> Learned {
        let room = AtomicUsize::new(MAX_LISTED);
        let places: Vec<_> = self.places().collect();
        let all = flatten(netns::visit(&places, || translation::list(&room)));
        let took = now.elapsed();
        let is_dear = took > CHEAP_LIST;
        self.list_translations_after = is_dear.then(|| Instant::now() + took * TRACKING_SHARE);
        match room.into_inner() {
            0 => Learned::Nothing,
            _ => Learned::Everything(all),
        }
    }

    fn ask_translations(&self, wanted: &[FiveTuple]) -> Vec<Translation> {
        let places: Vec<_> = self.places().collect();
        let mut all = Vec::new();
        let mut asked = wanted.to_vec();
        // What one namespace has changed, the next may change again.
        for _ in 0..MAX_HOPS {
            let found = flatten(netns::visit(&places, || translation::ask(&asked)));
            if found.is_empty() {
                break;
            }
            asked = found.iter().map(|translation| translation.to).collect();
            all.extend(found);
        }
        all
    }

    /// What was sent before netfilter changed its source, by what left the namespace that has that source.
    pub fn untranslated(&self, packets: &[FiveTuple]) -> Vec<Translation> {
        let mut all = Vec::new();
        let mut asked = packets[..packets.len().min(MAX_ASKED)].to_vec();
        // What one namespace has sent, another may have changed before.
        for _ in 0..MAX_HOPS {
            let mut found = Vec::new();
            for (&inode, namespace) in &self.namespaces {
                let Some(inside) = &namespace.inside else {
                    continue;
                };
                // Each namespace is asked only for what left it: there may be many of both.
                let left: Vec<FiveTuple> = (asked.iter())
                    .filter(|packet| {
                        inside
                            .addresses
                            .contains(&packet.client.ip().to_canonical())
                    })
                    .copied()
                    .collect();
                if !left.is_empty() {
                    let place = (inode, namespace.found.path.clone());
                    let ask = || translation::ask_back(&left);
                    found.extend(flatten(netns::visit(std::slice::from_ref(&place), ask)));
                }
            }
            if found.is_empty() {
                break;
            }
            asked = found.iter().map(|translation| translation.from).collect();
            all.extend(found);
        }
        all
    }

    /// Whose cgroup this is; `None` if nobody's.
    pub fn find_cgroup(
        &mut self,
        cgroup: CgroupId,
        now: Instant,
    ) -> Result<Option<Occupant>, TooEarly> {
        let owner = self.cgroups.owner(cgroup, now)?;
        Ok(owner.map(|owner| self.occupant(owner)))
    }

    /// Every cgroup there is, and whose it is.
    pub fn all_cgroups(&mut self, now: Instant) -> HashMap<CgroupId, Option<Occupant>> {
        let owners = self.cgroups.all(now);
        (owners.into_iter())
            .map(|(cgroup, owner)| (cgroup, owner.map(|owner| self.occupant(owner))))
            .collect()
    }

    pub fn time_wait_sockets(&mut self) -> Vec<(NetnsId, u64)> {
        let places = self.owned_places();
        self.time_wait_turns.retain(&places);
        self.time_wait
            .retain(|inode, _| self.namespaces.contains_key(inode));
        let places = self.time_wait_turns.next(places);
        let read = |_: &Place| Some((netns::id().ok()?, netns::time_wait().ok()?));
        for (inode, sockets) in self.visitor.visit(places, read).unwrap_or_default() {
            let Some((netns, count)) = sockets else {
                continue;
            };
            let moved = if count > 0 { Moved::Yes } else { Moved::No };
            self.time_wait_turns.was_read(inode, netns, moved);
            self.time_wait.insert(inode, (netns, count));
        }
        self.time_wait.values().copied().collect()
    }

    /// Every namespace and where it can be entered.
    pub fn places(&self) -> impl Iterator<Item = (Inode, PathBuf)> {
        (self.namespaces.iter()).map(|(&inode, namespace)| (inode, namespace.found.path.clone()))
    }

    /// The same, with whose it is.
    pub fn owned_places(&self) -> Vec<Place> {
        let place = |(&inode, namespace): (&Inode, &Namespace)| Place {
            inode,
            path: namespace.found.path.clone(),
            id: namespace.inside.as_ref().map(|inside| inside.id),
            owner: namespace.owner.clone(),
            is_hosts: self.own.contains(&inode),
        };
        self.namespaces.iter().map(place).collect()
    }

    fn has(&self, netns: NetnsId) -> bool {
        self.insides().any(|(_, inside)| inside.id == netns)
    }

    fn insides(&self) -> impl Iterator<Item = (&Namespace, &Inside)> {
        (self.namespaces.values())
            .filter_map(|namespace| Some((namespace, namespace.inside.as_ref()?)))
    }

    /// Tells what changed since the last time.
    pub fn publish(&mut self, identities: &mut Identities) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let namespaces = self.namespaces.iter().filter_map(|(inode, namespace)| {
            let inside = namespace.inside.as_ref()?;
            let identity = NamespaceIdentity {
                owner: namespace.owner.clone(),
                shared: namespace.shared,
                addresses: inside.addresses.clone(),
                container: namespace.container.clone(),
                is_hosts: self.own.contains(inode),
            };
            Some((inside.id, identity))
        });
        identities.set_namespaces(namespaces, Instant::now());
    }

    fn find_namespaces(&mut self, now: Instant, look: Look) {
        let mut found = self.names.look(&self.paths, look);
        if look == Look::All {
            self.processes_read = Some(now);
        }
        for (inode, process) in self.processes.look(&self.paths, look) {
            match found.get_mut(&inode) {
                Some(named) if named.is_named_by_hand() => {}
                Some(named) => named.process = process.process,
                None => _ = found.insert(inode, process),
            }
        }
        let before = self.namespaces.len();
        self.namespaces.retain(|inode, _| found.contains_key(inode));
        self.changed |= self.namespaces.len() != before;
        for (inode, found) in found {
            self.set_namespace(inode, found, now);
        }
    }

    fn set_namespace(&mut self, inode: Inode, found: Found, now: Instant) {
        // A container's first process is there before it is in the container's cgroup.
        let may_change = |known: &Namespace| {
            now.saturating_duration_since(known.since) < YOUNG && !known.found.is_named_by_hand()
        };
        if (self.namespaces.get(&inode))
            .is_some_and(|known| known.found == found && !may_change(known))
        {
            return;
        }
        let (occupant, shared) = self.owner(inode, &found);
        let (owner, container) = (occupant.workload, occupant.container);
        if let Some(known) = self.namespaces.get_mut(&inode)
            && known.found.name == found.name
        {
            // Perhaps another namespace that was given the number.
            if known.found.process != found.process {
                known.read = None;
                known.since = now;
            }
            self.changed |= known.owner != owner || known.shared != shared;
            self.changed |= known.container != container;
            known.found = found;
            known.owner = owner;
            known.container = container;
            known.shared = shared;
            return;
        }
        let namespace = Namespace {
            found,
            owner,
            container,
            shared,
            since: now,
            inside: None,
            read: None,
        };
        self.namespaces.insert(inode, namespace);
        self.changed = true;
    }

    fn owner(&mut self, inode: Inode, found: &Found) -> (Occupant, bool) {
        let nobodys = |workload| Occupant {
            workload,
            container: None,
        };
        if let Some(name) = &found.name
            && found.is_named_by_hand()
        {
            return (nobodys(Workload::local(name, Kind::Netns)), false);
        }
        if self.own.contains(&inode) {
            return (nobodys(Workload::host()), true);
        }
        let owner = (found.process).and_then(|process| self.cgroups.owner_of_process(process));
        match (owner, &found.name) {
            (Some(owner @ CgroupOwner::Container(_)), _) => (self.occupant(owner), true),
            // A runtime made it, and its container is still to come.
            (_, Some(_)) => (nobodys(Workload::unknown()), false),
            (Some(owner @ CgroupOwner::Unit(_)), None) => (self.occupant(owner), false),
            (None, None) => (nobodys(Workload::unknown()), false),
        }
    }

    fn occupant(&mut self, owner: CgroupOwner) -> Occupant {
        match owner {
            CgroupOwner::Container(container) => {
                let name = self.cgroups.container_name(&container.id);
                Occupant {
                    workload: Workload::local(&name, Kind::Container),
                    container: Some(container),
                }
            }
            CgroupOwner::Unit(name) => Occupant {
                workload: Workload::local(&name, Kind::Unit),
                container: None,
            },
        }
    }

    fn look_inside(&mut self, now: Instant, due: impl Fn(&Namespace) -> bool) {
        let mut places = self.owned_places();
        places.retain(|place| (self.namespaces.get(&place.inode)).is_some_and(&due));
        let read = |_: &Place| {
            let (id, addresses) = netns::look().ok()?;
            Some(Inside { id, addresses })
        };
        for (inode, inside) in self.visitor.visit(places, read).unwrap_or_default() {
            let Some(namespace) = self.namespaces.get_mut(&inode) else {
                continue;
            };
            namespace.read = Some(now);
            if inside.is_some() && namespace.inside != inside {
                namespace.inside = inside;
                self.changed = true;
            }
        }
    }

    fn pause_searches(&mut self, started: Instant) {
        let took = started.elapsed();
        let pause = (took * SEARCH_SHARE).clamp(SEARCH_PAUSE, MAX_SEARCH_PAUSE);
        self.search_after = Some(Instant::now() + pause);
    }
}

impl Namespace {
    fn is_due(&self, now: Instant, pause: Duration) -> bool {
        self.read
            .is_none_or(|at| now.saturating_duration_since(at) >= pause)
    }
}

/// A panic while the lock was held leaves numbers that are at worst one addition short.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn what_a_runtime_has_made_is_nobodys_before_its_container_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let [proc, netns] = ["proc", "netns"].map(|name| directory.path().join(name));
    let link = |path: PathBuf| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/proc/self/ns/net", path).unwrap();
    };
    link(proc.join("self/ns/net"));
    link(netns.join("cni-0b4bc3b8-56c8-9a3e-4c1f-1d2b3c4d5e6f"));
    let mut host = Host::new(Paths {
        netns,
        proc,
        ..Paths::default()
    });
    host.refresh(Instant::now());
    let owners: Vec<Workload> = (host.owned_places().into_iter())
        .map(|place| place.owner)
        .collect();
    assert_eq!(owners, [Workload::unknown()]);
}

#[test]
fn a_namespace_with_the_number_of_one_before_is_its_own_containers() {
    let directory = tempfile::tempdir().unwrap();
    let lives_in = |process: &str, netns: u32, cgroup: &str| {
        let path = directory.path().join(process);
        std::fs::create_dir_all(path.join("ns")).unwrap();
        let link = path.join("ns/net");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(format!("net:[{netns}]"), link).unwrap();
        std::fs::write(path.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
    };
    let container = |digit: &str| format!("/system.slice/docker-{}.scope", digit.repeat(64));
    let mut host = Host::new(Paths {
        netns: directory.path().join("none"),
        proc: directory.path().to_owned(),
        ..Paths::default()
    });
    let start = Instant::now();
    let mut owner = |second| {
        host.refresh(start + Duration::from_secs(second));
        let places = host.owned_places();
        let [place] = places.as_slice() else {
            panic!("{places:?}");
        };
        place.owner.name.to_string()
    };
    lives_in("100", 5, &container("a"));
    assert_eq!(owner(0), "a".repeat(12));
    std::fs::remove_dir_all(directory.path().join("100")).unwrap();
    // It is started by the runtime, and in its own cgroup a moment later.
    lives_in("200", 5, "/system.slice/docker.service");
    assert_eq!(owner(20), "docker.service");
    lives_in("200", 5, &container("b"));
    assert_eq!(owner(21), "b".repeat(12));
}
