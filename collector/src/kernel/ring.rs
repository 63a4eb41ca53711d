//! Reading ring buffers.

use aya::maps::{MapData, RingBuf};
use zerocopy::FromBytes;

use super::maps::{failed, missing};
use super::{Object, ReadError};

impl Object {
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
