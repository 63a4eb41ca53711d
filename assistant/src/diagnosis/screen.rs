//! What need not be asked: where something that a failure mode requires is nowhere beyond its threshold, the mode is excluded,
//! and nothing else that belongs to it could change that. So the cheapest requirement of each is looked at first, for the
//! whole cluster and with the threshold in the query, which answers with a number and no series.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::evidence::slots;
use super::expression::Expression;
use super::measure::Catalogue;
use super::snapshot::{Answer, Deadline, Missing, Snapshot};
use crate::prometheus::Prometheus;
use crate::runbook::{EvidenceQuery, Role};

/// A piece of evidence, and its expression or why that cannot be used.
pub type Asked = (EvidenceQuery, Result<Expression, String>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Ask,
    /// It was looked for, and no series is beyond the threshold.
    Nowhere,
    /// Something else is nowhere, and that decides.
    Needless,
}

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What can change which modes there are, and all about those.
    Deciding,
    /// All, for who shows what is not there.
    Whole,
}

pub type Answers = HashMap<String, Result<Answer, Missing>>;

/// What all modes are measured with.
pub struct Screen<'a> {
    pub prometheus: &'a Prometheus,
    pub snapshot: &'a Arc<Snapshot>,
    /// Over which every expression is looked at.
    pub windows: [Duration; 2],
    pub catalogue: &'a Catalogue,
    pub depth: Depth,
    pub deadline: Deadline,
}

impl Screen<'_> {
    /// Of each piece of evidence of each of `modes`, whether it was asked, and the answers. A screen that does not come
    /// excludes nothing, and a slow one keeps only its own mode waiting.
    pub async fn ask(&self, modes: &[&[Asked]]) -> (Vec<Need>, Answers) {
        let measured = join_all(modes.iter().map(|mode| self.mode(mode))).await;
        let mut needs = Vec::new();
        let mut answers = Answers::new();
        for (of_mode, more) in measured {
            needs.extend(of_mode);
            answers.extend(more);
        }
        (needs, answers)
    }

    async fn mode(&self, mode: &[Asked]) -> (Vec<Need>, Answers) {
        let (mut spines, whole) = match self.depth {
            Depth::Deciding => (self.slots(mode, Look::Spine), self.slots(mode, Look::Whole)),
            Depth::Whole => Default::default(),
        };
        let bounded = self.bounded(mode);
        let more_spines = spines.split_off(spines.len().min(1));
        let mut needs = vec![Need::Ask; mode.len()];
        for (slots, bounded) in [(spines, &[][..]), (more_spines, &[]), (whole, &bounded)] {
            let queries = slots.iter().chain(bounded);
            let queries = queries.flat_map(|slot| slot.queries.clone());
            let answers = self.evaluate(queries.collect()).await;
            if let Some(nowhere) = slots.iter().find(|slot| slot.is_nowhere(&answers)) {
                let needs = (0..mode.len()).map(|index| match nowhere.members.contains(&index) {
                    true => Need::Nowhere,
                    false => Need::Needless,
                });
                return (needs.collect(), Answers::new());
            }
            for slot in bounded.iter().filter(|slot| slot.is_nowhere(&answers)) {
                needs[slot.members[0]] = Need::Nowhere;
            }
        }
        let mut queries = BTreeSet::new();
        for ((_, expression), need) in mode.iter().zip(&needs) {
            if let (Ok(expression), Need::Ask) = (expression, need) {
                queries.extend(self.windows.map(|window| expression.query(window)));
            }
        }
        (needs, self.evaluate(queries).await)
    }

    /// Evidence that is no requirement and costs much more than to see that it is nowhere.
    fn bounded(&self, mode: &[Asked]) -> Vec<Slot> {
        let indexed = mode.iter().enumerate();
        indexed
            .filter(|(_, (query, expression))| {
                self.depth == Depth::Deciding
                    && query.role != Role::Requires
                    && query.baseline.is_none()
                    && expression.as_ref().is_ok_and(Expression::is_bounded)
            })
            .filter_map(|asked| self.slot(&[&asked], Look::Whole))
            .collect()
    }

    pub async fn evaluate(&self, queries: BTreeSet<String>) -> Answers {
        if queries.is_empty() {
            return Answers::new();
        }
        let snapshot = self.snapshot;
        snapshot
            .evaluate(self.prometheus, queries, self.deadline)
            .await
    }

    /// Those that can exclude the mode, the cheapest first.
    fn slots(&self, mode: &[Asked], look: Look) -> Vec<Slot> {
        let indexed: Vec<(usize, &Asked)> = mode.iter().enumerate().collect();
        let mut found: Vec<Slot> = slots(&indexed, |(_, asked)| &asked.0)
            .into_iter()
            .filter_map(|slot| self.slot(&slot, look))
            .collect();
        found.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        found
    }

    /// `None`: nobody measures it or it cannot be asked so, and it cannot be said that it is nowhere.
    fn slot(&self, members: &[&(usize, &Asked)], look: Look) -> Option<Slot> {
        let series = |metric: &str| self.catalogue.series(metric);
        let mut is_measured = false;
        let mut slot = Slot::default();
        for (index, (query, expression)) in members {
            let expression = expression.as_ref().ok()?;
            let mut metrics = expression.metrics().iter();
            is_measured |= metrics.all(|metric| self.catalogue.measures(metric));
            slot.members.push(*index);
            let compared = query.baseline.is_some();
            let (text, cost) = match look {
                Look::Spine if compared => return None,
                Look::Spine => {
                    // The other window is a part of this one.
                    let text = expression.query_spine(self.windows[0])?;
                    (text, expression.cost_of_spine(&series))
                }
                Look::Whole => {
                    let text = expression.query_beyond(&self.windows, compared);
                    (text, expression.cost(&series))
                }
            };
            slot.queries.push(text);
            slot.cost += cost;
        }
        is_measured.then_some(slot)
    }
}

/// How closely a requirement is looked at.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// Whether there is any of what it is about.
    Spine,
    /// Whether there is enough, in comparison with all that it is measured by.
    Whole,
}

/// Alternatives of which a mode requires one.
#[derive(Debug, Default)]
struct Slot {
    /// Indices in the mode's evidence.
    members: Vec<usize>,
    queries: Vec<String>,
    cost: f64,
}

impl Slot {
    fn is_nowhere(&self, answers: &Answers) -> bool {
        self.queries
            .iter()
            .all(|query| matches!(&answers[query], Ok(counted) if counted.is_empty()))
    }
}
