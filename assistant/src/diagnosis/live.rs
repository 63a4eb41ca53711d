//! `Engine::live`: what the evidence of one runbook says at a moment, and the last hour of each value. For the runbook's
//! page, which shows all of it and ranks nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::degraded::Degraded;
use super::evidence::{Activity, Evidence, Outcome, Reading};
use super::place::{Place, Position};
use super::response::Part;
use super::scope::Scope;
use super::snapshot::Deadline;
use super::{Engine, rank, screen, settle, words};
use crate::prometheus::{Matrix, Prometheus, QueryError, Range};
use crate::runbook::{FailureMode, Role, Runbook};

/// How far back a plot looks.
pub const HISTORY: Duration = Duration::from_secs(3600);
const STEP: Duration = Duration::from_secs(15);
const MAX_PLACES: usize = 5;

/// When and about whom a page is.
#[derive(Debug, Clone)]
pub struct Moment {
    pub scope: Scope,
    pub time_millis: i64,
    pub window: Duration,
}

/// What a page shows of its failure modes.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// The scope as the metrics know it.
    pub scope: Scope,
    pub modes: Vec<LiveMode>,
    pub degraded: Vec<Part>,
}

#[derive(Debug, Clone)]
pub struct LiveMode {
    pub title: String,
    pub anchor: String,
    /// Of all that the mode requires, wherever in the scope it is.
    pub outcome: &'static str,
    pub evidence: Vec<LiveEvidence>,
}

#[derive(Debug, Clone)]
pub struct LiveEvidence {
    pub title: String,
    pub role: Role,
    /// `present`, `absent` or `unavailable`.
    pub outcome: &'static str,
    /// Of what is present, whether it goes on.
    pub active: bool,
    pub value: Option<f64>,
    pub unit: Option<String>,
    /// `> 0.01`, or of a change `> 3 × baseline`
    pub threshold: String,
    pub query: String,
    /// Where it is beyond the threshold, strongest first.
    pub places: Vec<String>,
    /// Why there is no value.
    pub reason: Option<String>,
    /// Of the series that is shown, or else of the one in the scope with the strongest value. `None`: it was not asked for.
    pub history: Option<History>,
}

/// The last hour of a value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Unix seconds and values.
    pub points: Vec<(f64, f64)>,
    /// Why there may be others, or none of them is known.
    pub lack: Option<String>,
}

/// By query. One that did not come in time is not there.
pub type Histories = BTreeMap<String, Result<Matrix, QueryError>>;

impl Engine {
    /// Never fails: what does not come before the deadline is `unavailable`, and said so.
    pub async fn live(&self, runbook: &Arc<Runbook>, moment: &Moment, patience: Duration) -> Live {
        if runbook.failure_modes.is_empty() {
            return Live {
                scope: moment.scope.clone(),
                ..Live::default()
            };
        }
        let deadline = Deadline::after(patience);
        let snapshot = self.snapshots.at(moment.time_millis, moment.window);
        let pages = [runbook.clone()];
        let measured = self
            .measure(
                &snapshot,
                &pages,
                &moment.scope,
                None,
                screen::Depth::Whole,
                deadline,
            )
            .await;
        let mut scope = moment.scope.clone();
        let mut degraded = Degraded::of(&measured.facts, &self.prometheus);
        let lost = measured.facts.outage.is_none()
            && !settle(&mut scope, true, &measured.facts, &mut degraded);

        let modes: Vec<(&FailureMode, Vec<(Evidence, LiveEvidence)>)> = runbook
            .failure_modes
            .iter()
            .zip(measured.modes)
            .map(|(mode, evidence)| {
                let shown = evidence.into_iter().map(|evidence| {
                    let seen = seen(&evidence, &scope, lost);
                    (evidence, seen)
                });
                (mode, shown.collect())
            })
            .collect();

        let queries: BTreeSet<String> = modes
            .iter()
            .flat_map(|(_, evidence)| evidence)
            .filter(|(_, shown)| shown.reason.is_none())
            .map(|(_, shown)| shown.query.clone())
            .collect();
        let end = moment.time_millis.div_euclid(1000);
        let histories = histories(&self.prometheus, queries, end, deadline).await;
        let modes = modes
            .into_iter()
            .map(|(mode, evidence)| {
                let evidence: Vec<LiveEvidence> = evidence
                    .into_iter()
                    .map(|(evidence, shown)| with_history(&evidence, shown, &scope, &histories))
                    .collect();
                LiveMode {
                    title: mode.title.clone(),
                    anchor: mode.anchor.clone(),
                    outcome: required(mode, &evidence),
                    evidence,
                }
            })
            .collect();
        Live {
            scope,
            modes,
            degraded: degraded.into_parts(),
        }
    }

