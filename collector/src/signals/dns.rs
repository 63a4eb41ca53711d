//! DNS queries, answers, time-outs and latency at the client: see `bpf/dns.bpf.c`.

use std::collections::HashMap;
use std::time::Duration;

use zerocopy::FromBytes as _;

use super::labels::{Ends, outward};
use super::{Signal, SignalSettings};
use crate::abi::{dns_edge, dns_edge_key, dns_pending, dns_pending_key};
use crate::elf;
use crate::enrich::Enricher;
use crate::export::{Buckets, Counter, EDGE, Histogram, Labels, Registry};
use crate::kernel::{Bounds, Direction, KernelTypes, Object, Refusal, monotonic_nanoseconds};

pub(super) const NAME: &str = "dns";
static ELF: &[u8] = elf!("dns");

/// In the order of `enum dns_rcode`.
const RCODES: [&str; 7] = [
    "noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other",
];

pub(super) struct Dns {
    queries: Counter,
    responses: Counter,
    duration: Histogram,
    timeouts: Counter,
    truncated: Counter,
    timeout: Duration,
}

impl Dns {
    pub(super) fn register(registry: &Registry, settings: &SignalSettings) -> Self {
        let registry = registry.for_signal(NAME);
        Self {
            queries: registry.counter(
                "dns_queries",
                "DNS queries sent, repeated ones included",
                &[EDGE, &["qtype", "protocol"]],
            ),
            responses: registry.counter(
                "dns_responses",
                "DNS answers to queries that were waiting for one",
                &[EDGE, &["qtype", "rcode", "protocol"]],
            ),
            duration: registry.histogram(
                "dns_query_duration_seconds",
                "Time from the first DNS query for something to its first answer",
                &[EDGE],
                Buckets::exponential(250e-6, 2.0, 16),
            ),
            timeouts: registry.counter(
                "dns_timeouts",
                "DNS queries that no answer came to",
                &[EDGE],
            ),
            truncated: registry.counter(
                "dns_truncated_responses",
                "DNS answers that were cut because they did not fit a datagram",
                &[EDGE],
            ),
            timeout: settings.dns_timeout,
        }
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        let overflow = [6, 17].map(|protocol| dns_edge_key {
            cgroup: 0,
            netns: 0,
            qtype: 0,
            protocol,
            reserved: 0,
            client: [0; 16],
            server: [0; 16],
        });
        Ok(object.reserve::<_, dns_edge>("dns_edges", &overflow)?)
    }

    fn count_timeouts(&self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let now = monotonic_nanoseconds();
        let timeout = u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX);
        let mut unanswered: HashMap<Labels, u64> = HashMap::new();
        const KEY: usize = size_of::<dns_pending_key>();
        const VALUE: usize = size_of::<dns_pending>();
        object.retain::<KEY, VALUE>("dns_pending", |_, bytes| {
            let Ok(pending) = dns_pending::read_from_bytes(bytes) else {
                return true;
            };
            if now.saturating_sub(pending.last_ns) < timeout {
                return true;
            }
            let key = pending.edge;
            let ends = Ends::of(enricher, key.netns, key.cgroup, key.server);
            *unanswered.entry(outward(ends.as_ref())).or_default() += u64::from(pending.unanswered);
            false
        })?;
        for (labels, n) in unanswered {
            self.timeouts.add(labels, n);
        }
        Ok(())
    }
}

impl Signal for Dns {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn bounds(&self) -> Vec<Bounds> {
        vec![Bounds {
            name: "dns_query_bounds",
            values: self.duration.bounds(1e9),
        }]
    }

    fn configure(&mut self, settings: &SignalSettings) {
        self.timeout = settings.dns_timeout;
    }

    fn attach(&mut self, object: &mut Object, _types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        // Answers first: a query whose answer nobody watches for would be a time-out.
        object.attach_root_cgroup("dns_ingress", Direction::Ingress)?;
        object.attach_root_cgroup("dns_egress", Direction::Egress)
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        for (key, edge) in object.drain_retired::<dns_edge_key, dns_edge>("dns_edges")? {
            let ends = Ends::of(enricher, key.netns, key.cgroup, key.server);
            self.add(&outward(ends.as_ref()), &key, &edge);
        }
        self.count_timeouts(object, enricher)?;
        Self::reserve(object)
    }
}

impl Dns {
    fn add(&self, labels: &Labels, key: &dns_edge_key, edge: &dns_edge) {
        let qtype = qtype_name(key.qtype);
        let protocol = if key.protocol == 6 { "tcp" } else { "udp" };
        if edge.queries > 0 {
            let labels = labels.clone().with(&[qtype, protocol]);
            self.queries.add(labels, edge.queries.into());
        }
        for (rcode, responses) in RCODES.iter().zip(edge.responses) {
            if responses > 0 {
                let labels = labels.clone().with(&[qtype, rcode, protocol]);
                self.responses.add(labels, responses.into());
            }
        }
        if edge.truncated > 0 {
            self.truncated.add(labels.clone(), edge.truncated.into());
        }
        if edge.latency_slots.iter().any(|&n| n > 0) {
            let slots = edge.latency_slots.map(u64::from);
            let seconds = edge.latency_ns as f64 / 1e9;
            self.duration.add(labels.clone(), &slots, seconds);
        }
    }
}

/// Record types that say something about a client; the others are "other".
fn qtype_name(qtype: u16) -> &'static str {
    match qtype {
        1 => "a",
        2 => "ns",
        5 => "cname",
        6 => "soa",
        12 => "ptr",
        15 => "mx",
        16 => "txt",
        28 => "aaaa",
        33 => "srv",
        35 => "naptr",
        43 => "ds",
        48 => "dnskey",
        64 => "svcb",
        65 => "https",
        255 => "any",
        _ => "other",
    }
}
