//! What a simpler method says of the same data, and how much of it is right; pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalogue::Catalogue;

/// The failure modes that a method suspects, each with a score that orders them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opinion {
    /// Whether it would have called somebody.
    pub(crate) alarm: bool,
    /// Modes with a score above zero.
    pub(crate) scores: BTreeMap<String, f64>,
}

/// What a method says of one case: before the fault, and at the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opinions {
    pub(crate) before: Opinion,
    pub(crate) after: Opinion,
}

impl Opinion {
    /// The chance that a mode is among the first `top`, where equal scores are in any order: 0 to 1.
    pub(crate) fn credit(&self, mode: &str, top: usize) -> f64 {
        let Some(own) = self.scores.get(mode) else {
            return 0.0;
        };
        let better = self.scores.values().filter(|score| *score > own).count();
        let equal = self.scores.values().filter(|score| *score == own).count();
        (top.saturating_sub(better) as f64 / equal as f64).min(1.0)
    }

    /// The chance that the first one is of that family.
    pub(crate) fn family_credit(&self, family: &str, catalogue: &Catalogue) -> f64 {
        let best = self.scores.values().copied().fold(0.0, f64::max);
        let first: Vec<&String> = self
            .scores
            .iter()
            .filter(|(_, score)| **score == best)
            .map(|(mode, _)| mode)
            .collect();
        let of_family = first
            .iter()
            .filter(|mode| catalogue.family(mode) == family)
            .count();
        of_family as f64 / first.len().max(1) as f64
    }

    /// Every fault is as likely as any other.
    pub(crate) fn random(catalogue: &Catalogue) -> Self {
        Self {
            alarm: false,
            scores: catalogue
                .faults()
                .map(|(id, _)| (id.clone(), 1.0))
                .collect(),
        }
    }
}

#[test]
fn a_guess_among_equals_counts_its_chance() {
    let scores = [("a", 3.0), ("b", 2.0), ("c", 2.0), ("d", 2.0)];
    let opinion = Opinion {
        alarm: true,
        scores: scores.map(|(mode, score)| (mode.to_owned(), score)).into(),
    };
    let close = |mode, top, expected: f64| {
        let credit = opinion.credit(mode, top);
        assert!((credit - expected).abs() < 1e-9, "{mode} {top}: {credit}");
    };
    close("a", 1, 1.0);
    close("b", 1, 0.0);
    close("b", 3, 2.0 / 3.0);
    close("d", 4, 1.0);
    close("e", 9, 0.0);
}
