//! ICMP messages that leave a namespace, by type and code: see `bpf/icmp.bpf.c`. Those that come in
//! are in `host/icmp.rs`.

use super::Signal;
use super::labels::{OTHER, other_owner};
use crate::abi::icmp_key;
use crate::elf;
use crate::enrich::{CgroupId, Enricher, NetnsId};
use crate::export::{Counter, Registry, owner};
use crate::host::icmp_messages;
use crate::icmp::{Family, ICMPV6, code_name, type_name};
use crate::kernel::{Direction, KernelTypes, Object, Refusal};

pub(super) const NAME: &str = "icmp_sent";
static ELF: &[u8] = elf!("icmp");

pub(super) struct IcmpSent {
    messages: Counter,
}

impl IcmpSent {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            messages: icmp_messages(&registry.for_signal(NAME)),
        }
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        let overflow = icmp_key {
            netns: 0,
            protocol: 0,
            type_: 0,
            code: 0,
            reserved: 0,
        };
        Ok(object.reserve::<_, u64>("icmp_sent", &[overflow])?)
    }
}

impl Signal for IcmpSent {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn attach(&mut self, object: &mut Object, _types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        object.attach_root_cgroup("icmp_egress", Direction::Egress)
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        for (key, messages) in object.drain_retired::<icmp_key, u64>("icmp_sent")? {
            if messages == 0 {
                continue;
            }
            if key.netns == 0 {
                let labels = other_owner().with(&["sent", OTHER, OTHER, OTHER]);
                self.messages.add(labels, messages);
                continue;
            }
            let family = if key.protocol == ICMPV6 {
                Family::V6
            } else {
                Family::V4
            };
            // Of the namespace and no cgroup: most are sent by the kernel, for nobody in it.
            let labels = owner(&enricher.owner(NetnsId(key.netns), CgroupId(0))).with(&[
                "sent",
                family.as_str(),
                type_name(family, key.type_),
                code_name(family, key.type_, key.code),
            ]);
            self.messages.add(labels, messages);
        }
        Self::reserve(object)
    }
}
