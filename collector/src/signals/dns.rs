//! DNS queries, answers, time-outs, latency and names at the client: see `bpf/dns.bpf.c`.

mod domain;
mod names;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use zerocopy::FromBytes as _;

use self::names::{Ended, Names, RCODES, TIMEOUT};
use super::labels::{Ends, address, outward};
use super::{Signal, SignalSettings};
use crate::abi::{
    DNS_NAME, dns_address, dns_address_key, dns_answer_key, dns_edge, dns_edge_key, dns_pending,
    dns_pending_key,
};
use crate::elf;
use crate::enrich::{Enricher, NetnsId};
use crate::export::{Buckets, Counter, EDGE, Gauge, Histogram, Labels, Registry};
use crate::kernel::{Bounds, Direction, KernelTypes, Object, Refusal, monotonic_nanoseconds};

pub(super) const NAME: &str = "dns";
static ELF: &[u8] = elf!("dns");

/// Few answers take longer, of however far a server.
const LATE_NS: u64 = 1_000_000_000;

pub(super) struct Dns {
    queries: Counter,
    responses: Counter,
    duration: Histogram,
    timeouts: Counter,
    waiting: Gauge,
    truncated: Counter,
    repeated: Counter,
    searched: Counter,
    name_queries: Counter,
    timeout: Duration,
    names: Names,
    /// Names that may be label values.
    exported_names: usize,
    /// Names that ends outside may have.
    external_names: usize,
    /// Whether the programs note addresses.
    learning: bool,
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
            waiting: registry.gauge(
                "dns_waiting_queries",
                "DNS queries that wait for an answer; the late ones have for a second",
                &[EDGE, &["late"]],
            ),
            truncated: registry.counter(
                "dns_truncated_responses",
                "DNS answers that were cut because they did not fit a datagram",
                &[EDGE],
            ),
            repeated: registry.counter(
                "dns_repeated_queries",
                "DNS queries for what the same client had asked moments before and got no answer or an error",
                &[EDGE],
            ),
            searched: registry.counter(
                "dns_search_suffix_queries",
                "DNS queries for a name that did not exist, under the next suffix of a search list",
                &[EDGE],
            ),
            name_queries: registry.counter(
                "dns_name_queries",
                "DNS queries for a name by how they ended; none unless `dns_names` is set",
                &[&["name", "rcode"]],
            ),
            timeout: settings.dns_timeout,
            names: Names::default(),
            exported_names: settings.dns_names,
            external_names: settings.external_names,
            learning: false,
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
        object.reserve::<_, dns_edge>("dns_edges", &overflow)?;
        let overflow = [0, 1, 2, 3, 4, 5, 6].map(|rcode| dns_answer_key {
            name: 0,
            parent: 0,
            rcode,
        });
        Ok(object.reserve::<_, u64>("dns_answers", &overflow)?)
    }

    /// Takes note of the queries that have no answer, and forgets those that will hardly get one.
    fn count_unanswered(
        &mut self,
        object: &mut Object,
        enricher: &Enricher,
    ) -> anyhow::Result<Vec<Ended>> {
        let mut names = Vec::new();
        let now = monotonic_nanoseconds();
        let timeout = u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX);
        let mut timeouts: HashMap<Labels, u64> = HashMap::new();
        let mut waiting: HashMap<Labels, u64> = HashMap::new();
        const KEY: usize = size_of::<dns_pending_key>();
        const VALUE: usize = size_of::<dns_pending>();
        object.retain::<KEY, VALUE>("dns_pending", |_, bytes| {
            let Ok(pending) = dns_pending::read_from_bytes(bytes) else {
                return true;
            };
            let key = pending.edge;
            let count = u64::from(pending.unanswered);
            let keep = now.saturating_sub(pending.last_ns) < timeout;
            // A client that asked twice and got one answer waits no more.
            if keep && (count == 0 || pending.answers > 0) {
                return true;
            }
            let ends = Ends::of(enricher, key.netns, key.cgroup, key.server);
            if keep {
                let late = now.saturating_sub(pending.first_ns) >= LATE_NS;
                let labels = outward(ends.as_ref()).with(&[if late { "true" } else { "false" }]);
                *waiting.entry(labels).or_default() += count;
                return true;
            }
            *timeouts.entry(outward(ends.as_ref())).or_default() += count;
            names.push(Ended::timeouts(
                pending.name.whole,
                pending.name.parent,
                count,
            ));
            false
        })?;
        for (labels, n) in timeouts {
            self.timeouts.add(labels, n);
        }
        let waiting = waiting.into_iter().map(|(labels, n)| (labels, n as f64));
        self.waiting.replace_all(waiting.collect());
        Ok(names)
    }

    fn count_names(&mut self, object: &Object, ended: &[Ended]) {
        let now = Instant::now();
        for ended in ended.iter().filter(|ended| ended.count > 0) {
            let name = (self.names).add(ended, now, || name_of(object, ended.name));
            if self.exported_names > 0 {
                let name = self.names.label(name, self.exported_names);
                let rcode = RCODES.get(ended.outcome).unwrap_or(&TIMEOUT);
                (self.name_queries).add(Labels::new(&[&name, rcode]), ended.count);
            }
        }
        self.names.forget_idle(now);
    }

    /// Tells the enricher what answers said of addresses, if anybody wants to know.
    fn learn_addresses(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let wanted = self.external_names > 0;
        if wanted != self.learning {
            object.set_number("dns_learning", wanted.into())?;
            self.learning = wanted;
            if !wanted {
                enricher.external_names().learn([], 0);
            }
        }
        if !wanted {
            return Ok(());
        }
        let mut told = Vec::new();
        const KEY: usize = size_of::<dns_address_key>();
        const VALUE: usize = size_of::<dns_address>();
        object.retain::<KEY, VALUE>("dns_addresses", |key, value| {
            let (key, value): (dns_address_key, dns_address) =
                (zerocopy::transmute!(*key), zerocopy::transmute!(*value));
            told.push((key, value));
            true
        })?;
        let names: Vec<_> = (told.into_iter())
            .filter_map(|(key, value)| {
                let look_up = || name_of(object, value.name);
                let name = self.names.resolve(value.name, value.parent, look_up)?;
                Some((NetnsId(key.netns), address(key.address), name))
            })
            .collect();
        enricher.external_names().learn(names, self.external_names);
        Ok(())
    }
}

