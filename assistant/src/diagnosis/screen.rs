//! What need not be asked: where something that a failure mode requires is nowhere beyond its threshold, the mode is excluded,
//! and nothing else that belongs to it could change that. So the cheapest requirement of each is looked at first, for the
//! whole cluster and with the threshold in the query, which answers with a number and no series.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::catalogue::Catalogue;
use super::evidence::slots;
use super::expression::{Expression, Names};
use super::place::Workload;
use super::snapshot::{Answer, Deadline, Missing, Series, Snapshot};
use super::topology::Topology;
use crate::prometheus::Prometheus;
use crate::runbook::{End, EvidenceQuery, Role};

/// Workloads by which a mode's evidence is asked for, at most.
const FOCUS: usize = 40;
/// What floors alone cost, as a part of the whole expression, to be worth a look.
const WORTH: f64 = 0.5;
/// Workloads around those that are asked about, at most.
const NEIGHBOURHOOD: usize = 100;
/// Ends that have no name of their own; their pairs are everybody's.
const NAMELESS: [&str; 5] = ["~external", "~host", "~node", "~other", "~unknown"];
/// What names may have besides letters and digits. A dot stands for any character, which only admits more.
const PLAIN: &[u8] = b"-_.~";

/// A piece of evidence, and its expression or why that cannot be used.
pub type Asked = (EvidenceQuery, Result<Arc<Expression>, String>);

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

/// A mode's evidence: what of it was asked, and the answers by the query for the whole cluster. Evaluated again, that gives the
/// same values wherever the mode can be.
pub struct Unit {
    pub needs: Vec<Need>,
    pub answers: Answers,
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
    /// The workloads that the question can be about. Of pairs that have another one at an end nothing is asked.
    pub near: Option<Names>,
    /// How many workloads there are.
    pub workloads: usize,
}

/// The workloads that a question about `asked` can be about, where they are few.
pub fn neighbourhood(asked: &BTreeSet<Workload>, topology: &Topology) -> Option<Names> {
    if asked.is_empty() {
        return None;
    }
    let around = topology.around(asked);
    let mut names: BTreeSet<&str> = around.iter().map(|workload| &*workload.name).collect();
    names.extend(NAMELESS);
    one_of(&names, NEIGHBOURHOOD)
}

/// Any of so many names at most.
fn one_of(names: &BTreeSet<&str>, most: usize) -> Option<Names> {
    let is_plain = |name: &&str| {
        name.bytes()
            .all(|byte| PLAIN.contains(&byte) || byte.is_ascii_alphanumeric())
    };
    let few = !names.is_empty() && names.len() <= most && names.iter().all(is_plain);
    if !few {
        return None;
    }
    let names: Vec<&str> = names.iter().copied().collect();
    Names::new(&names.join("|"))
}

