//! The best of many scored numbers, without keeping all of them.

/// Best first; ties go to the lower number.
fn best_first(a: &(usize, f32), b: &(usize, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

pub(super) struct Top {
    limit: usize,
    found: Vec<(usize, f32)>,
    /// The worst of the best so far: what is below need not be kept.
    least: f32,
}

impl Top {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            found: Vec::with_capacity(2 * limit.min(4096)),
            least: f32::NEG_INFINITY,
        }
    }

    #[inline]
    pub(super) fn push(&mut self, number: usize, score: f32) {
        if score < self.least {
            return;
        }
        self.found.push((number, score));
        if self.found.len() >= 2 * self.limit.max(1) {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.found.len() > self.limit && self.limit > 0 {
            self.found
                .select_nth_unstable_by(self.limit - 1, best_first);
            self.least = self.found[self.limit - 1].1;
        }
        self.found.truncate(self.limit);
    }

    pub(super) fn finish(mut self) -> Vec<(usize, f32)> {
        self.shrink();
        self.found.sort_unstable_by(best_first);
        self.found
    }
}
