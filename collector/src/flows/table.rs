//! The table: bounded, aged, one row for a connection whether one of its ends was seen or both.
//!
//! A full table forgets what ended longest ago; only when most of it is open does it forget what
//! was opened longest ago. Those do not come back while there is no room, so that a table that is
//! too small does not churn.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};

use super::flow::{Edge, End, Flow, Key, Marks, Phase, Sighting, UDP};
use super::history::History;
use super::list::{Linked, Links, List};
use super::outbox::Outbox;
use super::{Attempt, FlowLimits};
use crate::enrich::{FiveTuple, Workload};

/// Told of every attempt that has come to something, once.
type Observer = Box<dyn FnMut(&Attempt) + Send>;

pub struct FlowTable {
    pub(super) limits: FlowLimits,
    slots: Slots,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    open: List,
    ended: List,
    edges: HashSet<Arc<Edge>>,
    pub(super) history: History,
    observers: Vec<Observer>,
    /// `None` if nobody keeps what has ended.
    pub(super) outbox: Option<Outbox>,
    /// When the last of those ended that are forgotten.
    pub(super) forgotten_until: u64,
    /// When the youngest that was forgotten while it was open was opened.
    forgotten: u64,
    pass: u8,
    serial: u64,
    statistics: Statistics,
}

/// What the table says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub entries: usize,
    pub limit: usize,
    /// Forgotten for want of room, since the start.
    pub evicted_ended: u64,
    pub evicted_open: u64,
}

/// Totals of an exchange of datagrams, from client to server and back.
#[derive(Default)]
pub(super) struct Datagrams {
    /// When the first datagram was seen; zero: none yet.
    pub(super) since: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) datagrams_sent: u64,
    pub(super) datagrams_received: u64,
    pub(super) client_seen: bool,
    pub(super) server_seen: bool,
}

#[derive(Default)]
struct Slots(Vec<Option<Flow>>);

impl Linked for Slots {
    fn links(&mut self, slot: u32) -> &mut Links {
        &mut self.flow(slot).links
    }
}

impl Slots {
    fn get(&self, slot: u32) -> &Flow {
        self.0[slot as usize].as_ref().expect("the slot is in use")
    }

    fn flow(&mut self, slot: u32) -> &mut Flow {
        self.0[slot as usize].as_mut().expect("the slot is in use")
    }
}

impl Default for FlowTable {
    fn default() -> Self {
        Self::new(FlowLimits::default())
    }
}

