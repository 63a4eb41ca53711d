//! A part of a whole, with the interval that so few cases leave open; pure.

use serde::Serialize;

/// How many of how many. A part may be broken: a guess among four that hold the right one counts a quarter.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Share {
    pub(crate) part: f64,
    pub(crate) whole: usize,
}

impl Share {
    pub(crate) fn of(outcomes: impl IntoIterator<Item = bool>) -> Self {
        let mut share = Self::default();
        for outcome in outcomes {
            share.add(f64::from(u8::from(outcome)));
        }
        share
    }

    pub(crate) fn add(&mut self, credit: f64) {
        self.part += credit;
        self.whole += 1;
    }

    /// `None`: of nothing.
    pub(crate) fn ratio(&self) -> Option<f64> {
        (self.whole > 0).then(|| self.part / self.whole as f64)
    }

    /// The 95 % interval of Wilson (1927), which holds also where all or none of a few are right.
    pub(crate) fn interval(&self) -> Option<(f64, f64)> {
        const Z: f64 = 1.959_964;
        let ratio = self.ratio()?;
        let whole = self.whole as f64;
        let scale = 1.0 + Z * Z / whole;
        let middle = (ratio + Z * Z / (2.0 * whole)) / scale;
        let half =
            Z / scale * (ratio * (1.0 - ratio) / whole + Z * Z / (4.0 * whole * whole)).sqrt();
        Some(((middle - half).max(0.0), (middle + half).min(1.0)))
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Some(ratio), Some((low, high))) = (self.ratio(), self.interval()) else {
            return out.pad("–");
        };
        let part = if self.part.fract().abs() < 1e-9 {
            format!("{:.0}", self.part)
        } else {
            format!("{:.1}", self.part)
        };
        out.pad(&format!(
            "{part}/{} {:.0} % [{:.0}–{:.0}]",
            self.whole,
            100.0 * ratio,
            100.0 * low,
            100.0 * high
        ))
    }
}

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown {
            part: f64,
            whole: usize,
            ratio: Option<f64>,
            interval_95: Option<(f64, f64)>,
        }
        Shown {
            part: self.part,
            whole: self.whole,
            ratio: self.ratio(),
            interval_95: self.interval(),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(part: f64, whole: usize, expected: &str) {
        assert_eq!(Share { part, whole }.to_string(), expected);
    }

    #[test]
    fn few_cases_leave_a_wide_interval() {
        check(10.0, 10, "10/10 100 % [72–100]");
        check(0.0, 10, "0/10 0 % [0–28]");
        check(95.0, 100, "95/100 95 % [89–98]");
        check(2.5, 10, "2.5/10 25 % [8–56]");
        check(0.0, 0, "–");
    }
}
