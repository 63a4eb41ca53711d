//! What the kernel has counted so far → what is new, scaled up from a sample.

/// A share of packets, as the program understands it: how many of 2³².
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sampling {
    pub(super) threshold: u64,
}

impl Sampling {
    const ALL: f64 = 4_294_967_296.0;

    /// `ratio` is more than 0 and at most 1.
    pub(super) fn of(ratio: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 2^32"
        )]
        let threshold = (ratio.clamp(0.0, 1.0) * Self::ALL).round() as u64;
        Self {
            threshold: threshold.max(1),
        }
    }

    fn ratio(self) -> f64 {
        self.threshold as f64 / Self::ALL
    }
}

/// Counters of one interface as of the last look.
pub(super) struct Totals<const N: usize> {
    seen: Box<[u64; N]>,
    /// Fractions that were not yet given out.
    rest: Box<[f64; N]>,
}

impl<const N: usize> Default for Totals<N> {
    fn default() -> Self {
        Self {
            seen: Box::new([0; N]),
            rest: Box::new([0.0; N]),
        }
    }
}

impl<const N: usize> Totals<N> {
    /// What was added since the last call. The estimates' sum never strays from `total / ratio` by
    /// more than one.
    pub(super) fn advance(&mut self, totals: &[u64; N], sampling: Sampling) -> [u64; N] {
        let ratio = sampling.ratio();
        let mut added = [0; N];
        for (at, &total) in totals.iter().enumerate() {
            let new = total.saturating_sub(self.seen[at]);
            self.seen[at] = total;
            if ratio >= 1.0 {
                added[at] = new;
                continue;
            }
            let estimate = new as f64 / ratio + self.rest[at];
            self.rest[at] = estimate.fract();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive, and far below 2^64"
            )]
            let whole = estimate as u64;
            added[at] = whole;
        }
        added
    }
}

#[test]
fn without_sampling_every_packet_counts_once() {
    let mut totals = Totals::<2>::default();
    let all = Sampling::of(1.0);
    assert_eq!(all.threshold, 1 << 32);
    assert_eq!(totals.advance(&[5, 0], all), [5, 0]);
    assert_eq!(totals.advance(&[5, u64::MAX / 2], all), [0, u64::MAX / 2]);
}

#[test]
fn a_sample_is_scaled_up_without_drift() {
    let mut totals = Totals::<1>::default();
    let third = Sampling::of(1.0 / 3.0);
    let sevenths = Sampling::of(0.7);
    let mut sum = 0;
    for n in 1..=1000 {
        sum += totals.advance(&[n], third)[0];
    }
    assert!((2999..=3000).contains(&sum), "{sum}");
    for n in 1001..=1700 {
        sum += totals.advance(&[n], sevenths)[0];
    }
    assert!((3999..=4000).contains(&sum), "{sum}");
}
