//! Numbers and times as people and JSON read them; pure.

use super::evidence::Reading;
use super::expression::Comparison;
use crate::runbook::{Compare, EvidenceQuery};

/// Six significant digits: more than anyone reads, and the same on every run.
pub(super) fn significant(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// RFC 3339 in UTC, with a fraction only where there is one.
pub(super) fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| millis.to_string(), |time| time.to_string())
}

/// Ratios from here on are no shares, and nobody thinks of them in per cent.
const MANIFOLD: f64 = 2.0;

/// `31 %`, `72.5 times`, `4.2 ms`, `3.1 per second`
pub fn quantity(value: f64, unit: Option<&str>) -> String {
    match unit {
        Some("ratio") if value.abs() >= MANIFOLD => format!("{} times", short(value)),
        Some("ratio") => format!("{} %", short(value * 100.0)),
        Some("seconds") if value.abs() < 0.001 => format!("{} µs", short(value * 1e6)),
        Some("seconds") if value.abs() < 1.0 => format!("{} ms", short(value * 1e3)),
        Some("seconds") => format!("{} s", short(value)),
        Some("bytes") => size(value),
        Some("per_second") => format!("{} per second", short(value)),
        Some("count") | None => short(value),
        Some(other) => format!("{} {}", short(value), other.replace('_', " ")),
    }
}

/// In decimal units.
fn size(bytes: f64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let steps = (bytes.abs().max(1.0).log10() / 3.0) as usize;
    let steps = steps.min(units.len() - 1);
    format!(
        "{} {}",
        short(bytes / 1000_f64.powi(steps as i32)),
        units[steps]
    )
}

/// Three significant digits, and no more zeros than needed.
fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    format!("{rounded}")
}

/// «share of answers that are SERVFAIL 31 % (limit 1 %)»
pub(super) fn value_in_words(query: &EvidenceQuery, reading: &Reading, value: f64) -> String {
    let unit = query.unit.as_deref();
    let title = if query.title.is_empty() {
        &query.id
    } else {
        &query.title
    };
    let number = quantity(value, unit);
    let threshold = quantity(reading.expression.threshold_value(), unit);
    let word = match reading.expression.comparison() {
        Comparison::Greater | Comparison::GreaterOrEqual => "more than",
        Comparison::Less | Comparison::LessOrEqual => "less than",
        Comparison::Equal => "exactly",
        Comparison::NotEqual => "other than",
    };
    let threshold = match reading.compare {
        None => threshold,
        Some(Compare::Ratio) => format!(
            "{} times what it was",
            short(reading.expression.threshold_value())
        ),
        Some(Compare::Delta) => format!("{threshold} above what it was"),
    };
    format!("{title}: {number} ({word} {threshold} is a sign)")
}

/// A title in the middle of a sentence: an article's or a noun's capital goes, an abbreviation's stays.
pub(super) fn inside(title: &str) -> String {
    let title = title.trim().trim_end_matches('.');
    let mut chars = title.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if !second.is_uppercase() && !second.is_numeric() => {
            first.to_lowercase().chain(title.chars().skip(1)).collect()
        }
        _ => title.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_units_that_people_use() {
        for (value, unit, expected) in [
            (0.3149, Some("ratio"), "31.5 %"),
            (1.02, Some("ratio"), "102 %"),
            (72.5, Some("ratio"), "72.5 times"),
            (0.000_25, Some("seconds"), "250 µs"),
            (0.0403, Some("seconds"), "40.3 ms"),
            (1.5, Some("seconds"), "1.5 s"),
            (3.0, Some("per_second"), "3 per second"),
            (12.0, Some("packets_per_second"), "12 packets per second"),
            (1234.5, None, "1230"),
            (0.0, Some("bytes"), "0 bytes"),
            (999.0, Some("bytes"), "999 bytes"),
            (1000.0, Some("bytes"), "1 kB"),
            (12_345_678.0, Some("bytes"), "12.3 MB"),
            (5e16, Some("bytes"), "50000 TB"),
        ] {
            assert_eq!(quantity(value, unit), expected);
        }
    }

    #[test]
    fn numbers_are_rounded_to_what_is_meant() {
        assert_eq!(significant(0.333_333_333_333), 0.333_333);
        assert_eq!(significant(0.0), 0.0);
        assert_eq!(significant(-1_234_567.0), -1_234_570.0);
    }

    #[test]
    fn titles_fit_into_sentences() {
        assert_eq!(inside("The queue is full."), "the queue is full");
        assert_eq!(inside("DNS answers SERVFAIL"), "DNS answers SERVFAIL");
    }
}
