//! Folders → the files that are pages, each with its id.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::unreadable;
use crate::runbook::{Format, Warning, WarningKind};

pub(super) struct File {
    pub(super) id: String,
    pub(super) format: Format,
    /// As shown.
    pub(super) path: String,
    pub(super) location: PathBuf,
}

pub(super) fn find(folders: &[PathBuf], warnings: &mut Vec<Warning>) -> Vec<File> {
    let mut files = Vec::new();
    for folder in folders {
        match fs::canonicalize(folder) {
            Ok(root) => {
                let mut walk = Walk {
                    folder,
                    root: &root,
                    seen: HashSet::new(),
                    files: Vec::new(),
                    warnings,
                };
                walk.directory(folder);
                let mut of_folder = walk.files;
                make_unique(&mut of_folder);
                files.extend(of_folder);
            }
            Err(error) => warnings.push(unreadable(folder, &error)),
        }
    }
    files
}

struct Walk<'a> {
    folder: &'a Path,
    root: &'a Path,
    /// Device and inode of the directories that were entered: links may lead in circles.
    seen: HashSet<(u64, u64)>,
    files: Vec<File>,
    warnings: &'a mut Vec<Warning>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path) {
        let entries = fs::metadata(directory).and_then(|metadata| {
            let is_new = self.seen.insert((metadata.dev(), metadata.ino()));
            if is_new {
                fs::read_dir(directory).map(Some)
            } else {
                Ok(None)
            }
        });
        let entries = match entries {
            Ok(Some(entries)) => entries,
            Ok(None) => return,
            Err(error) => {
                self.warnings.push(unreadable(directory, &error));
                return;
            }
        };
        let mut entries: Vec<fs::DirEntry> = entries.flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            self.entry(&entry);
        }
    }

    fn entry(&mut self, entry: &fs::DirEntry) {
        // Hidden ones are not pages: `.git`, editors' swap files, and the `..data` of a mounted ConfigMap, whose
        // pages are reached by the links beside it.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            return;
        }
        let location = entry.path();
        let format = Format::of(&location);
        let Ok(mut kind) = entry.file_type() else {
            return;
        };
        if kind.is_symlink() {
            let real = fs::canonicalize(&location)
                .and_then(|real| Ok((fs::metadata(&real)?.file_type(), real)));
            let (real_kind, real) = match real {
                Ok(real) => real,
                Err(error) => {
                    if format.is_some() {
                        self.warnings.push(unreadable(&location, &error));
                    }
                    return;
                }
            };
            if !real_kind.is_dir() && format.is_none() {
                return;
            }
            if !real.starts_with(self.root) {
                self.warnings.push(Warning {
                    path: location.display().to_string(),
                    line: 1,
                    kind: WarningKind::LinkOutside,
                });
                return;
            }
            kind = real_kind;
        }
        if kind.is_dir() {
            return self.directory(&location);
        }
        // A pipe or device would make the read wait for ever.
        if let Some(format) = format.filter(|_| kind.is_file()) {
            self.files.push(File {
                id: id_below(self.folder, &location.with_extension("")),
                format,
                path: location.display().to_string(),
                location,
            });
        }
    }
}

/// Of files that differ in their extension only, Markdown comes first and has the short name; the others keep theirs.
fn make_unique(files: &mut [File]) {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| {
        let key = |at: usize| (&files[at].id, files[at].format, &files[at].location);
        key(*a).cmp(&key(*b))
    });
    let later: Vec<usize> = order
        .windows(2)
        .filter(|pair| files[pair[0]].id == files[pair[1]].id)
        .map(|pair| pair[1])
        .collect();
    for at in later {
        if let Some(extension) = files[at].location.extension() {
            let extension = extension.to_string_lossy().into_owned();
            files[at].id = format!("{}.{extension}", files[at].id);
        }
    }
}

fn id_below(folder: &Path, location: &Path) -> String {
    let below = location.strip_prefix(folder).unwrap_or(location);
    let parts: Vec<_> = below
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    parts.join("/")
}
