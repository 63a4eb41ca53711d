//! Cgroups: id → path → container or systemd unit.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::enrich::CgroupId;

/// An id that is not in the hierarchy makes us walk it again, but not more often than this.
const WALK_PAUSE: Duration = Duration::from_secs(1);

/// Whom a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupOwner {
    /// By name where the runtime tells it, else by the first twelve digits of its id.
    Container(String),
    Unit(String),
}

pub struct Cgroups {
    proc: PathBuf,
    /// Where the cgroup2 hierarchy is mounted.
    mount: Option<PathBuf>,
    owners: HashMap<CgroupId, Option<CgroupOwner>>,
    walked: Option<Instant>,
}

impl Cgroups {
    pub fn new(proc: &Path) -> Self {
        let mounts = fs::read_to_string(proc.join("self/mountinfo")).unwrap_or_default();
        Self {
            proc: proc.to_owned(),
            mount: cgroup2_mount(&mounts),
            owners: HashMap::new(),
            walked: None,
        }
    }

    pub fn owner(&mut self, cgroup: CgroupId, now: Instant) -> Option<CgroupOwner> {
        let may_walk =
            (self.walked).is_none_or(|at| now.saturating_duration_since(at) >= WALK_PAUSE);
        if !self.owners.contains_key(&cgroup) && may_walk {
            self.walk(now);
        }
        self.owners.get(&cgroup).cloned().flatten()
    }

    pub fn owner_of_process(&mut self, process: Option<u32>, _now: Instant) -> Option<CgroupOwner> {
        let path = self.proc.join(process?.to_string()).join("cgroup");
        let text = fs::read_to_string(path).ok()?;
        text.lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .find_map(parse_path)
    }

    fn walk(&mut self, now: Instant) {
        self.walked = Some(now);
        self.owners.clear();
        let Some(mount) = &self.mount else {
            return;
        };
        let mut pending = vec![mount.clone()];
        while let Some(directory) = pending.pop() {
            if let Ok(meta) = fs::metadata(&directory) {
                let path = directory.strip_prefix(mount).unwrap_or(&directory);
                let owner = parse_path(&path.to_string_lossy());
                self.owners.insert(CgroupId(meta.ino()), owner);
            }
            let children = fs::read_dir(&directory).into_iter().flatten().flatten();
            pending.extend(
                children
                    .filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|child| child.path()),
            );
        }
    }
}

/// Where `/proc/self/mountinfo` says that cgroup2 is.
pub fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let kind = rest.split(' ').next()?;
        let target = fields.split(' ').nth(4)?;
        (kind == "cgroup2").then(|| target.into())
    })
}

/// The container or unit that a cgroup path names; the innermost one counts.
pub fn parse_path(path: &str) -> Option<CgroupOwner> {
    path.rsplit('/').find_map(|part| {
        if let Some(id) = container_id(part) {
            return Some(CgroupOwner::Container(id[..12].to_owned()));
        }
        (part.ends_with(".service")).then(|| CgroupOwner::Unit(part.to_owned()))
    })
}

/// `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>`, `libpod-<id>.scope`, `<id>` …
fn container_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit(['-', ':']).next()?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}
