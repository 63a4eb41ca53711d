//! When bytes moved: the steps of flows that live long, and of flows that are forgotten, minutes.
//!
//! A flow's last bytes are in the flow itself, with the time when they moved. When more follow, they
//! become a [`Step`]; so a short connection needs none.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::flow::{Edge, Flow};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
/// How far back it goes.
const KEPT: u64 = 60 * MINUTE;
/// Of one edge in one minute.
const MAX_TOTALS: usize = 16_384;

/// Bytes of one flow that moved at one time.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) at: u64,
    pub(super) edge: Arc<Edge>,
    /// Of the flow.
    pub(super) serial: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// Of connections: what they were, and what went through them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) connections: u64,
    pub(super) persistent: u64,
    pub(super) failed: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Of all but the failed ones, nanoseconds.
    pub(super) duration: u64,
    pub(super) longest: u64,
    /// The part of `duration` that is that of persistent ones.
    pub(super) persistent_duration: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.persistent += other.persistent;
        self.failed += other.failed;
        self.sent += other.sent;
        self.received += other.received;
        self.duration = self.duration.saturating_add(other.duration);
        self.longest = self.longest.max(other.longest);
        self.persistent_duration =
            (self.persistent_duration).saturating_add(other.persistent_duration);
    }

    pub(super) fn of_bytes(sent: u64, received: u64) -> Self {
        Self {
            sent,
            received,
            ..Self::default()
        }
    }

    /// Of one connection, without its bytes.
    pub(super) fn of_connection(flow: &Flow, is_persistent: bool, now: u64) -> Self {
        let duration = if flow.failed { 0 } else { flow.duration(now) };
        Self {
            connections: 1,
            persistent: u64::from(is_persistent),
            failed: u64::from(flow.failed),
            duration,
            longest: duration,
            persistent_duration: if is_persistent { duration } else { 0 },
            ..Self::default()
        }
    }
}

impl Flow {
    /// The bytes that moved last.
    pub(super) fn step(&self) -> Step {
        Step {
            at: self.active,
            edge: self.edge.clone(),
            serial: self.serial,
            sent: self.sent - self.sent_before,
            received: self.received - self.received_before,
        }
    }
}

#[derive(Debug)]
pub(super) struct History {
    limit: usize,
    steps: VecDeque<Step>,
    minutes: BTreeMap<u64, HashMap<Arc<Edge>, Totals>>,
    totals: usize,
}

impl History {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            steps: VecDeque::new(),
            minutes: BTreeMap::new(),
            totals: 0,
        }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Beyond the limit, the oldest becomes part of its minute.
    pub(super) fn add_step(&mut self, step: Step) {
        while self.steps.len() >= self.limit.max(1) {
            self.fold_oldest();
        }
        self.steps.push_back(step);
    }

    /// Keeps of a flow that is forgotten what it was and when its last bytes moved.
    pub(super) fn add_flow(&mut self, flow: &Flow, is_persistent: bool) {
        let ended = flow.end(flow.active);
        let connection = Totals::of_connection(flow, is_persistent, ended);
        self.add_totals(ended, flow.edge.clone(), &connection);
        let step = flow.step();
        if step.sent > 0 || step.received > 0 {
            self.add_totals(
                step.at,
                step.edge,
                &Totals::of_bytes(step.sent, step.received),
            );
        }
    }

    pub(super) fn age(&mut self, now: u64) {
        let oldest = now.saturating_sub(KEPT);
        while self.steps.front().is_some_and(|step| step.at < oldest) {
            self.steps.pop_front();
        }
        let kept = self.minutes.split_off(&(oldest / MINUTE));
        let dropped = std::mem::replace(&mut self.minutes, kept);
        self.totals -= dropped.values().map(HashMap::len).sum::<usize>();
    }

    /// The steps between two times, both included.
    pub(super) fn steps(&self, from: u64, to: u64) -> impl Iterator<Item = &Step> {
        (self.steps.iter()).filter(move |step| (from..=to).contains(&step.at))
    }

    /// The minutes that lie wholly between two times.
    pub(super) fn minutes(&self, from: u64, to: u64) -> impl Iterator<Item = (&Edge, &Totals)> {
        let last = to.saturating_add(1) / MINUTE;
        let range = from.div_ceil(MINUTE)..last.max(from.div_ceil(MINUTE));
        (self.minutes.range(range))
            .flat_map(|(_, edges)| edges.iter().map(|(edge, totals)| (&**edge, totals)))
    }

    fn fold_oldest(&mut self) {
        if let Some(step) = self.steps.pop_front() {
            self.add_totals(
                step.at,
                step.edge,
                &Totals::of_bytes(step.sent, step.received),
            );
        }
    }

    fn add_totals(&mut self, at: u64, edge: Arc<Edge>, more: &Totals) {
        let edges = self.minutes.entry(at / MINUTE).or_default();
        let before = edges.len();
        edges.entry(edge).or_default().add(more);
        self.totals += edges.len() - before;
        while self.totals > MAX_TOTALS && self.minutes.len() > 1 {
            if let Some((_, edges)) = self.minutes.pop_first() {
                self.totals -= edges.len();
            }
        }
    }
}
