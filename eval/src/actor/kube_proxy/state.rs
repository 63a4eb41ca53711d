//! When changes come, wait and are written; pure.

use super::Settings;

/// Two writes begin at least this far apart (`--iptables-min-sync-period`).
const SECONDS_BETWEEN_WRITES: f64 = 1.0;
/// From a change in the API server until kube-proxy hears of it.
const SECONDS_TO_HEAR: f64 = 0.1;

/// All times are seconds since 1970.
pub(super) struct State {
    pub(super) last_queued: f64,
    /// 0 until the rules were first written, as with the real one.
    pub(super) last_written: f64,
    pub(super) changes: u64,
    /// When the changes that no write has taken up were made.
    pub(super) pending: Vec<f64>,
    pub(super) writes: Histogram,
    pub(super) programming: Histogram,
    next_change: Option<f64>,
    write: Option<Write>,
}

/// One that is under way, and the changes that it takes up.
struct Write {
    began: f64,
    changes: Vec<f64>,
}

impl State {
    /// The first write is of everything and belongs to no change.
    pub(super) fn start(now: f64) -> Self {
        Self {
            last_queued: now,
            last_written: 0.0,
            changes: 0,
            pending: Vec::new(),
            writes: Histogram::new((0..15).map(|power| 0.001 * f64::from(1 << power))),
            programming: Histogram::new(programming_bounds()),
            next_change: None,
            write: Some(Write {
                began: now,
                changes: Vec::new(),
            }),
        }
    }

    /// Called many times a second.
    pub(super) fn advance(&mut self, now: f64, settings: &Settings) {
        let next = *(self.next_change).get_or_insert(now + settings.change_seconds);
        if now >= next {
            self.pending.push(now - SECONDS_TO_HEAR);
            self.changes += 1;
            self.last_queued = now;
            self.next_change = Some(now + settings.change_seconds);
        }
        if let Some(write) = self.write.take_if(|write| {
            !settings.freeze && now >= write.began + f64::from(settings.sync_ms) / 1000.0
        }) {
            self.last_written = now;
            self.writes.observe(now - write.began);
            for made in write.changes {
                self.programming.observe(now - made);
            }
        }
        let may_begin = now >= self.last_written + SECONDS_BETWEEN_WRITES;
        if self.write.is_none() && may_begin && !self.pending.is_empty() {
            self.write = Some(Write {
                began: now,
                changes: std::mem::take(&mut self.pending),
            });
        }
    }
}

/// A quarter of a second to five minutes; the 0 in front is the real one's too.
fn programming_bounds() -> impl Iterator<Item = f64> {
    let seconds = (1..60).chain((60..120).step_by(5));
    let all = seconds.chain((120..=300).step_by(30)).map(f64::from);
    [0.0, 0.25, 0.5].into_iter().chain(all)
}

pub(super) struct Histogram {
    /// Upper bound and how many were at most that.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) sum: f64,
    pub(super) count: u64,
}

impl Histogram {
    fn new(bounds: impl Iterator<Item = f64>) -> Self {
        Self {
            buckets: bounds.map(|bound| (bound, 0)).collect(),
            sum: 0.0,
            count: 0,
        }
    }

    fn observe(&mut self, value: f64) {
        for (_, count) in self.buckets.iter_mut().filter(|(bound, _)| value <= *bound) {
            *count += 1;
        }
        self.sum += value;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(freeze: bool) -> Settings {
        let settings = json!({"family": "ipv4", "port": 1, "freeze": freeze});
        serde_json::from_value(settings).unwrap()
    }

    fn run(state: &mut State, tenths: std::ops::Range<u32>, freeze: bool) {
        for tenth in tenths {
            state.advance(1000.0 + f64::from(tenth) / 10.0, &settings(freeze));
        }
    }

    #[test]
    fn a_frozen_one_queues_and_writes_all_when_it_thaws() {
        let mut state = State::start(1000.0);
        run(&mut state, 0..140, false);
        assert!(state.last_written > state.last_queued);
        assert_eq!((state.changes, state.programming.count), (2, 2));

        run(&mut state, 140..900, true);
        assert!(state.last_written < 1014.0 && state.last_queued > 1080.0);
        assert!(state.changes > 10 && state.programming.count == 2);

        run(&mut state, 900..930, false);
        assert!(state.last_written > state.last_queued);
        assert_eq!(state.programming.count, state.changes);
        let within_a_minute = state.programming.buckets.iter().find(|one| one.0 == 60.0);
        assert!(within_a_minute.unwrap().1 < state.changes);
    }
}
