//! The metric that changed most points at the failure modes whose evidence uses it; pure. Change is measured as in BARO (Pham,
//! Ha and Zhang, FSE 2024): distance from the median of the healthy phase, in its interquartile ranges.

use std::collections::BTreeMap;

use crate::catalogue::Catalogue;
use crate::report::opinion::Opinion;
use crate::series::Series;

/// As usual, what is farther away than this is an anomaly.
const ANOMALY: f64 = 3.0;

/// Counters by their increase from scrape to scrape. `times`: the first moment that counts, the one that divides healthy from
/// suspect, and the last, in milliseconds.
pub(super) fn opinion(series: &[Series], times: [i64; 3], catalogue: &Catalogue) -> Opinion {
    let [start, from, until] = times;
    let mut scores: BTreeMap<&str, f64> = BTreeMap::new();
    for one in series {
        // The buckets of a histogram say again what its sum and its count say.
        if one.name().ends_with("_bucket") {
            continue;
        }
        let score = score(&values(one, start, until), from, unit(one.name()));
        let largest = scores.entry(one.name()).or_default();
        *largest = largest.max(score);
    }
    let largest = scores.values().copied().fold(0.0, f64::max);
    let mut opinion = Opinion {
        alarm: largest > ANOMALY,
        ..Opinion::default()
    };
    for (id, mode) in catalogue.faults() {
        let score = mode
            .words
            .iter()
            .filter_map(|word| scores.get(word.as_str()))
            .copied()
            .fold(0.0, f64::max);
        if score > 0.0 {
            opinion.scores.insert(id.clone(), score);
        }
    }
    opinion
}

/// What a change of a series that had never changed is measured by: one of whatever is counted, but few bytes are nothing.
fn unit(name: &str) -> f64 {
    if name.contains("_bytes") {
        65536.0
    } else {
        1.0
    }
}

fn values(series: &Series, start: i64, until: i64) -> Vec<(i64, f64)> {
    let counts = |millis: i64| (start..=until).contains(&millis);
    let samples = series.samples.iter().filter(|(millis, _)| counts(*millis));
    let samples: Vec<(i64, f64)> = samples.copied().collect();
    let is_counter = ["_total", "_sum", "_count"]
        .iter()
        .any(|end| series.name().ends_with(end));
    if !is_counter {
        return samples;
    }
    samples
        .windows(2)
        .map(|pair| (pair[1].0, pair[1].1 - pair[0].1))
        .collect()
}

/// The largest distance of a suspect value from the healthy ones.
fn score(values: &[(i64, f64)], from: i64, unit: f64) -> f64 {
    let mut healthy: Vec<f64> = values
        .iter()
        .filter(|(millis, _)| *millis <= from)
        .map(|(_, value)| *value)
        .collect();
    healthy.sort_by(f64::total_cmp);
    let quartile = |quarter: usize| {
        let at = (healthy.len() * quarter / 4).min(healthy.len().saturating_sub(1));
        healthy.get(at).copied().unwrap_or(0.0)
    };
    let range = quartile(3) - quartile(1);
    // As in scikit-learn's RobustScaler, a unit stands in for no range.
    let range = if range > 0.0 { range } else { unit };
    values
        .iter()
        .filter(|(millis, _)| *millis > from)
        .map(|(_, value)| (value - quartile(2)).abs() / range)
        .fold(0.0, f64::max)
}

#[test]
fn the_largest_change_is_found_among_counters_and_gauges() {
    let gauge: Vec<(i64, f64)> = (0..20).map(|at| (at, f64::from(at as i32 % 2))).collect();
    assert!((score(&gauge, 10, 1.0) - 1.0).abs() < 1e-9);
    let mut spiking = gauge.clone();
    spiking[15].1 = 9.0;
    assert!(score(&spiking, 10, 1.0) > ANOMALY);
    assert_eq!(score(&spiking, 16, 1.0), score(&gauge, 16, 1.0));
}
