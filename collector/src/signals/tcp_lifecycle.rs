//! TCP connections from attempt to close, and what their sockets did: see `bpf/tcp_lifecycle.bpf.c`.

mod families;
mod walk;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::warn;
use zerocopy::FromBytes;

use super::labels::{Ends, address, family_of, inward, outward};
use super::{Signal, SignalSettings};
use crate::abi::{
    TCP_ROLE_CLIENT, TCP_ROLE_SERVER, TCP_STATE_SHRUNK_FIN_WAIT2, flow_record, tcp_edge,
    tcp_edge_key, tcp_state_key, tcp_state_total,
};
use crate::elf;
use crate::enrich::{CgroupId, Enricher, NetnsId};
use crate::export::{Counter, Histogram, Labels, Registry, owner};
use crate::flows::{Feed, Reasons};
use crate::kernel::{
    Bounds, IteratorKind, KernelTypes, Object, Refusal, monotonic_nanoseconds, release,
    tick_nanoseconds, version,
};
use families::Families;
pub(super) use families::{connect_attempts, connect_failures};
use walk::Walk;
pub(super) use walk::{PATIENCE_AT_START, walk_through};

pub(super) const NAME: &str = "tcp_lifecycle";
static ELF: &[u8] = elf!("tcp_lifecycle");

/// From which kernel on a program at a tracepoint is taken to miss events that come on its CPU while
/// it runs. Seen on 7.3 and not on 6.18; which version in between brought it is not known.
const INTERRUPTED_TRACEPOINTS: (u32, u32) = (7, 0);

/// `connection_failures` and `closed` reasons, in the order of the enums in `abi.h`.
pub(super) const FAILURES: [&str; 11] = [
    "aborted",
    "refused",
    "reset",
    "timeout",
    "host_unreachable",
    "network_unreachable",
    "prohibited",
    "no_local_port",
    "no_local_address",
    "invalid_route",
    "other",
];
const ENDS: [&str; 5] = ["none", "reset", "timeout", "other", "late_reset"];

pub(super) struct TcpLifecycle {
    families: Families,
    tick_seconds: f64,
    repair_interval: Duration,
    repaired: Option<Instant>,
    /// Whether sockets that escaped tcp_state can be found; and whether live ones can be read.
    can_repair: bool,
    can_read_live: bool,
    walk: Walk,
    feed: Feed,
    events_lost: Counter,
    flow_records_lost: u64,
}

impl TcpLifecycle {
    pub(super) fn register(registry: &Registry, settings: &SignalSettings) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a tick is at most ten million nanoseconds"
        )]
        let tick_seconds = tick_nanoseconds() as f64 / 1e9;
        Self {
            families: Families::register(&registry.for_signal(NAME)),
            tick_seconds,
            repair_interval: settings.repair_interval,
            repaired: None,
            can_repair: false,
            can_read_live: false,
            walk: Walk::default(),
            feed: Feed::new(
                settings.flows.clone(),
                Reasons {
                    failures: &FAILURES,
                    ends: &ENDS,
                },
                tick_nanoseconds(),
            ),
            events_lost: super::events_lost(registry),
            flow_records_lost: 0,
        }
    }

    fn ended_flows(&mut self, object: &mut Object) -> anyhow::Result<Vec<flow_record>> {
        let mut records = Vec::new();
        object.drain_ring("flow_records", |record| records.push(record))?;
        let lost = object.counted("flow_records_lost");
        let labels = Labels::new(&[NAME, "ring_full"]);
        let new = lost.saturating_sub(self.flow_records_lost);
        if new > 0 {
            self.events_lost.add(labels, new);
        }
        self.flow_records_lost = lost;
        Ok(records)
    }

    fn reserve(object: &Object) -> anyhow::Result<()> {
        let overflow = [TCP_ROLE_CLIENT, TCP_ROLE_SERVER].map(|role| tcp_edge_key {
            cgroup: 0,
            netns: 0,
            role,
            local: [0; 16],
            peer: [0; 16],
        });
        Ok(object.reserve::<_, tcp_edge>("tcp_edges", &overflow)?)
    }

    fn count_states(
        &mut self,
        object: &Object,
        enricher: &Enricher,
        time_wait: &HashMap<NetnsId, u64>,
    ) -> anyhow::Result<()> {
        let totals = object.drain::<tcp_state_key, tcp_state_total>("tcp_states")?;
        let mut sockets = Vec::new();
        let mut unread = Vec::new();
        let mut half_open = Vec::new();
        for (key, total) in totals {
            if key.state == TCP_STATE_SHRUNK_FIN_WAIT2 {
                self.walk.found(NetnsId(key.netns), total.sockets);
                continue;
            }
            let owner = owner(&enricher.owner(NetnsId(key.netns), CgroupId(key.cgroup)));
            let mut count = |state, n: u64| {
                sockets.push((owner.clone().with(&[state]), n as f64));
            };
            count(state_name(key.state), total.sockets);
            if total.half_open > 0 {
                count("syn_recv", total.half_open);
            }
            if key.state == TCP_LISTEN {
                half_open.push((owner, total.half_open as f64));
            } else {
                unread.push((owner, total.unread_bytes as f64));
            }
        }
        // These are no sockets any more, so no iterator sees them.
        for (&netns, &count) in time_wait {
            if count == 0 {
                continue;
            }
            let owner = owner(&enricher.owner(netns, CgroupId(0)));
            let waiting = self.walk.waiting_for_fin(netns, count);
            sockets.push((owner.clone().with(&["fin_wait2"]), waiting as f64));
            sockets.push((owner.with(&["time_wait"]), (count - waiting) as f64));
        }
        self.families.connections.replace_all(sockets);
        self.families.unread_bytes.replace_all(unread);
        self.families.half_open.replace_all(half_open);
        Ok(())
    }
}

