//! Runbooks and a snapshot to readings: which queries are asked, and what it means when one has no series.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use promql_parser::util::duration::display_duration;

use super::Engine;
use super::baseline;
use super::catalogue::{self, Catalogue};
use super::evidence::{Evidence, Gap, Look, Reading};
use super::expression::Expression;
use super::place::{Ends, Workload};
use super::scope::Scope;
use super::scrapes::{self, Scrapes};
use super::screen::{self, Answers, Asked, Depth, Need, Screen, Unit};
use super::snapshot::{Answer, Deadline, Missing, Series, Snapshot};
use super::topology::Topology;
use crate::prometheus::Prometheus;
use crate::runbook::{EvidenceQuery, Role, Runbook, Symptom};

/// From so many series on that evidence reads, a question about some workloads is asked of what is around these alone. Below it,
/// one answer for the whole cluster serves every question of the moment.
const LARGE: f64 = 20_000.0;

/// A runbook's failure mode or symptom, with its evidence measured.
pub struct Measured {
    /// In the order of the runbooks and of the modes in each.
    pub modes: Vec<Vec<Evidence>>,
    pub symptoms: Vec<(Symptom, Result<Reading, String>)>,
    pub facts: Facts,
}

/// What is known of the moment besides the evidence.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub topology: Arc<Topology>,
    /// False: what the topology does not hold may be there all the same.
    pub is_topology_known: bool,
    pub recent: Duration,
    /// Prometheus could not be asked at all.
    pub outage: Option<String>,
    /// Nothing was measured for long before the moment asked about, or a part of it did not come: what is not seen may be there.
    pub stale: Option<String>,
    /// Queries that were asked for the scope alone, by those for the whole cluster.
    pub narrowed: HashMap<String, String>,
    /// Evidence that was asked for and did not come, by reason.
    pub failures: BTreeSet<String>,
    /// Metrics that evidence needs and nobody measures.
    pub unmeasured: BTreeSet<String>,
}

impl Engine {
    /// Asks what the runbooks' evidence wants.
    pub(super) async fn measure(
        &self,
        snapshot: &Arc<Snapshot>,
        runbooks: &[Arc<Runbook>],
        scope: &Scope,
        age: Option<Duration>,
        depth: Depth,
        deadline: Deadline,
    ) -> Measured {
        let (prometheus, parsed) = (&self.prometheus, &self.parsed);
        let range = display_duration(&snapshot.window);
        let families = format!(
            "sum by (metric) (runwire_series{{metric=~\"{}\"}})",
            catalogue::pattern(runbooks)
        );
        let workloads = format!(
            "count by (namespace, workload, node, instance) (last_over_time(runwire_workload_info[{range}]))"
        );
        let present =
            "count by (namespace, workload, node, instance) (runwire_workload_info)".to_owned();
        let edge = "src_namespace, src_workload, dst_namespace, dst_workload";
        let calls = format!(
            "count by ({edge}) (last_over_time(runwire_tcp_connect_attempts_total[{range}])) or count by ({edge}) (last_over_time(runwire_dns_queries_total[{range}]))"
        );
        let first = BTreeSet::from([&families, &workloads, &present, &calls].map(String::clone));
        let answers = snapshot.evaluate(prometheus, first, deadline).await;
        let ok = |query: &String| answers[query].as_ref().ok();

        let outage = answers[&families].as_ref().err().map(Missing::to_string);
        let topology = topology(ok(&workloads), ok(&present), ok(&calls));
        let mut facts = Facts {
            recent: scrapes::shortest_recent(snapshot.window),
            topology: Arc::new(topology),
            is_topology_known: true,
            outage,
            ..Facts::default()
        };
        if facts.outage.is_none() {
            for query in [&workloads, &present, &calls] {
                if let Err(missing) = &answers[query] {
                    facts.failures.insert(missing.to_string());
                    facts.is_topology_known = false;
                }
            }
        }
        let families = ok(&families);
        let mut asked: Vec<Asked> = Vec::new();
        // Each mode's evidence, and each symptom.
        let mut units: Vec<Range<usize>> = Vec::new();
        for runbook in runbooks {
            for mode in &runbook.failure_modes {
                let first = asked.len();
                let evidence = mode.evidence.iter();
                asked.extend(evidence.map(|query| (query.clone(), parsed.expression(&query.expr))));
                units.push(first..asked.len());
            }
            for symptom in &runbook.symptoms {
                units.push(asked.len()..asked.len() + 1);
                asked.push((as_evidence(symptom), parsed.expression(&symptom.expr)));
            }
        }

        let mut readings = if let Some(outage) = &facts.outage {
            asked.iter().map(|_| Err(outage.clone())).collect()
        } else {
            let known = families
                .map(catalogue::series_of_families)
                .unwrap_or_default();
            let (catalogue, scrapes) = tokio::join!(
                Catalogue::look(prometheus, snapshot, &asked, known, deadline),
                Scrapes::count(prometheus, snapshot, families, deadline),
            );
            facts.recent = scrapes.recent(snapshot.window);
            facts.stale = scrapes.stale(snapshot.window);
            let latest = scrapes.latest(snapshot.window).min(facts.recent);
            for (_, expression) in &mut asked {
                *expression = expression
                    .clone()
                    .map(|expression| expression.with_latest(latest));
            }
            let units: Vec<&[Asked]> = units.into_iter().map(|unit| &asked[unit]).collect();
            let is_large = catalogue.all_series() >= LARGE;
            let near = (is_large && facts.is_topology_known)
                .then(|| screen::neighbourhood(&scope.workloads(&facts.topology), &facts.topology));
            let screen = Screen {
                prometheus,
                snapshot,
                windows: [snapshot.window, facts.recent],
                catalogue: &catalogue,
                depth,
                deadline,
                near: near.flatten(),
                workloads: facts.topology.workloads.len(),
            };
            let measured = screen.ask(&units).await;
            read(&screen, &units, measured, scope, &mut facts).await
        };
        let queries: Vec<&EvidenceQuery> = asked.iter().map(|(query, _)| query).collect();
        let failures = compare(prometheus, snapshot, &queries, &mut readings, age, deadline).await;
        facts.failures.extend(failures);
        look_closer(prometheus, snapshot, &mut readings, &mut facts, deadline).await;
        if let Some(reason) = snapshot.partial() {
            doubt_absence(&mut readings, &reason);
            facts.stale.get_or_insert(reason);
        }
        let mut evidence = asked
            .into_iter()
            .zip(readings)
            .map(|((query, _), reading)| Evidence { query, reading });

        let mut modes = Vec::new();
        let mut symptoms = Vec::new();
        for runbook in runbooks {
            for mode in &runbook.failure_modes {
                modes.push(evidence.by_ref().take(mode.evidence.len()).collect());
            }
            for (symptom, evidence) in runbook.symptoms.iter().zip(evidence.by_ref()) {
                symptoms.push((symptom.clone(), evidence.reading));
            }
        }
        Measured {
            modes,
            symptoms,
            facts,
        }
    }
}

