//! UDP: what sockets exchanged with their peers between two collections → flows. UDP knows neither
//! connections nor clients, so both are made up here.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::flow::{End, Key, Phase, Sighting, UDP};
use super::{FlowTable, Flows};
use crate::enrich::{Answered, CgroupId, Enricher, FiveTuple, NetnsId};
use crate::signals::UdpFlow;

/// Where Linux begins to look for the port of a socket that has not chosen one.
const FIRST_EPHEMERAL: u16 = 32_768;
/// For so long at most, what may have been translated waits for connection tracking.
const PATIENCE: u64 = 2_000_000_000;
/// What waits at most.
const MAX_WAITING: usize = 65_536;

/// Takes datagrams to the flow table.
pub struct DatagramFeed {
    flows: Flows,
    waiting: Vec<UdpFlow>,
    waiting_since: Option<u64>,
}

/// What one end says of an exchange.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    netns: u32,
    cgroup: u64,
    bytes_sent: u64,
    bytes_received: u64,
    datagrams_sent: u64,
    datagrams_received: u64,
}

/// What both ends say.
#[derive(Debug, Default)]
struct Exchange {
    /// By [`End`].
    said: [Option<Said>; 2],
    service: Option<SocketAddr>,
    first: u64,
    last: u64,
}

impl DatagramFeed {
    pub fn new(flows: Flows) -> Self {
        Self {
            flows,
            waiting: Vec::new(),
            waiting_since: None,
        }
    }

    /// Takes in what was exchanged since the last call.
    pub fn take(&mut self, exchanged: Vec<UdpFlow>, enricher: &Enricher, now: u64) {
        let mut flows = std::mem::take(&mut self.waiting);
        flows.extend(exchanged);
        if flows.is_empty() {
            return;
        }
        let unclear = self.unclear(&flows, enricher);
        let is_clear = unclear.is_empty()
            || match enricher.learn_translations_of(&unclear) {
                Answered::All => true,
                Answered::First(first) => first == unclear.len(),
            };
        if !is_clear {
            // Both ends of an exchange are to come together, so all wait.
            let since = *self.waiting_since.get_or_insert(now);
            if now.saturating_sub(since) < PATIENCE && flows.len() < MAX_WAITING {
                self.waiting = flows;
                return;
            }
        }
        self.waiting_since = None;
        let mut table = self.flows.lock();
        // By their namespace, too, where each has the same addresses for itself.
        let mut exchanges: HashMap<(FiveTuple, u32), Exchange> = HashMap::new();
        for flow in &flows {
            let end = end_of(flow, &table);
            let sent = tuple(flow, end);
            let arrived = (end == End::Client)
                .then(|| enricher.translated(&sent))
                .flatten();
            let tuple = arrived.unwrap_or(sent);
            let place = match Key::of(&tuple).stays_in_its_namespace() {
                true => flow.netns.0,
                false => 0,
            };
            let exchange = exchanges.entry((tuple, place)).or_default();
            exchange.add(flow, end, arrived.map(|_| sent.server));
        }
        for ((tuple, _), exchange) in &exchanges {
            exchange.tell(*tuple, &mut table, enricher);
        }
    }

    /// What clients sent that went elsewhere for all we know: nobody has the other end, and
    /// connection tracking was not asked since. Before, it may have had another backend.
    fn unclear(&self, flows: &[UdpFlow], enricher: &Enricher) -> Vec<FiveTuple> {
        let table = self.flows.lock();
        let known_until = enricher.translations_known_until();
        let is_new = |flow: &&UdpFlow| flow.first_ns > known_until;
        let (clients, servers): (Vec<_>, Vec<_>) = (flows.iter().filter(is_new))
            .map(|flow| (flow, end_of(flow, &table)))
            .partition(|(_, end)| *end == End::Client);
        let tuples = |(flow, end): (&UdpFlow, End)| tuple(flow, end);
        let met: HashSet<FiveTuple> = servers.into_iter().map(tuples).collect();
        let unclear: HashSet<FiveTuple> = (clients.into_iter())
            .map(|(flow, end)| (tuple(flow, end), flow.netns.0))
            .filter(|(sent, netns)| !met.contains(sent) && !table.has(sent, *netns))
            .map(|(sent, _)| sent)
            .collect();
        unclear.into_iter().collect()
    }
}

