//! Ranked hypotheses to the answer of `POST /diagnose`; pure.

mod summary;
mod way;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use promql_parser::util::duration::display_duration;

use super::degraded::Degraded;
use super::evidence::{Activity, Evidence, Look, Outcome, Reading, Seen};
use super::expression::Expression;
use super::measure::Facts;
use super::passages::Cited;
use super::place::{Place, Workload};
use super::rank::{self, Candidate, Hypothesis, LIKELY, Mode};
use super::response::{
    Affected, Checked, Diagnosis, FoundMode, Link, ShownEvidence, ShownSample, Status,
};
use super::scope::Scope;
use super::snapshot::{Answer, Missing, Series};
use super::{Question, steps, words};
use crate::retrieval::url;
use crate::runbook::{FailureMode, Runbook, Symptom, Verdict};

const MAX_SAMPLES: usize = 5;
const MAX_AFFECTED: usize = 10;
/// Values of the shown queries at earlier times.
#[derive(Debug, Default)]
pub struct Baselines(HashMap<String, (Duration, f64)>);

/// A query that is shown, how to ask it for an earlier time, and the series whose value counts.
pub struct Shown {
    query: String,
    expression: Arc<Expression>,
    length: Duration,
    labels: BTreeMap<String, String>,
}

impl Shown {
    fn earlier(&self, back: Duration) -> String {
        self.expression.query_before(self.length, back)
    }

    fn key(&self) -> String {
        baseline_key(&self.query, &self.labels)
    }
}

fn baseline_key(query: &str, labels: &BTreeMap<String, String>) -> String {
    format!("{query} {labels:?}")
}

impl Baselines {
    /// The queries that are still to be asked, `back` before now.
    pub fn missing(&self, wanted: &[Shown], back: Duration) -> BTreeSet<String> {
        wanted
            .iter()
            .filter(|shown| !self.0.contains_key(&shown.key()))
            .map(|shown| shown.earlier(back))
            .collect()
    }

    pub fn add(
        &mut self,
        wanted: &[Shown],
        back: Duration,
        answers: &HashMap<String, Result<Answer, Missing>>,
    ) {
        for shown in wanted {
            let Some(Ok(answer)) = answers.get(&shown.earlier(back)) else {
                continue;
            };
            // A value that is beyond the threshold too lies inside this incident or an earlier one.
            if let Some(series) = answer.iter().find(|series| series.labels == shown.labels)
                && !shown.expression.holds(series.value)
            {
                self.0.entry(shown.key()).or_insert((back, series.value));
            }
        }
    }

    fn get(&self, query: &str, labels: &BTreeMap<String, String>) -> Option<&(Duration, f64)> {
        self.0.get(&baseline_key(query, labels))
    }
}

/// The queries of present evidence of the hypotheses that are shown.
pub fn shown_queries(modes: &[Mode], hypotheses: &[Hypothesis], scope: &Scope) -> Vec<Shown> {
    let mut wanted = Vec::new();
    for hypothesis in hypotheses {
        let mode = &modes[hypothesis.mode];
        for evidence in &mode.evidence {
            let Ok(reading) = &evidence.reading else {
                continue;
            };
            let seen = look(mode, reading, &hypothesis.places[0], scope);
            let present = matches!(reading.outcome(&seen), Outcome::Present(_));
            let (shown, Some(series)) = reading.shown(&seen) else {
                continue;
            };
            // What is judged by its change has its baseline already.
            if !present || reading.compare.is_some() {
                continue;
            }
            let Look { query, length, .. } = shown.clone();
            wanted.push(Shown {
                query,
                expression: reading.expression.clone(),
                length,
                labels: series.labels.clone(),
            });
        }
    }
    wanted
}

fn look<'a>(mode: &Mode, reading: &'a Reading, candidate: &Candidate, scope: &Scope) -> Seen<'a> {
    match mode.verdict {
        Verdict::Fault => reading.seen_at(&candidate.place),
        Verdict::NoNetworkFault => {
            reading.seen(|position| rank::position_in_scope(position, reading, scope))
        }
    }
}

/// All that is known when the answer is written.
pub struct Findings<'a> {
    pub question: &'a Question,
    pub scope: &'a Scope,
    /// The scope names nothing that is measured.
    pub lost: bool,
    pub pages: &'a [(Arc<Runbook>, FailureMode)],
    pub modes: &'a [Mode],
    pub symptoms: &'a [(Symptom, Result<Reading, String>)],
    pub facts: &'a Facts,
    pub hypotheses: &'a [Hypothesis],
    /// Modes with a hypothesis, shown or not.
    pub found: &'a [usize],
    pub baselines: &'a Baselines,
    pub cited: &'a Cited,
    pub degraded: Degraded,
}