/// Where answers lack series, what is beyond a threshold is, and nothing is known not to be.
fn doubt_absence(readings: &mut [Result<Reading, String>], reason: &str) {
    for reading in readings.iter_mut().flatten() {
        if matches!(reading.gap, None | Some(Gap::Needless)) {
            reading.gap = Some(Gap::Failed(reason.to_owned()));
        }
    }
}

fn as_evidence(symptom: &Symptom) -> EvidenceQuery {
    EvidenceQuery {
        id: symptom.id.clone(),
        role: Role::Requires,
        title: symptom.title.clone(),
        expr: symptom.expr.clone(),
        unit: symptom.unit.clone(),
        weight: None,
        at: symptom.at,
        group: None,
        optional: false,
        baseline: None,
    }
}

async fn read(
    screen: &Screen<'_>,
    units: &[&[Asked]],
    mut measured: Vec<Unit>,
    scope: &Scope,
    facts: &mut Facts,
) -> Vec<Result<Reading, String>> {
    let mut narrowed = HashMap::new();
    for (unit, measured) in units.iter().zip(&measured) {
        let asked = unit.iter().zip(&measured.needs);
        let expressions = asked
            .filter(|(_, need)| **need == Need::Ask)
            .filter_map(|((_, expression), _)| expression.as_ref().ok());
        narrowed.extend(narrow(
            expressions,
            &screen.windows,
            scope,
            &measured.answers,
        ));
    }
    if !narrowed.is_empty() {
        let narrow = screen.evaluate(narrowed.values().cloned().collect()).await;
        // What is shown is what was asked.
        facts.narrowed = narrowed
            .into_iter()
            .filter(|(_, query)| narrow[query].is_ok())
            .collect();
        for unit in &mut measured {
            unit.answers.extend(narrow.clone());
        }
    }
    let mut readings = Vec::new();
    for (unit, measured) in units.iter().zip(&measured) {
        for ((query, expression), need) in unit.iter().zip(&measured.needs) {
            readings.push(
                expression
                    .as_ref()
                    .map_err(String::clone)
                    .map(|expression| {
                        let answers = (*need == Need::Ask).then_some(&measured.answers);
                        let mut reading = reading(screen, query, expression, answers, facts);
                        if *need == Need::Needless {
                            reading.gap.get_or_insert(Gap::Needless);
                        }
                        reading
                    }),
            );
        }
    }
    readings
}