impl FlowTable {
    pub fn new(limits: FlowLimits) -> Self {
        Self {
            limits,
            slots: Slots::default(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            open: List::default(),
            ended: List::default(),
            edges: HashSet::new(),
            history: History::new(limits.entries),
            observers: Vec::new(),
            outbox: None,
            forgotten_until: 0,
            forgotten: 0,
            pass: 0,
            serial: 0,
            statistics: Statistics::default(),
        }
    }

    /// From now on; what is over a smaller limit goes at once.
    pub fn set_limits(&mut self, limits: FlowLimits) {
        self.limits = limits;
        self.history.set_limit(limits.entries);
        while self.len() > limits.entries {
            self.evict();
        }
    }

    pub fn limits(&self) -> FlowLimits {
        self.limits
    }

    /// Calls `observer` for every attempt from now on, once it was opened or has failed.
    pub fn observe(&mut self, observer: impl FnMut(&Attempt) + Send + 'static) {
        self.observers.push(Box::new(observer));
    }

    pub fn len(&self) -> usize {
        self.open.len() + self.ended.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn statistics(&self) -> Statistics {
        Statistics {
            entries: self.len(),
            limit: self.limits.entries,
            ..self.statistics
        }
    }

    pub(super) fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.slots.0.iter().flatten()
    }

    pub(super) fn flows_by_slot(&self) -> impl Iterator<Item = (u32, &Flow)> {
        (0..)
            .zip(&self.slots.0)
            .filter_map(|(slot, flow)| Some((slot, flow.as_ref()?)))
    }

    pub(super) fn slot(&self, slot: u32) -> Option<&Flow> {
        self.slots.0.get(slot as usize)?.as_ref()
    }

    pub(super) fn slot_mut(&mut self, slot: u32) -> &mut Flow {
        self.slots.flow(slot)
    }

    /// Whether there is a flow with these addresses, as a namespace sees them.
    pub(super) fn has(&self, tuple: &FiveTuple, netns: u32) -> bool {
        self.with_addresses(tuple, netns).is_some()
    }

    /// What is known of an exchange of datagrams.
    pub(super) fn datagrams(&self, tuple: &FiveTuple, netns: u32) -> Datagrams {
        self.with_addresses(tuple, netns)
            .map_or_else(Datagrams::default, |flow| Datagrams {
                since: flow.since,
                sent: flow.sent,
                received: flow.received,
                datagrams_sent: flow.segments_sent.into(),
                datagrams_received: flow.segments_received.into(),
                client_seen: flow.side(End::Client).cookie != 0,
                server_seen: flow.side(End::Server).cookie != 0,
            })
    }

    fn with_addresses(&self, tuple: &FiveTuple, netns: u32) -> Option<&Flow> {
        let key = Key::of(tuple);
        let has = |&slot: &u32| {
            let flow = self.slots.get(slot);
            flow.key == key && flow.is_seen_from(netns)
        };
        let slot = self.index.find(self.hasher.hash_one(key), has)?;
        Some(self.slots.get(*slot))
    }

    /// A pass over everything that lives begins.
    pub fn begin_pass(&mut self) {
        self.pass = self.pass.wrapping_add(1);
    }

    /// The pass is over, and records of what ended meanwhile have been taken in: connections that
    /// nobody has seen are gone, though their end went unnoticed. Only those of `protocol`.
    pub fn end_pass(&mut self, protocol: u8, now: u64) {
        let mut at = self.open.first();
        while let Some(slot) = at {
            at = List::next(&mut self.slots, slot);
            let pass = self.pass;
            let flow = self.slots.flow(slot);
            if flow.key.protocol != protocol {
                continue;
            }
            for side in &mut flow.sides {
                if side.cookie != 0 && side.pass != pass {
                    side.ended = true;
                }
            }
            self.settle(slot, now);
        }
    }

    /// Takes in what one end tells. `names` is asked who is at this end and who at the other when
    /// that is not known yet.
    pub fn update(&mut self, sighting: &Sighting, names: impl FnOnce() -> (Workload, Workload)) {
        let Some(slot) = self.find(sighting) else {
            let began = sighting.opened.max(sighting.started);
            let is_live = !sighting.phase.has_ended();
            if is_live && self.is_crowded() && began <= self.forgotten {
                return;
            }
            return self.insert(sighting, names());
        };
        let pass = self.pass;
        let flow = self.slots.flow(slot);
        if flow.side(sighting.end).cookie == 0 {
            // Who owns a socket is known better at its own end.
            let (own, _) = names();
            let mut edge = Edge::clone(&flow.edge);
            match sighting.end {
                End::Client => edge.source = own,
                End::Server => edge.destination = own,
            }
            edge.service = edge.service.or(sighting.service);
            self.slots.flow(slot).edge = self.intern(edge);
        }
        let flow = self.slots.flow(slot);
        flow.take(sighting, pass);
        let was_stored = flow.marks.clear(Marks::STORED);
        if was_stored {
            flow.marks.set(Marks::SUPERSEDED);
        }
        if let Some(step) = flow.advance(sighting) {
            self.history.add_step(step);
        }
        if was_stored && self.slots.get(slot).ended != 0 {
            self.note_end(slot);
        }
        self.settle(slot, sighting.now);
    }

    fn insert(&mut self, sighting: &Sighting, (own, other): (Workload, Workload)) {
        while self.len() >= self.limits.entries.max(1) {
            self.evict();
        }
        let (source, destination) = match sighting.end {
            End::Client => (own, other),
            End::Server => (other, own),
        };
        let edge = self.intern(Edge {
            source,
            destination,
            service: sighting.service,
        });
        self.serial += 1;
        let mut flow = Flow::new(sighting, edge, self.serial);
        flow.take(sighting, self.pass);
        flow.advance(sighting);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.0.push(None);
            u32::try_from(self.slots.0.len() - 1).expect("the limit is far below")
        });
        let key = flow.key;
        self.slots.0[slot as usize] = Some(flow);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index
            .insert_unique(hasher.hash_one(key), slot, |&slot| {
                hasher.hash_one(slots.get(slot).key)
            });
        self.open.push(&mut self.slots, slot);
        self.settle(slot, sighting.now);
    }

    fn find(&self, sighting: &Sighting) -> Option<u32> {
        let key = Key::of(&sighting.tuple);
        let is_it = |&slot: &u32| {
            let flow = self.slots.get(slot);
            flow.key == key && flow.is_of(sighting)
        };
        self.index.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// Puts a flow where it belongs after a change.
    fn settle(&mut self, slot: u32, now: u64) {
        let flow = self.slots.flow(slot);
        let has_ended = flow.state().has_ended();
        if has_ended == (flow.ended != 0) {
            self.tell(slot, now);
            return;
        }
        if has_ended {
            flow.ended = now;
            self.open.remove(&mut self.slots, slot);
            self.ended.push(&mut self.slots, slot);
            self.note_end(slot);
        } else {
            // Its other end goes on.
            flow.ended = 0;
            self.ended.remove(&mut self.slots, slot);
            self.open.push(&mut self.slots, slot);
        }
        self.tell(slot, now);
    }

    fn tell(&mut self, slot: u32, now: u64) {
        let flow = self.slots.flow(slot);
        if flow.state() == super::State::Connecting || !flow.marks.set(Marks::TOLD) {
            return;
        }
        if self.observers.is_empty() {
            return;
        }
        let tuple = flow.key.tuple();
        let asked = flow.edge.service.unwrap_or(tuple.server);
        let attempt = Attempt {
            protocol: tuple.protocol,
            source: flow.edge.source.clone(),
            source_address: tuple.client.ip(),
            destination: flow.edge.destination.clone(),
            destination_address: asked.ip(),
            port: asked.port(),
            failure: flow.reason.filter(|_| flow.failed),
            at: now,
        };
        for observer in &mut self.observers {
            observer(&attempt);
        }
    }

    fn is_crowded(&self) -> bool {
        self.len() >= self.limits.entries && self.open.len() > self.limits.entries / 4 * 3
    }

    fn evict(&mut self) {
        let oldest_open = self
            .open
            .first()
            .filter(|_| self.ended.len() == 0 || self.open.len() > self.limits.entries / 4 * 3);
        if let Some(slot) = oldest_open {
            self.forgotten = self.forgotten.max(self.slots.get(slot).since);
            self.statistics.evicted_open += 1;
            self.open.remove(&mut self.slots, slot);
            self.forget(slot);
        } else if let Some(slot) = self.ended.first() {
            self.statistics.evicted_ended += 1;
            self.ended.remove(&mut self.slots, slot);
            self.forget(slot);
        }
    }

    /// Forgets what ended, or has had no datagram, for the time-out.
    pub fn age(&mut self, now: u64) {
        let timeout = u64::try_from(self.limits.timeout.as_nanos()).unwrap_or(u64::MAX);
        let before = now.saturating_sub(timeout);
        while let Some(slot) = self.ended.first() {
            if self.slots.get(slot).ended >= before {
                break;
            }
            self.ended.remove(&mut self.slots, slot);
            self.forget(slot);
        }
        // No datagram says that it is the last.
        let mut at = self.open.first();
        while let Some(slot) = at {
            at = List::next(&mut self.slots, slot);
            let flow = self.slots.get(slot);
            if flow.key.protocol == UDP && flow.active < before {
                self.open.remove(&mut self.slots, slot);
                self.forget(slot);
            }
        }
        self.history.age(now);
        // Those that neither a flow nor the history holds.
        self.edges.retain(|edge| Arc::strong_count(edge) > 1);
    }

    fn forget(&mut self, slot: u32) {
        let flow = self.slots.0[slot as usize]
            .take()
            .expect("the slot is in use");
        let hash = self.hasher.hash_one(flow.key);
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        let is_persistent = self.is_persistent(&flow, flow.end(flow.active));
        self.history.add_flow(&flow, is_persistent);
        if flow.ended != 0 || flow.key.protocol == UDP {
            self.forgotten_until = self.forgotten_until.max(flow.end(flow.active));
        }
        self.note_forgotten(flow, is_persistent);
    }

    pub(super) fn is_persistent(&self, flow: &Flow, now: u64) -> bool {
        !flow.failed && u128::from(flow.duration(now)) >= self.limits.persistent_after.as_nanos()
    }

    fn intern(&mut self, edge: Edge) -> Arc<Edge> {
        if let Some(known) = self.edges.get(&edge) {
            return known.clone();
        }
        let edge = Arc::new(edge);
        self.edges.insert(edge.clone());
        edge
    }
}

