//! RST segments sent and received: see `bpf/tcp_reset.bpf.c`.

use std::collections::HashMap;

use super::Signal;
use super::labels::{Ends, inward, outward};
use crate::abi::{RESET_DIRECTIONS, RESET_REASON_UNKNOWN, RESET_RECEIVED, tcp_reset_key};
use crate::elf;
use crate::enrich::Enricher;
use crate::export::{Counter, EDGE, Registry};
use crate::kernel::{KernelTypes, Object, Refusal, btf};

pub(super) const NAME: &str = "tcp_reset";
static ELF: &[u8] = elf!("tcp_reset");

/// What a received reset met, in the order of `enum reset_met`.
const MET: [&str; 7] = [
    "connecting",
    "open",
    "peer_closed",
    "closed",
    "answered",
    "unused",
    "answering",
];

pub(super) struct TcpReset {
    resets: Counter,
    reasons: HashMap<u32, String>,
}

impl TcpReset {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            resets: registry.for_signal(NAME).counter(
                "tcp_resets",
                "RST segments, from the end that sent them; the reason of one received is what it met",
                &[EDGE, &["direction", "reason"]],
            ),
            reasons: HashMap::new(),
        }
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        let overflow: Vec<_> = (0..RESET_DIRECTIONS)
            .map(|direction| tcp_reset_key {
                cgroup: 0,
                netns: 0,
                direction,
                reason: RESET_REASON_UNKNOWN,
                reserved: 0,
                local: [0; 16],
                peer: [0; 16],
            })
            .collect();
        Ok(object.reserve::<_, u64>("tcp_resets", &overflow)?)
    }
}

impl Signal for TcpReset {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        let wanted = [("sk_rst_reason", "SK_RST_REASON_")];
        let mut names = btf::enum_names(&wanted).unwrap_or_default();
        // Empty on kernels that give no reason.
        self.reasons = names.remove("sk_rst_reason").unwrap_or_default();
        let sent = object.attach_tracepoint(types, "tcp_send_reset", "tcp_send_reset");
        let received = object.attach_tracepoint(types, "tcp_receive_reset", "tcp_receive_reset");
        // One of the two is better than none.
        sent.or(received)
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        for (key, resets) in object.drain_retired::<tcp_reset_key, u64>("tcp_resets")? {
            if resets == 0 {
                continue;
            }
            let ends = Ends::of(enricher, key.netns, key.cgroup, key.peer);
            let labels = if key.direction == RESET_RECEIVED {
                let met = MET.get(key.reason as usize).unwrap_or(&"unknown");
                inward(ends.as_ref()).with(&["received", met])
            } else {
                let reason = (self.reasons.get(&key.reason)).map_or("unknown", String::as_str);
                outward(ends.as_ref()).with(&["sent", reason])
            };
            self.resets.add(labels, resets);
        }
        Self::reserve(object)
    }
}