/// Queries that are to be asked for the scope alone, because the whole cluster's answer is too much, by the query for that.
fn narrow<'a>(
    expressions: impl Iterator<Item = &'a Arc<Expression>>,
    lengths: &[Duration],
    scope: &Scope,
    answers: &Answers,
) -> HashMap<String, String> {
    let too_much = |query: &String| {
        answers
            .get(query)
            .and_then(|answer| answer.as_ref().err())
            .is_some_and(Missing::is_too_much)
    };
    expressions
        .flat_map(|expression| lengths.iter().map(move |length| (expression, *length)))
        .map(|(expression, length)| (expression.query(length), expression, length))
        .filter(|(query, ..)| too_much(query))
        .filter_map(|(query, expression, length)| {
            Some((query, expression.query_for(length, scope)?))
        })
        .collect()
}

/// Fills in what the values of evidence with a baseline were. Returns why some of them are not known.
async fn compare(
    prometheus: &Prometheus,
    snapshot: &Arc<Snapshot>,
    asked: &[&EvidenceQuery],
    readings: &mut [Result<Reading, String>],
    age: Option<Duration>,
    deadline: Deadline,
) -> BTreeSet<String> {
    let mut queries = BTreeSet::new();
    for (query, reading) in asked.iter().zip(&*readings) {
        let (Some(baseline), Ok(reading)) = (&query.baseline, reading) else {
            continue;
        };
        for look in [&reading.window, &reading.recent] {
            if !look.series.is_empty() {
                let offsets = baseline.offsets.iter();
                queries.extend(
                    offsets.map(|back| reading.expression.query_before(look.length, *back)),
                );
            }
        }
    }
    if queries.is_empty() {
        return BTreeSet::new();
    }
    let answers = snapshot.evaluate(prometheus, queries, deadline).await;
    for (query, reading) in asked.iter().zip(readings) {
        let (Some(baseline), Ok(reading)) = (&query.baseline, reading) else {
            continue;
        };
        let expression = &reading.expression;
        for look in [&mut reading.window, &mut reading.recent] {
            let then: Vec<(Duration, &Answer)> = baseline
                .offsets
                .iter()
                .filter_map(|back| {
                    let query = expression.query_before(look.length, *back);
                    Some((*back, answers.get(&query)?.as_ref().ok()?))
                })
                .collect();
            look.series = look
                .series
                .iter()
                .map(|series| since(series, &then, age))
                .collect();
        }
    }
    let missing = answers.values().filter_map(|answer| answer.as_ref().err());
    missing.map(Missing::to_string).collect()
}

fn since(series: &Series, then: &[(Duration, &Answer)], age: Option<Duration>) -> Series {
    let values: Vec<(Duration, f64)> = then
        .iter()
        .filter_map(|(back, answer)| {
            let same = answer.iter().find(|other| other.labels == series.labels)?;
            Some((*back, same.value))
        })
        .collect();
    Series {
        earlier: baseline::robust(&values, age),
        ..series.clone()
    }
}

/// Where something is beyond its threshold and nothing can be told of its recent part, asks without floors.
async fn look_closer(
    prometheus: &Prometheus,
    snapshot: &Arc<Snapshot>,
    readings: &mut [Result<Reading, String>],
    facts: &mut Facts,
    deadline: Deadline,
) {
    let Facts {
        recent, failures, ..
    } = facts;
    let recent = *recent;
    let mut queries = BTreeSet::new();
    for reading in readings
        .iter_mut()
        .flatten()
        .filter(|reading| fell_silent(reading))
    {
        for length in [recent, longer_recent(snapshot.window, recent)] {
            let query = reading.expression.query_without_floors(length);
            queries.insert(query.clone());
            reading.unfloored.push(Look {
                query,
                length,
                series: Answer::default(),
                failed: false,
            });
        }
    }
    if !queries.is_empty() {
        let answers = snapshot.evaluate(prometheus, queries, deadline).await;
        for reading in readings.iter_mut().flatten() {
            for look in &mut reading.unfloored {
                match &answers[&look.query] {
                    Ok(series) => look.series = series.clone(),
                    Err(missing) => {
                        look.failed = true;
                        let failure = missing.to_string();
                        failures.insert(failure.clone());
                        reading.gap = Some(Gap::Failed(failure));
                    }
                }
            }
        }
    }
}

