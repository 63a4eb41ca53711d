//! Reproducible random numbers: the same seed gives the same lab on every machine.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): small, and good enough to draw names and addresses.
pub(crate) struct Random(u64);

impl Random {
    /// `purpose` keeps draws apart: one more address drawn must not change the names.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Both ends included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// From 0 up to, but not including, 1.
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).expect("32 bits remain"))
            / (f64::from(u32::MAX) + 1.0)
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.between(0, items.len() as u64 - 1);
        &items[usize::try_from(index).expect("an index of a slice")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_purposes_differ() {
        let draw = |seed, purpose| Random::new(seed, purpose).next();
        assert_eq!(draw(7, "names"), draw(7, "names"));
        assert_ne!(draw(7, "names"), draw(7, "addresses"));
        assert_ne!(draw(7, "names"), draw(8, "names"));
    }

    #[test]
    fn between_includes_both_ends() {
        let mut random = Random::new(1, "test");
        let drawn: Vec<u64> = (0..200).map(|_| random.between(3, 5)).collect();
        assert!(drawn.contains(&3) && drawn.contains(&5));
        assert!(drawn.iter().all(|value| (3..=5).contains(value)));
    }
}
