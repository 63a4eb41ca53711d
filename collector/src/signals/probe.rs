//! Attempts to connect that have no socket here, and what they add up to: see `bpf/probe.bpf.c` and [`crate::scan`].

use super::labels::{address, other_edge};
use super::{Signal, SignalSettings};
use crate::abi::{PROBE_DATAGRAM, PROBE_HALF_OPEN, PROBE_SYN, probe_key};
use crate::elf;
use crate::enrich::{Enricher, NetnsId, Workload};
use crate::export::{Counter, EDGE, Labels, Registry, edge};
use crate::kernel::{KernelTypes, Object, Refusal, monotonic_nanoseconds};
use crate::scan::{Attempt, Detector, Event, Means, Outcome, Party};

pub(super) const NAME: &str = "probe";
static ELF: &[u8] = elf!("probe");

/// In the order of `enum probe_kind`; the first and the last two are not odd.
const KINDS: [&str; 8] = [
    "syn",
    "null",
    "fin",
    "xmas",
    "syn_fin",
    "other",
    "half_open",
    "datagram",
];

fn is_odd(kind: u16) -> bool {
    !matches!(
        u32::from(kind),
        PROBE_SYN | PROBE_HALF_OPEN | PROBE_DATAGRAM
    )
}

/// Before a scan's other end: it has many.
const MANY: &str = "~many";

const OVERFLOW: probe_key = probe_key {
    netns: 0,
    kind: 0,
    port: 0,
    source: [0; 16],
    destination: [0; 16],
};

pub(super) struct Probe {
    odd_packets: Counter,
    events: Counter,
    detector: Detector,
}

impl Probe {
    pub(super) fn register(registry: &Registry, settings: &SignalSettings) -> Self {
        let registry = registry.for_signal(NAME);
        Self {
            odd_packets: registry.counter(
                "tcp_odd_packets",
                "Dropped TCP packets with flags that no connection has",
                &[EDGE, &["flags"]],
            ),
            events: registry.counter(
                "security_events",
                "Scans and floods that began; /api/security has their addresses",
                &[EDGE, &["kind"]],
            ),
            detector: settings.detector.clone(),
        }
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        Ok(object.reserve::<_, u64>("probes", &[OVERFLOW])?)
    }

    fn count(&self, key: &probe_key, packets: u64, enricher: &Enricher) {
        let kind = usize::from(key.kind);
        let name = KINDS.get(kind).copied().unwrap_or("other");
        if key.netns == 0 {
            if is_odd(key.kind) {
                self.odd_packets.add(other_edge().with(&[name]), packets);
            }
            return;
        }
        let party = |bytes| {
            let address = address(bytes);
            Party {
                workload: enricher.peer(NetnsId(key.netns), address),
                address,
            }
        };
        let (source, destination) = (party(key.source), party(key.destination));
        let outcome = match u32::from(key.kind) {
            PROBE_SYN | PROBE_DATAGRAM => Outcome::Failed,
            PROBE_HALF_OPEN => Outcome::HalfOpen,
            _ => {
                let labels = edge(&source.workload, &destination.workload).with(&[name]);
                self.odd_packets.add(labels, packets);
                Outcome::Odd(name)
            }
        };
        self.detector.observe(&Attempt {
            source,
            destination,
            means: match u32::from(key.kind) {
                PROBE_DATAGRAM => Means::Udp,
                _ => Means::Tcp,
            },
            port: key.port,
            outcome,
            count: packets,
            at: monotonic_nanoseconds(),
        });
    }
}

/// The workloads of an event; an end of which there are many has that for a name.
fn labels(event: &Event) -> Labels {
    let many = || Workload::new(MANY, MANY, crate::enrich::Kind::Unknown);
    let end = |party: &Option<Party>| {
        party
            .as_ref()
            .map_or_else(many, |party| party.workload.clone())
    };
    edge(&end(&event.source), &end(&event.destination)).with(&[event.kind])
}

impl Signal for Probe {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        let dropped = object.attach_tracepoint_variant(
            types,
            &[
                "probe_dropped",
                "probe_dropped_without_receiver",
                "probe_dropped_without_reason",
            ],
            "kfree_skb",
        );
        let half_open = object.attach_tracepoint(types, "probe_half_open", "tcp_retransmit_synack");
        // One of the two is better than none.
        dropped.or(half_open)
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        for (key, packets) in object.drain_retired::<probe_key, u64>("probes")? {
            if packets > 0 {
                self.count(&key, packets, enricher);
            }
        }
        for event in self.detector.take_fresh(monotonic_nanoseconds()) {
            tracing::warn!(
                kind = event.kind,
                source = ?event.source.as_ref().map(|party| party.address),
                destination = ?event.destination.as_ref().map(|party| party.address),
                port = event.port,
                count = event.count,
                "scan or flood"
            );
            self.events.add(labels(&event), 1);
        }
        Self::reserve(object)
    }

    fn report(&self) -> Option<serde_json::Value> {
        let events = self.detector.events(monotonic_nanoseconds());
        serde_json::to_value(events).ok()
    }
}