/// Whether this socket is the client. As it was before; else it is who has a port that nobody
/// chose; else who sent first.
fn end_of(flow: &UdpFlow, table: &FlowTable) -> End {
    let (local, peer) = (flow.local.port(), flow.peer.port());
    let is_ephemeral = |port| port >= FIRST_EPHEMERAL;
    let is_known = |end| table.has(&tuple(flow, end), flow.netns.0);
    let is_client = if is_known(End::Client) {
        true
    } else if is_known(End::Server) {
        false
    } else if is_ephemeral(local) != is_ephemeral(peer) {
        is_ephemeral(local)
    } else {
        flow.sent_first
    };
    if is_client { End::Client } else { End::Server }
}

fn tuple(flow: &UdpFlow, end: End) -> FiveTuple {
    let (client, server) = match end {
        End::Client => (flow.local, flow.peer),
        End::Server => (flow.peer, flow.local),
    };
    FiveTuple {
        protocol: UDP,
        client,
        server,
    }
}

impl Exchange {
    fn add(&mut self, flow: &UdpFlow, end: End, service: Option<SocketAddr>) {
        let said = self.said[end as usize].get_or_insert_default();
        said.netns = flow.netns.0;
        said.cgroup = flow.cgroup.0;
        said.bytes_sent += flow.bytes_sent;
        said.bytes_received += flow.bytes_received;
        said.datagrams_sent += flow.datagrams_sent;
        said.datagrams_received += flow.datagrams_received;
        self.service = self.service.or(service);
        self.first = match self.first {
            0 => flow.first_ns,
            first => first.min(flow.first_ns),
        };
        self.last = self.last.max(flow.last_ns);
    }

    fn tell(&self, tuple: FiveTuple, table: &mut FlowTable, enricher: &Enricher) {
        let [client, server] = self.said;
        let netns = client.or(server).map_or(0, |said| said.netns);
        let known = table.datagrams(&tuple, netns);
        let since = match known.since {
            0 => self.first,
            since => since,
        };
        // What was sent is known best by who sent it. Who was seen once is always seen.
        let (mut sent, mut received) = (known.sent, known.received);
        let (mut datagrams_sent, mut datagrams_received) =
            (known.datagrams_sent, known.datagrams_received);
        match (client, server) {
            (Some(client), _) => {
                sent += client.bytes_sent;
                datagrams_sent += client.datagrams_sent;
            }
            (None, Some(server)) if !known.client_seen => {
                sent += server.bytes_received;
                datagrams_sent += server.datagrams_received;
            }
            _ => {}
        }
        match (server, client) {
            (Some(server), _) => {
                received += server.bytes_sent;
                datagrams_received += server.datagrams_sent;
            }
            (None, Some(client)) if !known.server_seen => {
                received += client.bytes_received;
                datagrams_received += client.datagrams_received;
            }
            _ => {}
        }
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        for (end, said) in [(End::Client, client), (End::Server, server)] {
            let Some(said) = said else {
                continue;
            };
            let totals = (
                sent,
                received,
                small(datagrams_sent),
                small(datagrams_received),
            );
            let (sent, received, datagrams_sent, datagrams_received) = match end {
                End::Client => totals,
                End::Server => (totals.1, totals.0, totals.3, totals.2),
            };
            let sighting = Sighting {
                tuple,
                service: self.service,
                end,
                // All sockets of a namespace that have the same port are one to their peers.
                cookie: u64::from(said.netns) << 1 | 1,
                netns: said.netns,
                phase: Phase::Open,
                started: since,
                opened: since,
                now: self.last,
                active: self.last,
                bytes_sent: sent,
                bytes_received: received,
                segments_sent: datagrams_sent,
                segments_received: datagrams_received,
            };
            let netns = NetnsId(said.netns);
            table.update(&sighting, || {
                let peer = match end {
                    End::Client => tuple.server.ip(),
                    End::Server => tuple.client.ip(),
                };
                let own = enricher.owner(netns, CgroupId(said.cgroup));
                (own, enricher.peer(netns, peer))
            });
        }
    }
}
