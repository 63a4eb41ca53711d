//! `Engine::diagnose`: a question about a moment to a ranked, cited answer, in four steps: measure, rank, compare with the
//! past, put into words. The same data and the same question give the same answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::prometheus::Prometheus;
use crate::runbook::{FailureMode, Library, OFFSETS, Runbook};

pub mod answer;
pub mod baseline;
pub mod blocks;
mod bound;
mod catalogue;
mod comparison;
mod cost;
mod degraded;
pub mod evidence;
pub mod expression;
pub mod lint;
pub mod live;
pub mod measure;
mod narrow;
mod parsed;
pub mod passages;
pub mod place;
mod ranges;
pub mod rank;
pub mod response;
pub mod scope;
pub mod scrapes;
pub mod screen;
pub mod snapshot;
mod spine;
mod steps;
pub mod topology;
mod tree;
mod words;

pub use response::Diagnosis;
pub use scope::Scope;
pub use words::quantity;

use answer::{Baselines, Shown};
use degraded::Degraded;
use parsed::Parsed;
use snapshot::{Deadline, Snapshot, Snapshots};

/// When an answer is wanted, where nobody says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// A checked question.
#[derive(Debug, Clone)]
pub struct Question {
    pub scope: Scope,
    /// The scope was read from an alert's labels, which may name things in another way than our metrics do.
    pub scope_is_a_guess: bool,
    pub time_millis: i64,
    pub window: Duration,
    pub limit: usize,
    /// When the incident began, where an alert says so: what lies inside it is no baseline.
    pub since_millis: Option<i64>,
    pub alert: Option<String>,
    /// Passages that fit the question's words, best first.
    pub hits: Vec<Hit>,
}

impl Question {
    /// How long the incident had lasted at the time that is asked about.
    fn age(&self) -> Option<Duration> {
        let millis = self.time_millis - self.since_millis?;
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    }
}

/// A passage as `POST /search` gives it.
#[derive(Debug, Clone)]
pub struct Hit {
    pub runbook: String,
    pub passage: serde_json::Value,
}

/// Shares snapshots between requests.
pub struct Engine {
    pub prometheus: Prometheus,
    snapshots: Snapshots,
    parsed: Parsed,
    deadline: Duration,
}

impl Engine {
    /// `deadline` is when an answer is wanted; what has not come by then is told as missing.
    pub fn new(prometheus: Prometheus, deadline: Duration) -> Self {
        Self {
            prometheus,
            snapshots: Snapshots::default(),
            parsed: Parsed::default(),
            deadline,
        }
    }

    pub async fn diagnose(&self, library: &Library, question: &Question) -> Diagnosis {
        let deadline = Deadline::after(self.deadline);
        let snapshot = self.snapshots.at(question.time_millis, question.window);
        let age = question.age();
        let mut measured = self
            .measure(
                &snapshot,
                &library.runbooks,
                &question.scope,
                age,
                screen::Depth::Deciding,
                deadline,
            )
            .await;

        let mut scope = question.scope.clone();
        let mut degraded = Degraded::of(&measured.facts, &self.prometheus);
        let lost = measured.facts.outage.is_none()
            && !settle(
                &mut scope,
                question.scope_is_a_guess,
                &measured.facts,
                &mut degraded,
            );

        let pages = pages(library);
        let modes: Vec<rank::Mode> = pages
            .iter()
            .zip(measured.modes)
            .map(|((runbook, mode), evidence)| rank::Mode {
                id: mode.id.clone(),
                verdict: mode.verdict,
                prior: mode.prior,
                severity: mode.severity,
                explains: mode.explains.clone(),
                separates_from: mode.separates_from.clone(),
                evidence,
                relevance: relevance(runbook, mode, question),
            })
            .collect();
        let topology = &measured.facts.topology.clone();
        let asked = scope.workloads(topology);
        let (silent, are_others_heard) = topology.unseen(scope.node.as_deref(), &asked);
        if !lost && !silent.is_empty() {
            let reason = unseen(&silent, are_others_heard);
            degraded.add("prometheus", reason.as_str());
            if !are_others_heard {
                measured.facts.stale.get_or_insert(reason);
            }
        }
        let mut hypotheses = if lost {
            Vec::new()
        } else {
            rank::rank(&modes, &scope, topology, measured.facts.stale.is_none())
        };
        let found: Vec<usize> = hypotheses
            .iter()
            .map(|hypothesis| hypothesis.mode)
            .collect();
        hypotheses.truncate(question.limit);
        if measured.facts.outage.is_none() {
            degraded.unjudged(&modes, &found);
        }

        let wanted = answer::shown_queries(&modes, &hypotheses, &scope);
        let cited = passages::Choice {
            library,
            question,
            pages: &pages,
            modes: &modes,
            hypotheses: &hypotheses,
            found: &found,
            blind: lost || measured.facts.outage.is_some(),
        }
        .choose();
        let (baselines, cited) = tokio::join!(
            self.baselines(&snapshot, &wanted, age, deadline, &mut degraded),
            cited.evaluate(&self.prometheus, &snapshot, &scope, topology, deadline),
        );
        answer::Findings {
            question,
            scope: &scope,
            lost,
            pages: &pages,
            modes: &modes,
            symptoms: &measured.symptoms,
            facts: &measured.facts,
            hypotheses: &hypotheses,
            found: &found,
            baselines: &baselines,
            cited: &cited,
            degraded,
        }
        .into_diagnosis()
    }

