//! Packets that the kernel dropped: see `bpf/packet_drop.bpf.c`.

mod class;

use std::collections::HashMap;

use super::Signal;
use super::labels::{OTHER, address, other_edge, other_owner};
use crate::abi::packet_drop_key;
use crate::elf;
use crate::enrich::{CgroupId, Enricher, NetnsId, Workload};
use crate::export::{Counter, EDGE, Labels, OWNER, Registry, edge, owner};
use crate::kernel::symbols::Symbols;
use crate::kernel::{KernelTypes, Object, Refusal, btf};

pub(super) const NAME: &str = "packet_drop";
static ELF: &[u8] = elf!("packet_drop");

/// Addresses of one kernel function are many; this bounds what we remember of them.
const SITES_REMEMBERED: usize = 4096;

pub(super) struct PacketDrop {
    dropped: Counter,
    reasons: HashMap<u32, String>,
    symbols: Symbols,
    sites: HashMap<u64, &'static str>,
}

impl PacketDrop {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            dropped: registry.for_signal(NAME).counter(
                "dropped_packets",
                "Packets dropped by the kernel in the namespace of an owner, on their way from src to dst",
                &[
                    EDGE,
                    OWNER,
                    &["reason", "site", "class", "protocol", "syn"],
                ],
            ),
            reasons: HashMap::new(),
            symbols: Symbols::default(),
            sites: HashMap::new(),
        }
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        let overflow = packet_drop_key {
            location: 0,
            cgroup: 0,
            netns: 0,
            reason: 0,
            source: [0; 16],
            destination: [0; 16],
            protocol: 0,
            syn: 0,
            reserved: [0; 6],
        };
        Ok(object.reserve::<_, u64>("packet_drops", &[overflow])?)
    }

    fn site(&mut self, location: u64) -> &'static str {
        if let Some(site) = self.sites.get(&location) {
            return site;
        }
        // Only the kernel's own code drops packets, so this stays far below; a module that comes
        // and goes may not fill it.
        if self.sites.len() >= SITES_REMEMBERED {
            self.sites.clear();
        }
        let site = self.symbols.function_at(location).unwrap_or("other");
        self.sites.insert(location, site);
        site
    }

    fn labels(&mut self, key: &packet_drop_key, enricher: &Enricher) -> Labels {
        if key.location == 0 {
            return other_edge()
                .with(&other_owner().values().collect::<Vec<_>>())
                .with(&[OTHER, "other", "error", "other", "false"]);
        }
        let netns = NetnsId(key.netns);
        // Without a namespace an address means nothing.
        let name = |address| match key.netns {
            0 => Workload::unknown(),
            _ => enricher.peer(netns, address),
        };
        let place = match key.netns {
            0 => Workload::unknown(),
            _ => enricher.owner(netns, CgroupId(key.cgroup)),
        };
        let source = name(address(key.source));
        let destination = name(address(key.destination));
        let site = self.site(key.location);
        let reason = (self.reasons.get(&key.reason)).map_or("unknown", String::as_str);
        edge(&source, &destination)
            .with(&owner(&place).values().collect::<Vec<_>>())
            .with(&[
                reason,
                site,
                class::of(reason, site),
                protocol_name(key.protocol),
                if key.syn == 0 { "false" } else { "true" },
            ])
    }
}

impl Signal for PacketDrop {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        let wanted = [("skb_drop_reason", "SKB_DROP_REASON_")];
        let mut names = btf::enum_names(&wanted).unwrap_or_default();
        // Empty before Linux 5.17: then every reason is "unknown" and the site has to tell.
        self.reasons = names.remove("skb_drop_reason").unwrap_or_default();
        self.symbols = Symbols::read(&class::SITES);
        if self.symbols.is_empty() {
            object.note_hidden_symbols();
        }
        let programs = [
            "packet_drop",
            "packet_drop_without_receiver",
            "packet_drop_without_reason",
        ];
        object.attach_tracepoint_variant(types, &programs, "kfree_skb")
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        for (key, packets) in object.drain_retired::<packet_drop_key, u64>("packet_drops")? {
            if packets > 0 {
                let labels = self.labels(&key, enricher);
                self.dropped.add(labels, packets);
            }
        }
        Self::reserve(object)
    }
}

fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        6 => "tcp",
        17 => "udp",
        1 | 58 => "icmp",
        _ => "other",
    }
}
