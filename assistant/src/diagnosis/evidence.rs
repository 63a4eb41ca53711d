//! Evidence with what was measured: readings for the whole cluster, and what they say about one place; pure.

use std::sync::Arc;
use std::time::Duration;

use super::expression::Expression;
use super::place::{Place, Position};
use super::snapshot::{Answer, Series};
use super::topology::Topology;
use crate::runbook::{Compare, End, EvidenceQuery, Role};

/// A recent value this many times as strong is told instead of the window's.
const MUCH_STRONGER: f64 = 1.5;

/// The result of one expression, over the window and over its most recent part.
#[derive(Debug, Clone)]
pub struct Reading {
    pub expression: Arc<Expression>,
    pub at: End,
    pub window: Look,
    pub recent: Look,
    /// Asked where the window is beyond the threshold and its recent part has no series: without floors, over the recent part
    /// and then over a longer one.
    pub unfloored: Vec<Look>,
    /// Why the absence of series means nothing, where it does.
    pub gap: Option<Gap>,
    /// The change since an earlier time is what is judged, and [`Series::earlier`] has the value of then.
    pub compare: Option<Compare>,
    pub topology: Arc<Topology>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// Nobody measures a metric that it needs.
    Unmeasured(String),
    /// It was asked for and did not come.
    Failed(String),
    /// It was not asked for, because something else that its mode requires is nowhere.
    Needless,
}

impl Gap {
    pub fn reason(&self) -> &str {
        match self {
            Self::Unmeasured(reason) | Self::Failed(reason) => reason,
            Self::Needless => "another requirement is nowhere",
        }
    }
}

