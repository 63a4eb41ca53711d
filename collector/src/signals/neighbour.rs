//! Neighbours that did not answer: see `bpf/neighbour.bpf.c`. What the tables hold is in
//! `host/neighbour.rs`.

use super::Signal;
use super::labels::{OTHER, other_owner};
use crate::abi::neighbour_key;
use crate::elf;
use crate::enrich::{CgroupId, Enricher, NetnsId};
use crate::export::{Counter, OWNER, Registry, owner};
use crate::kernel::{KernelTypes, Object, Refusal};

pub(super) const NAME: &str = "neighbour";
static ELF: &[u8] = elf!("neighbour");

pub(super) struct Neighbour {
    failures: Counter,
}

impl Neighbour {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            failures: registry.for_signal(NAME).counter(
                "neighbour_failures",
                "Times that the kernel gave up asking for a neighbour's link-layer address",
                &[OWNER, &["interface"]],
            ),
        }
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        let overflow = neighbour_key {
            netns: 0,
            interface: [0; 16],
        };
        Ok(object.reserve::<_, u64>("neighbour_failures", &[overflow])?)
    }
}

impl Signal for Neighbour {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        object.attach_tracepoint(types, "neighbour_failed", "neigh_timer_handler")
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let failures = object.drain_retired::<neighbour_key, u64>("neighbour_failures")?;
        for (key, failures) in failures.into_iter().filter(|(_, failures)| *failures > 0) {
            let labels = match key.netns {
                0 => other_owner().with(&[OTHER]),
                netns => owner(&enricher.owner(NetnsId(netns), CgroupId(0)))
                    .with(&[&interface_name(&key.interface)]),
            };
            self.failures.add(labels, failures);
        }
        Self::reserve(object)
    }
}

fn interface_name(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}
