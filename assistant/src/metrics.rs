//! The assistant's own metrics, in Prometheus' text format. A family comes into being with its first sample.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper bounds in seconds: from a cached page to a question that waits for a slow Prometheus.
const DURATION_BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// Names and values of one series' labels. Values come from closed sets: routes, statuses, reasons.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

#[derive(Debug, Default)]
pub struct Metrics {
    families: Mutex<BTreeMap<&'static str, Family>>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: &'static str,
    series: BTreeMap<String, Series>,
}

#[derive(Debug, Clone)]
enum Series {
    Value(f64),
    Histogram {
        buckets: [u64; DURATION_BUCKETS.len()],
        count: u64,
        sum: f64,
    },
}

impl Metrics {
    /// Adds to a counter; `name` ends in `_total`.
    pub fn add(&self, name: &'static str, help: &'static str, labels: Labels, n: f64) {
        let mut families = self.lock();
        let series = series(&mut families, name, help, "counter", labels, || {
            Series::Value(0.0)
        });
        if let Series::Value(value) = series {
            *value += n;
        }
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        let mut families = self.lock();
        *series(&mut families, name, help, "gauge", labels, || {
            Series::Value(0.0)
        }) = Series::Value(value);
    }

    /// Adds one duration to a histogram; `name` ends in `_seconds`.
    pub fn observe(&self, name: &'static str, help: &'static str, labels: Labels, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut families = self.lock();
        let empty = || Series::Histogram {
            buckets: [0; DURATION_BUCKETS.len()],
            count: 0,
            sum: 0.0,
        };
        if let Series::Histogram {
            buckets,
            count,
            sum,
        } = series(&mut families, name, help, "histogram", labels, empty)
        {
            for (bucket, bound) in buckets.iter_mut().zip(DURATION_BUCKETS) {
                *bucket += u64::from(seconds <= bound);
            }
            *count += 1;
            *sum += seconds;
        }
    }

    pub fn encode(&self) -> String {
        let mut text = String::new();
        for (name, family) in self.lock().iter() {
            let Family { help, kind, .. } = family;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, series) in &family.series {
                match series {
                    Series::Value(value) => {
                        let _ = writeln!(text, "{name}{} {value}", braces(labels, ""));
                    }
                    Series::Histogram {
                        buckets,
                        count,
                        sum,
                    } => {
                        for (n, bound) in buckets.iter().zip(DURATION_BUCKETS) {
                            let le = format!("le=\"{bound}\"");
                            let _ = writeln!(text, "{name}_bucket{} {n}", braces(labels, &le));
                        }
                        let all = braces(labels, "le=\"+Inf\"");
                        let plain = braces(labels, "");
                        let _ = writeln!(text, "{name}_bucket{all} {count}");
                        let _ = writeln!(text, "{name}_sum{plain} {sum}");
                        let _ = writeln!(text, "{name}_count{plain} {count}");
                    }
                }
            }
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn series<'a>(
    families: &'a mut BTreeMap<&'static str, Family>,
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    labels: Labels,
    empty: impl FnOnce() -> Series,
) -> &'a mut Series {
    let family = families.entry(name).or_insert_with(|| Family {
        help,
        kind,
        series: BTreeMap::new(),
    });
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{name}=\"{}\"", value.replace('\n', "\\n"))
        })
        .collect();
    family.series.entry(pairs.join(",")).or_insert_with(empty)
}

fn braces(labels: &str, more: &str) -> String {
    match (labels, more) {
        ("", "") => String::new(),
        ("", one) | (one, "") => format!("{{{one}}}"),
        (a, b) => format!("{{{a},{b}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.add("a_total", "Things", &[("route", "/x\"y")], 2.0);
        metrics.add("a_total", "Things", &[("route", "/x\"y")], 1.0);
        metrics.set("b", "Level", &[], 4.5);
        metrics.observe("c_seconds", "Time", &[], Duration::from_millis(300));
        let text = metrics.encode();
        assert!(text.contains("# TYPE a_total counter\na_total{route=\"/x\\\"y\"} 3\n"));
        assert!(text.contains("b 4.5\n"));
        assert!(text.contains("c_seconds_bucket{le=\"0.25\"} 0\nc_seconds_bucket{le=\"1\"} 1\n"));
        assert!(
            text.contains(
                "c_seconds_bucket{le=\"+Inf\"} 1\nc_seconds_sum 0.3\nc_seconds_count 1\n"
            )
        );
    }
}
