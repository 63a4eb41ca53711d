//! Flows that have ended, for whoever keeps them: each once, when the news of both its ends is in.
//!
//! A connection has ended when the table says so, and an exchange of datagrams when the table
//! forgets it. Should more be heard of one that was handed out (its other end closes later, or goes
//! on), it is handed out again, and [`Ended::supersedes`] says so.

use std::collections::VecDeque;

use super::flow::{Flow, Marks, UDP};
use super::query::{Clock, Row, row};
use super::table::FlowTable;

/// Both ends of a connection on one host end within it, or nearly always do: nanoseconds.
const SETTLES: u64 = 500_000_000;
/// What may wait at most of what the table has forgotten.
const MAX_FORGOTTEN: usize = 65_536;

/// A flow as it was at its end.
pub struct Ended {
    flow: Flow,
    is_persistent: bool,
}

#[derive(Default)]
pub(super) struct Outbox {
    /// Slots and serials of those that ended, the oldest first.
    ending: VecDeque<(u32, u64)>,
    forgotten: Vec<Ended>,
    lost: u64,
}

impl Ended {
    /// With the bytes of its whole life.
    pub fn row(&self, clock: Clock) -> Row {
        let flow = &self.flow;
        row(flow, (flow.sent, flow.received), self.is_persistent, clock)
    }

    /// Whether it was handed out before, when less was known.
    pub fn supersedes(&self) -> bool {
        self.flow.marks.has(Marks::SUPERSEDED)
    }
}

impl FlowTable {
    /// From now on, [`FlowTable::take_ended`] has what has ended.
    pub fn keep_ended(&mut self) {
        self.outbox.get_or_insert_default();
    }

    /// What has ended and settled since the last call, and how many found no room meanwhile.
    pub fn take_ended(&mut self, now: u64) -> (Vec<Ended>, u64) {
        let Some(outbox) = &mut self.outbox else {
            return (Vec::new(), 0);
        };
        let mut taken = std::mem::take(&mut outbox.forgotten);
        let lost = std::mem::take(&mut outbox.lost);
        let mut ending = std::mem::take(&mut outbox.ending);
        while let Some(&(slot, serial)) = ending.front() {
            // Whatever is forgotten or goes on by now is not taken here.
            let flow = (self.slot(slot)).filter(|flow| flow.serial == serial && flow.ended != 0);
            if flow.is_some_and(|flow| flow.ended.saturating_add(SETTLES) > now) {
                break;
            }
            let is_new = flow.is_some_and(|flow| !flow.marks.has(Marks::STORED));
            ending.pop_front();
            if is_new {
                taken.push(self.hand_out(slot));
            }
        }
        if let Some(outbox) = &mut self.outbox {
            outbox.ending = ending;
        }
        (taken, lost)
    }

    /// All that has ended, and exchanges of datagrams as they are: when nothing more will be heard.
    pub fn take_last(&mut self) -> (Vec<Ended>, u64) {
        let (mut taken, lost) = self.take_ended(u64::MAX);
        let datagrams: Vec<u32> = (self.flows_by_slot())
            .filter(|(_, flow)| flow.key.protocol == UDP && !flow.marks.has(Marks::STORED))
            .map(|(slot, _)| slot)
            .collect();
        taken.extend(datagrams.into_iter().map(|slot| self.hand_out(slot)));
        (taken, lost)
    }

    /// Until when flows have ended that are forgotten by now: all that ended later are here.
    pub fn forgotten_until(&self) -> u64 {
        self.forgotten_until
    }

    /// The `id` of every row that there is, in order.
    pub fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.flows().map(|flow| flow.serial).collect();
        ids.sort_unstable();
        ids
    }

    /// To be called when a flow has just ended, or has changed after that.
    pub(super) fn note_end(&mut self, slot: u32) {
        let flow = self.slot(slot).map(|flow| flow.serial);
        if let (Some(outbox), Some(serial)) = (&mut self.outbox, flow) {
            outbox.ending.push_back((slot, serial));
        }
    }

    /// To be called with every flow that is forgotten. The record of an open connection's end will
    /// bring it back, so only what has ended is taken, and datagrams, of which none is the last.
    pub(super) fn note_forgotten(&mut self, flow: Flow, is_persistent: bool) {
        let Some(outbox) = &mut self.outbox else {
            return;
        };
        if flow.marks.has(Marks::STORED) || flow.ended == 0 && flow.key.protocol != UDP {
            return;
        }
        if outbox.forgotten.len() >= MAX_FORGOTTEN {
            outbox.lost += 1;
            return;
        }
        outbox.forgotten.push(Ended {
            flow,
            is_persistent,
        });
    }

    fn hand_out(&mut self, slot: u32) -> Ended {
        let flow = self.slot_mut(slot);
        let copy = flow.clone();
        flow.marks.set(Marks::STORED);
        let is_persistent = self.is_persistent(&copy, copy.end(copy.active));
        Ended {
            flow: copy,
            is_persistent,
        }
    }
}