/// What the kernel remembers of a name.
fn name_of(object: &Object, hash: u64) -> Option<String> {
    const LENGTH: usize = DNS_NAME as usize;
    let bytes = object.get::<8, LENGTH>("dns_names", &hash.to_ne_bytes())?;
    domain::from_wire(&bytes)
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
        self.exported_names = settings.dns_names;
        self.external_names = settings.external_names;
    }

    fn report(&self) -> Option<serde_json::Value> {
        Some(self.names.report())
    }

    fn attach(&mut self, object: &mut Object, _types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        // Answers first: a query whose answer nobody watches for would be a time-out.
        object.attach_root_cgroup("dns_ingress", Direction::Ingress)?;
        object.attach_root_cgroup("dns_egress", Direction::Egress)
    }

    /// Before anything is collected: whoever asks for a name connects right after.
    fn read(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        self.learn_addresses(object, enricher)
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        for (key, edge) in object.drain_retired::<dns_edge_key, dns_edge>("dns_edges")? {
            let ends = Ends::of(enricher, key.netns, key.cgroup, key.server);
            self.add(&outward(ends.as_ref()), &key, &edge);
        }
        let mut ended = self.count_unanswered(object, enricher)?;
        let answers = object.drain_retired::<dns_answer_key, u64>("dns_answers")?;
        ended.extend(
            answers
                .iter()
                .map(|(key, count)| Ended::answers(key, *count)),
        );
        self.count_names(object, &ended);
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
        for (counter, count) in [
            (&self.truncated, edge.truncated),
            (&self.repeated, edge.repeated),
            (&self.searched, edge.searched),
        ] {
            if count > 0 {
                counter.add(labels.clone(), count.into());
            }
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
