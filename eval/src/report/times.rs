//! How long it took from the fault to the right answer; pure.

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

/// The smallest value that `percent` of all do not exceed.
fn quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
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
