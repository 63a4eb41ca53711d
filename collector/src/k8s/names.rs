//! One copy of each text: thousands of pods share their namespace, node and workload.

use std::collections::HashSet;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Names {
    known: HashSet<Arc<str>>,
    /// Unused ones are dropped when there are so many.
    purge_at: usize,
}

impl Names {
    const LEAST: usize = 4096;

    pub(super) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        if self.known.len() >= self.purge_at.max(Self::LEAST) {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.purge_at = self.known.len() * 2;
        }
        let name: Arc<str> = name.into();
        self.known.insert(name.clone());
        name
    }
}
