//! What waits to be written: bounded, so that a slow disk costs rows and not memory.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::flows::Ended;

/// Three seconds of what a busy host closes.
const ROOM: usize = 32_768;

#[derive(Default)]
pub(super) struct Queue {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    flows: Vec<Ended>,
    /// How many were taken in, and how many of these are written or lost.
    accepted: u64,
    done: u64,
    closed: bool,
}

impl Pending {
    fn add(&mut self, mut flows: Vec<Ended>) {
        self.accepted += flows.len() as u64;
        self.flows.append(&mut flows);
    }
}

impl Queue {
    /// How many found no room. Never waits.
    pub(super) fn push(&self, mut flows: Vec<Ended>) -> usize {
        let mut pending = self.lock();
        let room = ROOM.saturating_sub(pending.flows.len());
        let lost = flows.len().saturating_sub(room);
        flows.truncate(room);
        pending.add(flows);
        self.changed.notify_all();
        lost
    }

    /// However many: nothing comes after them.
    pub(super) fn push_last(&self, flows: Vec<Ended>) {
        self.lock().add(flows);
        self.changed.notify_all();
    }

    /// What there is, after a while at most; and whether no more will come.
    pub(super) fn take(&self, patience: Duration) -> (Vec<Ended>, bool) {
        let is_idle = |pending: &mut Pending| pending.flows.is_empty() && !pending.closed;
        let waited = (self.changed).wait_timeout_while(self.lock(), patience, is_idle);
        let mut pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        (std::mem::take(&mut pending.flows), pending.closed)
    }

    /// So many that were taken are dealt with.
    pub(super) fn done(&self, flows: usize) {
        self.lock().done += flows as u64;
        self.changed.notify_all();
    }

    /// Waits until all that is in it now is dealt with, but not longer than this.
    pub(super) fn flush(&self, patience: Duration) {
        let pending = self.lock();
        let all = pending.accepted;
        let _ = (self.changed).wait_timeout_while(pending, patience, |now| now.done < all);
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
