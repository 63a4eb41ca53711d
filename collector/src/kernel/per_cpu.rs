//! Maps of which every CPU has its own values, so that no addition waits for another. User space
//! makes the entries, and adds up what the CPUs have.

use aya::Pod;
use aya::maps::{Array, PerCpuHashMap, PerCpuValues};

use super::maps::{failed, missing};
use super::{Object, ReadError};

impl Object {
    /// Makes an entry of zeros. `Ok(false)`: the map is full.
    pub fn put_zeros<K: Pod, const N: usize>(
        &mut self,
        map: &str,
        key: K,
    ) -> Result<bool, ReadError> {
        let object = self.name;
        let mut entries = self.per_cpu_mut::<K, N>(map)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(object, map, error))?;
        let zeros = PerCpuValues::try_from(vec![[0_u64; N]; cpus])
            .map_err(|error| failed(object, map, error))?;
        match entries.insert(key, zeros, 0) {
            Ok(()) => Ok(true),
            Err(aya::maps::MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::E2BIG) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed(object, map, error)),
        }
    }

    /// The sum over all CPUs; `None` without an entry.
    pub fn sum_of<K: Pod, const N: usize>(
        &self,
        map: &str,
        key: K,
    ) -> Result<Option<[u64; N]>, ReadError> {
        let data = self.ebpf.map(map).ok_or_else(|| missing(self.name, map))?;
        let entries = PerCpuHashMap::<_, K, [u64; N]>::try_from(data)
            .map_err(|error| failed(self.name, map, error))?;
        let values = match entries.get(&key, 0) {
            Ok(values) => values,
            Err(aya::maps::MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(failed(self.name, map, error)),
        };
        let mut sum = [0; N];
        for value in values.iter() {
            for (sum, value) in sum.iter_mut().zip(value) {
                *sum += value;
            }
        }
        Ok(Some(sum))
    }

    /// Also where there is none.
    pub fn remove_entry<K: Pod, const N: usize>(
        &mut self,
        map: &str,
        key: K,
    ) -> Result<(), ReadError> {
        let _ = self.per_cpu_mut::<K, N>(map)?.remove(&key);
        Ok(())
    }

    /// Sets the one entry of an array.
    pub fn set_number(&mut self, map: &str, value: u64) -> Result<(), ReadError> {
        let object = self.name;
        let data = self.ebpf.map_mut(map).ok_or_else(|| missing(object, map))?;
        Array::try_from(data)
            .and_then(|mut array| array.set(0, value, 0))
            .map_err(|error| failed(object, map, error))
    }

    fn per_cpu_mut<K: Pod, const N: usize>(
        &mut self,
        map: &str,
    ) -> Result<PerCpuHashMap<&mut aya::maps::MapData, K, [u64; N]>, ReadError> {
        let object = self.name;
        let data = self.ebpf.map_mut(map).ok_or_else(|| missing(object, map))?;
        PerCpuHashMap::try_from(data).map_err(|error| failed(object, map, error))
    }
}
