//! Packets that the kernel dropped: see `bpf/packet_drop.bpf.c`.

mod class;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::Signal;
use super::labels::{OTHER, address, other_edge, other_owner};
use crate::abi::{self, packet_drop_key, packet_drop_total};
use crate::elf;
use crate::enrich::{CgroupId, Enricher, FiveTuple, NetnsId, Untranslated, Workload};
use crate::export::{Counter, EDGE, OWNER, Registry, edge_by, owner};
use crate::kernel::symbols::Symbols;
use crate::kernel::{KernelTypes, Object, Refusal, btf, release, version};

pub(super) const NAME: &str = "packet_drop";
static ELF: &[u8] = elf!("packet_drop");

/// Addresses of one kernel function are many; this bounds what we remember of them.
const SITES_REMEMBERED: usize = 4096;

pub(super) struct PacketDrop {
    packets: Counter,
    bytes: Counter,
    reasons: Reasons,
    symbols: Symbols,
    sites: HashMap<u64, &'static str>,
    rules_drop: bool,
}

impl PacketDrop {
    pub(super) fn register(registry: &Registry) -> Self {
        let registry = registry.for_signal(NAME);
        Self {
            packets: registry.counter(
                "dropped_packets",
                "Packets dropped by the kernel in the namespace of an owner, on their way from src to dst",
                &[
                    EDGE,
                    OWNER,
                    &["interface", "reason", "site", "class", "protocol", "syn", "tunnel"],
                ],
            ),
            bytes: registry.counter(
                "dropped_bytes",
                "Size of the packets dropped by the kernel in the namespace of an owner, IP headers included",
                &[OWNER, &["interface", "reason", "class"]],
            ),
            reasons: Reasons::default(),
            symbols: Symbols::default(),
            sites: HashMap::new(),
            rules_drop: true,
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
            tunnel: 0,
            reserved: [0; 5],
            interface: [0; 16],
        };
        Ok(object.reserve::<_, packet_drop_total>("packet_drops", &[overflow])?)
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
        let site = match self.function_at(location) {
            // There it is a rule as well as conntrack.
            Some("nf_hook_slow") if !self.rules_drop => "netfilter",
            Some(site) => site,
            None => "other",
        };
        self.sites.insert(location, site);
        site
    }

    /// The bridge and the firewall are modules, which may come after us: on a node that starts they
    /// do.
    fn function_at(&mut self, location: u64) -> Option<&'static str> {
        let known = self.symbols.function_at(location);
        if known.is_some() || self.symbols.is_empty() || !self.symbols.are_old() {
            return known;
        }
        let symbols = Symbols::read(&class::SITES);
        if !symbols.is_empty() {
            self.symbols = symbols;
            // Another module may be where one was.
            self.sites.clear();
        }
        self.symbols.function_at(location)
    }

    fn is_benign(&mut self, key: &packet_drop_key) -> bool {
        let site = self.site(key.location);
        let reason = class::reason(self.reasons.name(key.reason), site);
        class::of(reason, site, address(key.destination)) == "benign"
    }

    fn add(
        &mut self,
        (key, total): &(packet_drop_key, packet_drop_total),
        hidden: &Untranslated,
        enricher: &Enricher,
    ) {
        if key.location == 0 {
            let labels = other_edge()
                .with(&other_owner().values().collect::<Vec<_>>())
                .with(&["", OTHER, "other", "error", "other", "false", ""]);
            self.packets.add(labels, total.packets);
            self.bytes
                .add(other_owner().with(&["", OTHER, "error"]), total.bytes);
            return;
        }
        let netns = NetnsId(key.netns);
        // Without a namespace an address means nothing.
        let (from, to) = ends(key, total, hidden, enricher);
        let interface = interface_name(&key.interface);
        let site = self.site(key.location);
        let reason = class::reason(self.reasons.name(key.reason), site);
        let class = class::of(reason, site, to);
        // A rule that drops what would open connections to a Service's address is about the Service, which may have nobody
        // behind it any more.
        let meant = match class::is_rule(site) && key.syn != 0 {
            true => Enricher::meant,
            false => Enricher::meant_behind,
        };
        let (source, destination, place) = match key.netns {
            0 => (
                Workload::unknown(),
                Workload::unknown(),
                Workload::unknown(),
            ),
            _ => (
                enricher.peer_behind(netns, to, from),
                meant(enricher, netns, from, to),
                enricher.owner(netns, CgroupId(key.cgroup)),
            ),
        };
        let place = owner(&place);
        let service = enricher.service(to);
        let service = service.as_deref().unwrap_or_default();
        let labels = edge_by(&source, &destination, service)
            .with(&place.values().collect::<Vec<_>>())
            .with(&[
                &interface,
                reason,
                site,
                class,
                protocol_name(key.protocol),
                if key.syn == 0 { "false" } else { "true" },
                tunnel_name(key.tunnel),
            ]);
        self.packets.add(labels, total.packets);
        self.bytes
            .add(place.with(&[&interface, reason, class]), total.bytes);
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
        self.reasons = Reasons::read();
        self.rules_drop = rules_drop(&release());
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
        let drops = object.drain_retired::<packet_drop_key, packet_drop_total>("packet_drops")?;
        let drops: Vec<_> = (drops.into_iter())
            .filter(|(_, total)| total.packets > 0)
            .collect();
        // What healthy hosts drop all the time is not worth a look at connection tracking.
        let matter = (drops.iter()).filter(|(key, _)| !self.is_benign(key));
        let packets: Vec<FiveTuple> = matter
            .flat_map(|(key, total)| samples(key, total))
            .collect();
        let hidden = enricher.untranslated(packets);
        for drop in &drops {
            self.add(drop, &hidden, enricher);
        }
        Self::reserve(object)
    }
}