    /// The last hour of the series of some queries.
    pub async fn histories(
        &self,
        queries: BTreeSet<String>,
        time_millis: i64,
        patience: Duration,
    ) -> Histories {
        let end = time_millis.div_euclid(1000);
        histories(&self.prometheus, queries, end, Deadline::after(patience)).await
    }
}

fn seen(evidence: &Evidence, scope: &Scope, lost: bool) -> LiveEvidence {
    let query = &evidence.query;
    let title = if query.title.is_empty() {
        &query.id
    } else {
        &query.title
    };
    let mut shown = LiveEvidence {
        title: title.clone(),
        role: query.role,
        outcome: "unavailable",
        active: false,
        value: None,
        unit: query.unit.clone(),
        threshold: String::new(),
        query: query.expr.trim().to_owned(),
        places: Vec::new(),
        reason: None,
        history: None,
    };
    let reading = match &evidence.reading {
        Ok(reading) => reading,
        Err(reason) => {
            shown.reason = Some(reason.clone());
            return shown;
        }
    };
    shown.threshold = reading.threshold();
    shown.query.clone_from(&reading.window.query);
    shown.reason = reading.gap.as_ref().map(|gap| gap.reason().to_owned());
    if lost {
        shown.reason = Some("no series knows this scope".into());
        return shown;
    }
    let seen = reading.seen(|position| rank::position_in_scope(position, reading, scope));
    let (look, series) = reading.shown(&seen);
    shown.query.clone_from(&look.query);
    shown.value = series.map(|series| words::significant(series.value));
    match reading.outcome(&seen) {
        Outcome::Present(activity) => {
            shown.outcome = "present";
            shown.active = matches!(activity, Activity::Now | Activity::Lately);
            shown.reason = None;
        }
        Outcome::Absent => shown.outcome = "absent",
        Outcome::Unavailable => {}
    }
    let mut beyond: Vec<_> = look
        .series
        .iter()
        .filter(|series| rank::position_in_scope(&series.position, reading, scope))
        .filter(|series| reading.holds(series))
        .collect();
    beyond.sort_by(|a, b| reading.order(a, b));
    for series in beyond {
        let place = name(&Place::suggested_by(&series.position, reading.at));
        if !shown.places.contains(&place) && shown.places.len() < MAX_PLACES {
            shown.places.push(place);
        }
    }
    shown
}

/// `shop/cart → shop/payments`, `eth0 of node n1`
fn name(place: &Place) -> String {
    match *place == Place::ANYWHERE {
        true => "everywhere".into(),
        false => place.to_string(),
    }
}

/// Requirements of one group are alternatives.
fn required(mode: &FailureMode, shown: &[LiveEvidence]) -> &'static str {
    let mut groups: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for (query, shown) in mode.evidence.iter().zip(shown) {
        if query.role == Role::Requires {
            let group = query
                .group
                .clone()
                .unwrap_or_else(|| format!("={}", query.id));
            groups.entry(group).or_default().push(shown.outcome);
        }
    }
    let groups: Vec<&str> = groups
        .values()
        .map(|outcomes| {
            let first = |wanted| outcomes.iter().find(|outcome| **outcome == wanted);
            first("present")
                .or(first("unavailable"))
                .map_or("absent", |outcome| outcome)
        })
        .collect();
    if groups.contains(&"absent") {
        "absent"
    } else if groups.is_empty() || groups.contains(&"unavailable") {
        "unavailable"
    } else {
        "present"
    }
}

fn with_history(
    evidence: &Evidence,
    mut shown: LiveEvidence,
    scope: &Scope,
    histories: &Histories,
) -> LiveEvidence {
    let (Ok(reading), None) = (&evidence.reading, &shown.reason) else {
        return shown;
    };
    shown.history = Some(History::of(histories, &shown.query, |ranges| {
        chosen(ranges, reading, scope, shown.value)
    }));
    shown
}

fn chosen<'a>(
    ranges: &'a [Range],
    reading: &Reading,
    scope: &Scope,
    value: Option<f64>,
) -> Option<&'a Range> {
    let in_scope: Vec<&Range> = ranges
        .iter()
        .filter(|range| {
            let position = Position::of(&range.labels);
            rank::position_in_scope(&position, reading, scope)
        })
        .collect();
    let by_value = |range: &&&Range| {
        let last = range.points.last().map(|point| words::significant(point.1));
        value.is_some() && last == value
    };
    let chosen = in_scope.iter().find(by_value).or_else(|| {
        in_scope.iter().min_by(|a, b| {
            let (a, b) = (peak(reading, a), peak(reading, b));
            reading.expression.strongest_first(a, b)
        })
    });
    chosen.copied()
}