impl Flow {
    fn new(sighting: &Sighting, edge: Arc<Edge>, serial: u64) -> Self {
        Self {
            key: Key::of(&sighting.tuple),
            sides: Default::default(),
            edge,
            reason: None,
            failed: false,
            marks: Marks::default(),
            links: Links::default(),
            serial,
            since: 0,
            ended: 0,
            active: 0,
            sent: 0,
            received: 0,
            sent_before: 0,
            received_before: 0,
            segments_sent: 0,
            segments_received: 0,
        }
    }

    fn take(&mut self, sighting: &Sighting, pass: u8) {
        let side = self.side_mut(sighting.end);
        side.cookie = sighting.cookie;
        side.netns = sighting.netns;
        side.pass = pass;
        side.connecting = sighting.phase == Phase::Connecting;
        side.closing = sighting.phase == Phase::Closing;
        side.ended = sighting.phase.has_ended();
        match sighting.phase {
            Phase::Closed(Some(error)) => self.reason = Some(error),
            Phase::Failed(reason) => {
                self.reason = Some(reason);
                self.failed = true;
            }
            _ => {}
        }
        let since = match (sighting.opened, sighting.started) {
            (0, 0) => {
                self.marks.set(Marks::OLD);
                sighting.now
            }
            (0, started) => started,
            (opened, _) => opened,
        };
        // Until it is open, only the attempt is known; which end is open first does not matter.
        if self.since == 0 || sighting.opened != 0 {
            self.since = since;
        }
    }

