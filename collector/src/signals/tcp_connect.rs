//! connect() calls that failed before a SYN was sent: see `bpf/tcp_connect.bpf.c`.

use super::Signal;
use super::labels::{Ends, family_of, outward};
use super::tcp_lifecycle::{FAILURES, connect_attempts, connect_failures};
use crate::abi::{TCP_FAILURES, tcp_connect_key};
use crate::elf;
use crate::enrich::Enricher;
use crate::export::{Counter, Registry};
use crate::kernel::{KernelTypes, Object, Refusal};

pub(super) const NAME: &str = "tcp_connect";
static ELF: &[u8] = elf!("tcp_connect");

pub(super) struct TcpConnect {
    attempts: Counter,
    failures: Counter,
}

impl TcpConnect {
    pub(super) fn register(registry: &Registry) -> Self {
        let registry = registry.for_signal(NAME);
        Self {
            attempts: connect_attempts(&registry),
            failures: connect_failures(&registry),
        }
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        let overflow: Vec<_> = (0..TCP_FAILURES)
            .map(|failure| tcp_connect_key {
                cgroup: 0,
                netns: 0,
                failure,
                peer: [0; 16],
            })
            .collect();
        Ok(object.reserve::<_, u64>("tcp_connects", &overflow)?)
    }
}

impl Signal for TcpConnect {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn attach(&mut self, object: &mut Object, _types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        object.attach_system_call("tcp_connect", "syscalls/sys_exit_connect")
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        for (key, calls) in object.drain_retired::<tcp_connect_key, u64>("tcp_connects")? {
            if calls == 0 {
                continue;
            }
            let ends = Ends::of(enricher, key.netns, key.cgroup, key.peer);
            let edge = outward(ends.as_ref());
            let reason = FAILURES.get(key.failure as usize).unwrap_or(&"other");
            self.attempts.add(edge.clone(), calls);
            self.failures
                .add(edge.with(&[reason, family_of(&key.peer)]), calls);
        }
        Self::reserve(object)
    }
}
