//! How often and how lately the collectors were scraped, and so how short a window can be, and whether anything is known of now.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use promql_parser::util::duration::display_duration;

use super::catalogue::label_values;
use super::snapshot::{Answer, Deadline, Snapshot};
use crate::prometheus::Prometheus;

/// Shorter recent windows hold too few samples at common scrape intervals.
const SHORTEST_RECENT: Duration = Duration::from_secs(15);
/// `rate()` needs two samples, and a third where one is late.
const SCRAPES_IN_RECENT: u32 = 3;
/// Less would take an ordinary pause for silence.
const SHORTEST_LATEST: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, Default)]
pub struct Scrapes {
    in_window: f64,
    /// In [`shortest_recent`].
    late: f64,
    /// Seconds since the last one. `None`: that could not be asked.
    age: Option<f64>,
}

impl Scrapes {
    /// By a few of the series that every collector has: all of them would be more than most evidence.
    pub async fn count(
        prometheus: &Prometheus,
        snapshot: &Arc<Snapshot>,
        families: Option<&Answer>,
        deadline: Deadline,
    ) -> Self {
        let names = families.map(|answer| label_values("metric", answer));
        let names: Vec<String> = names.into_iter().flatten().collect();
        let Some(last) = names.len().checked_sub(1) else {
            return Self {
                age: Some(0.0),
                ..Self::default()
            };
        };
        let few = BTreeSet::from([0, last / 2, last].map(|index| names[index].as_str()));
        let few = few.into_iter().collect::<Vec<_>>().join("|");
        let count = |window: Duration| {
            let range = display_duration(&window);
            format!("max(count_over_time(runwire_series{{metric=~\"{few}\"}}[{range}]))")
        };
        let [in_window, late] = [snapshot.window, shortest_recent(snapshot.window)].map(count);
        let age = format!("time() - max(timestamp(runwire_series{{metric=~\"{few}\"}}))");
        let queries = [in_window, late, age];
        let answers = snapshot.evaluate(prometheus, BTreeSet::from(queries.clone()), deadline);
        let answers = answers.await;
        let [in_window, late, age] =
            queries.map(|query| answers[&query].as_ref().ok().map(first_value));
        let [in_window, late] = [in_window, late].map(Option::unwrap_or_default);
        Self {
            in_window,
            late,
            age,
        }
    }
    /// The part of the window that counts as now: as short as the scrape interval allows, so that what has just begun is not
    /// diluted by the healthy minutes before it.
    pub fn recent(self, window: Duration) -> Duration {
        let shortest = shortest_recent(window);
        if self.late > f64::from(SCRAPES_IN_RECENT) {
            return shortest;
        }
        let few = self
            .interval(window)
            .map(|interval| interval * SCRAPES_IN_RECENT);
        shortest.max(few.unwrap_or_default()).min(window)
    }

    /// Between two scrapes, to the second.
    fn interval(self, window: Duration) -> Option<Duration> {
        (self.in_window >= 1.0).then(|| {
            Duration::from_secs_f64((window.as_secs_f64() / self.in_window).round().max(1.0))
        })
    }

    /// Why what is measured tells nothing of the moment that was asked about, where it does not.
    pub fn stale(self, window: Duration) -> Option<String> {
        let Some(age) = self.age else {
            return Some("how old the latest measurement is could not be asked".to_owned());
        };
        let interval = self.interval(window)?;
        let usual = (interval * SCRAPES_IN_RECENT).max(SHORTEST_RECENT);
        (age > usual.as_secs_f64()).then(|| {
        format!(
            "the latest measurement is {age:.0} s older than the moment asked about, and there was one every {} s: what began since then cannot be seen; are the collectors scraped?",
            interval.as_secs()
        )
    })
    }

    /// The shortest window that tells whether something still happens. Where there were too few scrapes
    /// lately, no window is as short as that.
    pub fn latest(self, window: Duration) -> Duration {
        let scrapes = self.late;
        let shortest = shortest_recent(window);
        if scrapes < f64::from(SCRAPES_IN_RECENT) {
            return window;
        }
        let interval = (shortest.as_secs_f64() / scrapes).ceil();
        let latest = Duration::from_secs_f64(interval * f64::from(SCRAPES_IN_RECENT));
        latest.clamp(SHORTEST_LATEST.min(window), window)
    }
}

/// A tenth of the window: 30 s of the usual five minutes. Less would take a restart of two seconds for a fault.
pub fn shortest_recent(window: Duration) -> Duration {
    Duration::from_secs(window.as_secs() / 10)
        .max(SHORTEST_RECENT)
        .min(window)
}

fn first_value(answer: &Answer) -> f64 {
    answer.first().map_or(0.0, |series| series.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_window_is_as_short_as_scrapes_allow() {
        for (window, scrapes, expected) in [
            (300, 30.0, 5),
            (300, 31.0, 5),
            (300, 6.0, 15),
            (300, 3.0, 30),
            // Too few: what is recent must do.
            (300, 2.0, 300),
            (300, 0.0, 300),
        ] {
            let of_late = Scrapes {
                late: scrapes,
                ..Scrapes::default()
            };
            let latest = of_late.latest(Duration::from_secs(window));
            assert_eq!(latest.as_secs(), expected, "{scrapes} scrapes");
        }
    }

    #[test]
    fn the_recent_window_holds_enough_scrapes() {
        for (window, in_window, late, expected) in [
            (300, 300.0, 30.0, 30),
            // Twenty seconds of history say little of the interval in five minutes; the latest scrapes say it.
            (300, 20.0, 20.0, 30),
            (300, 20.0, 2.0, 45),
            (60, 60.0, 15.0, 15),
            (300, 5.0, 0.0, 180),
            (15, 1.0, 1.0, 15),
            (300, 0.0, 0.0, 30),
            (86400, 5760.0, 576.0, 8640),
        ] {
            let scrapes = Scrapes {
                in_window,
                late,
                age: Some(0.0),
            };
            let recent = scrapes.recent(Duration::from_secs(window));
            assert_eq!(
                recent.as_secs(),
                expected,
                "{window} s with {in_window} scrapes, {late} of them late"
            );
        }
    }
    #[test]
    fn what_is_long_past_tells_nothing_of_now() {
        for (in_window, age, expected) in [
            (300.0, 1.2, false),
            (300.0, 14.0, false),
            (276.0, 24.0, true),
            (20.0, 15.1, false),
            (20.0, 44.0, false),
            (19.0, 61.0, true),
            (5.0, 150.0, false),
            // Nothing was ever measured: that is told elsewhere.
            (0.0, 0.0, false),
        ] {
            let scrapes = Scrapes {
                in_window,
                late: 0.0,
                age: Some(age),
            };
            let stale = scrapes.stale(Duration::from_secs(300));
            assert_eq!(stale.is_some(), expected, "{in_window} scrapes, {age} s");
        }
        // Not knowing it is not knowing that all is well.
        assert!(Scrapes::default().stale(Duration::from_secs(300)).is_some());
    }
}
