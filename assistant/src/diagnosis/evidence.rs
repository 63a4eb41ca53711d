//! Evidence with what was measured: readings for the whole cluster, and what they say about one place; pure.

use std::time::Duration;

use super::expression::Expression;
use super::place::{Place, Position};
use super::snapshot::{Answer, Series};
use crate::runbook::{End, EvidenceQuery, Role};

/// A recent value this many times as strong is told instead of the window's.
const MUCH_STRONGER: f64 = 1.5;

/// The result of one expression, over the window and over its most recent part.
#[derive(Debug, Clone)]
pub struct Reading {
    pub expression: Expression,
    pub at: End,
    pub window: Look,
    pub recent: Look,
    /// Asked where the window is beyond the threshold and its recent part has no series: without floors, over the recent part
    /// and then over a longer one.
    pub unfloored: Vec<Look>,
    /// Why the absence of series means nothing, where it does: a metric is not measured, the query failed.
    pub gap: Option<String>,
}

/// One evaluation.
#[derive(Debug, Clone)]
pub struct Look {
    pub query: String,
    pub length: Duration,
    pub series: Answer,
}

/// A reading and the piece of evidence it is of.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub query: EvidenceQuery,
    /// Only where the expression cannot be used is there no reading.
    pub reading: Result<Reading, String>,
}

/// What one evaluation says about a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sight<'a> {
    /// No series is about this place.
    Nothing,
    /// The strongest one is on the good side of the threshold.
    Below(&'a Series),
    Beyond(&'a Series),
}

/// What a reading says about a place.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub window: Sight<'a>,
    pub recent: Sight<'a>,
    /// What the unfloored looks say, where `recent` says nothing: the shorter one, and the longer one.
    pub bare_recent: Sight<'a>,
    pub bare_longer: Sight<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Beyond the threshold in the window, in its recent part, or in both.
    Present(Activity),
    Absent,
    Unavailable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Beyond the threshold in the recent part.
    Now,
    /// There is nothing to judge by in the recent part, and it was at the last occasion before: traffic is rare.
    Lately,
    /// It was, and since then there is nothing to judge by: no traffic.
    Silent,
    /// It was, and is not any more.
    Over,
}

impl Reading {
    pub fn seen(&self, admits: impl Fn(&Position) -> bool) -> Seen<'_> {
        let bare = |index: usize| {
            let look = self.unfloored.get(index);
            look.map_or(Sight::Nothing, |look| self.sight(look, &admits))
        };
        Seen {
            window: self.sight(&self.window, &admits),
            recent: self.sight(&self.recent, &admits),
            bare_recent: bare(0),
            bare_longer: bare(1),
        }
    }

    pub fn seen_at(&self, place: &Place) -> Seen<'_> {
        self.seen(|position| place.admits(position, self.at))
    }

    fn sight<'a>(&self, look: &'a Look, admits: impl Fn(&Position) -> bool) -> Sight<'a> {
        let strongest = look
            .series
            .iter()
            .filter(|series| admits(&series.position))
            .min_by(|a, b| self.order(a, b));
        match strongest {
            None => Sight::Nothing,
            Some(series) if self.expression.holds(series.value) => Sight::Beyond(series),
            // `!=` has no strongest value: any other one will do.
            Some(series) => look
                .series
                .iter()
                .find(|other| admits(&other.position) && self.expression.holds(other.value))
                .map_or(Sight::Below(series), Sight::Beyond),
        }
    }

    /// Strongest first, and in one order for one set of series.
    pub fn order(&self, a: &Series, b: &Series) -> std::cmp::Ordering {
        self.expression
            .strongest_first(a.value, b.value)
            .then_with(|| a.labels.cmp(&b.labels))
    }

    pub fn outcome(&self, seen: &Seen<'_>) -> Outcome {
        match (seen.window, seen.recent) {
            (_, Sight::Beyond(_)) => Outcome::Present(Activity::Now),
            (Sight::Beyond(_), Sight::Nothing) => {
                Outcome::Present(match (seen.bare_recent, seen.bare_longer) {
                    (Sight::Beyond(_), _) => Activity::Now,
                    (Sight::Below(_), _) | (Sight::Nothing, Sight::Below(_)) => Activity::Over,
                    (Sight::Nothing, Sight::Beyond(_)) => Activity::Lately,
                    (Sight::Nothing, Sight::Nothing) => Activity::Silent,
                })
            }
            (Sight::Beyond(_), Sight::Below(_)) => Outcome::Present(Activity::Over),
            _ if self.gap.is_some() => Outcome::Unavailable,
            _ => Outcome::Absent,
        }
    }

    /// The evaluation that shows the evidence best, and its strongest series: the window that was asked for, unless only its
    /// recent part is beyond the threshold, or much further so, as when the fault has just begun.
    pub fn shown<'a>(&'a self, seen: &Seen<'a>) -> (&'a Look, Option<&'a Series>) {
        match (seen.window, seen.recent) {
            (Sight::Beyond(whole), Sight::Beyond(recent)) => {
                let gain =
                    self.expression.strength(recent.value) - self.expression.strength(whole.value);
                if gain > MUCH_STRONGER.ln() {
                    (&self.recent, Some(recent))
                } else {
                    (&self.window, Some(whole))
                }
            }
            (Sight::Beyond(whole), _) | (Sight::Below(whole), Sight::Below(_) | Sight::Nothing) => {
                (&self.window, Some(whole))
            }
            (_, Sight::Beyond(recent)) => (&self.recent, Some(recent)),
            (Sight::Nothing, _) => (&self.window, None),
        }
    }

    /// All series beyond the threshold, in the window or its recent part.
    pub fn beyond(&self) -> impl Iterator<Item = &Series> {
        self.window
            .series
            .iter()
            .chain(self.recent.series.iter())
            .filter(|series| self.expression.holds(series.value))
    }
}

impl Evidence {
    /// Log-odds that this piece is worth.
    pub fn weight(&self) -> f64 {
        self.query.weight.unwrap_or(match self.query.role {
            Role::Requires => 0.5,
            Role::Supports => 1.0,
            Role::Contradicts => 3.0,
        })
    }
}
