//! A bucket of requests for each caller: it fills at a steady rate, and what is in it may be spent at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Seconds' worth of requests that may come at once: a page with all that is on it.
const BURST: f64 = 5.0;

/// Callers that are remembered. Names come from a proxy and have no end; who is forgotten begins with a full bucket.
const CALLERS: usize = 10_000;

pub(super) struct Limits {
    per_second: f64,
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Limits {
    /// `0`: no limit.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            buckets: Mutex::default(),
        }
    }

    /// Spends one request of a caller, or says how long to wait for the next.
    pub(super) fn take(&self, caller: &Arc<str>, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let most = self.per_second * BURST;
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + since * self.per_second).min(most)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CALLERS && !buckets.contains_key(caller) {
            buckets.retain(|_, bucket| filled(bucket) < most);
            if buckets.len() >= CALLERS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(Arc::clone(caller)).or_insert(Bucket {
            left: most,
            at: now,
        });
        bucket.left = filled(bucket);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64(
                (1.0 - bucket.left) / self.per_second,
            ));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_for_each_caller_alone() {
        let limits = Limits::new(2);
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(limits.take(&alice, start), Ok(()));
        }
        assert_eq!(limits.take(&alice, start), Err(Duration::from_millis(500)));
        assert_eq!(limits.take(&bob, start), Ok(()));
        let later = start + Duration::from_millis(500);
        assert_eq!(limits.take(&alice, later), Ok(()));
        assert!(limits.take(&alice, later).is_err());
        assert!(Limits::new(0).take(&alice, start).is_ok());
    }

    #[test]
    fn names_without_end_take_no_memory_without_end() {
        let limits = Limits::new(1);
        let now = Instant::now();
        for n in 0..CALLERS * 2 + 5 {
            let _ = limits.take(&format!("user{n}").into(), now);
        }
        assert!(limits.buckets.lock().unwrap().len() <= CALLERS);
    }
}
