//! What a client experienced: samples, windows, and whether a fault had an effect; pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One second of one client.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) ok: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) errors: BTreeMap<String, u64>,
    #[serde(default)]
    pub(crate) latencies_us: Vec<u64>,
}

/// A stretch of time of one client.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    pub(crate) ok: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
}

impl Window {
    pub(crate) fn of(samples: &[Sample]) -> Self {
        let mut errors = BTreeMap::new();
        let mut latencies = Vec::new();
        for sample in samples {
            latencies.extend(&sample.latencies_us);
            for (name, count) in &sample.errors {
                *errors.entry(name.clone()).or_default() += count;
            }
        }
        latencies.sort_unstable();
        Self {
            seconds: samples.len() as f64,
            ok: samples.iter().map(|sample| sample.ok).sum(),
            errors,
            p50_ms: quantile_ms(&latencies, 50),
            p95_ms: quantile_ms(&latencies, 95),
        }
    }

    fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    pub(crate) fn error_ratio(&self) -> f64 {
        let all = self.ok + self.failed();
        if all == 0 {
            0.0
        } else {
            self.failed() as f64 / all as f64
        }
    }

    pub(crate) fn ok_per_second(&self) -> f64 {
        if self.seconds == 0.0 {
            0.0
        } else {
            self.ok as f64 / self.seconds
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.ok > 0 && self.error_ratio() < 0.01
    }
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{:.1} ok/s, {:.1} % errors, p50 {:.1} ms, p95 {:.1} ms",
            self.ok_per_second(),
            100.0 * self.error_ratio(),
            self.p50_ms,
            self.p95_ms
        )?;
        for (name, count) in &self.errors {
            write!(out, ", {name} {count}")?;
        }
        Ok(())
    }
}

/// The strongest change between a healthy window and a later one, in words. `None`: no change that a
/// user would call a problem.
pub(crate) fn impact(before: &Window, after: &Window) -> Option<String> {
    let (errors_before, errors_after) = (before.error_ratio(), after.error_ratio());
    if errors_after > 0.02 && errors_after > 3.0 * errors_before {
        return Some(format!(
            "errors {:.1} % → {:.1} %",
            100.0 * errors_before,
            100.0 * errors_after
        ));
    }
    if after.ok_per_second() < 0.5 * before.ok_per_second() {
        return Some(format!(
            "answers {:.1}/s → {:.1}/s",
            before.ok_per_second(),
            after.ok_per_second()
        ));
    }
    for (name, early, late) in [
        ("p50", before.p50_ms, after.p50_ms),
        ("p95", before.p95_ms, after.p95_ms),
    ] {
        if late > 2.0 * early && late > early + 10.0 {
            return Some(format!("{name} {early:.1} ms → {late:.1} ms"));
        }
    }
    None
}

/// What each of the clients noticed, in words. `None`: one of them noticed nothing.
pub(crate) fn impact_on(
    clients: &[String],
    before: &BTreeMap<String, Window>,
    after: &BTreeMap<String, Window>,
) -> Option<String> {
    let noticed: Option<Vec<String>> = clients
        .iter()
        .map(|client| {
            // A client that reports nothing at all has stalled, which is an impact too.
            let late = after.get(client).cloned().unwrap_or_default();
            let change = impact(before.get(client)?, &late)?;
            Some(format!("{client}: {change}"))
        })
        .collect();
    noticed
        .filter(|noticed| !noticed.is_empty())
        .map(|noticed| noticed.join("; "))
}

fn quantile_ms(sorted_us: &[u64], percent: usize) -> f64 {
    let index = (sorted_us.len() * percent / 100).min(sorted_us.len().saturating_sub(1));
    sorted_us.get(index).map_or(0.0, |&us| us as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(ok: u64, errors: u64, latency_ms: u64) -> Window {
        let count = usize::try_from(ok).unwrap();
        Window::of(&[Sample {
            ok,
            errors: BTreeMap::from([("timeout".to_owned(), errors)]),
            latencies_us: vec![latency_ms * 1000; count],
        }])
    }

    fn check(before: &Window, after: &Window, expected: Option<&str>) {
        assert_eq!(impact(before, after).as_deref(), expected);
    }

    #[test]
    fn errors_slowness_and_silence_are_impact() {
        let healthy = window(100, 0, 2);
        check(&healthy, &window(100, 0, 2), None);
        check(&healthy, &window(90, 10, 2), Some("errors 0.0 % → 10.0 %"));
        check(
            &healthy,
            &window(30, 0, 2),
            Some("answers 100.0/s → 30.0/s"),
        );
        check(&healthy, &window(100, 0, 42), Some("p50 2.0 ms → 42.0 ms"));
    }

    #[test]
    fn of_several_clients_each_must_suffer() {
        let clients = ["a", "b"].map(str::to_owned);
        let windows =
            |a: Window, b: Window| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let healthy = windows(window(100, 0, 2), window(100, 0, 2));
        let one = windows(window(90, 10, 2), window(100, 0, 2));
        let both = windows(window(90, 10, 2), Window::default());
        assert_eq!(impact_on(&clients, &healthy, &one), None);
        assert_eq!(
            impact_on(&clients, &healthy, &both).as_deref(),
            Some("a: errors 0.0 % → 10.0 %; b: answers 100.0/s → 0.0/s")
        );
        assert_eq!(impact_on(&[], &healthy, &both), None);
    }

    #[test]
    fn a_little_jitter_is_none() {
        check(&window(100, 0, 2), &window(100, 1, 9), None);
        check(&window(100, 0, 40), &window(95, 0, 60), None);
    }

    #[test]
    fn an_empty_window_is_not_healthy() {
        assert!(!Window::of(&[]).is_healthy());
        assert!(window(10, 0, 1).is_healthy());
    }
}
