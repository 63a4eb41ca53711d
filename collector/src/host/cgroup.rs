//! Cgroups: id → path → container or systemd unit.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::containers::{self, StatePaths};
use crate::enrich::CgroupId;

/// An id that is not known makes us walk the hierarchy again, but not more often than this.
const WALK_PAUSE: Duration = Duration::from_secs(1);

/// Digits of a container's id that stand for its name where it has none.
const SHORT_ID: usize = 12;

/// Whom a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupOwner {
    Container(Container),
    Unit(String),
}

/// A container, as the path of its cgroup tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Whole.
    pub id: String,
    /// What the kubelet calls the pod's cgroup after: the uid, of static pods the hash of their
    /// configuration.
    pub pod: Option<String>,
}

pub struct Cgroups {
    proc: PathBuf,
    state: StatePaths,
    /// Where the cgroup2 hierarchy is mounted.
    mount: Option<PathBuf>,
    owners: HashMap<CgroupId, Option<CgroupOwner>>,
    walked: Option<Instant>,
    names: HashMap<String, String>,
}

impl Cgroups {
    pub fn new(proc: &Path, state: StatePaths) -> Self {
        let mounts = fs::read_to_string(proc.join("self/mountinfo")).unwrap_or_default();
        Self {
            proc: proc.to_owned(),
            state,
            mount: cgroup2_mount(&mounts),
            owners: HashMap::new(),
            walked: None,
            names: HashMap::new(),
        }
    }

    /// `Err` if the cgroup was not found and it is too early to look again.
    pub fn owner(
        &mut self,
        cgroup: CgroupId,
        now: Instant,
    ) -> Result<Option<CgroupOwner>, TooEarly> {
        if let Some(owner) = self.owners.get(&cgroup) {
            return Ok(owner.clone());
        }
        if (self.walked).is_some_and(|at| now.saturating_duration_since(at) < WALK_PAUSE) {
            return Err(TooEarly);
        }
        self.walk(now);
        Ok(self.owners.get(&cgroup).cloned().flatten())
    }

    /// Every cgroup that exists now.
    pub fn all(&mut self, now: Instant) -> HashMap<CgroupId, Option<CgroupOwner>> {
        // Names may have changed, and here is where we can afford to ask again.
        self.names.clear();
        self.walk(now);
        self.owners.clone()
    }

    /// Whom the cgroup of a process belongs to.
    pub fn owner_of_process(&self, process: u32) -> Option<CgroupOwner> {
        let path = self.proc.join(process.to_string()).join("cgroup");
        parse_process(&fs::read_to_string(path).ok()?)
    }

    /// What a container is called: its name, else the beginning of its id.
    pub fn container_name(&mut self, id: &str) -> String {
        if let Some(name) = self.names.get(id) {
            return name.clone();
        }
        let short = || id.chars().take(SHORT_ID).collect();
        let name = containers::name(&self.state, id).unwrap_or_else(short);
        if self.names.len() > 10_000 {
            self.names.clear();
        }
        self.names.insert(id.to_owned(), name.clone());
        name
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
            let directories =
                children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()));
            pending.extend(directories.map(|child| child.path()));
        }
    }
}

/// Ask again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooEarly;

/// Where `/proc/self/mountinfo` says that cgroup2 is.
pub fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let kind = rest.split(' ').next()?;
        let target = fields.split(' ').nth(4)?;
        (kind == "cgroup2").then(|| target.into())
    })
}

/// `/proc/PID/cgroup`. With cgroup v1 there are several lines, and the container is in any.
fn parse_process(text: &str) -> Option<CgroupOwner> {
    let owners = || {
        text.lines()
            .filter_map(|line| parse_path(line.splitn(3, ':').nth(2)?))
    };
    owners()
        .find(|owner| matches!(owner, CgroupOwner::Container(_)))
        .or_else(|| owners().next())
}

/// The container or unit that a cgroup path names; the innermost one counts.
pub fn parse_path(path: &str) -> Option<CgroupOwner> {
    path.rsplit('/').find_map(|part| {
        if let Some(id) = container_id(part) {
            let (id, pod) = (id.to_owned(), pod_uid(path));
            return Some(CgroupOwner::Container(Container { id, pod }));
        }
        (part.ends_with(".service")).then(|| CgroupOwner::Unit(part.to_owned()))
    })
}

/// `docker-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>`, `libpod-<id>.scope`, `<id>` …
fn container_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    // The monitor of a podman or CRI-O container is not in it.
    if part.contains("conmon-") {
        return None;
    }
    let id = part.rsplit(['-', ':']).next()?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// `/kubepods/burstable/pod<uid>/…` with the driver cgroupfs,
