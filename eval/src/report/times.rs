//! How long it took from the fault to the right answer, and from a question to its answer; pure.

use serde::Serialize;

use super::share::Share;

/// Two scrape intervals of a lab and two seconds.
const SOON: f64 = 4.0;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Times {
    /// Seconds, of those that were answered rightly at all.
    pub(crate) median: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) longest: Option<f64>,
    /// Rightly answered within two scrape intervals and two seconds; the others are later or never right.
    pub(crate) within_4_s: Share,
    pub(crate) within_10_s: Share,
    pub(crate) ever: Share,
}

impl Times {
    pub(crate) fn of(seconds: &[Option<f64>]) -> Self {
        let mut sorted: Vec<f64> = seconds.iter().flatten().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let within = |limit: f64| {
            Share::of(
                seconds
                    .iter()
                    .map(|seconds| seconds.is_some_and(|seconds| seconds <= limit)),
            )
        };
        Self {
            median: quantile(&sorted, 50),
            p90: quantile(&sorted, 90),
            longest: sorted.last().copied(),
            within_4_s: within(SOON),
            within_10_s: within(10.0),
            ever: within(f64::INFINITY),
        }
    }
}

/// How long questions waited for their answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Asking {
    pub(crate) questions: usize,
    /// Seconds.
    pub(crate) median: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) longest: Option<f64>,
}

impl Asking {
    pub(crate) fn of<'a>(seconds: impl Iterator<Item = &'a f64>) -> Self {
        let mut sorted: Vec<f64> = seconds.copied().collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            questions: sorted.len(),
            median: quantile(&sorted, 50),
            p95: quantile(&sorted, 95),
            longest: sorted.last().copied(),
        }
    }
}

/// The smallest value that `percent` of all do not exceed.
fn quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[test]
fn one_slow_answer_in_twenty_is_beyond_what_ninety_five_in_a_hundred_are() {
    let seconds: Vec<f64> = (1..=20).map(f64::from).collect();
    let asking = Asking::of(seconds.iter());
    assert_eq!((asking.median, asking.p95), (Some(10.0), Some(19.0)));
    assert_eq!((asking.longest, asking.questions), (Some(20.0), 20));
    assert_eq!(Asking::of([].iter()), Asking::default());
}

#[test]
fn a_case_that_was_never_right_counts_against_every_limit() {
    let times = Times::of(&[Some(3.0), Some(5.0), None, Some(12.0)]);
    assert_eq!((times.median, times.longest), (Some(5.0), Some(12.0)));
    assert_eq!(
        times.within_4_s,
        Share {
            part: 1.0,
            whole: 4
        }
    );
    assert_eq!(
        times.ever,
        Share {
            part: 3.0,
            whole: 4
        }
    );
    assert_eq!(Times::of(&[]).median, None);
}
