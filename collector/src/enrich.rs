//! Whose a socket is: identifiers of the kernel → the workload that a person knows by name.
//!
//! [`Identities`] is what is known, and pure. [`Enricher`] keeps it up to date: it asks [`Host`]
//! again when the kernel names a namespace that is not known yet.

mod identities;
mod translations;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

pub use identities::{Identities, NamespaceIdentity, Reason};
pub use translations::{FiveTuple, Translation, Translations};

use crate::export::{Counter, Labels, Registry};
use crate::host::Host;
use crate::host::cgroup::TooEarly;
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
    External,
    Unknown,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Container => "container",
            Self::Unit => "unit",
            Self::Host => "host",
            Self::External => "external",
            Self::Unknown => "unknown",
        }
    }
}

impl Workload {
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
        Self::new("~external", "~external", Kind::External)
    }

    /// A local end that could not be named.
    pub fn unknown() -> Self {
        Self::new("~unknown", "~unknown", Kind::Unknown)
    }
}

/// Names the two ends of what the kernel counted. May be shared between threads.
pub struct Enricher {
    identities: RwLock<Identities>,
    translations: RwLock<Translations>,
    translations_known_until: AtomicU64,
    host: Option<Mutex<Host>>,
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
            host: None,
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
        let found = self.read().peer(netns, address);
        let found = match found {
            Err(Reason::NetnsUnknown) if self.learn_netns(netns) => {
                self.read().peer(netns, address)
            }
            Ok(None) if self.learn_address(address) => self.read().peer(netns, address),
            found => found,
        };
        match found {
            Ok(Some(workload)) => workload,
            Ok(None) => match self.behind(netns, address) {
                Ok(Some(workload)) => workload,
                Ok(None) => self.fixed[1].clone(),
                Err(reason) => self.or_unknown(Err(reason)),
            },
            Err(reason) => self.or_unknown(Err(reason)),
        }
    }

    /// Where a connection arrives, if not where its client sent it.
    pub fn translated(&self, tuple: &FiveTuple) -> Option<FiveTuple> {
        let translations = read(&self.translations);
        (!translations.is_empty())
            .then(|| translations.follow(tuple))
            .flatten()
    }

    /// Adds translations that were learned elsewhere than from this host's connection tracking.
    pub fn add_translations(&self, translations: impl IntoIterator<Item = Translation>) {
        write(&self.translations).add(translations, Instant::now());
    }

    /// What began before this, of the monotonic clock, [`Enricher::translated`] knows of.
    pub fn translations_known_until(&self) -> u64 {
        self.translations_known_until.load(Ordering::Relaxed)
    }

    /// Reads from connection tracking, unless that was done too short a while ago for what it
    /// costs. Afterwards connections older than this call are known.
    pub fn learn_translations(&self) -> bool {
        let start = monotonic_nanoseconds();
        let Some(mut host) = self.host() else {
            // There is nothing to learn from.
            self.translations_known_until
                .store(start, Ordering::Relaxed);
            return true;
        };
        let Some(found) = host.translations(Instant::now()) else {
            return false;
        };
        drop(host);
        self.add_translations(found);
        self.translations_known_until
            .store(start, Ordering::Relaxed);
        true
    }

    fn behind(&self, netns: NetnsId, address: IpAddr) -> Result<Option<Workload>, Reason> {
        let translations = read(&self.translations);
        if translations.is_empty() {
            return Ok(None);
        }
        let identities = self.read();
        let mut found: Option<Workload> = None;
        for client in identities.addresses(netns) {
            for backend in translations.backends(client, address.to_canonical()) {
                let workload = identities.peer(netns, backend)?;
                let workload = workload.unwrap_or_else(Workload::external);
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
        if let Some(mut host) = self.host() {
            host.refresh(Instant::now());
            self.publish(&mut host);
        }
    }

    /// Everything that lives on this host, whether the kernel counted something for it or not.
    /// Also forgets cgroups that went. Walks the whole hierarchy, so not for every second.
    pub fn alive(&self) -> HashSet<Workload> {
        let mut alive = self.workloads();
        let cgroups = self.host().map(|mut host| host.all_cgroups(Instant::now()));
        if let Some(cgroups) = cgroups {
            self.write().retain_cgroups(&cgroups);
            alive.extend(cgroups.into_values().flatten());
        }
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
        match host.find_address(address, Instant::now()) {
            Ok(found) => {
                if found {
                    self.publish(&mut host);
                    return true;
                }
            }
            Err(TooEarly) => return false,
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
        if let Ok(workload) = found {
            self.write().set_cgroup(cgroup, workload);
        }
    }

    fn publish(&self, host: &mut Host) {
        let mut identities = self.write();
        host.publish(&mut identities);
        identities.forget_gone(Instant::now(), Duration::from_secs(300));
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

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
