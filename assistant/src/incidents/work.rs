//! What goes on behind the webhook: diagnoses that are due, deliveries that are due, and forgetting.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::{info, warn};

use super::queue::Due;
use super::{Incidents, now_millis};
use crate::access::Caller;
use crate::api::AppState;
use crate::audit::Asked;
use crate::diagnosis::{Diagnosis, Question, Scope};

/// Diagnoses at a time. They share their evidence, so more would only compete with people for cores.
const AT_A_TIME: i64 = 4;
/// What another assistant, or a time, makes due is seen this soon.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Moments that diagnoses are about, so that those made together share one snapshot of the evidence.
const ALIGNED_MILLIS: i64 = 5_000;
/// While notifications come closer together than this, diagnoses make room for them, but never for longer than the second time.
const LULL: Duration = Duration::from_millis(50);
const LONGEST_STORM: Duration = Duration::from_secs(2);
/// Samples of the last scrape may be on their way into Prometheus for this long.
const SETTLE_MILLIS: i64 = 500;
const WINDOW: Duration = Duration::from_secs(300);
const HYPOTHESES: usize = 5;
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// What a question's words are at most.
const MAX_WORDS: usize = 2000;

/// Runs until the process ends.
pub async fn run(state: AppState, incidents: Incidents) {
    tokio::join!(
        count_earlier_feedback(&incidents),
        diagnose(&state, &incidents),
        super::over::run(&state.engine.prometheus, &incidents),
        forget(&incidents),
        super::deliver::run(&state.config.external_url, &incidents),
    );
}

async fn diagnose(state: &AppState, incidents: &Incidents) {
    loop {
        if !state.retriever.state().ready {
            sleep(LOOK_EVERY).await;
            continue;
        }
        give_way(incidents).await;
        let now = now_millis();
        let claimed = incidents.store.claim(AT_A_TIME, now);
        let due = match incidents.store.in_time(claimed).await {
            Ok(due) => due,
            Err(error) => {
                warn!(error = error.to_string(), "incidents are not diagnosed now");
                sleep(5 * LOOK_EVERY).await;
                continue;
            }
        };
        show_counts(incidents, now).await;
        if due.is_empty() {
            // Either is enough: what came in, or what became due.
            let _ = timeout(LOOK_EVERY, incidents.wake.notified()).await;
            continue;
        }
        let mut tasks = JoinSet::new();
        for one in due {
            let (state, incidents) = (state.clone(), incidents.clone());
            tasks.spawn(async move { diagnose_one(&state, &incidents, &one, now).await });
        }
        // What panicked stays claimed for a while and is then tried again.
        while tasks.join_next().await.is_some() {}
    }
}

/// In a storm Alertmanager must have its answers: what is not acknowledged in time is sent again and makes the storm larger.
async fn give_way(incidents: &Incidents) {
    let started = Instant::now();
    while incidents.store.intake.quiet_for() < LULL && started.elapsed() < LONGEST_STORM {
        sleep(LULL / 2).await;
    }
}

async fn diagnose_one(state: &AppState, incidents: &Incidents, due: &Due, now: i64) {
    let store = &incidents.store;
    let (labels, annotations) = match store.in_time(store.first_alert(&due.id)).await {
        Ok(first) => first,
        Err(error) => {
            return warn!(
                error = error.to_string(),
                "an incident is not diagnosed now"
            );
        }
    };
    // What all alerts have in common is what it is about; where that names nothing, the first alert does.
    let mut scope = Scope::of_alert(&due.labels);
    if scope.is_empty() && due.labels.is_empty() {
        scope = Scope::of_alert(&labels);
    }
    let alertname = due.labels.get("alertname").or(labels.get("alertname"));
    let words = ["summary", "message", "description"]
        .iter()
        .filter_map(|key| due.annotations.get(*key).or(annotations.get(*key)));
    let words: Vec<&str> = alertname
        .into_iter()
        .chain(words)
        .map(String::as_str)
        .collect();
    let words: String = words.join(" ").chars().take(MAX_WORDS).collect();
    let question = question(due, scope, alertname.cloned(), now);
    let started = Instant::now();
    let queries = state.engine.prometheus.asked();
    let diagnosis: Diagnosis = state.diagnosis(question, &words).await;
    state.audit.record(
        &Asked {
            caller: &Caller("alertmanager".into()),
            via: "webhook",
            incident: Some(&due.id),
            question: &words,
            took: started.elapsed(),
            queries: state.engine.prometheus.asked() - queries,
        },
        &diagnosis,
    );
    let stored = store.diagnosed(due, &diagnosis, &incidents.settings, now_millis());
    let outcome = match store.in_time(stored).await {
        Ok(true) => "new",
        Ok(false) => "unchanged",
        Err(error) => {
            // It is due again when the claim ends.
            warn!(
                incident = due.id,
                error = error.to_string(),
                "a diagnosis cannot be stored"
            );
            "failed"
        }
    };
    if outcome == "new" {
        info!(
            incident = due.id,
            status = diagnosis.status_name(),
            summary = diagnosis.summary,
            "diagnosed"
        );
    }
    incidents.metrics.add(
        "runwire_assistant_incident_diagnoses_total",
        "Diagnoses of incidents, by whether they said anything new",
        &[("outcome", outcome)],
        1.0,
    );
    incidents.metrics.observe(
        "runwire_assistant_incident_diagnosis_duration_seconds",
        "Time that the diagnosis of an incident took, storing included",
        &[],
        started.elapsed(),
    );
}

