//! Reading ring buffers: now and then, or on a thread of its own where records are many.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, RingBuf};
use aya::programs::{CgroupSkb, ProgramError};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use zerocopy::FromBytes;

use super::maps::{failed, missing};
use super::{Object, ReadError, syscall};

/// The reading end of a ring, taken out of its object.
pub struct Ring {
    buffer: RingBuf<MapData>,
    /// In bytes.
    capacity: u32,
}

/// Overwrites what a ring held: the kernel lets user space read a ring and not write to it, and what
/// was read stays until as much has come again as the ring holds.
pub struct Eraser {
    program: OwnedFd,
    /// Runs that it takes to go round the ring once.
    runs: u32,
}

/// The only entry of an array of one, taken out of its object.
pub struct Number(Array<MapData, u64>);

/// Bytes of a ring that one run of a program for an [`Eraser`] takes: a record with its header.
const ERASED_AT_ONCE: u32 = 4096;
/// Of a ring's room, the share that is taken away for a moment.
const SHARE: u32 = 16;

/// Rings when a program asks for its records to be read, and not because there are some: so it is
/// for the program to say how often.
pub struct Bell(Epoll);

impl Object {
    /// Can be done once; the programs go on writing.
    pub fn take_ring(&mut self, name: &str) -> Result<Ring, ReadError> {
        let map = (self.ebpf.take_map(name)).ok_or_else(|| missing(self.name, name))?;
        let Map::RingBuf(data) = &map else {
            return Err(missing(self.name, name));
        };
        let info = data.info();
        let capacity = (info.map_err(|error| failed(self.name, name, error))?).max_entries();
        let buffer = RingBuf::try_from(map).map_err(|error| failed(self.name, name, error))?;
        Ok(Ring { buffer, capacity })
    }

    /// `program` must write a record of zeros to the ring that [`Object::take_ring`] gave, and
    /// return 0 if it could not.
    pub fn take_eraser(&mut self, program: &str, ring: &Ring) -> Result<Eraser, ProgramError> {
        let eraser: &mut CgroupSkb = self.program(program)?;
        eraser.load()?;
        let program = eraser.fd()?.as_fd().try_clone_to_owned();
        Ok(Eraser {
            program: program.map_err(ProgramError::IOError)?,
            runs: ring.capacity.div_ceil(ERASED_AT_ONCE) + 1,
        })
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
        while let Some(record) = self.buffer.next() {
            read(&record);
        }
    }

    pub fn bell(&self) -> io::Result<Bell> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake_ups = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(self.buffer.as_fd(), EpollEvent::new(wake_ups, 0))?;
        Ok(Bell(epoll))
    }
}

impl Eraser {
    /// Leaves nothing in the ring of what was there. `drain` must take out all that comes, and is
    /// called more than once; what programs write meanwhile is among it.
    pub fn erase(&self, mut drain: impl FnMut()) -> io::Result<()> {
        let at_once = (self.runs / SHARE).max(1);
        let mut left = self.runs;
        while left > 0 {
            let runs = left.min(at_once);
            if syscall::run_program(self.program.as_fd(), runs)? == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            drain();
            left -= runs;
        }
        Ok(())
    }
}

impl Bell {
    /// Returns after `timeout`, or earlier when a program asks for attention.
    pub fn wait(&self, timeout: Duration) {
        let milliseconds = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
        let mut event = [EpollEvent::empty()];
        // Interrupted, it was no shorter a wait than somebody wanted.
        let _ = self.0.wait(&mut event, EpollTimeout::from(milliseconds));
    }
}
