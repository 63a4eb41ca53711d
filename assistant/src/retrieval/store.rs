//! Embeddings kept between runs, by the content they were made from. A file that is damaged, cut short or of another
//! model counts as empty: vectors can always be made again.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::embed::Embedding;

const MAGIC: &[u8; 8] = b"RWEMBED1";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot read {path}: {error}")]
    Read { path: String, error: io::Error },
    #[error("{path} is damaged")]
    Damaged { path: String },
    #[error("cannot write {path}: {error}")]
    Write { path: String, error: io::Error },
}

/// 128 bits of FNV-1a: enough that no two passages ever meet, and the same on every machine.
pub fn hash(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, &byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}

/// One file a model, so that trying another one loses nothing.
pub struct Store {
    path: PathBuf,
    model: u128,
    dimensions: usize,
}

impl Store {
    pub fn new(folder: &Path, model: &str, dimensions: usize) -> Self {
        let model = hash(model.as_bytes());
        Self {
            path: folder.join(format!("embeddings-{model:032x}.bin")),
            model,
            dimensions,
        }
    }

    /// Nothing if there is no file yet.
    pub fn load(&self) -> Result<HashMap<u128, Embedding>, StoreError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
            Err(error) => {
                let path = self.shown();
                return Err(StoreError::Read { path, error });
            }
        };
        self.decode(&bytes)
            .ok_or_else(|| StoreError::Damaged { path: self.shown() })
    }

    /// Whole or not at all: readers see the old file or the new one.
    pub fn save<'a>(
        &self,
        vectors: impl Iterator<Item = (u128, &'a [f32])>,
    ) -> Result<(), StoreError> {
        let bytes = self.encode(vectors);
        let temporary = self
            .path
            .with_extension(format!("{}.tmp", std::process::id()));
        let write = || {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)
        };
        write().map_err(|error| {
            // The error is what counts; a file left behind is overwritten next time.
            let _ = fs::remove_file(&temporary);
            let path = self.shown();
            StoreError::Write { path, error }
        })
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn encode<'a>(&self, vectors: impl Iterator<Item = (u128, &'a [f32])>) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.model.to_le_bytes());
        bytes.extend((self.dimensions as u64).to_le_bytes());
        for (key, vector) in vectors {
            bytes.extend(key.to_le_bytes());
            bytes.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
        }
        let sum = checksum(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    fn decode(&self, bytes: &[u8]) -> Option<HashMap<u128, Embedding>> {
        let (content, sum) = bytes.split_last_chunk::<8>()?;
        if checksum(content) != u64::from_le_bytes(*sum) {
            return None;
        }
        let rest = content.strip_prefix(MAGIC)?;
        let (model, rest) = rest.split_first_chunk::<16>()?;
        let (dimensions, rest) = rest.split_first_chunk::<8>()?;
        let matches = u128::from_le_bytes(*model) == self.model
            && u64::from_le_bytes(*dimensions) == self.dimensions as u64;
        let record = 16 + 4 * self.dimensions;
        if !matches || rest.len() % record != 0 {
            return None;
        }
        let mut vectors = HashMap::with_capacity(rest.len() / record);
        for record in rest.chunks_exact(record) {
            let (key, numbers) = record.split_first_chunk::<16>()?;
            let numbers = numbers.as_chunks::<4>().0;
            let vector = numbers
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect();
            vectors.insert(u128::from_le_bytes(*key), vector);
        }
        Some(vectors)
    }
}

/// Finds bits that a disk or a crash turned; it is no defence against forgers.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mix = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| {
        mix(sum, u64::from_le_bytes(*word))
    });
    rest.iter()
        .fold(sum, |sum, &byte| mix(sum, u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_again_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&folder.path().join("new/folder"), "model", 2);
        assert!(store.load().unwrap().is_empty());
        let vectors = [(hash(b"a"), vec![1.0, 2.0]), (hash(b"b"), vec![-1.0, 0.5])];
        let save = || {
            store.save(
                vectors
                    .iter()
                    .map(|(key, vector)| (*key, vector.as_slice())),
            )
        };
        save().unwrap();
        assert_eq!(store.load().unwrap(), HashMap::from(vectors.clone()));
        assert_eq!(
            fs::read_dir(store.path.parent().unwrap()).unwrap().count(),
            1
        );

        let good = fs::read(&store.path).unwrap();
        for damaged in [
            &good[..good.len() - 3],
            &good[..10],
            &[],
            &[good.as_slice(), &[0]].concat(),
        ] {
            fs::write(&store.path, damaged).unwrap();
            assert!(matches!(store.load(), Err(StoreError::Damaged { .. })));
        }
        for at in [0, 9, 30, 50] {
            let mut turned = good.clone();
            turned[at] ^= 1;
            fs::write(&store.path, turned).unwrap();
            assert!(store.load().is_err(), "bit of byte {at}");
        }
        save().unwrap();
        assert_eq!(store.load().unwrap().len(), 2);

        let other = Store {
            dimensions: 4,
            ..store
        };
        assert!(other.load().is_err());
    }
}
