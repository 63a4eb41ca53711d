//! What this process created and must remove: written down first, so that the next start can remove
//! what a killed process left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{command, netns, say};

const FOLDER: &str = "/run/runwire-eval";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Created {
    pid: u32,
    /// Clock ticks after boot: tells a process from a later one with the same number.
    started: u64,
    namespaces: BTreeSet<String>,
    folders: BTreeSet<PathBuf>,
}

/// The list of what this process created; a file per process, gone when nothing is left.
#[derive(Clone)]
pub(crate) struct State {
    file: PathBuf,
    created: Arc<Mutex<Created>>,
}

impl State {
    /// Removes what dead processes left, then starts an empty list.
    pub(crate) fn open() -> Result<Self> {
        fs::create_dir_all(FOLDER)
            .with_context(|| format!("cannot create {FOLDER}: run as root"))?;
        sweep(Path::new(FOLDER))?;
        let pid = std::process::id();
        let created = Created {
            pid,
            started: started(pid).context("cannot read /proc/self/stat")?,
            ..Created::default()
        };
        Ok(Self {
            file: Path::new(FOLDER).join(format!("{pid}.json")),
            created: Arc::new(Mutex::new(created)),
        })
    }

    pub(crate) fn add_namespace(&self, name: &str) -> Result<()> {
        self.change(|created| created.namespaces.insert(name.to_owned()))
    }

    pub(crate) fn remove_namespace(&self, name: &str) -> Result<()> {
        self.change(|created| created.namespaces.remove(name))
    }

    pub(crate) fn add_folder(&self, folder: &Path) -> Result<()> {
        self.change(|created| created.folders.insert(folder.to_owned()))
    }

    pub(crate) fn remove_folder(&self, folder: &Path) -> Result<()> {
        self.change(|created| created.folders.remove(folder))
    }

    fn change(&self, change: impl FnOnce(&mut Created) -> bool) -> Result<()> {
        let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut created);
        if created.namespaces.is_empty() && created.folders.is_empty() {
            return match fs::remove_file(&self.file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot remove {}", self.file.display()))
                }
                _ => Ok(()),
            };
        }
        let next = self.file.with_extension("next");
        fs::write(&next, serde_json::to_vec(&*created)?)
            .and_then(|()| fs::rename(&next, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// Removes namespaces and folders of processes that are gone.
fn sweep(folder: &Path) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let file = entry?.path();
        // Another process may finish, or sweep, while we look.
        let Ok(text) = fs::read(&file) else { continue };
        if file
            .extension()
            .is_some_and(|extension| extension != "json")
        {
            continue;
        }
        let left: Created = serde_json::from_slice(&text).unwrap_or_default();
        if started(left.pid) == Some(left.started) {
            continue;
        }
        for name in &left.namespaces {
            if netns::path(name).exists() {
                say::progress(format_args!(
                    "removing the namespace {name}, left by a run that was killed"
                ));
                let outcome = command::run(&format!("ip netns delete {name}"));
                // Two starts at once sweep the same list.
                if netns::path(name).exists() {
                    outcome?;
                }
            }
        }
        for folder in &left.folders {
            let _ = fs::remove_dir_all(folder);
        }
        let _ = fs::remove_file(&file);
    }
    Ok(())
}

fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may contain anything; the 22nd is the start.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}
