//! What was there in the last while. Pure: it looks at no clock.

use std::hash::Hash;
use std::mem;

use hashbrown::HashSet;

/// More in one generation end it.
const MAX_ENTRIES: usize = 1 << 20;

/// Entries are remembered for one to two generations, in nanoseconds; for less only if there are
/// very many.
pub(super) struct Recent<T> {
    current: HashSet<T>,
    previous: HashSet<T>,
    since: u64,
    generation: u64,
}

impl<T: Eq + Hash> Recent<T> {
    pub(super) fn new(generation: u64) -> Self {
        Self {
            current: HashSet::new(),
            previous: HashSet::new(),
            since: 0,
            generation,
        }
    }

    pub(super) fn has(&self, entry: &T) -> bool {
        self.current.contains(entry) || self.previous.contains(entry)
    }

    pub(super) fn add(&mut self, entry: T, now_ns: u64) {
        if self.current.len() >= MAX_ENTRIES {
            self.begin_generation(now_ns);
        }
        self.current.insert(entry);
    }

    pub(super) fn age(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.since) >= self.generation {
            self.begin_generation(now_ns);
        }
    }

    fn begin_generation(&mut self, now_ns: u64) {
        // As many again, most likely: a set that grows moves all that it holds.
        let expected = HashSet::with_capacity(self.current.len());
        self.previous = mem::replace(&mut self.current, expected);
        self.since = now_ns;
    }
}

#[test]
fn entries_stay_for_a_generation_at_least_and_two_at_most() {
    let mut recent = Recent::new(10);
    recent.age(100);
    recent.add('a', 101);
    recent.age(109);
    recent.add('b', 109);
    recent.age(111);
    assert!(recent.has(&'a') && recent.has(&'b'));
    recent.age(119);
    assert!(recent.has(&'b'), "ten after it came");
    recent.age(121);
    assert!(!recent.has(&'a') && !recent.has(&'b'));
}
