//! ICMP messages that leave a namespace, by type and code, and hosts that are pinged in vain: see
//! `bpf/icmp.bpf.c`. Messages that come in are in `host/icmp.rs`.

mod sweep;

use super::labels::{OTHER, address, other_owner};
use super::{Signal, SignalSettings};
use crate::abi::{icmp_key, ping, ping_key};
use crate::elf;
use crate::enrich::{CgroupId, Enricher, NetnsId};
use crate::export::{Counter, Registry, owner};
use crate::host::icmp_messages;
use crate::icmp::{Family, ICMPV6, code_name, type_name};
use crate::kernel::{Direction, KernelTypes, Object, Refusal, monotonic_nanoseconds};
use crate::scan::{Attempt, Detector, Means, Outcome, Party};
use sweep::{Pinged, Unanswered};

pub(super) const NAME: &str = "icmp_sent";
static ELF: &[u8] = elf!("icmp");

pub(super) struct IcmpSent {
    messages: Counter,
    unanswered: Unanswered,
    detector: Detector,
}

impl IcmpSent {
    pub(super) fn register(registry: &Registry, settings: &SignalSettings) -> Self {
        Self {
            messages: icmp_messages(&registry.for_signal(NAME)),
            unanswered: Unanswered::default(),
            detector: settings.detector.clone(),
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
        object.reserve::<_, u64>("icmp_sent", &[overflow])?;
        let overflow = ping_key {
            netns: 0,
            source: [0; 16],
            destination: [0; 16],
        };
        Ok(object.reserve::<_, ping>("pings", &[overflow])?)
    }

    fn take_pings(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let at = monotonic_nanoseconds();
        for (key, ping) in object.drain_retired::<ping_key, ping>("pings")? {
            if key.netns == 0 {
                continue;
            }
            let pinged = Pinged {
                netns: NetnsId(key.netns),
                source: address(key.source),
                host: address(key.destination),
            };
            self.unanswered.take(pinged, ping.answered > 0, at);
        }
        for pinged in self.unanswered.overdue(at) {
            let party = |address| Party {
                workload: enricher.peer(pinged.netns, address),
                address,
            };
            self.detector.observe(&Attempt {
                source: party(pinged.source),
                destination: party(pinged.host),
                means: Means::Ping,
                port: 0,
                outcome: Outcome::Failed,
                count: 1,
                at,
            });
        }
        Ok(())
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
        // Answers first: a ping whose answer nobody watches for would be one in vain.
        object.attach_root_cgroup("icmp_ingress", Direction::Ingress)?;
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
        self.take_pings(object, enricher)?;
        Self::reserve(object)
    }
}
