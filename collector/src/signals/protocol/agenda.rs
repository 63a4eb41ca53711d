//! Which connections are to be looked at when. Pure: it looks at no clock.

use std::collections::VecDeque;

/// Times are as good as this, in nanoseconds.
const STEP: u64 = 50_000_000;

/// Entries by time, a step each: putting one in and taking it out again take as long however many
/// there are. Times are in nanoseconds and not far ahead.
pub(super) struct Agenda<T> {
    steps: VecDeque<Vec<T>>,
    /// When the first step is due.
    first: u64,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Self {
        Self {
            steps: VecDeque::new(),
            first: 0,
        }
    }

    /// Due at the next step after `at`.
    pub(super) fn put(&mut self, now: u64, at: u64, entry: T) {
        if self.steps.is_empty() {
            self.first = (now / STEP + 1) * STEP;
        }
        let ahead = at.saturating_sub(self.first).div_ceil(STEP);
        let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
        while self.steps.len() <= ahead {
            self.steps.push_back(Vec::new());
        }
        self.steps[ahead].push(entry);
    }

    /// Takes out what is due.
    pub(super) fn due(&mut self, now: u64) -> Vec<T> {
        let mut due = Vec::new();
        while self.first <= now {
            let Some(step) = self.steps.pop_front() else {
                break;
            };
            due.extend(step);
            self.first += STEP;
        }
        due
    }
}

#[test]
fn entries_come_once_and_not_before_their_time() {
    const SECOND: u64 = 1_000_000_000;
    let mut agenda = Agenda::new();
    let start = 1000 * SECOND + 17;
    let mut times = [3, 0, 1, 1, 0, 2, 7].map(|seconds| start + seconds * SECOND);
    for at in times {
        agenda.put(start, at, at);
    }
    let mut seen = Vec::new();
    for now in (start..start + 10 * SECOND).step_by(200_000_000) {
        for at in agenda.due(now) {
            assert!((at..at + SECOND / 2).contains(&now), "{at} at {now}");
            seen.push(at);
        }
    }
    seen.sort_unstable();
    times.sort_unstable();
    assert_eq!(seen, times);
}

#[test]
fn a_pause_loses_nothing() {
    let mut agenda = Agenda::new();
    agenda.put(0, 5 * STEP, 'a');
    agenda.put(0, STEP, 'b');
    assert_eq!(agenda.due(1000 * STEP), ['b', 'a']);
    agenda.put(1990 * STEP, 2000 * STEP, 'c');
    assert!(agenda.due(1999 * STEP).is_empty());
    assert_eq!(agenda.due(2001 * STEP), ['c']);
}
