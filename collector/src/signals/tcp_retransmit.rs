//! Segments that TCP sends again: see `bpf/tcp_retransmit.bpf.c`.

use super::Signal;
use super::labels::{Ends, outward};
use crate::abi::{RETRANSMIT_FULL_SIZED, RETRANSMIT_KINDS, tcp_retransmit_key};
use crate::elf;
use crate::enrich::Enricher;
use crate::export::{Counter, EDGE, Registry};
use crate::kernel::{KernelTypes, Object, Refusal};

pub(super) const NAME: &str = "tcp_retransmit";
static ELF: &[u8] = elf!("tcp_retransmit");

/// In the order of `enum retransmit_kind`.
const KINDS: [&str; 5] = ["syn", "synack", "fast", "tail_loss_probe", "timeout"];

pub(super) struct TcpRetransmit {
    segments: Counter,
    full_sized: Counter,
}

impl TcpRetransmit {
    pub(super) fn register(registry: &Registry) -> Self {
        let registry = registry.for_signal(NAME);
        Self {
            segments: registry.counter(
                "tcp_retransmitted_segments",
                "TCP segments sent again; the kind says what for: syn, synack, fast after a gap that the receiver told of, tail_loss_probe after silence of about two round trips, timeout after more of it",
                &[EDGE, &["kind"]],
            ),
            full_sized: registry.counter(
                "tcp_full_sized_retransmits",
                "TCP segments of seven eighths at least of what the path was taken to carry, sent again after a timeout; they are among the tcp_retransmitted_segments of that kind",
                &[EDGE],
            ),
        }
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        let overflow: Vec<_> = (0..RETRANSMIT_KINDS)
            .map(|kind| tcp_retransmit_key {
                cgroup: 0,
                netns: 0,
                kind,
                local: [0; 16],
                peer: [0; 16],
            })
            .collect();
        Ok(object.reserve::<_, u64>("tcp_retransmits", &overflow)?)
    }
}

impl Signal for TcpRetransmit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        object.attach_tracepoint(types, "tcp_retransmit", "tcp_retransmit_skb")?;
        // Without it only SYN-ACKs are missing.
        let _ = object.attach_tracepoint(types, "tcp_retransmit_synack", "tcp_retransmit_synack");
        Ok(())
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let retransmits = object.drain_retired::<tcp_retransmit_key, u64>("tcp_retransmits")?;
        for (key, segments) in retransmits {
            if segments == 0 {
                continue;
            }
            let ends = Ends::of(enricher, key.netns, key.cgroup, key.peer);
            let edge = outward(ends.as_ref());
            if key.kind == RETRANSMIT_FULL_SIZED {
                self.full_sized.add(edge, segments);
                continue;
            }
            let kind = KINDS.get(key.kind as usize).unwrap_or(&"other");
            self.segments.add(edge.with(&[kind]), segments);
        }
        Self::reserve(object)
    }
}