/// `…/kubepods-burstable-pod<uid, with _ for ->.slice/…` with systemd.
fn pod_uid(path: &str) -> Option<String> {
    path.split(['/', ':']).find_map(|part| {
        let uid = match part.strip_suffix(".slice") {
            // With a cgroup root of its own the kubelet puts that name in front.
            Some(slice) if part.contains("kubepods-") => slice.rsplit_once("-pod")?.1,
            Some(_) => return None,
            None => part.strip_prefix("pod")?,
        };
        let uid = uid.replace('_', "-");
        let is_uid = uid.len() >= 32 && uid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
        is_uid.then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3e1d4f0a5b6c7d8e9f00112233445566778899aabbccddeeff00112233445566";

    fn check(path: &str, expected: Option<CgroupOwner>) {
        let path = path.replace("ID", ID);
        assert_eq!(parse_path(&path), expected, "{path}");
    }

    #[test]
    fn every_runtime_and_driver_is_read() {
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/system.slice/containerd.service/kubepods-burstable-pod1_2.slice:cri-containerd:ID",
            "/machine.slice/libpod-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            "/kubepods/burstable/pod0a1b/ID",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0a.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod0a.slice/crio-ID.scope",
            "/kubepods/pod0a/crio-ID",
            "/system.slice/nerdctl-ID.scope",
            // A container whose init is systemd has units of its own below; they are units there.
            "/kubepods/burstable/pod0a1b/ID/init.scope",
        ] {
            check(path, Some(container(None)));
        }
    }

    fn container(pod: Option<&str>) -> CgroupOwner {
        CgroupOwner::Container(Container {
            id: ID.to_owned(),
            pod: pod.map(str::to_owned),
        })
    }

    #[test]
    fn the_kubelets_cgroups_tell_the_pod() {
        let uid = "0f6ab4c5-3c6c-4a53-b5b1-6f2f0a3a9c11";
        for path in [
            "/kubepods/burstable/podUID/ID",
            "/kubepods/besteffort/podUID/ID",
            "/kubepods/podUID/crio-ID",
            "/kubepods.slice/kubepods-podUNDERSCORED.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUNDERSCORED.slice/docker-ID.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUNDERSCORED.slice/crio-ID.scope/container",
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUNDERSCORED.slice/cri-containerd-ID.scope",
            "/system.slice/containerd.service/kubepods-burstable-podUNDERSCORED.slice:cri-containerd:ID",
        ] {
            let path = path.replace("UNDERSCORED", &uid.replace('-', "_"));
            let path = path.replace("UID", uid);
            check(&path, Some(container(Some(uid))));
        }
        // A static pod's is a hash.
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        check(
            &format!("/kubepods/burstable/pod{hash}/ID"),
            Some(container(Some(hash))),
        );
        check(
            "/machine.slice/podman-1.slice/libpod-ID.scope",
            Some(container(None)),
        );
    }

    #[test]
    fn units_are_services() {
        for (path, unit) in [
            ("/system.slice/nginx.service", "nginx.service"),
            (
                "/system.slice/system-postgresql.slice/postgresql@15-main.service",
                "postgresql@15-main.service",
            ),
            (
                "/user.slice/user-0.slice/user@0.service/app.slice/sync.service",
                "sync.service",
            ),
            (
                "/machine.slice/libpod-conmon-ID.scope/../podman.service",
                "podman.service",
            ),
        ] {
            check(path, Some(CgroupOwner::Unit(unit.to_owned())));
        }
        for path in [
            "/",
            "",
            "/init.scope",
            "/user.slice/user-0.slice/session-3.scope",
            "/machine.slice/libpod-conmon-ID.scope",
        ] {
            check(path, None);
        }
    }

    #[test]
    fn mountinfo_tells_where_cgroup2_is() {
        let mounts = "\
26 19 0:23 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
27 26 0:24 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
28 26 0:25 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu
";
        let expected = Some("/sys/fs/cgroup/unified".into());
        assert_eq!(cgroup2_mount(mounts), expected);
        assert_eq!(cgroup2_mount(""), None);
    }

    #[test]
    fn a_process_in_cgroup_v1_is_found_too() {
        let text = format!("4:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
        assert_eq!(parse_process(&text), Some(container(None)));
        let text = "0::/system.slice/ssh.service\n";
        assert_eq!(
            parse_process(text),
            Some(CgroupOwner::Unit("ssh.service".to_owned()))
        );
    }
}