impl History {
    /// Of the series of a query that is chosen from all.
    pub fn of(
        histories: &Histories,
        query: &str,
        choose: impl FnOnce(&[Range]) -> Option<&Range>,
    ) -> Self {
        let matrix = match histories.get(query) {
            Some(Ok(matrix)) => matrix,
            Some(Err(error)) => return Self::lacking(error.to_string()),
            None => return Self::lacking("it did not come in time".into()),
        };
        Self {
            points: choose(&matrix.ranges).map(finite).unwrap_or_default(),
            lack: matrix.partial.clone(),
        }
    }

    fn lacking(reason: String) -> Self {
        Self {
            points: Vec::new(),
            lack: Some(reason),
        }
    }
}

fn peak(reading: &Reading, range: &Range) -> f64 {
    range
        .points
        .iter()
        .map(|point| point.1)
        .filter(|value| value.is_finite())
        .min_by(|a, b| reading.expression.strongest_first(*a, *b))
        .unwrap_or_default()
}

/// A ratio of nothing to nothing is a gap and no value.
fn finite(range: &Range) -> Vec<(f64, f64)> {
    let points = range.points.iter().copied();
    points.filter(|point| point.1.is_finite()).collect()
}

async fn histories(
    prometheus: &Prometheus,
    queries: BTreeSet<String>,
    end: i64,
    deadline: Deadline,
) -> Histories {
    let start = end - i64::try_from(HISTORY.as_secs()).unwrap_or(0);
    let mut tasks = JoinSet::new();
    for query in queries {
        let prometheus = prometheus.clone();
        tasks.spawn(async move {
            let ranges = prometheus.range(&query, start, end, STEP).await;
            (query, ranges)
        });
    }
    let mut found = BTreeMap::new();
    while let Some(Some(joined)) = deadline.wait(tasks.join_next()).await {
        if let Ok((query, ranges)) = joined {
            found.insert(query, ranges);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::evidence::Look;
    use crate::diagnosis::expression::Expression;
    use crate::diagnosis::snapshot::Series;
    use crate::runbook::{Baseline, Compare, End, EvidenceQuery, OFFSETS};

    #[test]
    fn a_change_is_at_the_places_where_it_changed() {
        let series = |dst: &str, value, earlier| {
            let labels = [("src_workload", "a"), ("dst_workload", dst)];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let labels = BTreeMap::from(labels);
            Series {
                position: Position::of(&labels),
                labels,
                value,
                earlier: Some((OFFSETS[0], earlier)),
            }
        };
        let look = |seconds| Look {
            query: "x".into(),
            length: Duration::from_secs(seconds),
            series: [series("b", 0.9, 0.1), series("c", 50.0, 40.0)].into(),
            failed: false,
        };
        let evidence = Evidence {
            query: EvidenceQuery {
                id: "e".into(),
                role: Role::Requires,
                title: String::new(),
                expr: "x > 3".into(),
                unit: None,
                weight: None,
                at: End::Pair,
                group: None,
                optional: false,
                baseline: Some(Baseline {
                    compare: Compare::Ratio,
                    offsets: OFFSETS.to_vec(),
                }),
            },
            reading: Ok(Reading {
                expression: Arc::new(Expression::parse("x > 3").unwrap()),
                at: End::Pair,
                window: look(300),
                recent: look(30),
                unfloored: Vec::new(),
                gap: None,
                compare: Some(Compare::Ratio),
                topology: Arc::default(),
            }),
        };
        let shown = seen(&evidence, &Scope::default(), false);
        assert_eq!(shown.outcome, "present");
        assert_eq!(shown.places, ["a → b"]);
        assert_eq!(shown.threshold, "> 3 × baseline");
    }

    #[test]
    fn a_place_is_told_by_its_machine_where_it_has_no_ends() {
        for (at, labels, expected) in [
            (
                End::Pair,
                &[("src_workload", "a"), ("dst_workload", "b")][..],
                "a → b",
            ),
            (End::Node, &[("node", "n1")], "node n1"),
            (End::Node, &[("instance", "n2:9435")], "node n2"),
            (
                End::Link,
                &[("node", "n1"), ("device", "eth0")],
                "eth0 of node n1",
            ),
            (End::Pair, &[], "everywhere"),
        ] {
            let labels = labels.iter();
            let labels = labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let position = Position::of(&labels.collect());
            assert_eq!(name(&Place::suggested_by(&position, at)), expected);
        }
    }
}
