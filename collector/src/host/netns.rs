//! Network namespaces: which there are, and what can only be read from inside one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Once, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use nix::sched::{CloneFlags, setns};
use nix::{getsockopt_impl, sockopt_impl};
use tracing::{debug, warn};

use super::Paths;
use super::netlink::{Netlink, attributes};
use crate::enrich::{NetnsId, Workload};

sockopt_impl!(
    /// Says which namespace a socket is in.
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// What the file system calls a namespace. When one is gone, the next gets its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode(u32);

impl Inode {
    #[cfg(test)]
    pub(crate) fn of(number: u32) -> Self {
        Self(number)
    }
}

/// A namespace as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Under /run/netns.
    pub name: Option<String>,
    /// A process that lives in it.
    pub process: Option<u32>,
    /// Open it to enter the namespace.
    pub path: PathBuf,
}

impl Found {
    /// Container runtimes name the namespaces that they make, but the container's own name says
    /// more.
    pub fn is_named_by_hand(&self) -> bool {
        (self.name.as_ref()).is_some_and(|name| !is_of_a_runtime(name))
    }
}

/// `cni-…` of containerd, `netns-UUID` of podman, `UUID` of CRI-O.
fn is_of_a_runtime(name: &str) -> bool {
    name.starts_with("cni-") || is_uuid(name.strip_prefix("netns-").unwrap_or(name))
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts
        .iter()
        .map(|part| part.len())
        .eq([8_usize, 4, 4, 4, 12])
        && parts.iter().all(is_hex)
}

/// The namespaces that count as the host's own.
pub fn own(paths: &Paths) -> HashSet<Inode> {
    ["1", "self"]
        .iter()
        .filter_map(|process| inode(&paths.proc.join(process).join("ns/net")))
        .collect()
}

/// Those with a name, listed again only when the directory has changed.
#[derive(Default)]
pub struct Names {
    known: HashMap<Inode, Found>,
    modified: Option<SystemTime>,
}

impl Names {
    /// A name is there some moments before its namespace is, and that does not show.
    const SETTLED: Duration = Duration::from_secs(3);

    pub fn look(&mut self, paths: &Paths, look: Look) -> HashMap<Inode, Found> {
        let modified = fs::metadata(&paths.netns).and_then(|meta| meta.modified());
        let modified = modified.ok();
        let is_settled =
            modified.is_none_or(|at| at.elapsed().is_ok_and(|age| age > Self::SETTLED));
        if look == Look::All || modified != self.modified || !is_settled {
            // Without a descriptor to read it with, the directory says nothing.
            if let Some(known) = named(paths) {
                self.known = known;
                self.modified = modified;
            }
        }
        self.known.clone()
    }
}

/// Those with a name under /run/netns. `None` if that is there and cannot be read.
pub fn named(paths: &Paths) -> Option<HashMap<Inode, Found>> {
    let entries = match fs::read_dir(&paths.netns) {
        Err(error) if error.kind() != ErrorKind::NotFound => return None,
        entries => entries.into_iter().flatten(),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    // Two names of one namespace: the first in the alphabet, so that it does not change.
    names.sort_unstable_by(|a, b| b.cmp(a));
    let device = fs::metadata(paths.proc.join("self/ns/net")).map(|meta| meta.dev());
    let mut found = HashMap::new();
    for name in names {
        let path = paths.netns.join(&name);
        // Between `ip netns add` creating the file and mounting the namespace on it, the inode is
        // one of the directory's own file system.
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        let (Ok(device), Ok(inode)) = (&device, u32::try_from(meta.ino())) else {
            continue;
        };
        if meta.dev() == *device {
            let namespace = Found {
                name: Some(name),
                process: None,
                path,
            };
            found.insert(Inode(inode), namespace);
        }
    }
    Some(found)
}

/// The namespaces that processes live in. Looks at a process a few times while it is new, and then
/// only when all are looked at: they seldom change their namespace, and there are many.
#[derive(Default)]
pub struct Processes {
    known: BTreeMap<u32, Process>,
}

#[derive(Clone, Copy)]
struct Process {
    netns: Option<Inode>,
    looks: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    New,
    All,
}

impl Processes {
    /// A process enters its namespace a moment after it was started.
    const LOOKS: u8 = 3;

    pub fn look(&mut self, paths: &Paths, look: Look) -> HashMap<Inode, Found> {
        // No descriptor is left: that says nothing about processes. Namespaces that were taken for
        // gone would be counted from their beginning when they are seen again.
        if let Ok(entries) = fs::read_dir(&paths.proc) {
            self.look_at(entries, paths, look);
        }
        let mut found = HashMap::new();
        for (&number, process) in &self.known {
            if let Some(netns) = process.netns {
                found.entry(netns).or_insert_with(|| Found {
                    name: None,
                    process: Some(number),
                    path: netns_path(paths, number),
                });
            }
        }
        found
    }

    fn look_at(&mut self, entries: fs::ReadDir, paths: &Paths, look: Look) {
        let before = std::mem::take(&mut self.known);
        let entries = entries.flatten();
        for number in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            let known = before.get(&number).copied();
            let process = match known {
                Some(process) if look == Look::New && process.looks >= Self::LOOKS => process,
                _ => Process {
                    netns: inode(&netns_path(paths, number)),
                    looks: known.map_or(1, |process| process.looks.saturating_add(1)),
                },
            };
            self.known.insert(number, process);
        }
    }
}