    /// What the shown values were an hour, a day or a week ago: the nearest time that is no part of the incident.
    async fn baselines(
        &self,
        snapshot: &Arc<Snapshot>,
        wanted: &[Shown],
        age: Option<Duration>,
        deadline: Deadline,
        degraded: &mut Degraded,
    ) -> Baselines {
        let mut baselines = Baselines::default();
        for back in OFFSETS
            .into_iter()
            .filter(|back| baseline::is_before(*back, age))
        {
            let queries = baselines.missing(wanted, back);
            if !queries.is_empty() {
                let answers = snapshot.evaluate(&self.prometheus, queries, deadline).await;
                degraded.earlier(&answers);
                baselines.add(wanted, back, &answers);
            }
        }
        baselines
    }
}

/// Every failure mode with its page, in the order in which evidence is measured.
fn pages(library: &Library) -> Vec<(Arc<Runbook>, FailureMode)> {
    library
        .runbooks
        .iter()
        .flat_map(|runbook| {
            let of_page = |mode: &FailureMode| (runbook.clone(), mode.clone());
            runbook
                .failure_modes
                .iter()
                .map(of_page)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Says of which nodes nothing is known now: silence there is no health.
fn unseen(silent: &[&str], are_others_heard: bool) -> String {
    const MAX_NAMED: usize = 5;
    let more = match silent.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named: Vec<&str> = silent.iter().copied().take(MAX_NAMED).collect();
    let of_others = match are_others_heard {
        true => "what is said is of the others",
        false => "there is no other that the question is about",
    };
    format!(
        "the collectors of {}{more} were scraped in the window and are not any more, so what happens there cannot be seen: {of_others}",
        named.join(", ")
    )
}

/// Makes the scope one that the metrics know. False: nothing that is measured is in it.
fn settle(
    scope: &mut Scope,
    is_a_guess: bool,
    facts: &measure::Facts,
    degraded: &mut Degraded,
) -> bool {
    let topology = &facts.topology;
    if !facts.is_topology_known {
        degraded.add(
            "scope",
            "it could not be asked who runs where: names were not checked",
        );
        return true;
    }
    let is_by_pod = scope.workload.is_none();
    if let Err(reason) = scope.resolve_pod(&topology.workloads) {
        degraded.add("scope", reason);
        if !is_a_guess {
            return false;
        }
        scope.pod = None;
    } else if is_by_pod
        && let Some(words) = scope.words_behind_workload()
        // A static pod's name ends with its node's.
        && !topology.knows_node(words)
    {
        let reason = format!(
            "the pod was taken for one of {}, the known workload with the longest name that begins its own; name the workload if it is another's",
            scope.describe()
        );
        degraded.add("scope", reason);
    }
    if let Some(node) = scope.node.clone()
        && !topology.knows_node(&node)
    {
        let reason = if topology.knows_nodes() {
            format!(
                "no series has `{node}` as its `node` or the host of its `instance`: check the name, or leave `scope.node` out"
            )
        } else {
            "`scope.node` cannot be used: no series has a label `node` or `instance`; have the scrape configuration set `node`"
                .to_owned()
        };
        degraded.add("scope", reason);
        if !is_a_guess && topology.knows_nodes() {
            return false;
        }
        scope.node = None;
    }
    let named = scope.namespace.is_some() || scope.workload.is_some();
    if !named || scope.is_known(&topology.workloads) {
        return true;
    }
    // An alert's namespace is often that of another naming; a workload of that name is what is meant.
    let elsewhere = Scope {
        workload: scope.workload.clone(),
        peer_workload: scope.peer_workload.clone(),
        ..Scope::default()
    };
    if is_a_guess && scope.workload.is_some() && elsewhere.is_known(&topology.workloads) {
        degraded.add(
            "scope",
            format!(
                "no series knows {}; workload {} was looked at in every namespace",
                scope.describe(),
                elsewhere.describe()
            ),
        );
        *scope = elsewhere;
        return true;
    }
    degraded.add(
        "scope",
        format!(
            "no series knows {}: check the name, or leave it out to look at everything",
            scope.describe()
        ),
    );
    false
}

/// What the alert's name and the words of the question say about a mode: little, because words are no evidence.
fn relevance(runbook: &Runbook, mode: &FailureMode, question: &Question) -> f64 {
    let alert = question.alert.as_deref().is_some_and(|alert| {
        runbook
            .alerts
            .iter()
            .any(|name| name.eq_ignore_ascii_case(alert))
            || crate::cli::rules::alert_name(&mode.id) == alert
    });
    let mut ranks: BTreeMap<&str, usize> = BTreeMap::new();
    for hit in &question.hits {
        let next = ranks.len();
        ranks.entry(&hit.runbook).or_insert(next);
    }
    let words = match ranks.get(runbook.id.as_str()) {
        Some(0) => 0.2,
        Some(1) => 0.1,
        Some(2) => 0.05,
        _ => 0.0,
    };
    words + if alert { 0.3 } else { 0.0 }
}