/// A symptom in the scope.
struct Sign<'a> {
    symptom: &'a Symptom,
    reading: &'a Reading,
    series: &'a Series,
}

impl Findings<'_> {
    pub fn into_diagnosis(self) -> Diagnosis {
        let signs = self.signs();
        let status = self.status(&signs);
        let hypotheses: Vec<FoundMode> = self
            .hypotheses
            .iter()
            .enumerate()
            .map(|(index, hypothesis)| self.found_mode(index + 1, hypothesis))
            .collect();
        Diagnosis {
            time: words::time(self.question.time_millis),
            window: display_duration(&self.question.window),
            scope: self.scope.clone(),
            status,
            summary: self.summary(status, &signs),
            checked: self.checked(),
            hypotheses,
            passages: self.cited.related(),
            degraded: self.degraded.into_parts(),
            narration: None,
        }
    }

    /// Symptoms that are there now, the first ones of the runbooks first.
    fn signs(&self) -> Vec<Sign<'_>> {
        let in_scope = |reading: &Reading, series: &Series| {
            rank::position_in_scope(&series.position, reading, self.scope)
        };
        self.symptoms
            .iter()
            .filter_map(|(symptom, reading)| {
                let reading = reading.as_ref().ok()?;
                let seen =
                    reading.seen(|position| rank::position_in_scope(position, reading, self.scope));
                let now = reading.outcome(&seen) == Outcome::Present(Activity::Now);
                let series = reading
                    .shown(&seen)
                    .1
                    .filter(|series| now && in_scope(reading, series))?;
                Some(Sign {
                    symptom,
                    reading,
                    series,
                })
            })
            .collect()
    }

    fn status(&self, signs: &[Sign<'_>]) -> Status {
        if self.lost || self.facts.outage.is_some() {
            return Status::Unknown;
        }
        let likely = |verdict| {
            self.hypotheses.iter().any(|hypothesis| {
                hypothesis.confidence >= LIKELY && self.modes[hypothesis.mode].verdict == verdict
            })
        };
        if likely(Verdict::Fault) {
            return Status::Fault;
        }
        if likely(Verdict::NoNetworkFault) {
            return Status::NoNetworkFault;
        }
        // Without a mode that says so, health is the absence of every symptom, each of them measured.
        let calm = |mode: &Mode| mode.verdict == Verdict::NoNetworkFault;
        let measured = |(_, reading): &(Symptom, Result<Reading, String>)| matches!(reading, Ok(reading) if reading.gap.is_none());
        let healthy = !self.modes.iter().any(calm)
            && !self.symptoms.is_empty()
            && signs.is_empty()
            && self.symptoms.iter().all(measured);
        if healthy && self.facts.stale.is_none() {
            Status::NoNetworkFault
        } else {
            Status::Unknown
        }
    }

    fn checked(&self) -> Vec<Checked> {
        let mut checked: Vec<Checked> = self
            .modes
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.found.contains(index))
            .map(|(_, mode)| Checked {
                failure_mode: mode.id.clone(),
                outcome: if !self.lost && rank::could_be_checked(mode) {
                    "absent"
                } else {
                    "unavailable"
                }
                .into(),
            })
            .collect();
        checked.sort_by(|a, b| a.failure_mode.cmp(&b.failure_mode));
        checked
    }

    fn found_mode(&self, rank: usize, hypothesis: &Hypothesis) -> FoundMode {
        let (runbook, mode) = &self.pages[hypothesis.mode];
        let measured = &self.modes[hypothesis.mode];
        let best = &hypothesis.places[0];
        let mut explains: Vec<String> = hypothesis
            .places
            .iter()
            .flat_map(|place| &place.explains)
            .map(|index| self.modes[*index].id.clone())
            .collect();
        explains.sort();
        explains.dedup();
        FoundMode {
            rank,
            failure_mode: mode.id.clone(),
            title: mode.title.clone(),
            confidence: hypothesis.confidence,
            active: best.active,
            affected: self.affected(hypothesis),
            evidence: measured
                .evidence
                .iter()
                .map(|evidence| self.evidence(measured, evidence, best))
                .collect(),
            explains,
            runbook: Link {
                id: runbook.id.clone(),
                title: runbook.title.clone(),
                url: format!("{}#{}", url(&runbook.id), mode.anchor),
            },
            next_steps: steps::next_steps(runbook, mode),
            passages: self.cited.of_mode(rank - 1),
        }
    }

    fn affected(&self, hypothesis: &Hypothesis) -> Vec<Affected> {
        let mode = &self.modes[hypothesis.mode];
        if mode.verdict == Verdict::NoNetworkFault {
            return Vec::new();
        }
        let mut affected: Vec<Affected> = Vec::new();
        let mut add = |entry: Option<Affected>| {
            if let Some(entry) = entry
                && affected.len() < MAX_AFFECTED
                && !affected.contains(&entry)
            {
                affected.push(entry);
            }
        };
        for (index, candidate) in hypothesis.places.iter().enumerate() {
            add(affected_by(&candidate.place));
            // What lies between the ends is where to go, so it comes before the other pairs that suffer.
            if index == 0 {
                let ends: Vec<&Workload> = candidate.place.workloads().collect();
                for spot in way::spots(mode, &candidate.place) {
                    add((!ends.contains(&&spot.at)).then(|| spot.affected()));
                }
            }
            for pair in rank::sufferers(mode, &candidate.place) {
                add(affected_by(&pair));
            }
        }
        affected
    }

    fn evidence(&self, mode: &Mode, evidence: &Evidence, place: &Candidate) -> ShownEvidence {
        let query = &evidence.query;
        let shown = ShownEvidence {
            id: query.id.clone(),
            role: query.role.to_string(),
            outcome: "unavailable".into(),
            active: None,
            title: query.title.clone(),
            query: query.expr.trim().into(),
            value: None,
            threshold: String::new(),
            unit: query.unit.clone(),
            baseline: None,
            baseline_offset: None,
            samples: Vec::new(),
            reason: None,
        };
        let reading = match &evidence.reading {
            Ok(reading) => reading,
            Err(reason) => {
                return ShownEvidence {
                    reason: Some(reason.clone()),
                    ..shown
                };
            }
        };
        let seen = look(mode, reading, place, self.scope);
        let outcome = reading.outcome(&seen);
        let (chosen, strongest) = reading.shown(&seen);
        let baseline = strongest.and_then(|series| {
            let found = self.baselines.get(&chosen.query, &series.labels);
            series.earlier.or(found.copied())
        });
        let present = matches!(outcome, Outcome::Present(_));
        let admitted = |series: &&Series| match mode.verdict {
            Verdict::Fault => reading.is_about(&place.place, &series.position),
            Verdict::NoNetworkFault => {
                rank::position_in_scope(&series.position, reading, self.scope)
            }
        };
        let mut samples: Vec<&Series> = chosen
            .series
            .iter()
            .filter(|series| present && reading.holds(series))
            .filter(admitted)
            .collect();
        samples.sort_by(|a, b| reading.order(a, b));
        ShownEvidence {
            outcome: match outcome {
                Outcome::Present(_) => "present",
                Outcome::Absent => "absent",
                Outcome::Unavailable => "unavailable",
            }
            .into(),
            active: match outcome {
                Outcome::Present(activity) => {
                    Some(matches!(activity, Activity::Now | Activity::Lately))
                }
                Outcome::Absent | Outcome::Unavailable => None,
            },
            query: chosen.query.clone(),
            value: strongest.map(|series| words::significant(series.value)),
            threshold: reading.threshold(),
            baseline: baseline
                .filter(|_| present || reading.compare.is_some())
                .map(|(_, value)| words::significant(value)),
            baseline_offset: baseline
                .filter(|_| present || reading.compare.is_some())
                .map(|(back, _)| display_duration(&back)),
            samples: samples
                .into_iter()
                .take(MAX_SAMPLES)
                .map(|series| ShownSample {
                    labels: series.labels.clone(),
                    value: words::significant(series.value),
                })
                .collect(),
            reason: (outcome == Outcome::Unavailable).then(|| {
                reading.gap.as_ref().map_or_else(
                    || "there is no earlier value to compare it with".into(),
                    |gap| gap.reason().to_owned(),
                )
            }),
            ..shown
        }
    }
}

fn affected_by(place: &Place) -> Option<Affected> {
    let name = |end: Option<&Workload>| end.map(|end| end.name.to_string());
    let namespace = |end: Option<&Workload>| end.map(|end| end.namespace.to_string());
    let (end, peer) = match (&place.src, &place.dst) {
        (Some(src), peer) => (Some(src), peer.as_ref()),
        (None, dst) => (dst.as_ref(), None),
    };
    if end.is_none() && place.node.is_none() {
        return None;
    }
    Some(Affected {
        namespace: namespace(end),
        workload: name(end),
        peer_namespace: namespace(peer),
        peer_workload: name(peer),
        node: place.node.as_deref().map(str::to_owned),
        device: place.device.as_deref().map(str::to_owned),
    })
}