impl Screen<'_> {
    /// Of each piece of evidence of each of `modes`, whether it was asked, and the answers. A screen that does not come
    /// excludes nothing, and a slow one keeps only its own mode waiting.
    pub async fn ask(&self, modes: &[&[Asked]]) -> Vec<Unit> {
        join_all(modes.iter().map(|mode| self.mode(mode))).await
    }

    /// What is required and there is nothing of in the cluster: what is cheapest is looked at first.
    async fn excluded(&self, mode: &[Asked]) -> Option<Slot> {
        let mut first = self.slots(mode, Look::Spine);
        let rest = first.split_off(first.len().min(1));
        for slots in [first, rest] {
            let queries = slots.iter().flat_map(Slot::texts);
            let answers = self.evaluate(queries.collect()).await;
            let found = slots.into_iter().find(|slot| slot.is_nowhere(&answers));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// What is required and nothing reaches the floors of; otherwise between which workloads the mode can be: `None` where they
    /// are many, or not known.
    async fn focus(&self, mode: &[Asked]) -> Result<Option<Names>, Slot> {
        let look = match is_of_pairs(mode) {
            true => Look::Pairs,
            false => Look::Floors,
        };
        let mut slots = self.slots(mode, look);
        // All that is required is at the same place, so of what has no floors the places of one are enough.
        let mut has_places = false;
        slots.retain(|slot| slot.is_floored || !std::mem::replace(&mut has_places, true));
        let answers = self
            .evaluate(slots.iter().flat_map(Slot::texts).collect())
            .await;
        if let Some(nowhere) = slots.iter().position(|slot| slot.is_nowhere(&answers)) {
            return Err(slots.swap_remove(nowhere));
        }
        let names = slots.iter().filter_map(|slot| slot.workloads(&answers));
        Ok(names
            .min_by_key(BTreeSet::len)
            .and_then(|names| self.few(&names)))
    }

    /// Where few workloads come into question only what is about these is asked: nothing else of the mode's evidence is about a
    /// place where the mode can be.
    async fn mode(&self, whole: &[Asked]) -> Unit {
        let around = restricted(whole, self.near.as_ref(), Expression::of_pairs_among);
        let mut mode = around.clone();
        let mut needs = vec![Need::Ask; mode.len()];
        if self.depth == Depth::Deciding {
            if let Some(nowhere) = self.excluded(&around).await {
                return nowhere.excludes(whole.len());
            }
            match self.focus(&around).await {
                Ok(focus) => mode = restricted(&around, focus.as_ref(), Expression::among),
                Err(nowhere) => return nowhere.excludes(whole.len()),
            }
            // One after the other, the cheapest first: the modes wait beside each other.
            let mut fewest: Option<BTreeSet<String>> = None;
            for slot in self.slots(&mode, Look::Whole) {
                let answers = self.evaluate(slot.texts().collect()).await;
                if slot.is_nowhere(&answers) {
                    return slot.excludes(mode.len());
                }
                let names = slot.workloads_beyond(&answers);
                let names = names.into_iter().chain(fewest);
                fewest = names.min_by_key(BTreeSet::len);
            }
            if let Some(names) = fewest.filter(|_| is_of_pairs(whole)) {
                self.refocus(&around, &mut mode, &names);
            }
            self.outline(&around, &mut mode, &mut needs).await;
        }
        let mut queries: Vec<(String, String)> = Vec::new();
        for (((_, whole), (_, near)), need) in whole.iter().zip(&mode).zip(&needs) {
            if let (Ok(whole), Ok(near), Need::Ask) = (whole, near, need) {
                queries.extend(
                    self.windows
                        .map(|window| (whole.query(window), near.query(window))),
                );
            }
        }
        let near = queries.iter().map(|(_, near)| near.clone()).collect();
        let near = self.evaluate(near).await;
        let answers = queries
            .into_iter()
            .map(|(whole, text)| (whole, near[&text].clone()))
            .collect();
        Unit { needs, answers }
    }

    /// All that is required is at the same place, so the places of what is beyond its threshold at the fewest are enough. What has
    /// been answered is not asked anew for less.
    fn refocus(&self, around: &[Asked], mode: &mut [Asked], names: &BTreeSet<String>) {
        let names = names.iter().map(String::as_str).collect();
        let Some(names) = self.few(&names) else {
            return;
        };
        for (asked, around) in mode.iter_mut().zip(around) {
            let is_sparse = asked.1.as_ref().is_ok_and(|one| one.is_sparse());
            if asked.0.role != Role::Requires || !is_sparse {
                *asked = near(around, Some(&names), Expression::among);
            }
        }
    }

    /// Of evidence that costs much more than to see where it can be beyond its threshold, that is seen first: what can be nowhere is
    /// not asked, and the rest for few workloads where they are few.
    async fn outline(&self, around: &[Asked], mode: &mut [Asked], needs: &mut [Need]) {
        let outlines = mode.iter().map(|asked| self.outlines(asked).into_iter());
        let mut outlines: Vec<_> = outlines.collect();
        loop {
            let next: Vec<Option<String>> = outlines.iter_mut().map(Iterator::next).collect();
            let queries: BTreeSet<String> = next.iter().flatten().cloned().collect();
            if queries.is_empty() {
                return;
            }
            let answers = self.evaluate(queries).await;
            for (index, outline) in next.into_iter().enumerate() {
                let Some(Ok(found)) = outline.map(|query| &answers[&query]) else {
                    continue;
                };
                if found.is_empty() {
                    needs[index] = Need::Nowhere;
                } else if let Some(names) =
                    workloads(found.iter()).and_then(|names| self.few(&names))
                {
                    mode[index] = near(&around[index], Some(&names), Expression::among);
                } else {
                    continue;
                }
                outlines[index] = Vec::new().into_iter();
            }
        }
    }

    /// Looks that find all places where evidence can be, each cheaper than the next and much cheaper than the evidence.
    fn outlines(&self, (query, expression): &Asked) -> Vec<String> {
        let Ok(expression) = expression else {
            return Vec::new();
        };
        let mut metrics = expression.metrics().iter();
        let is_measured = metrics.all(|metric| self.catalogue.measures(metric));
        // What is required has been looked at.
        if query.role == Role::Requires || query.baseline.is_some() || !is_measured {
            return Vec::new();
        }
        let series = |metric: &str| self.catalogue.series(metric);
        let is_cheap = |cost: f64| cost < WORTH * expression.cost(&series);
        let mut outlines = Vec::new();
        if expression.cost_of_floored(&series).is_some_and(is_cheap) {
            let pairs = expression.query_floored_pairs(&self.windows);
            outlines.extend(pairs.or_else(|| expression.query_floored(&self.windows)));
        } else if is_cheap(expression.cost_of_spine(&series)) {
            let pairs = expression.query_spine_pairs(self.windows[0]);
            outlines.extend(pairs.or_else(|| expression.query_spine(self.windows[0])));
        }
        if expression.is_bounded() {
            outlines.push(expression.query_beyond(&self.windows, false));
        }
        outlines
    }

    /// The names by which evidence is asked for. Where little is left out, the same query as of other modes is better: it is
    /// answered once for all.
    fn few(&self, names: &BTreeSet<&str>) -> Option<Names> {
        let is_worth_it = names.len() * 2 <= self.workloads;
        is_worth_it.then(|| one_of(names, FOCUS)).flatten()
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
        let mut slot = Slot {
            is_floored: true,
            ..Slot::default()
        };
        for (index, (query, expression)) in members {
            let expression = expression.as_ref().ok()?;
            let mut metrics = expression.metrics().iter();
            is_measured |= metrics.all(|metric| self.catalogue.measures(metric));
            slot.members.push(*index);
            let compared = query.baseline.is_some();
            slot.cost += match look {
                Look::Spine | Look::Floors | Look::Pairs if compared => return None,
                Look::Spine => {
                    // The other window is a part of this one.
                    let text = expression.query_spine(self.windows[0])?;
                    slot.queries.push(text);
                    expression.cost_of_spine(&series)
                }
                Look::Floors | Look::Pairs => {
                    // Where it is hardly less work than the whole, the whole may as well be asked.
                    let floored = expression.cost_of_floored(&series);
                    slot.is_floored &=
                        floored.is_some_and(|cost| cost < WORTH * expression.cost(&series));
                    let text = match look {
                        Look::Pairs if slot.is_floored => {
                            expression.query_floored_pairs(&self.windows)
                        }
                        Look::Pairs => expression.query_spine_pairs(self.windows[0]),
                        _ if slot.is_floored => expression.query_floored(&self.windows),
                        _ => None,
                    };
                    slot.queries.push(text?);
                    floored.unwrap_or_else(|| expression.cost_of_spine(&series))
                }
                // The answers are short, and wanted if the mode is not excluded.
                Look::Whole if !compared && expression.is_sparse() => {
                    let each = self.windows.map(|window| expression.query(window));
                    slot.values
                        .extend(each.map(|text| (text, expression.clone())));
                    expression.cost(&series)
                }
                Look::Whole => {
                    let text = expression.query_beyond(&self.windows, compared);
                    slot.queries.push(text);
                    expression.cost(&series)
                }
            };
        }
        is_measured.then_some(slot)
    }
}

/// The ends of the pairs that were found; `None`: they were not told.
fn workloads<'a>(pairs: impl IntoIterator<Item = &'a Series>) -> Option<BTreeSet<&'a str>> {
    let ends = pairs.into_iter().flat_map(|pair| {
        let ends = ["src_workload", "dst_workload"].into_iter();
        ends.map(|end| pair.labels.get(end).map(String::as_str))
    });
    ends.collect()
}