/// What is asked of an incident: how it was when it was over, else how it is now.
fn question(due: &Due, scope: Scope, alert: Option<String>, now: i64) -> Question {
    let at = if due.resolved_at == 0 {
        now - SETTLE_MILLIS
    } else {
        // It was over before anybody looked: its last moments are what is asked about.
        due.resolved_at.min(now - SETTLE_MILLIS)
    };
    Question {
        scope,
        scope_is_a_guess: true,
        time_millis: at.div_euclid(ALIGNED_MILLIS) * ALIGNED_MILLIS,
        window: WINDOW,
        limit: HYPOTHESES,
        since_millis: Some(due.started_at),
        alert,
        hits: Vec::new(),
    }
}

async fn show_counts(incidents: &Incidents, now: i64) {
    let counts = incidents.store.counts(now);
    let Ok((due, firing)) = incidents.store.in_time(counts).await else {
        return;
    };
    for (name, help, value) in [
        (
            "runwire_assistant_incidents_due",
            "Incidents that wait to be diagnosed",
            due,
        ),
        (
            "runwire_assistant_incidents_firing",
            "Incidents that are not resolved",
            firing,
        ),
    ] {
        // Far below 2^52, where f64 stops being exact.
        incidents.metrics.set(name, help, &[], value as f64);
    }
}

/// Counters begin with what is in the store, so that a restart forgets no feedback.
async fn count_earlier_feedback(incidents: &Incidents) {
    loop {
        match incidents.store.in_time(incidents.store.judged()).await {
            Ok(judged) => {
                for (verdict, failure_mode, n) in judged {
                    incidents.count_feedback(&verdict, &failure_mode, n as f64);
                }
                return;
            }
            Err(_) => sleep(5 * LOOK_EVERY).await,
        }
    }
}

async fn forget(incidents: &Incidents) {
    let mut ticks = interval(FORGET_EVERY);
    loop {
        ticks.tick().await;
        let forgotten = incidents.store.forget(&incidents.settings, now_millis());
        // A large share of a large store takes longer than other changes.
        match timeout(FORGET_EVERY, forgotten).await {
            Ok(Ok(0)) => {}
            Ok(Ok(n)) => info!(incidents = n, "old incidents are forgotten"),
            Err(_) => warn!("old incidents cannot be forgotten: the store does not answer"),
            Ok(Err(error)) => warn!(
                error = error.to_string(),
                "old incidents cannot be forgotten"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_lies_inside_an_incident_is_no_baseline_for_it() {
        const HOUR: i64 = 3_600_000;
        let now = 1_800_000_000_000;
        for (resolved_at, asked_at) in [(0, now - SETTLE_MILLIS), (now - HOUR, now - HOUR)] {
            let due = Due {
                id: String::new(),
                next_diagnosis: now,
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                resolved_at,
                started_at: now - 2 * HOUR,
            };
            let question = question(&due, Scope::default(), None, now);
            assert_eq!(question.since_millis, Some(now - 2 * HOUR));
            assert!((asked_at - question.time_millis).abs() <= ALIGNED_MILLIS);
        }
    }
}
