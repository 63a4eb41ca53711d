//! The index on disk, so that a start takes no longer than reading it. One file, replaced whole: readers see the old one
//! or the new one, at any time, from any number of processes, and need no right to write. What is damaged, cut short, or
//! of another model or version is not used: everything can be made again from the runbooks.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::codec::{Reader, Writer};
use super::segment::Segment;
use super::snapshot::Made;
use crate::hash::fnv;

const MAGIC: &[u8; 8] = b"RWINDEX\0";

/// Of the file's layout.
const VERSION: u64 = 5;

const BUFFER: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("cannot read {path}: {error}")]
    Read { path: String, error: io::Error },
    #[error("{path} is damaged")]
    Damaged { path: String },
    #[error("{path} is of another version or model")]
    Foreign { path: String },
    #[error("cannot write {path}: {error}")]
    Write { path: String, error: io::Error },
}

/// One file for each model and set of folders: those that take turns would throw out each other's work.
pub(super) struct Store {
    path: PathBuf,
    model: u128,
    program: u128,
}

impl Store {
    pub(super) fn new(cache: &Path, model: &str, folders: &[PathBuf]) -> Self {
        let whole = |folder: &PathBuf| folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let folders: Vec<PathBuf> = folders.iter().map(whole).collect();
        let name = fnv(&[model.as_bytes(), format!("{folders:?}").as_bytes()]);
        Self {
            path: cache.join(format!("index-{name:032x}.bin")),
            model: fnv(&[model.as_bytes()]),
            program: program(),
        }
    }

    /// Nothing if there is no file yet.
    pub(super) fn load(&self) -> Result<Made, StoreError> {
        let path = || self.path.display().to_string();
        let opened = File::open(&self.path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Made::default()),
            Err(error) => {
                let path = path();
                return Err(StoreError::Read { path, error });
            }
        };
        let damaged = || StoreError::Damaged { path: path() };
        let mut reader = Reader::new(BufReader::with_capacity(BUFFER, file), size);
        let mut head = || Some((reader.u64()?, reader.u64()?, reader.u128()?, reader.u128()?));
        let (magic, version, model, program) = head().ok_or_else(damaged)?;
        if magic != u64::from_le_bytes(*MAGIC) || version != VERSION || model != self.model {
            return Err(StoreError::Foreign { path: path() });
        }
        let mut segments = Vec::new();
        while !reader.is_at_end() {
            let segment = Segment::decode(&mut reader).ok_or_else(damaged)?;
            segments.push(Arc::new(segment));
        }
        if !reader.ends_well() {
            return Err(damaged());
        }
        // What a word is and where a page is cut is decided by the program: of another one only the vectors are of use.
        Ok(if program == self.program {
            Made {
                segments,
                vectors: Vec::new(),
            }
        } else {
            Made {
                segments: Vec::new(),
                vectors: segments,
            }
        })
    }

    /// Whole or not at all. False: another process is at it, which will do.
    pub(super) fn save(&self, segments: &[Arc<Segment>]) -> Result<bool, StoreError> {
        let write = || {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let lock = File::create(self.path.with_extension("lock"))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Under the lock, so that one name does: what a crash left behind is overwritten.
            let temporary = self.path.with_extension("tmp");
            let mut writer =
                Writer::new(BufWriter::with_capacity(BUFFER, File::create(&temporary)?));
            writer.u64(u64::from_le_bytes(*MAGIC))?;
            writer.u64(VERSION)?;
            writer.u128(self.model)?;
            writer.u128(self.program)?;
            for segment in segments {
                segment.encode(&mut writer)?;
            }
            let file = writer
                .finish()?
                .into_inner()
                .map_err(|error| error.into_error())?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            if let Some(folder) = self.path.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(true)
        };
        write().map_err(|error| {
            let path = self.path.display().to_string();
            StoreError::Write { path, error }
        })
    }
}

/// Which build this is: the release, and the size and time of the binary for builds between releases.
fn program() -> u128 {
    let file = std::env::current_exe().and_then(fs::metadata);
    let (size, time) = file.map_or((0, 0), |file| {
        let time = file.modified().ok();
        let time = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        (file.len(), time.map_or(0, |time| time.as_nanos()))
    });
    let release = env!("CARGO_PKG_VERSION").as_bytes();
    fnv(&[release, &size.to_le_bytes(), &time.to_le_bytes()])
}

#[cfg(test)]
mod tests {
    use super::super::embed::HashingEmbedder;
    use super::*;
    use crate::runbook::{Runbook, parse};

    fn page(id: &str, source: &str) -> Runbook {
        parse(id, id, source.to_owned()).0
    }

    fn made_of(pages: &[Runbook]) -> Vec<Arc<Segment>> {
        let build = |page: &Runbook| {
            Segment::build(&[page], Some(&HashingEmbedder), &Default::default()).unwrap()
        };
        pages.iter().map(build).map(Arc::new).collect()
    }

    #[test]
    fn what_is_saved_is_read_again_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&folder.path().join("new/folder"), "model", &[]);
        assert!(store.load().unwrap().segments.is_empty());
        let segments = made_of(&[
            page("a", "# A\n\nWords of a.\n\n## More\n\nOf it.\n"),
            page("b", ""),
        ]);
        assert!(store.save(&segments).unwrap());
        assert_eq!(store.load().unwrap().segments, segments);
        let good = fs::read(&store.path).unwrap();
        assert!(store.save(&segments).unwrap());
        assert_eq!(fs::read(&store.path).unwrap(), good);

        for damaged in [
            &good[..good.len() - 3],
            &good[..10],
            &[],
            &[good.as_slice(), &[0]].concat(),
        ] {
            fs::write(&store.path, damaged).unwrap();
            assert!(matches!(store.load(), Err(StoreError::Damaged { .. })));
        }
        for at in (0..good.len()).step_by(13) {
            let mut turned = good.clone();
            turned[at] ^= 1;
            fs::write(&store.path, turned).unwrap();
            assert!(store.load().is_err(), "bit of byte {at}");
        }
    }

    #[test]
    fn another_model_is_not_used_and_of_another_program_only_the_vectors() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "model", &[]);
        let segments = made_of(&[page("a", "# A\n\nWords.\n")]);
        store.save(&segments).unwrap();
        let other_model = Store {
            model: 1,
            path: store.path.clone(),
            ..store
        };
        assert!(matches!(
            other_model.load(),
            Err(StoreError::Foreign { .. })
        ));
        let other_program = Store {
            program: 1,
            ..store
        };
        let made = other_program.load().unwrap();
        assert!(made.segments.is_empty());
        assert_eq!(made.vectors, segments);
    }

    #[test]
    fn while_another_process_saves_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "model", &[]);
        let lock = File::create(store.path.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        assert!(!store.save(&[]).unwrap());
        drop(lock);
        assert!(store.save(&[]).unwrap());
    }
}