fn netns_path(paths: &Paths, process: u32) -> PathBuf {
    paths.proc.join(process.to_string()).join("ns/net")
}

/// The link reads `net:[4026531840]`; following it would cost a stat more.
fn parse_link(link: &str) -> Option<Inode> {
    let inode = link.strip_prefix("net:[")?.strip_suffix(']')?;
    inode.parse().ok().map(Inode)
}

fn inode(path: &Path) -> Option<Inode> {
    parse_link(&fs::read_link(path).ok()?.to_string_lossy())
}

/// A namespace to go to, and whose it is.
#[derive(Clone, Debug)]
pub struct Place {
    pub inode: Inode,
    pub path: PathBuf,
    /// As it was when its addresses were read.
    pub id: Option<NetnsId>,
    pub owner: Workload,
    /// The host's own namespace.
    pub is_hosts: bool,
}

/// Calls `read` inside each of these namespaces, on a thread that ends afterwards: no thread that
/// goes on ever changes its namespace. Namespaces that cannot be entered are left out.
pub fn visit<T: Send>(places: &[(Inode, PathBuf)], read: impl Fn() -> T + Send) -> Vec<(Inode, T)> {
    let enter_all = move || {
        let mut results = Vec::with_capacity(places.len());
        let mut current = inode(Path::new("/proc/thread-self/ns/net"));
        for (inode, path) in places {
            if enter(*inode, path, &mut current) {
                results.push((*inode, read()));
            }
        }
        results
    };
    if places.is_empty() {
        return Vec::new();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned());
        match thread.spawn_scoped(scope, enter_all) {
            Ok(thread) => thread.join().unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    })
}

/// As [`visit`], but waits only so long: the kernel lets whoever asks about an interface wait for a
/// driver that hangs. While it does, there are no further visits.
#[derive(Default)]
pub struct Visitor {
    last: Option<JoinHandle<()>>,
}

impl Visitor {
    const PATIENCE: Duration = Duration::from_secs(3);

    /// `None` if this visit or the one before has not come to its end.
    pub fn visit<T: Send + 'static>(
        &mut self,
        places: Vec<Place>,
        read: impl Fn(&Place) -> T + Send + 'static,
    ) -> Option<Vec<(Inode, T)>> {
        if self.last.as_ref().is_some_and(|last| !last.is_finished()) {
            return None;
        }
        let (sender, results) = mpsc::channel();
        let enter_all = move || {
            let mut all = Vec::with_capacity(places.len());
            let mut current = inode(Path::new("/proc/thread-self/ns/net"));
            for place in &places {
                if enter(place.inode, &place.path, &mut current) {
                    all.push((place.inode, read(place)));
                }
            }
            // Nobody listens any more if this took too long.
            let _ = sender.send(all);
        };
        let thread = std::thread::Builder::new().name("netns".to_owned());
        self.last = Some(thread.spawn(enter_all).ok()?);
        results.recv_timeout(Self::PATIENCE).ok()
    }
}

/// False if it cannot be. `current` is where the calling thread is.
fn enter(inode: Inode, path: &Path, current: &mut Option<Inode>) -> bool {
    // No right is needed to stay where we are.
    if *current == Some(inode) {
        return true;
    }
    match go(inode, path) {
        Ok(()) => {
            *current = Some(inode);
            true
        }
        Err(error) => {
            say_that_closed(path, &error);
            false
        }
    }
}

/// Whether the kernel lets the calling thread enter namespaces: tried with its own, where it stays.
pub fn may_enter() -> bool {
    let file = File::open("/proc/thread-self/ns/net");
    file.is_ok_and(|file| setns(file, CloneFlags::CLONE_NEWNET).is_ok())
}