/// The first of these packets and the latest, where they have ports.
fn samples(
    key: &packet_drop_key,
    total: &packet_drop_total,
) -> impl Iterator<Item = FiveTuple> + use<> {
    let (source, destination, protocol) = (key.source, key.destination, key.protocol);
    let sampled = [total.first_ports, total.latest_ports];
    let packet = move |ports: [u16; 2]| {
        let [from, to] = ports.map(u16::from_be);
        FiveTuple {
            protocol,
            client: SocketAddr::new(address(source), from),
            server: SocketAddr::new(address(destination), to),
        }
    };
    let has_ports = |ports: &[u16; 2]| *ports != [0, 0];
    sampled.into_iter().filter(has_ports).map(packet)
}

/// Between which addresses these packets were, behind what netfilter made of them if all samples agree.
fn ends(
    key: &packet_drop_key,
    total: &packet_drop_total,
    hidden: &Untranslated,
    enricher: &Enricher,
) -> (IpAddr, IpAddr) {
    let behind = |packet: FiveTuple| {
        let (from, to) = hidden.ends(packet);
        // What answers from a Service's address comes from whom its client was sent to.
        let sent_to = enricher.translated(&packet.reversed());
        let answers = sent_to.filter(|_| from == packet.client.ip());
        (answers.map_or(from, |sent_to| sent_to.server.ip()), to)
    };
    let mut found = samples(key, total).map(behind);
    let seen = (address(key.source), address(key.destination));
    match found.next() {
        Some(first) if found.all(|other| other == first) => first,
        _ => seen,
    }
}

/// Names of `enum skb_drop_reason`, by number.
#[derive(Default)]
struct Reasons {
    core: HashMap<u32, String>,
    /// Parts of the kernel with reasons of their own: their number is in the high half.
    subsystems: HashMap<u32, String>,
}

impl Reasons {
    fn read() -> Self {
        let wanted = [
            ("skb_drop_reason", "SKB_DROP_REASON_"),
            ("skb_drop_reason_subsys", "SKB_DROP_REASON_SUBSYS_"),
        ];
        let mut names = btf::enum_names(&wanted).unwrap_or_default();
        Self {
            // Empty before Linux 5.17: then every reason is "unknown" and the site has to tell.
            core: names.remove("skb_drop_reason").unwrap_or_default(),
            subsystems: names.remove("skb_drop_reason_subsys").unwrap_or_default(),
        }
    }

    fn name(&self, reason: u32) -> &str {
        let name = match reason >> 16 {
            0 => self.core.get(&reason),
            // Those names are a module's, which need not be there.
            subsystem => self.subsystems.get(&subsystem),
        };
        name.map_or("unknown", String::as_str)
    }
}

/// Whether a firewall rule drops the packet itself, so that the site says that it was a rule. Before
/// Linux 6.7 it only says so to the hook, which drops for others too.
fn rules_drop(release: &str) -> bool {
    version(release).is_none_or(|version| version >= (6, 7))
}

/// Up to the zero that ends it.
fn interface_name(bytes: &[u8; 16]) -> Cow<'_, str> {
    let length = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..length.unwrap_or(bytes.len())])
}

fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        6 => "tcp",
        17 => "udp",
        1 | 58 => "icmp",
        _ => "other",
    }
}

/// Empty where the packet was in none.
fn tunnel_name(tunnel: u8) -> &'static str {
    match u32::from(tunnel) {
        abi::TUNNEL_VXLAN => "vxlan",
        abi::TUNNEL_GENEVE => "geneve",
        abi::TUNNEL_IP => "ip",
        abi::TUNNEL_GRE => "gre",
        _ => "",
    }
}

#[test]
fn a_reason_of_a_part_of_the_kernel_is_named_after_that_part() {
    let reasons = Reasons {
        core: [(12, "netfilter_drop".to_owned())].into(),
        subsystems: [(2, "openvswitch".to_owned())].into(),
    };
    assert_eq!(reasons.name(12), "netfilter_drop");
    assert_eq!(reasons.name(0x2000c), "openvswitch");
    assert_eq!(reasons.name(0x3000c), "unknown");
    assert_eq!(interface_name(b"eth0\0\0\0\0\0\0\0\0\0\0\0\0"), "eth0");
}

#[test]
fn a_site_names_the_rule_only_where_rules_drop() {
    assert!(rules_drop("6.18.44-generic"));
    assert!(rules_drop("6.7.0"));
    assert!(rules_drop("10.0"));
    assert!(!rules_drop("6.1.192"));
    assert!(!rules_drop("5.15.0-91-generic"));
    assert!(rules_drop(""));
}
