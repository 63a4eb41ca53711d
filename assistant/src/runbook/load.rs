//! Folders → runbooks, with warnings. One broken file never hides another.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::anchor::compact;
use super::parse::parse_as;
use super::{Runbook, Warning, WarningKind};
use crate::hash::fnv;
use crate::parallel;

mod find;

use find::{File, find};

/// Larger files are left out: nobody reads such a page, and one could fill the memory.
pub const MAX_FILE_BYTES: u64 = 10 << 20;

/// Two edits within this time may leave the same stamp: the clock of a file system is that coarse.
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// Everything that was read, in the order of the ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Library {
    pub runbooks: Vec<Arc<Runbook>>,
    pub warnings: Vec<Warning>,
}

impl Library {
    pub fn get(&self, id: &str) -> Option<&Arc<Runbook>> {
        let at = self
            .runbooks
            .binary_search_by(|runbook| runbook.id.as_str().cmp(id))
            .ok()?;
        Some(&self.runbooks[at])
    }

    /// The page whose file has this name, however it is spelt: `CoreDNSDown` for `coredns-down.md`.
    pub fn named(&self, name: &str) -> Option<&Arc<Runbook>> {
        let wanted = compact(name);
        self.runbooks.iter().find(|runbook| {
            let stem = runbook.id.rsplit('/').next().unwrap_or(&runbook.id);
            compact(stem) == wanted
        })
    }
}

/// What a file looked like when it was read: cheap to ask for, and different after any edit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl Stamp {
    fn of(location: &Path) -> Option<Self> {
        let metadata = fs::metadata(location).ok()?;
        Some(Self {
            inode: metadata.ino(),
            size: metadata.len(),
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// So long ago that no later edit can have left the same stamp.
    fn is_settled(&self) -> bool {
        let age = self.modified.and_then(|time| time.elapsed().ok());
        age.is_some_and(|age| age > CLOCK_TICK)
    }
}

/// The stamps of all files that [`Loader::load`] would read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    files: BTreeMap<PathBuf, Stamp>,
}

pub fn fingerprint(folders: &[PathBuf]) -> Fingerprint {
    let files = find(folders, &mut Vec::new())
        .into_iter()
        .filter_map(|file| {
            let stamp = Stamp::of(&file.location)?;
            Some((file.location, stamp))
        })
        .collect();
    Fingerprint { files }
}

/// Reads every page below the folders.
pub fn load(folders: &[PathBuf]) -> Library {
    Loader::default().load(folders)
}

/// Remembers what it has read: the next time only changed files are read.
#[derive(Default)]
pub struct Loader {
    pages: HashMap<PathBuf, Page>,
}

#[derive(Clone)]
struct Page {
    stamp: Option<Stamp>,
    id: String,
    runbook: Option<Arc<Runbook>>,
    warnings: Vec<Warning>,
}

impl Loader {
    pub fn load(&mut self, folders: &[PathBuf]) -> Library {
        let mut warnings = Vec::new();
        let files = find(folders, &mut warnings);
        let known = std::mem::take(&mut self.pages);
        let pages = parallel::map(&files, |file| {
            let stamp = Stamp::of(&file.location);
            let known = known.get(&file.location).filter(|page| {
                let settled = stamp.as_ref().is_some_and(Stamp::is_settled);
                settled && page.stamp == stamp && page.id == file.id
            });
            known.cloned().unwrap_or_else(|| page(file, stamp))
        });

        let mut by_id: BTreeMap<String, Arc<Runbook>> = BTreeMap::new();
        for (file, page) in files.iter().zip(pages) {
            warnings.extend(page.warnings.iter().cloned());
            if let Some(runbook) = &page.runbook {
                if let Some(first) = by_id.get(&runbook.id) {
                    warnings.push(Warning {
                        path: runbook.path.clone(),
                        line: 1,
                        kind: WarningKind::DuplicateId {
                            id: runbook.id.clone(),
                            first: first.path.clone(),
                        },
                    });
                } else {
                    by_id.insert(runbook.id.clone(), Arc::clone(runbook));
                }
            }
            self.pages.insert(file.location.clone(), page);
        }
        let mut runbooks: Vec<_> = by_id.into_values().collect();
        drop_duplicate_modes(&mut runbooks, &mut warnings);
        warnings.sort();
        Library { runbooks, warnings }
    }
}

fn page(file: &File, stamp: Option<Stamp>) -> Page {
    let mut warnings = Vec::new();
    let runbook = read(file, &mut warnings).map(|source| {
        let (runbook, of_file) = parse_as(file.format, &file.id, &file.path, source);
        warnings.extend(of_file);
        Arc::new(runbook)
    });
    Page {
        stamp,
        id: file.id.clone(),
        runbook,
        warnings,
    }
}

fn read(file: &File, warnings: &mut Vec<Warning>) -> Option<String> {
    let warning = |line, kind| Warning {
        path: file.path.clone(),
        line,
        kind,
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, also one that grows while it is read.
    let read = fs::File::open(&file.location)
        .and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        warnings.push(unreadable(Path::new(&file.path), &error));
        return None;
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        warnings.push(warning(1, WarningKind::TooLarge));
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(source) => Some(source),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
            warnings.push(warning(line, WarningKind::NotUtf8));
            Some(String::from_utf8_lossy(error.as_bytes()).into_owned())
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Warning {
    Warning {
        path: path.display().to_string(),
        line: 1,
        kind: WarningKind::Unreadable(error.to_string()),
    }
}

/// The first runbook, by id, keeps a failure mode that two define.
fn drop_duplicate_modes(runbooks: &mut [Arc<Runbook>], warnings: &mut Vec<Warning>) {
    let mut owners: HashMap<String, String> = HashMap::new();
    for runbook in runbooks {
        let mut duplicates = Vec::new();
        for (index, mode) in runbook.failure_modes.iter().enumerate() {
            match owners.get(&mode.id) {
                None => {
                    owners.insert(mode.id.clone(), runbook.path.clone());
                }
                Some(first) => {
                    duplicates.push(index);
                    warnings.push(Warning {
                        path: runbook.path.clone(),
                        line: 1,
                        kind: WarningKind::DuplicateMode {
                            mode: mode.id.clone(),
                            first: first.clone(),
                        },
                    });
                }
            }
        }
        for index in duplicates.into_iter().rev() {
            let page = Arc::make_mut(runbook);
            let mode = page.failure_modes.remove(index);
            // What is indexed of the page is without it too: with it again, it is to be indexed again.
            page.digest = fnv(&[&page.digest.to_be_bytes(), mode.id.as_bytes()]);
        }
    }
}

#[cfg(test)]
mod tests;