/// The evidence for workloads among `names` alone, where that can be said of it.
fn restricted(
    mode: &[Asked],
    names: Option<&Names>,
    among: impl Fn(&Expression, &Names) -> Option<Expression>,
) -> Vec<Asked> {
    mode.iter()
        .map(|asked| near(asked, names, &among))
        .collect()
}

fn near(
    (query, expression): &Asked,
    names: Option<&Names>,
    among: impl Fn(&Expression, &Names) -> Option<Expression>,
) -> Asked {
    let near = || {
        let near = among(expression.as_ref().ok()?, names?)?;
        Some(Ok(Arc::new(near)))
    };
    (query.clone(), near().unwrap_or_else(|| expression.clone()))
}

/// Whether all that a mode requires is about pairs, and tells which.
fn is_of_pairs(mode: &[Asked]) -> bool {
    let mut requires = mode
        .iter()
        .filter(|(query, _)| query.role == Role::Requires);
    requires.all(|(query, expression)| {
        let labels = expression.as_ref().ok().and_then(|one| one.labels());
        let tells = |label: &str| labels.as_ref().is_some_and(|labels| labels.contains(label));
        query.at == End::Pair && tells("src_workload") && tells("dst_workload")
    })
}

/// How closely a requirement is looked at.
#[derive(Debug, Clone, Copy)]
enum Look {
    /// Whether there is any of what it is about.
    Spine,
    /// Whether there is as much of that as its floors ask for.
    Floors,
    /// The same, with the workloads between which it is; without floors where there is any.
    Pairs,
    /// Whether there is enough, in comparison with all that it is measured by.
    Whole,
}