    /// Takes over the totals. What moved before is a step of the past, if there was any.
    fn advance(&mut self, sighting: &Sighting) -> Option<super::history::Step> {
        let (sent, received) = match sighting.end {
            End::Client => (sighting.bytes_sent, sighting.bytes_received),
            End::Server => (sighting.bytes_received, sighting.bytes_sent),
        };
        let (segments_sent, segments_received) = match sighting.end {
            End::Client => (sighting.segments_sent, sighting.segments_received),
            End::Server => (sighting.segments_received, sighting.segments_sent),
        };
        // The two ends are never looked at in the same instant, and the one that is ahead is right.
        self.segments_sent = self.segments_sent.max(segments_sent);
        self.segments_received = self.segments_received.max(segments_received);
        let is_first = self.active == 0;
        if is_first && sighting.opened == 0 && sighting.started == 0 {
            // Older than we are: nobody knows when these bytes moved.
            (self.sent_before, self.received_before) = (sent, received);
        }
        if !is_first && sent <= self.sent && received <= self.received {
            return None;
        }
        let step = (!is_first && sighting.active > self.active).then(|| self.step());
        if step.is_some() {
            (self.sent_before, self.received_before) = (self.sent, self.received);
        }
        self.sent = self.sent.max(sent);
        self.received = self.received.max(received);
        self.active = self.active.max(sighting.active).max(1);
        step.filter(|step| step.sent > 0 || step.received > 0)
    }
}
