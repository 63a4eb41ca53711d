//! Reading ring buffers: now and then, or on a thread of its own where records are many.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use aya::maps::{Array, MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zerocopy::FromBytes;

use super::maps::{failed, missing};
use super::{Object, ReadError};

/// However much there is to read, so long a rest is taken.
const REST: Duration = Duration::from_millis(20);

/// The reading end of a ring, taken out of its object.
pub struct Ring(RingBuf<MapData>);

/// The only entry of an array of one, taken out of its object.
pub struct Number(Array<MapData, u64>);

/// Rings when a program asks for its records to be read.
pub struct Bell(OwnedFd);

impl Object {
    /// Can be done once; the programs go on writing.
    pub fn take_ring(&mut self, name: &str) -> Result<Ring, ReadError> {
        let map = (self.ebpf.take_map(name)).ok_or_else(|| missing(self.name, name))?;
        let ring = RingBuf::try_from(map).map_err(|error| failed(self.name, name, error))?;
        Ok(Ring(ring))
    }

    /// As [`Object::number`], for a thread of its own.
    pub fn take_number(&mut self, name: &str) -> Result<Number, ReadError> {
        let map = (self.ebpf.take_map(name)).ok_or_else(|| missing(self.name, name))?;
        let array = Array::try_from(map).map_err(|error| failed(self.name, name, error))?;
        Ok(Number(array))
    }

    /// The only entry of an array of one.
    pub fn number(&self, name: &str) -> u64 {
        let map = self.ebpf.map(name);
        map.and_then(|map| Array::<_, u64>::try_from(map).ok()?.get(&0, 0).ok())
            .unwrap_or(0)
    }

    /// Hands out the records that programs have written to a ring since the last call. Programs
    /// must write with BPF_RB_NO_WAKEUP or whenever they like: nobody waits for them.
    pub fn drain_ring<T: FromBytes>(
        &mut self,
        name: &'static str,
        mut record: impl FnMut(T),
    ) -> Result<(), ReadError> {
        let ring = self.ring(name)?;
        while let Some(bytes) = ring.next() {
            if let Ok(value) = T::read_from_bytes(&bytes) {
                record(value);
            }
        }
        Ok(())
    }

    fn ring(&mut self, name: &'static str) -> Result<&mut RingBuf<MapData>, ReadError> {
        let object = self.name;
        if !self.rings.contains_key(name) {
            let map = (self.ebpf.take_map(name)).ok_or_else(|| missing(object, name))?;
            let ring = RingBuf::try_from(map).map_err(|error| failed(object, name, error))?;
            self.rings.insert(name, ring);
        }
        self.rings
            .get_mut(name)
            .ok_or_else(|| missing(object, name))
    }
}

impl Number {
    pub fn read(&self) -> u64 {
        self.0.get(&0, 0).unwrap_or(0)
    }
}

impl Ring {
    /// What has come since the last time, a record at a time.
    pub fn drain(&mut self, mut read: impl FnMut(&[u8])) {
        while let Some(record) = self.0.next() {
            read(&record);
        }
    }

    pub fn bell(&self) -> io::Result<Bell> {
        self.0.as_fd().try_clone_to_owned().map(Bell)
    }
}

impl Bell {
    /// Returns after `timeout`, or earlier when a program asks for attention.
    pub fn wait(&self, timeout: Duration) {
        thread::sleep(REST);
        let rest = timeout.saturating_sub(REST);
        let milliseconds = u16::try_from(rest.as_millis()).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        // Interrupted, it was no shorter a wait than somebody wanted.
        let _ = poll(&mut fds, PollTimeout::from(milliseconds));
    }
}