/// Alternatives of which a mode requires one.
#[derive(Debug, Default)]
struct Slot {
    /// Indices in the mode's evidence.
    members: Vec<usize>,
    /// Each counts what is beyond a threshold.
    queries: Vec<String>,
    /// Each gives the values that its expression compares.
    values: Vec<(String, Arc<Expression>)>,
    cost: f64,
    /// The queries leave out what is below a floor.
    is_floored: bool,
}

impl Slot {
    /// Of a mode with so much evidence, where this is nowhere.
    fn excludes(&self, evidence: usize) -> Unit {
        let needs = (0..evidence).map(|index| match self.members.contains(&index) {
            true => Need::Nowhere,
            false => Need::Needless,
        });
        Unit {
            needs: needs.collect(),
            answers: Answers::new(),
        }
    }

    /// The workloads of the pairs that were found.
    fn workloads<'a>(&self, answers: &'a Answers) -> Option<BTreeSet<&'a str>> {
        let mut names = BTreeSet::new();
        for query in &self.queries {
            names.extend(workloads(answers[query].as_ref().ok()?.iter())?);
        }
        Some(names)
    }

    /// The same of the pairs that are beyond the threshold.
    fn workloads_beyond(&self, answers: &Answers) -> Option<BTreeSet<String>> {
        let mut names = self.workloads(answers)?;
        for (query, expression) in &self.values {
            let values = answers[query].as_ref().ok()?;
            let beyond = values.iter().filter(|one| expression.holds(one.value));
            names.extend(workloads(beyond)?);
        }
        Some(names.into_iter().map(str::to_owned).collect())
    }

    fn texts(&self) -> impl Iterator<Item = String> {
        let values = self.values.iter().map(|(text, _)| text);
        self.queries.iter().chain(values).cloned()
    }

    fn is_nowhere(&self, answers: &Answers) -> bool {
        let nothing = |query: &String| matches!(&answers[query], Ok(counted) if counted.is_empty());
        let none_beyond = |(query, expression): &(String, Arc<Expression>)| match &answers[query] {
            Ok(values) => !values.iter().any(|series| expression.holds(series.value)),
            Err(_) => false,
        };
        self.queries.iter().all(nothing) && self.values.iter().all(none_beyond)
    }
}
