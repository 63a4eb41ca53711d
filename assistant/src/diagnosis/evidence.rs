//! Evidence with what was measured: readings for the whole cluster, and what they say about one place; pure.

use std::time::Duration;

use super::expression::Expression;
use super::place::{Place, Position};
use super::snapshot::{Answer, Series};
use crate::runbook::{End, EvidenceQuery, Role};

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
    /// What the unfloored looks say, where `recent` says nothing.
    pub unfloored: Sight<'a>,
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
    /// It was, and now there is nothing to judge by: no traffic.
    Silent,
    /// It was, and is not any more.
    Over,
}

impl Reading {
    pub fn seen(&self, admits: impl Fn(&Position) -> bool) -> Seen<'_> {
        Seen {
            window: self.sight(&self.window, &admits),
            recent: self.sight(&self.recent, &admits),
            unfloored: self
                .unfloored
                .iter()
                .map(|look| self.sight(look, &admits))
                .find(|sight| *sight != Sight::Nothing)
                .unwrap_or(Sight::Nothing),
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
            (Sight::Beyond(_), Sight::Nothing) => Outcome::Present(match seen.unfloored {
                Sight::Beyond(_) => Activity::Now,
                Sight::Below(_) => Activity::Over,
                Sight::Nothing => Activity::Silent,
            }),
            (Sight::Beyond(_), Sight::Below(_)) => Outcome::Present(Activity::Over),
            _ if self.gap.is_some() => Outcome::Unavailable,
            _ => Outcome::Absent,
        }
    }

    /// The evaluation that shows the evidence best: the window that was asked for, unless only its recent part is beyond
    /// the threshold.
    pub fn shown(&self, seen: &Seen<'_>) -> &Look {
        match (seen.window, seen.recent) {
            (Sight::Beyond(_), _) => &self.window,
            (_, Sight::Beyond(_)) => &self.recent,
            _ => &self.window,
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

impl<'a> Seen<'a> {
    /// The series that is shown: the same as [`Reading::shown`] chooses.
    pub fn strongest(&self) -> Option<&'a Series> {
        match (self.window, self.recent) {
            (Sight::Beyond(series), _) | (_, Sight::Beyond(series)) => Some(series),
            (Sight::Below(series), _) => Some(series),
            (Sight::Nothing, _) => None,
        }
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