impl Signal for TcpLifecycle {
    fn name(&self) -> &'static str {
        NAME
    }

    fn elf(&self) -> &'static [u8] {
        ELF
    }

    fn bounds(&self) -> Vec<Bounds> {
        let families = &self.families;
        let nanoseconds = |name, histogram: &Histogram| Bounds {
            name,
            values: histogram.bounds(1e9),
        };
        let microseconds = |name, histogram: &Histogram| Bounds {
            name,
            values: histogram.bounds(1e6),
        };
        vec![
            nanoseconds("tcp_connect_bounds", &families.connect_duration),
            nanoseconds("tcp_lifetime_bounds", &families.connection_duration),
            microseconds("tcp_rtt_bounds", &families.rtt),
            microseconds("tcp_min_rtt_bounds", &families.min_rtt),
        ]
    }

    fn attach(&mut self, object: &mut Object, types: &KernelTypes) -> Result<(), Refusal> {
        Self::reserve(object).map_err(|error| Refusal::of_failure(format!("{error:#}")))?;
        object.attach_tracepoint(types, "tcp_state", "inet_sock_set_state")?;
        if version(&release()).is_some_and(|version| version >= INTERRUPTED_TRACEPOINTS) {
            let again =
                object.attach_tracepoint_again(types, "tcp_state_again", "inet_sock_set_state");
            if let Err(refusal) = again {
                warn!(%refusal, "changes of TCP sockets' states will be missed while others are looked at");
            }
        }
        // Without it, attempts whose program has asked for the error seem given up.
        let _ = object.attach_tracepoint(types, "tcp_error", "inet_sk_error_report");
        self.can_repair = object
            .load_iterator(types, "tcp_existing", IteratorKind::OpenFiles)
            .is_ok();
        self.can_read_live = object
            .load_iterator(types, "tcp_live", IteratorKind::StoredSockets)
            .is_ok();
        self.walk.attach(object, types);
        if self.can_repair && object.run_iterator("tcp_existing").is_ok() {
            self.repaired = Some(Instant::now());
        }
        Ok(())
    }

    fn read(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let due = self
            .repaired
            .is_none_or(|repaired| repaired.elapsed() >= self.repair_interval);
        if self.can_repair && due {
            object.run_iterator("tcp_existing")?;
            self.repaired = Some(Instant::now());
        }
        let time_wait: HashMap<_, _> = enricher.time_wait_sockets().into_iter().collect();
        self.walk.walk(object, enricher, &time_wait);
        if self.can_read_live {
            let output = object.run_socket_iterator("tcp_live", "tcp_sockets")?;
            self.feed.see_live(records(&output));
            self.count_states(object, enricher, &time_wait)?;
        }
        Ok(())
    }

    fn drain(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        let ended = self.ended_flows(object)?;
        self.feed.take_ended(ended, enricher);
        Ok(())
    }

    fn collect(&mut self, object: &mut Object, enricher: &Enricher) -> anyhow::Result<()> {
        // Before edges are named: this finds out which addresses are those of Services.
        let ended = self.ended_flows(object)?;
        if self.can_read_live {
            self.feed.take_all(ended, enricher, monotonic_nanoseconds());
        } else {
            self.feed.take_ended(ended, enricher);
        }
        for (key, edge) in object.drain_retired::<tcp_edge_key, tcp_edge>("tcp_edges")? {
            let ends = Ends::of(enricher, key.netns, key.cgroup, key.peer);
            if key.role != TCP_ROLE_SERVER && edge.opened > 0 {
                enricher.note_reached(NetnsId(key.netns), address(key.peer));
            }
            self.add(ends.as_ref(), &key, &edge);
            self.add_zones(&key, &edge, enricher);
        }
        Self::reserve(object)
    }
}