/// One evaluation.
#[derive(Debug, Clone)]
pub struct Look {
    pub query: String,
    pub length: Duration,
    pub series: Answer,
    /// It was asked for and did not come: that there are no series says nothing.
    pub failed: bool,
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
    /// Some series here has nothing to be compared with.
    pub incomparable: bool,
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
    /// It was, and since then there is nothing to judge by: no traffic, or what was measured is gone.
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
            incomparable: self
                .window
                .series
                .iter()
                .any(|series| self.judged(series).is_none() && admits(&series.position)),
        }
    }

    pub fn seen_at(&self, place: &Place) -> Seen<'_> {
        self.seen(|position| self.is_about(place, position))
    }

    pub fn is_about(&self, place: &Place, position: &Position) -> bool {
        place.admits(position, self.at, &self.topology)
    }

    /// What the threshold is applied to: the value, or its change. `None`: there is nothing to compare it with.
    pub fn judged(&self, series: &Series) -> Option<f64> {
        let Some(compare) = self.compare else {
            return Some(series.value);
        };
        let (_, earlier) = series.earlier?;
        Some(change(compare, series.value, earlier))
    }

    pub fn holds(&self, series: &Series) -> bool {
        self.judged(series)
            .is_some_and(|value| self.expression.holds(value))
    }

    /// See [`Expression::strength`].
    pub fn strength(&self, series: &Series) -> f64 {
        self.judged(series)
            .map_or(0.0, |value| self.expression.strength(value))
    }

    /// `> 0.01`, or of a change `> 3 × baseline`, `> 0.01 + baseline`.
    pub fn threshold(&self) -> String {
        let threshold = self.expression.threshold();
        match self.compare {
            None => threshold,
            Some(Compare::Ratio) => format!("{threshold} × baseline"),
            Some(Compare::Delta) => format!("{threshold} + baseline"),
        }
    }

    fn sight<'a>(&self, look: &'a Look, admits: impl Fn(&Position) -> bool) -> Sight<'a> {
        let strongest = look
            .series
            .iter()
            .filter(|series| admits(&series.position) && self.judged(series).is_some())
            .min_by(|a, b| self.order(a, b));
        match strongest {
            None => Sight::Nothing,
            Some(series) if self.holds(series) => Sight::Beyond(series),
            // `!=` has no strongest value: any other one will do.
            Some(series) => look
                .series
                .iter()
                .find(|other| admits(&other.position) && self.holds(other))
                .map_or(Sight::Below(series), Sight::Beyond),
        }
    }

    /// Strongest first, and in one order for one set of series.
    pub fn order(&self, a: &Series, b: &Series) -> std::cmp::Ordering {
        let value = |series| self.judged(series).unwrap_or(series.value);
        self.expression
            .strongest_first(value(a), value(b))
            .then_with(|| a.labels.cmp(&b.labels))
    }

    pub fn outcome(&self, seen: &Seen<'_>) -> Outcome {
        match (seen.window, seen.recent) {
            (_, Sight::Beyond(_)) => Outcome::Present(Activity::Now),
            // Whether it goes on is what matters most.
            (Sight::Beyond(_), Sight::Nothing) if self.recent_failed() => Outcome::Unavailable,
            (Sight::Beyond(_), Sight::Nothing) => {
                Outcome::Present(match (seen.bare_recent, seen.bare_longer) {
                    (Sight::Beyond(_), _) => Activity::Now,
                    (Sight::Below(_), _) | (Sight::Nothing, Sight::Below(_)) => Activity::Over,
                    (Sight::Nothing, Sight::Beyond(_)) if !self.expression.is_level() => {
                        Activity::Lately
                    }
                    (Sight::Nothing, Sight::Beyond(_) | Sight::Nothing) => Activity::Silent,
                })
            }
            (Sight::Beyond(_), Sight::Below(_)) => Outcome::Present(Activity::Over),
            _ if self.gap.is_some() || seen.incomparable => Outcome::Unavailable,
            _ => Outcome::Absent,
        }
    }

    fn recent_failed(&self) -> bool {
        self.recent.failed || self.unfloored.iter().any(|look| look.failed)
    }

    /// The evaluation that shows the evidence best, and its strongest series: the window that was asked for, unless only its
    /// recent part is beyond the threshold, or much further so, as when the fault has just begun.
    pub fn shown<'a>(&'a self, seen: &Seen<'a>) -> (&'a Look, Option<&'a Series>) {
        match (seen.window, seen.recent) {
            (Sight::Beyond(whole), Sight::Beyond(recent)) => {
                let gain = self.strength(recent) - self.strength(whole);
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
            .filter(|series| self.holds(series))
    }
}

/// A value of nothing that was nothing before has not changed.
fn change(compare: Compare, value: f64, earlier: f64) -> f64 {
    match compare {
        Compare::Delta => value - earlier,
        Compare::Ratio if value == earlier => 1.0,
        Compare::Ratio => value / earlier,
    }
}

/// What is required: each slot by at least one of its members. `query` finds the evidence of an item.
pub fn slots<T>(items: &[T], query: impl Fn(&T) -> &EvidenceQuery) -> Vec<Vec<&T>> {
    let mut slots: Vec<Vec<&T>> = Vec::new();
    for item in items {
        if query(item).role != Role::Requires {
            continue;
        }
        let group = &query(item).group;
        let same = slots
            .iter_mut()
            .find(|slot| group.is_some() && query(slot[0]).group == *group);
        match same {
            Some(slot) => slot.push(item),
            None => slots.push(vec![item]),
        }
    }
    slots
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

    /// Whether its absence at a place means anything.
    pub fn is_measured(&self) -> bool {
        matches!(&self.reading, Ok(reading) if reading.gap.is_none())
    }

    /// Whether it was asked for and did not come.
    pub fn failed(&self) -> bool {
        match &self.reading {
            Ok(reading) => matches!(reading.gap, Some(Gap::Failed(_))),
            Err(_) => true,
        }
    }

    /// Whether it needs what nobody measures here, as opposed to what was asked for and did not come.
    pub fn is_unmeasured(&self) -> bool {
        matches!(&self.reading, Ok(reading) if matches!(reading.gap, Some(Gap::Unmeasured(_))))
    }
}
