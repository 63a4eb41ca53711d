//! Reading what programs have counted, and running iterators.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::{Array, Map};
use aya::programs::Iter;
use serde::Serialize;
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Object, syscall};

/// Entries per system call. Grows for a map with a longer hash chain.
const BATCH: usize = 512;

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("`{object}` has no {what}")]
    Missing { object: &'static str, what: String },
    #[error("cannot read {what} of `{object}`")]
    Kernel {
        object: &'static str,
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How full a map was.
#[derive(Clone, Debug, Serialize)]
pub struct MapFill {
    /// Of a pair, without the number.
    pub map: String,
    pub entries: usize,
    pub capacity: u32,
}

impl Object {
    /// Makes the programs write to the other map of each pair. Only after
    /// [`super::wait_for_programs`] may the retired ones be drained.
    pub fn swap(&mut self) -> Result<(), ReadError> {
        let next = 1 - self.active;
        let name = self.name;
        // An object that counts nothing has no maps to swap.
        let Some(map) = self.ebpf.map_mut("active") else {
            return Ok(());
        };
        Array::try_from(map)
            .and_then(|mut map| map.set(0, next, 0))
            .map_err(|error| failed(name, "active", error))?;
        self.active = next;
        Ok(())
    }

    /// Sees to it that both maps of a pair have entries under `keys`: there additions go when the
    /// map is full. To be called before programs are attached and after the pair is drained.
    pub fn reserve<K, V>(&self, pair: &str, keys: &[K]) -> Result<(), ReadError>
    where
        K: IntoBytes + Immutable,
        V: FromBytes,
    {
        let empty = vec![0; size_of::<V>()];
        for which in [0, 1] {
            let map = format!("{pair}_{which}");
            for key in keys {
                match syscall::add(self.map(&map)?, key.as_bytes(), &empty) {
                    Ok(()) => {}
                    // It is there, or programs have filled the map before it could be.
                    Err(error)
                        if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::E2BIG)) => {}
                    Err(error) => return Err(failed(self.name, &map, error)),
                }
            }
        }
        Ok(())
    }

    /// Empties the retired map of a pair.
    pub fn drain_retired<K, V>(&self, pair: &str) -> Result<Vec<(K, V)>, ReadError>
    where
        K: FromBytes,
        V: FromBytes,
    {
        self.drain(&format!("{pair}_{}", 1 - self.active))
    }

    /// Empties a map that no program writes to now.
    pub fn drain<K, V>(&self, name: &str) -> Result<Vec<(K, V)>, ReadError>
    where
        K: FromBytes,
        V: FromBytes,
    {
        let map = self.map(name)?;
        let mut batch = BATCH;
        let mut entries = Vec::new();
        loop {
            let mut keys = vec![0; batch * size_of::<K>()];
            let mut values = vec![0; batch * size_of::<V>()];
            let (count, last) = match syscall::take_batch(map, &mut keys, &mut values, batch) {
                Ok(taken) => taken,
                // One bucket of the hash holds more than this.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && batch < 1 << 20 => {
                    batch *= 2;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(self.name, name, error)),
            };
            let keys = keys.chunks_exact(size_of::<K>());
            let values = values.chunks_exact(size_of::<V>());
            for (key, value) in keys.zip(values).take(count) {
                if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
                    entries.push((key, value));
                }
            }
            if last {
                self.note_fill(name, entries.len());
                return Ok(entries);
            }
        }
    }

    /// What a map held when it was looked at.
    pub fn note_fill(&self, map: &str, entries: usize) {
        let pair = map.strip_suffix("_0").or_else(|| map.strip_suffix("_1"));
        let name = pair.unwrap_or(map).to_owned();
        self.fill().insert(name, entries);
    }

    /// Every map that was looked at. Of a pair, what it held when it was emptied.
    pub fn maps(&self) -> Vec<MapFill> {
        let describe = |(map, &entries): (&String, &usize)| {
            let found = (self.ebpf.map(map)).or_else(|| self.ebpf.map(&format!("{map}_0")));
            Some(MapFill {
                map: map.clone(),
                entries,
                capacity: capacity(found?)?,
            })
        };
        self.fill().iter().filter_map(describe).collect()
    }

    /// Additions that found their map full since the object was loaded.
    pub fn insert_failures(&self) -> u64 {
        self.counted("insert_failures")
    }

    /// The one number in an array that counts something.
    pub fn counted(&self, name: &str) -> u64 {
        self.ebpf
            .map(name)
            .and_then(|map| Array::<_, u64>::try_from(map).ok()?.get(&0, 0).ok())
            .unwrap_or(0)
    }

    /// Entries of a map that programs go on using, and a way to remove some of them.
    pub fn retain<const K: usize, const V: usize>(
        &mut self,
        name: &str,
        mut keep: impl FnMut(&[u8; K], &[u8; V]) -> bool,
    ) -> Result<(), ReadError> {
        let object = self.name;
        let map = self
            .ebpf
            .map_mut(name)
            .ok_or_else(|| missing(object, name))?;
        let mut map = aya::maps::HashMap::<_, [u8; K], [u8; V]>::try_from(map)
            .map_err(|error| failed(object, name, error))?;
        let keys: Vec<_> = map.keys().collect::<Result<_, _>>().unwrap_or_default();
        let found = keys.len();
        for key in keys {
            // Gone in the meantime: an answer came.
            let Ok(value) = map.get(&key, 0) else {
                continue;
            };
            if !keep(&key, &value) {
                let _ = map.remove(&key);
            }
        }
        self.note_fill(name, found);
        Ok(())
    }

    /// One value of a map that programs go on using; `None` if it is not there.
    pub fn get<const K: usize, const V: usize>(
        &self,
        name: &str,
        key: &[u8; K],
    ) -> Option<[u8; V]> {
        let map = self.ebpf.map(name)?;
        let map = aya::maps::HashMap::<_, [u8; K], [u8; V]>::try_from(map).ok()?;
        map.get(key, 0).ok()
    }

    /// Runs a loaded iterator over all open files, and returns what it wrote.
    pub fn run_iterator(&mut self, program: &str) -> Result<Vec<u8>, ReadError> {
        let name = self.name;
        let iterator: &mut Iter = self
            .ebpf
            .program_mut(program)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| missing(name, program))?;
        let link = iterator
            .attach()
            .and_then(|link| iterator.take_link(link))
            .map_err(|error| failed(name, program, error))?;
        let file = link
            .into_file()
            .map_err(|error| failed(name, program, error))?;
        read(file).map_err(|error| failed(name, program, error))
    }

    /// Runs a loaded iterator over the sockets of a socket-storage map.
    pub fn run_socket_iterator(&self, program: &str, map: &str) -> Result<Vec<u8>, ReadError> {
        self.run_pass(program, Some(self.map(map)?))
    }

    /// Runs a loaded iterator over the TCP sockets of the calling thread's network namespace.
    pub fn run_namespace_iterator(&self, program: &str) -> Result<Vec<u8>, ReadError> {
        self.run_pass(program, None)
    }

    fn run_pass(&self, program: &str, map: Option<BorrowedFd<'_>>) -> Result<Vec<u8>, ReadError> {
        let iterator: &Iter = self
            .ebpf
            .program(program)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| missing(self.name, program))?;
        let fd = iterator
            .fd()
            .map_err(|error| failed(self.name, program, error))?;
        let file = syscall::open_iterator(fd.as_fd(), map)
            .map_err(|error| failed(self.name, program, error))?;
        read(file).map_err(|error| failed(self.name, program, error))
    }

    fn map(&self, name: &str) -> Result<BorrowedFd<'_>, ReadError> {
        match self.ebpf.map(name) {
            Some(Map::HashMap(data) | Map::SkStorage(data)) => Ok(data.fd().as_fd()),
            _ => Err(missing(self.name, name)),
        }
    }
}

fn capacity(map: &Map) -> Option<u32> {
    let data = match map {
        Map::HashMap(data) | Map::PerCpuHashMap(data) => data,
        Map::LruHashMap(data) | Map::PerCpuLruHashMap(data) => data,
        _ => return None,
    };
    Some(data.info().ok()?.max_entries())
}

fn read(mut file: File) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(output),
            Ok(length) => output.extend_from_slice(&chunk[..length]),
            // The kernel takes a breath after a million objects without output.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn missing(object: &'static str, what: &str) -> ReadError {
    ReadError::Missing {
        object,
        what: format!("`{what}`"),
    }
}

pub(super) fn failed(
    object: &'static str,
    what: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> ReadError {
    ReadError::Kernel {
        object,
        what: format!("`{what}`"),
        source: Box::new(source),
    }
}
