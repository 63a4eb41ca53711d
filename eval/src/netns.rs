//! Work inside a named network namespace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

pub(crate) const FOLDER: &str = "/run/netns";

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Moves the calling thread; a process does so before it starts others.
pub(crate) fn enter(name: &str) -> Result<()> {
    let file = File::open(path(name))
        .with_context(|| format!("cannot open the network namespace {name}"))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("cannot enter the network namespace {name}"))
}

/// Runs `work` on a thread of its own inside the namespace.
pub(crate) fn inside<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                enter(name)?;
                work()
            })
            .join()
            .map_err(|_| anyhow!("a thread in the network namespace {name} panicked"))?
    })
}

/// Sets a sysctl of that namespace. `/proc/sys/net` shows the namespace of the thread that looks.
pub(crate) fn sysctl(name: &str, key: &str, value: &str) -> Result<()> {
    anyhow::ensure!(
        key.starts_with("net."),
        "sysctl {key} is not one of a network namespace: it would change the whole host"
    );
    let file = format!("/proc/sys/{}", key.replace('.', "/"));
    inside(name, || {
        fs::write(&file, value).with_context(|| format!("cannot set {key} to {value} in {name}"))
    })
}