fn go(inode: Inode, path: &Path) -> std::io::Result<()> {
    let file = File::open(path)?;
    // The process may have gone, its number been given to another one.
    if file.metadata()?.ino() != u64::from(inode.0) {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    setns(file, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// Namespaces that come or go while we look are nothing to speak of; a missing right is, but once. `ip netns add` makes a
/// file that nobody may read, and mounts the namespace over it a moment later.
fn say_that_closed(path: &Path, error: &std::io::Error) {
    static SAID: Once = Once::new();
    debug!(path = %path.display(), %error, "cannot enter network namespace");
    let is_coming = || std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o444 == 0);
    if error.kind() == ErrorKind::PermissionDenied && !is_coming() {
        SAID.call_once(|| {
            warn!(
                path = %path.display(),
                "cannot enter network namespaces: they stay nameless and their counters unread; needs CAP_SYS_ADMIN"
            );
        });
    }
}

/// The calling thread's namespace, and its addresses, loopback excepted.
pub fn look() -> std::io::Result<(NetnsId, Vec<IpAddr>)> {
    let mut route = Netlink::route()?;
    let mut addresses = route.list(libc::RTM_GETADDR, &[0; ADDRESS_HEADER], parse_address)?;
    addresses.retain(|address| !address.is_loopback());
    addresses.sort_unstable();
    addresses.dedup();
    Ok((route.netns()?, addresses))
}

/// The attributes come after `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

fn parse_address(message: &[u8]) -> Option<IpAddr> {
    let find = |wanted| {
        let mut all = attributes(message.get(ADDRESS_HEADER..)?);
        all.find(|&(kind, _)| kind == wanted)
            .map(|(_, value)| value)
    };
    // Of a point-to-point link, IFA_ADDRESS is the other end.
    let bytes = find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// The calling thread's namespace.
pub fn id() -> std::io::Result<NetnsId> {
    Netlink::route()?.netns()
}

/// Sockets in TIME_WAIT in the calling thread's namespace.
pub fn time_wait() -> std::io::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat")?;
    Ok(parse_time_wait(&text).unwrap_or(0))
}

fn parse_time_wait(sockstat: &str) -> Option<u64> {
    let tcp = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = tcp.split_whitespace().skip_while(|&word| word != "tw");
    words.nth(1)?.parse().ok()
}

#[test]
fn kernel_notations_are_understood() {
    assert_eq!(parse_link("net:[4026531840]"), Some(Inode(4_026_531_840)));
    assert_eq!(parse_link("mnt:[4026531840]"), None);
    let sockstat =
        "sockets: used 9\nTCP: inuse 3 orphan 0 tw 17 alloc 5 mem 1\nUDP: inuse 0 mem 0\n";
    assert_eq!(parse_time_wait(sockstat), Some(17));
}

#[test]
fn what_a_runtime_calls_a_namespace_is_no_name() {
    let is_named_by_hand = |name: &str| {
        let found = Found {
            name: Some(name.to_owned()),
            process: Some(7),
            path: PathBuf::new(),
        };
        found.is_named_by_hand()
    };
    for name in [
        "cni-0b4bc3b8-56c8-9a3e-4c1f-1d2b3c4d5e6f",
        "netns-0b4bc3b8-56c8-9a3e-4c1f-1d2b3c4d5e6f",
        "0b4bc3b8-56c8-4a3e-8c1f-1d2b3c4d5e6f",
    ] {
        assert!(!is_named_by_hand(name), "{name}");
    }
    for name in [
        "lab",
        "netns-lab",
        "0b4bc3b8",
        "0b4bc3b8-56c8-4a3e-8c1f-vpn",
    ] {
        assert!(is_named_by_hand(name), "{name}");
    }
}

#[test]
fn names_stay_while_they_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let paths = Paths {
        netns: directory.path().join("netns"),
        ..Paths::default()
    };
    let found = Found {
        name: Some("lab".to_owned()),
        process: None,
        path: paths.netns.join("lab"),
    };
    let mut names = Names {
        known: [(Inode(1), found)].into(),
        modified: None,
    };
    fs::write(&paths.netns, "not a directory").unwrap();
    assert_eq!(names.look(&paths, Look::All).len(), 1);
    fs::remove_file(&paths.netns).unwrap();
    assert_eq!(names.look(&paths, Look::All).len(), 0, "none was made");
}

#[test]
fn a_process_is_looked_at_until_it_has_settled() {
    let directory = tempfile::tempdir().unwrap();
    let enters = |process: u32, netns: u32| {
        let path = directory.path().join(format!("{process}/ns"));
        fs::create_dir_all(&path).unwrap();
        let _ = fs::remove_file(path.join("net"));
        std::os::unix::fs::symlink(format!("net:[{netns}]"), path.join("net")).unwrap();
    };
    let paths = Paths {
        proc: directory.path().to_owned(),
        ..Paths::default()
    };
    let mut processes = Processes::default();
    let mut look = |look| {
        let found = processes.look(&paths, look);
        let mut found: Vec<_> = (found.iter())
            .map(|(inode, found)| (inode.0, found.process.unwrap()))
            .collect();
        found.sort_unstable();
        found
    };
    enters(8, 1);
    enters(9, 1);
    assert_eq!(look(Look::New), [(1, 8)]);
    enters(9, 2);
    assert_eq!(look(Look::New), [(1, 8), (2, 9)], "while it is new");
    look(Look::New);
    enters(9, 3);
    assert_eq!(look(Look::New), [(1, 8), (2, 9)], "no more");
    assert_eq!(look(Look::All), [(1, 8), (3, 9)], "with all");
    fs::remove_dir_all(directory.path().join("8")).unwrap();
    assert_eq!(look(Look::New), [(3, 9)]);
    let aside = directory.path().with_extension("aside");
    fs::rename(directory.path(), &aside).unwrap();
    assert_eq!(look(Look::All), [(3, 9)], "while nothing can be read");
    fs::rename(&aside, directory.path()).unwrap();
}