/// Without `answers` there is no series.
fn reading(
    screen: &Screen<'_>,
    query: &EvidenceQuery,
    expression: &Arc<Expression>,
    answers: Option<&Answers>,
    facts: &mut Facts,
) -> Reading {
    let catalogue = screen.catalogue;
    let look = |length| {
        let query = expression.query(length);
        let query = facts.narrowed.get(&query).unwrap_or(&query).clone();
        let answer = answers.map_or_else(|| Ok(Answer::default()), |all| all[&query].clone());
        let failure = answer.as_ref().err().map(Missing::to_string);
        let look = Look {
            query,
            length,
            series: answer.unwrap_or_default(),
            failed: failure.is_some(),
        };
        (look, failure)
    };
    let [window, recent] = screen.windows;
    let (window, failure) = look(window);
    let (recent, failure_of_recent) = look(recent);
    let failure = failure
        .or(failure_of_recent)
        .or_else(|| catalogue.unknown(expression));
    facts.failures.extend(failure.clone());
    let unmeasured: Vec<&String> = expression
        .metrics()
        .iter()
        .filter(|metric| !catalogue.measures(metric))
        .collect();
    // What is optional or has alternatives is missing in a healthy installation too: no reason to call the answer degraded.
    if !query.optional && query.group.is_none() {
        facts
            .unmeasured
            .extend(unmeasured.iter().map(|metric| (*metric).clone()));
    }
    let gap = failure.map(Gap::Failed).or_else(|| {
        let first = unmeasured.first()?;
        Some(Gap::Unmeasured(format!("{first} is not measured")))
    });
    Reading {
        expression: expression.clone(),
        at: query.at,
        compare: query.baseline.as_ref().map(|baseline| baseline.compare),
        topology: facts.topology.clone(),
        window,
        recent,
        unfloored: Vec::new(),
        gap,
    }
}

/// Whether something is beyond the threshold in the window and has no series in its recent part.
fn fell_silent(reading: &Reading) -> bool {
    // A change is judged by the looks it was compared in.
    reading.compare.is_none()
        && reading.expression.has_window()
        && reading
            .window
            .series
            .iter()
            .filter(|series| reading.holds(series))
            .any(|series| {
                let same = |recent: &Series| recent.labels == series.labels;
                !reading.recent.series.iter().any(same)
            })
}

/// Where there was no traffic in the recent part, the latest there was: a third of the window.
fn longer_recent(window: Duration, recent: Duration) -> Duration {
    Duration::from_secs(window.as_secs() / 3)
        .max(recent)
        .min(window)
}

fn topology(known: Option<&Answer>, present: Option<&Answer>, calls: Option<&Answer>) -> Topology {
    let mut topology = Topology::default();
    for series in known.into_iter().flat_map(|answer| answer.iter()) {
        let Ends::Owner(workload) = &series.position.ends else {
            continue;
        };
        topology.workloads.insert(workload.clone());
        if let Some(node) = &series.position.node {
            topology.add_to_node(node, workload);
        }
    }
    if let Some(present) = present {
        let now: BTreeSet<&Workload> = present
            .iter()
            .flat_map(|series| series.position.workloads())
            .collect();
        let gone = topology.workloads.iter();
        topology.gone = gone
            .filter(|workload| !now.contains(workload))
            .cloned()
            .collect();
        let nodes = |answer: &Answer| -> BTreeSet<Arc<str>> {
            let nodes = answer
                .iter()
                .filter_map(|series| series.position.node.clone());
            nodes.collect()
        };
        let then = known.map(nodes).unwrap_or_default();
        topology.silent = then.difference(&nodes(present)).cloned().collect();
    }
    for series in calls.into_iter().flat_map(|answer| answer.iter()) {
        if let Ends::Pair {
            src: Some(src),
            dst: Some(dst),
        } = &series.position.ends
        {
            topology.add_call(src, dst);
        }
    }
    topology
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::diagnosis::place::Position;

    #[test]
    fn a_node_of_which_nobody_is_told_any_more_is_silent() {
        let answer = |ends: &[(&str, &str)]| -> Answer {
            let series = ends.iter().map(|(node, workload)| {
                let labels = [
                    ("node", node),
                    ("namespace", &"shop"),
                    ("workload", workload),
                ];
                let labels = labels.map(|(name, value)| (name.to_owned(), (*value).to_owned()));
                let labels = BTreeMap::from(labels);
                Series {
                    position: Position::of(&labels),
                    labels,
                    value: 1.0,
                    earlier: None,
                }
            });
            series.collect()
        };
        let then = answer(&[("n1", "a"), ("n1", "b"), ("n2", "a")]);
        let now = answer(&[("n1", "a")]);
        let topology = topology(Some(&then), Some(&now), None);
        assert_eq!(topology.silent, BTreeSet::from(["n2".into()]));
        // That it could not be asked says nothing.
        assert!(super::topology(Some(&then), None, None).silent.is_empty());
    }
}
