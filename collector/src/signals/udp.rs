//! UDP datagrams and payload at both ends, and full receive buffers: see `bpf/udp.bpf.c`.

mod flow;

use std::collections::HashMap;

use super::labels::{Ends, address, inward, other_owner, outward};
use super::{Signal, SignalSettings};
use crate::abi::{udp_flow, udp_flow_key, udp_owner_key};
use crate::elf;
use crate::enrich::{CgroupId, Enricher, NetnsId};
use crate::export::{Counter, EDGE, Labels, OWNER, Registry, owner};
use crate::kernel::{Direction, KernelTypes, Object, Refusal};

pub use flow::{UdpFlow, UdpFlows};

pub(super) const NAME: &str = "udp";
static ELF: &[u8] = elf!("udp");

/// The entry that takes what a full map of edges has no room for.
const OVERFLOW_EDGE: udp_flow_key = udp_flow_key {
    socket: 0,
    local: [0; 16],
    peer: [0; 16],
    local_port: 0,
    peer_port: 0,
    netns: 0,
};
const OVERFLOW_OWNER: udp_owner_key = udp_owner_key {
    cgroup: 0,
    netns: 0,
    reserved: 0,
};

pub(super) struct Udp {
    datagrams_sent: Counter,
    datagrams_received: Counter,
    bytes_sent: Counter,
    bytes_received: Counter,
    drops: Counter,
    flows: Option<UdpFlows>,
}

/// Sockets of one owner that talk to one address.
type Edge = (u32, u64, [u8; 16]);

#[derive(Default)]
struct Totals {
    datagrams_sent: u64,
    datagrams_received: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

impl Udp {
    pub(super) fn register(registry: &Registry, settings: &SignalSettings) -> Self {
        let registry = registry.for_signal(NAME);
        let edge = |name, help| registry.counter(name, help, &[EDGE]);
        Self {
            datagrams_sent: edge(
                "udp_datagrams_sent",
                "UDP datagrams sent, counted at the sender",
            ),
            datagrams_received: edge(
                "udp_datagrams_received",
                "UDP datagrams that reached a socket with room for them, counted at the receiver",
            ),
            bytes_sent: edge("udp_bytes_sent", "UDP payload sent, counted at the sender"),
            bytes_received: edge(
                "udp_bytes_received",
                "UDP payload that reached a socket with room for it, counted at the receiver",
            ),
            drops: registry.counter(
                "udp_receive_buffer_drops",
                "UDP datagrams that came to a socket whose receive buffer was full",
                &[OWNER],
            ),
            flows: settings.udp_flows.clone(),
        }
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        object.reserve::<_, udp_flow>("udp_edges", &[OVERFLOW_EDGE])?;
        Ok(object.reserve::<_, u64>("udp_drops", &[OVERFLOW_OWNER])?)
    }

    fn add(&self, enricher: &Enricher, edge: Edge, totals: &Totals) {
        let (netns, cgroup, peer) = edge;
        let ends = Ends::of(enricher, netns, cgroup, peer);
        if totals.datagrams_received > 0 {
            enricher.note_reached(NetnsId(netns), address(peer));
        }
        let add = |counter: &Counter, labels: &Labels, n| {
            if n > 0 {
                counter.add(labels.clone(), n);
            }
        };
        let labels = outward(ends.as_ref());
        add(&self.datagrams_sent, &labels, totals.datagrams_sent);
        add(&self.bytes_sent, &labels, totals.bytes_sent);
        let labels = inward(ends.as_ref());
        add(&self.datagrams_received, &labels, totals.datagrams_received);
        add(&self.bytes_received, &labels, totals.bytes_received);
    }

    fn add_drops(&self, enricher: &Enricher, object: &Object) -> anyhow::Result<()> {
        for (key, drops) in object.drain_retired::<udp_owner_key, u64>("udp_drops")? {
            if drops == 0 {
                continue;
            }
            let labels = match key.netns {
                0 => other_owner(),
                netns => owner(&enricher.owner(NetnsId(netns), CgroupId(key.cgroup))),
            };
            self.drops.add(labels, drops);
        }
        Ok(())
    }
}

impl Signal for Udp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        // First, so that what has no room is never counted as received. Without it, it is.
        let _recorded = object.attach_tracepoint(types, "udp_no_room", "udp_fail_queue_rcv_skb");
        object.attach_root_cgroup("udp_ingress", Direction::Ingress)?;
        object.attach_root_cgroup("udp_egress", Direction::Egress)
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let flows = object.drain_retired::<udp_flow_key, udp_flow>("udp_flows")?;
        let edges = object.drain_retired::<udp_flow_key, udp_flow>("udp_edges")?;
        let mut totals: HashMap<Edge, Totals> = HashMap::new();
        for (key, flow) in flows.iter().chain(&edges) {
            let edge = match flow.netns {
                0 => (0, 0, [0; 16]),
                netns => (netns, flow.cgroup, key.peer),
            };
            let totals = totals.entry(edge).or_default();
            totals.datagrams_sent += flow.datagrams_sent;
            totals.datagrams_received += flow.datagrams_received;
            totals.bytes_sent += flow.bytes_sent;
            totals.bytes_received += flow.bytes_received;
        }
        for (edge, totals) in totals {
            self.add(enricher, edge, &totals);
        }
        self.add_drops(enricher, object)?;
        if let Some(table) = &self.flows {
            table.add(flows.iter().map(UdpFlow::of));
        }
        Self::reserve(object)
    }
}