impl TcpLifecycle {
    /// The server's socket sees who the client is, and the client's may see only the address of a
    /// Service. So each connection counts once, in the whole cluster.
    fn add_zones(&self, key: &tcp_edge_key, edge: &tcp_edge, enricher: &Enricher) {
        if key.role != TCP_ROLE_SERVER {
            return;
        }
        let [server, client] = [key.local, key.peer].map(|it| enricher.zone(address(it)));
        let (Some(server), Some(client)) = (server, client) else {
            return;
        };
        let crossing = if server == client { "false" } else { "true" };
        for (src, dst, bytes) in [
            (&client, &server, edge.bytes_received),
            (&server, &client, edge.bytes_sent),
        ] {
            if bytes > 0 {
                let labels = Labels::new(&[src, dst, crossing]);
                self.families.zone_bytes.add(labels, bytes);
            }
        }
    }

    fn add(&self, ends: Option<&Ends>, key: &tcp_edge_key, edge: &tcp_edge) {
        let families = &self.families;
        let (outward, inward) = (outward(ends), inward(ends));
        let (role, connection) = if key.role == TCP_ROLE_SERVER {
            ("server", &inward)
        } else {
            ("client", &outward)
        };
        let count = |family: &crate::export::Counter, labels: &Labels, extra: &[&str], n: u64| {
            if n > 0 {
                family.add(labels.clone().with(extra), n);
            }
        };
        count(
            &families.connect_attempts,
            connection,
            &[],
            edge.attempts.into(),
        );
        count(
            &families.connections_opened,
            connection,
            &[role],
            edge.opened.into(),
        );
        if edge.fallbacks > 0 {
            let refused = if family_of(&key.peer) == "ipv4" {
                "ipv6"
            } else {
                "ipv4"
            };
            let n = edge.fallbacks.into();
            count(&families.connect_fallbacks, connection, &[refused], n);
        }
        for (reason, n) in FAILURES.iter().zip(edge.failures) {
            let labels = [*reason, family_of(&key.peer)];
            count(&families.connect_failures, connection, &labels, n.into());
        }
        for (error, n) in ENDS.iter().zip(edge.closed) {
            count(
                &families.connections_closed,
                connection,
                &[role, error],
                n.into(),
            );
        }
        for (family, from, n) in [
            (&families.segments_sent, &outward, edge.segments_sent),
            (&families.segments_received, &inward, edge.segments_received),
            (
                &families.data_segments_sent,
                &outward,
                edge.data_segments_sent,
            ),
            (
                &families.data_segments_received,
                &inward,
                edge.data_segments_received,
            ),
            (&families.dsacks, &outward, edge.dsacks),
            (&families.reordering_events, &outward, edge.reorderings),
        ] {
            count(family, from, &[], n.into());
        }
        count(&families.bytes_sent, &outward, &[], edge.bytes_sent);
        count(&families.bytes_received, &inward, &[], edge.bytes_received);

        let seconds = |family: &crate::export::Counter, ticks: u64| {
            if ticks > 0 {
                family.add_seconds(outward.clone(), ticks as f64 * self.tick_seconds);
            }
        };
        seconds(&families.busy, edge.busy);
        seconds(
            &families.receive_window_limited,
            edge.receive_window_limited,
        );
        seconds(&families.send_buffer_limited, edge.send_buffer_limited);

        let observe = |family: &crate::export::Histogram, labels: Labels, slots: &[u32], sum| {
            if slots.iter().any(|&n| n > 0) {
                let slots: Vec<u64> = slots.iter().copied().map(u64::from).collect();
                family.add(labels, &slots, sum);
            }
        };
        observe(
            &families.connect_duration,
            connection.clone(),
            &edge.connect_slots,
            edge.connect_ns as f64 / 1e9,
        );
        observe(
            &families.connection_duration,
            connection.clone().with(&[role]),
            &edge.lifetime_slots,
            edge.lifetime_ns as f64 / 1e9,
        );
        observe(
            &families.rtt,
            outward.clone(),
            &edge.rtt_slots,
            edge.rtt_us as f64 / 1e6,
        );
        observe(
            &families.min_rtt,
            outward.clone(),
            &edge.min_rtt_slots,
            edge.min_rtt_us as f64 / 1e6,
        );
    }
}

const TCP_LISTEN: u32 = 10;

fn records<T: FromBytes>(output: &[u8]) -> Vec<T> {
    let records = output.chunks_exact(size_of::<T>());
    records
        .filter_map(|bytes| T::read_from_bytes(bytes).ok())
        .collect()
}

/// As `ss` calls the kernel's state numbers, in lower case.
fn state_name(state: u32) -> &'static str {
    match state {
        1 => "established",
        2 => "syn_sent",
        3 | 12 => "syn_recv",
        4 => "fin_wait1",
        5 => "fin_wait2",
        6 => "time_wait",
        8 => "close_wait",
        9 => "last_ack",
        TCP_LISTEN => "listen",
        11 => "closing",
        _ => "unknown",
    }
}
