//! Loaded BPF programs: load, attach, read. Hands out bytes and integers and does not know what
//! they mean. The only user of aya.

mod attach;
pub mod btf;
mod interface;
mod maps;
mod per_cpu;
mod release;
mod ring;
pub mod statistics;
pub mod symbols;
mod syscall;
mod system_call;
mod traffic_control;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{MapData, RingBuf};
use aya::{Btf, Ebpf, EbpfLoader};
use thiserror::Error;

pub use attach::{Direction, HookStatus, IteratorKind, Refusal};
pub use interface::{Attachment, Tap, Way, remove_stale_filters};
pub use maps::{MapFill, ReadError};
pub use release::{release, version};
pub use ring::{Bell, Eraser, Number, Ring};
pub use syscall::{
    keep_capabilities, monotonic_nanoseconds, release_memory, share_one_heap, tick_nanoseconds,
    wait_for_programs,
};

/// A compiled `bpf/<stem>.bpf.c`.
#[macro_export]
macro_rules! elf {
    ($stem:literal) => {
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/", $stem, ".bpf.o"))
    };
}

/// What the running kernel says of its own types. Large, and only needed while programs are loaded.
pub struct KernelTypes {
    btf: Btf,
}

impl KernelTypes {
    pub fn read() -> Result<Self, LoadError> {
        let btf = Btf::from_sys_fs().map_err(|error| LoadError::KernelTypes(error.into()))?;
        Ok(Self { btf })
    }
}

/// One loaded object, its attached programs and its maps.
pub struct Object {
    name: &'static str,
    ebpf: Ebpf,
    /// Those that were read from, and stay mapped.
    rings: HashMap<&'static str, RingBuf<MapData>>,
    hooks: Vec<HookStatus>,
    /// Which of each pair of maps the programs write to now.
    active: u32,
    /// What keeps programs attached that aya did not attach.
    links: Vec<OwnedFd>,
    /// Entries that a map, or the retired one of a pair, held when it was last looked at.
    fill: Mutex<BTreeMap<String, usize>>,
}

/// Upper bounds of a histogram's slots, for programs that include `histogram.bpf.h`.
pub struct Bounds {
    /// Of the array in the program.
    pub name: &'static str,
    /// Ascending, in the unit of what the program measures.
    pub values: Vec<u64>,
}

impl Bounds {
    /// As the programs read them: HISTOGRAM_BOUNDS entries, those that are not used beyond reach.
    fn padded(&self) -> Vec<u64> {
        let mut values = self.values.clone();
        values.truncate(HISTOGRAM_BOUNDS - 1);
        values.resize(HISTOGRAM_BOUNDS, i64::MAX.cast_unsigned());
        values
    }
}

const HISTOGRAM_BOUNDS: usize = 32;

/// Nothing of an object could be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("cannot read the kernel's types (/sys/kernel/btf/vmlinux)")]
    KernelTypes(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot load `{object}`")]
    Object {
        object: &'static str,
        #[source]
        source: Box<aya::EbpfError>,
    },
}

impl Object {
    /// Makes the maps; programs are loaded when they are attached. `capacity` changes the size of
    /// maps by name; that of a pair, both.
    pub fn load(
        name: &'static str,
        elf: &[u8],
        types: &KernelTypes,
        capacity: &BTreeMap<String, u32>,
        bounds: &[Bounds],
    ) -> Result<Self, LoadError> {
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&types.btf));
        let sizes: Vec<(String, u32)> = capacity
            .iter()
            .flat_map(|(map, &entries)| {
                ["", "_0", "_1"].map(|suffix| (format!("{map}{suffix}"), entries))
            })
            .collect();
        for (map, entries) in &sizes {
            loader.map_max_entries(map, *entries);
        }
        let globals: Vec<_> = (bounds.iter())
            .map(|bounds| (bounds.name, bounds.padded()))
            .collect();
        for (name, values) in &globals {
            loader.override_global(name, values.as_slice(), true);
        }
        let ebpf = loader.load(elf).map_err(|source| LoadError::Object {
            object: name,
            source: Box::new(source),
        })?;
        Ok(Self {
            name,
            ebpf,
            rings: HashMap::new(),
            hooks: Vec::new(),
            active: 0,
            links: Vec::new(),
            fill: Mutex::default(),
        })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    fn fill(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.fill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every hook that was tried, with why it is not attached if it is not.
    pub fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }
}

/// Where cgroup2 is mounted; also where both versions are in use.
fn cgroup2_mount() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let path = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| path.to_owned())
    })
}
