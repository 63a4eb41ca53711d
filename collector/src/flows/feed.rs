//! What the kernel tells of connections → sightings, with the names of both ends and with what
//! address translation made of them.

use std::net::SocketAddr;

use hashbrown::{HashMap, HashSet};

use super::{End, FlowTable, Flows, Phase, Sighting};
use crate::abi::{FLOW_CLOSED, FLOW_FAILED, TCP_ROLE_SERVER, flow_record};
use crate::enrich::{Answered, CgroupId, Enricher, FiveTuple, NetnsId, Workload};
use crate::flows::flow::TCP;

/// Records that wait until connection tracking may be read again.
const MAX_WAITING: usize = 16_384;

/// Why connections failed and how they ended, by the enums in `abi.h`.
#[derive(Clone, Copy)]
pub struct Reasons {
    pub failures: &'static [&'static str],
    pub ends: &'static [&'static str],
}

/// Takes records to the flow table.
pub struct Feed {
    flows: Flows,
    reasons: Reasons,
    tick_nanoseconds: u64,
    /// From the iterator: to be taken in before the records of what ended meanwhile.
    live: Vec<flow_record>,
    waiting: Vec<flow_record>,
}

/// Who owns a socket and who its peer is, looked up once for all that a batch says of them.
#[derive(Default)]
struct Names {
    own: HashMap<(u32, u64), Workload>,
    peers: HashMap<(u32, [u8; 16]), Workload>,
}

impl Feed {
    pub fn new(flows: Flows, reasons: Reasons, tick_nanoseconds: u64) -> Self {
        Self {
            flows,
            reasons,
            tick_nanoseconds,
            live: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Everything that lives, as the iterator told it.
    pub fn see_live(&mut self, records: Vec<flow_record>) {
        self.live = records;
        // The oldest first: a table that is too small keeps the newest.
        self.live
            .sort_unstable_by_key(|record| record.started_ns.max(record.established_ns));
    }

    /// Takes in what ended since the last call.
    pub fn take_ended(&mut self, ended: Vec<flow_record>, enricher: &Enricher) {
        self.take(ended, enricher);
    }

    /// Takes in what lives and what ended since the last call: all that there is.
    pub fn take_all(&mut self, ended: Vec<flow_record>, enricher: &Enricher, now: u64) {
        self.flows.lock().begin_pass();
        let mut records = std::mem::take(&mut self.live);
        records.extend(ended);
        self.take(records, enricher);
        self.flows.lock().end_pass(TCP, now);
    }

    fn take(&mut self, new: Vec<flow_record>, enricher: &Enricher) {
        let mut records = std::mem::take(&mut self.waiting);
        records.extend(new);
        // In the order in which they came, so that the ends of a connection are together: a table
        // that is too small has no room for the first until the second comes.
        let servers = records.iter().filter(|record| is_servers(record));
        let met: HashSet<FiveTuple> = servers.map(tuple).collect();
        let unclear = (records.iter()).filter(|record| self.is_unclear(record, &met, enricher));
        let unclear: Vec<FiveTuple> = unclear.map(tuple).collect();
        if !unclear.is_empty() {
            let answered: HashSet<FiveTuple> = match enricher.learn_translations_of(&unclear) {
                Answered::All => unclear.into_iter().collect(),
                Answered::First(first) => unclear.into_iter().take(first).collect(),
            };
            records.retain(|record| {
                // Connection tracking may know of it, and could not be asked yet.
                let wait = self.waiting.len() < MAX_WAITING
                    && !answered.contains(&tuple(record))
                    && self.is_unclear(record, &met, enricher);
                if wait {
                    self.waiting.push(*record);
                }
                !wait
            });
        }
        let mut names = Names::default();
        let mut table = self.flows.lock();
        for record in &records {
            let sighting = self.sighting(record, enricher);
            names.update(&mut table, record, &sighting, enricher);
        }
    }

    /// Whether this connection of a client went elsewhere for all we know: it is new, nobody has
    /// its other end, and connection tracking was not asked since it began. What is known of its
    /// addresses is then of one before it, from the same port, that may have had another backend.
    fn is_unclear(
        &self,
        record: &flow_record,
        met: &HashSet<FiveTuple>,
        enricher: &Enricher,
    ) -> bool {
        let began = record.started_ns.max(record.established_ns).max(1);
        if is_servers(record) || began <= enricher.translations_known_until() {
            return false;
        }
        let tuple = tuple(record);
        !met.contains(&tuple) && !self.flows.lock().has(&tuple, record.netns)
    }

    fn sighting(&self, record: &flow_record, enricher: &Enricher) -> Sighting {
        let sent = tuple(record);
        let (tuple, end, service) = if is_servers(record) {
            (sent, End::Server, None)
        } else {
            match enricher.translated(&sent) {
                Some(arrived) => (arrived, End::Client, Some(sent.server)),
                None => (sent, End::Client, None),
            }
        };
        let reason = |names: &[&'static str]| {
            let name = names.get(usize::from(record.reason));
            name.copied().unwrap_or("other")
        };
        let phase = match u32::from(record.phase) {
            FLOW_FAILED => Phase::Failed(reason(self.reasons.failures)),
            FLOW_CLOSED => {
                Phase::Closed(Some(reason(self.reasons.ends)).filter(|&error| error != "none"))
            }
            // The kernel's numbers of ESTABLISHED and SYN_SENT.
            _ => match record.state {
                1 => Phase::Open,
                2 => Phase::Connecting,
                _ => Phase::Closing,
            },
        };
        let idle = u64::from(record.idle).saturating_mul(self.tick_nanoseconds);
        let began = record.established_ns.max(record.started_ns);
        Sighting {
            tuple,
            service,
            end,
            cookie: record.cookie,
            netns: record.netns,
            phase,
            started: record.started_ns,
            opened: record.established_ns,
            now: record.now_ns,
            active: record.now_ns.saturating_sub(idle).max(began),
            bytes_sent: record.bytes_sent,
            bytes_received: record.bytes_received,
            segments_sent: record.segments_sent,
            segments_received: record.segments_received,
        }
    }
}

impl Names {
    fn update(
        &mut self,
        table: &mut FlowTable,
        record: &flow_record,
        sighting: &Sighting,
        enricher: &Enricher,
    ) {
        let netns = NetnsId(record.netns);
        table.update(sighting, || {
            let own = self
                .own
                .entry((record.netns, record.cgroup))
                .or_insert_with(|| enricher.owner(netns, CgroupId(record.cgroup)))
                .clone();
            // A backend is known by its own address; the Service's may have several.
            let peer = match sighting.service {
                Some(_) => enricher.peer(netns, sighting.tuple.server.ip()),
                None => self
                    .peers
                    .entry((record.netns, record.peer))
                    .or_insert_with(|| enricher.peer(netns, address(record.peer)))
                    .clone(),
            };
            (own, peer)
        });
    }
}

fn is_servers(record: &flow_record) -> bool {
    u32::from(record.role) == TCP_ROLE_SERVER
}

fn address(bytes: [u8; 16]) -> std::net::IpAddr {
    std::net::IpAddr::from(bytes).to_canonical()
}

fn tuple(record: &flow_record) -> FiveTuple {
    let local = SocketAddr::new(address(record.local), record.local_port);
    let peer = SocketAddr::new(address(record.peer), record.peer_port);
    let (client, server) = if is_servers(record) {
        (peer, local)
    } else {
        (local, peer)
    };
    FiveTuple {
        protocol: TCP,
        client,
        server,
    }
}
