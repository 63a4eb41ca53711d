//! Folders → runbooks, with warnings. One broken file never hides another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Runbook, Warning, WarningKind, parse};

/// Larger files are left out: nobody reads such a page, and one could fill the memory.
pub const MAX_FILE_BYTES: u64 = 10 << 20;

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
}

/// What a file looked like when it was read: cheap to ask for, and different after any edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    files: BTreeMap<PathBuf, (u64, Option<std::time::SystemTime>)>,
}

/// Reads every Markdown file below the folders.
pub fn load(folders: &[PathBuf]) -> Library {
    let mut warnings = Vec::new();
    let mut by_id: BTreeMap<String, Arc<Runbook>> = BTreeMap::new();
    for file in find(folders, &mut warnings) {
        let Some(source) = read(&file, &mut warnings) else {
            continue;
        };
        let (runbook, of_file) = parse(&file.id, &file.path, source);
        warnings.extend(of_file);
        if let Some(first) = by_id.get(&runbook.id) {
            warnings.push(Warning {
                path: runbook.path,
                line: 1,
                kind: WarningKind::DuplicateId {
                    id: runbook.id,
                    first: first.path.clone(),
                },
            });
            continue;
        }
        by_id.insert(runbook.id.clone(), Arc::new(runbook));
    }
    let mut runbooks: Vec<_> = by_id.into_values().collect();
    drop_duplicate_modes(&mut runbooks, &mut warnings);
    warnings.sort();
    Library { runbooks, warnings }
}

/// Size and time of every file that [`load`] would read.
pub fn fingerprint(folders: &[PathBuf]) -> Fingerprint {
    let files = find(folders, &mut Vec::new())
        .into_iter()
        .filter_map(|file| {
            let metadata = fs::metadata(&file.location).ok()?;
            Some((file.location, (metadata.len(), metadata.modified().ok())))
        })
        .collect();
    Fingerprint { files }
}

struct File {
    id: String,
    /// As shown.
    path: String,
    location: PathBuf,
}

fn find(folders: &[PathBuf], warnings: &mut Vec<Warning>) -> Vec<File> {
    let mut files = Vec::new();
    for folder in folders {
        match fs::canonicalize(folder) {
            Ok(root) => {
                let mut seen = HashSet::from([root.clone()]);
                walk(folder, folder, &root, &mut seen, &mut files, warnings);
            }
            Err(error) => warnings.push(unreadable(folder, &error)),
        }
    }
    files
}

fn walk(
    folder: &Path,
    directory: &Path,
    root: &Path,
    seen: &mut HashSet<PathBuf>,
    files: &mut Vec<File>,
    warnings: &mut Vec<Warning>,
) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            warnings.push(unreadable(directory, &error));
            return;
        }
    };
    let mut locations: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    locations.sort();
    for location in locations {
        // Hidden ones are not pages: `.git`, editors' swap files, and the `..data` of a mounted ConfigMap, whose
        // pages are reached by the links beside it.
        let hidden = location
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        let is_link = location.is_symlink();
        let real = match fs::canonicalize(&location) {
            Ok(real) => real,
            Err(error) => {
                if is_markdown(&location) {
                    warnings.push(unreadable(&location, &error));
                }
                continue;
            }
        };
        let is_folder = real.is_dir();
        if !is_folder && !is_markdown(&location) {
            continue;
        }
        if is_link && !real.starts_with(root) {
            warnings.push(Warning {
                path: location.display().to_string(),
                line: 1,
                kind: WarningKind::LinkOutside,
            });
            continue;
        }
        if is_folder {
            if seen.insert(real) {
                walk(folder, &location, root, seen, files, warnings);
            }
            continue;
        }
        // A pipe or device would make the read wait for ever.
        if !real.is_file() {
            continue;
        }
        files.push(File {
            id: id_below(folder, &location),
            path: location.display().to_string(),
            location,
        });
    }
}

fn is_markdown(location: &Path) -> bool {
    location.extension().is_some_and(|extension| {
        extension.eq_ignore_ascii_case("md") || extension.eq_ignore_ascii_case("markdown")
    })
}

fn id_below(folder: &Path, location: &Path) -> String {
    let below = location.strip_prefix(folder).unwrap_or(location);
    let parts: Vec<_> = below
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    parts.join("/")
}

fn read(file: &File, warnings: &mut Vec<Warning>) -> Option<String> {
    let warning = |line, kind| Warning {
        path: file.path.clone(),
        line,
        kind,
    };
    let too_large =
        fs::metadata(&file.location).is_ok_and(|metadata| metadata.len() > MAX_FILE_BYTES);
    if too_large {
        warnings.push(warning(1, WarningKind::TooLarge));
        return None;
    }
    let bytes = match fs::read(&file.location) {
        Ok(bytes) => bytes,
        Err(error) => {
            warnings.push(unreadable(Path::new(&file.path), &error));
            return None;
        }
    };
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
            Arc::make_mut(runbook).failure_modes.remove(index);
        }
    }
}

#[cfg(test)]
mod tests;
