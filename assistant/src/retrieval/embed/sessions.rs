//! As many sessions of ONNX Runtime as there are cores, lent one at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More than this would only wait for each other's cores.
const MOST: usize = 4;

/// One thread works in one session: several threads on one text hurt the tail of short questions.
pub(super) struct Sessions<T> {
    sessions: Vec<Mutex<T>>,
    next: AtomicUsize,
}

impl<T> Sessions<T> {
    pub(super) fn open<E>(open: impl Fn() -> Result<T, E>) -> Result<Self, E> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let sessions = (0..count.min(MOST)).map(|_| open().map(Mutex::new));
        Ok(Self {
            sessions: sessions.collect::<Result<_, E>>()?,
            next: AtomicUsize::new(0),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// A free one, or the next in turn.
    pub(super) fn lend(&self) -> MutexGuard<'_, T> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = |offset| &self.sessions[(first.wrapping_add(offset)) % self.sessions.len()];
        for offset in 0..self.sessions.len() {
            if let Ok(session) = in_turn(offset).try_lock() {
                return session;
            }
        }
        in_turn(0).lock().unwrap_or_else(PoisonError::into_inner)
    }
}
