//! The median of repeats, with the least and the most beside it; pure.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    pub(super) const NOTHING: Self = Self {
        median: 0.0,
        least: 0.0,
        most: 0.0,
    };

    /// `None` of nothing.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            n if n % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self {
            median,
            least: values[0],
            most: values[values.len() - 1],
        })
    }

    /// In another unit.
    pub(super) fn times(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            least: self.least * factor,
            most: self.most * factor,
        }
    }
}

/// `1.2 (1.1–1.4)`, with the digits that are asked for, two by default.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let Self {
            median,
            least,
            most,
        } = self;
        write!(f, "{median:.digits$}")?;
        if least < most {
            write!(f, " ({least:.digits$}–{most:.digits$})")?;
        }
        Ok(())
    }
}

#[test]
fn the_middle_and_its_limits() {
    let shown = |values: &[f64]| Spread::of(values.iter().copied()).map(|it| format!("{it:.1}"));
    assert_eq!(shown(&[]), None);
    assert_eq!(shown(&[2.0]).as_deref(), Some("2.0"));
    assert_eq!(shown(&[3.0, 1.0, 2.5]).as_deref(), Some("2.5 (1.0–3.0)"));
    assert_eq!(shown(&[4.0, 1.0]).as_deref(), Some("2.5 (1.0–4.0)"));
}
