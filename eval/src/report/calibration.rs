//! Is a confidence of .8 right four times out of five? Pure.

use serde::Serialize;

use super::share::Share;

const BINS: usize = 10;

/// What confidences were worth.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Calibration {
    pub(crate) hypotheses: usize,
    /// Mean squared distance of the confidence from 1 where it was right and 0 where not (Brier 1950): 0 is best.
    pub(crate) brier: Option<f64>,
    /// What always saying the share of right ones would have given.
    pub(crate) brier_of_constant: Option<f64>,
    /// Mean distance of confidence and share of right ones over ten bins of equal width, each by its number.
    pub(crate) ece: Option<f64>,
    /// Those that hold anything, from low to high.
    pub(crate) bins: Vec<Bin>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Bin {
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Mean of the confidences.
    pub(crate) confidence: f64,
    pub(crate) right: Share,
}

impl Calibration {
    /// `judged`: a confidence, and whether it was right.
    pub(crate) fn of(judged: &[(f64, bool)]) -> Self {
        let count = judged.len() as f64;
        let truth = |right: bool| f64::from(u8::from(right));
        let squares: f64 = judged
            .iter()
            .map(|(confidence, right)| (confidence - truth(*right)).powi(2))
            .sum();
        let mut held: Vec<Vec<(f64, bool)>> = vec![Vec::new(); BINS];
        for &(confidence, right) in judged {
            held[bin(confidence)].push((confidence, right));
        }
        let mut gaps = 0.0;
        let mut bins = Vec::new();
        for (index, inside) in held.iter().enumerate() {
            let right = Share::of(inside.iter().map(|(_, right)| *right));
            let Some(ratio) = right.ratio() else { continue };
            let confidence =
                inside.iter().map(|(confidence, _)| confidence).sum::<f64>() / inside.len() as f64;
            gaps += (confidence - ratio).abs() * inside.len() as f64;
            bins.push(Bin {
                from: index as f64 / BINS as f64,
                to: (index + 1) as f64 / BINS as f64,
                confidence,
                right,
            });
        }
        let base = Share::of(judged.iter().map(|(_, right)| *right)).ratio();
        let any = !judged.is_empty();
        Self {
            hypotheses: judged.len(),
            brier: any.then(|| squares / count),
            brier_of_constant: base.map(|base| base * (1.0 - base)),
            ece: any.then(|| gaps / count),
            bins,
        }
    }
}

fn bin(confidence: f64) -> usize {
    // Confidences are rounded to three digits, so that this is whole-numbered.
    let tenth = (confidence * 1000.0).round().clamp(0.0, 999.0) / 1000.0 * BINS as f64;
    (0..BINS)
        .rev()
        .find(|&index| tenth >= index as f64)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_right_of_five_at_eight_tenths_is_calibrated() {
        let judged = [
            (0.8, true),
            (0.8, true),
            (0.8, false),
            (0.8, true),
            (0.8, true),
        ];
        let calibration = Calibration::of(&judged);
        assert!(calibration.ece.unwrap() < 1e-9, "{calibration:?}");
        assert!((calibration.brier.unwrap() - 0.16).abs() < 1e-9);
        assert_eq!(calibration.bins.len(), 1);
        assert_eq!(calibration.bins[0].from, 0.8);
    }

    #[test]
    fn certain_and_wrong_is_the_worst() {
        let calibration = Calibration::of(&[(1.0, false), (0.0, true)]);
        assert_eq!(calibration.brier, Some(1.0));
        assert_eq!(calibration.ece, Some(1.0));
        assert_eq!(Calibration::of(&[]).ece, None);
    }

    #[test]
    fn every_confidence_has_its_bin() {
        for (confidence, expected) in [
            (0.0, 0),
            (0.299, 2),
            (0.3, 3),
            (0.45, 4),
            (0.7, 7),
            (0.99, 9),
            (1.0, 9),
        ] {
            assert_eq!(bin(confidence), expected, "{confidence}");
        }
    }
}
