//! Which incidents are to be diagnosed, and what became of it.

use sqlx::{AnyConnection, Row, query};

use super::notification::Labels;
use super::schema::NEVER;
use super::store::{Lock, Store, StoreError};
use super::{Settings, millis, outbox};
use crate::diagnosis::Diagnosis;
use crate::hash::fnv;

/// A claimed incident is another's again after so long; a diagnosis has a deadline of seconds.
const CLAIM_MILLIS: i64 = 20_000;
/// How far the pause between two diagnoses grows.
const SLOWEST: i64 = 10;
/// An incident of which nothing is heard for so long is not diagnosed again: Alertmanager repeats itself every four hours.
const SILENT_MILLIS: i64 = 24 * 3600 * 1000;
/// Diagnoses of one incident that are kept: the first and the latest.
const KEPT: i64 = 100;

/// An incident that is to be diagnosed now.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) id: String,
    pub(super) next_diagnosis: i64,
    /// What all its alerts have in common.
    pub(super) labels: Labels,
    pub(super) annotations: Labels,
    /// 0 while it fires.
    pub(super) resolved_at: i64,
    pub(super) started_at: i64,
}

impl Store {
    /// Takes up to `limit` incidents that are due, the longest waiting first.
    pub(super) async fn claim(&self, limit: i64, now: i64) -> Result<Vec<Due>, StoreError> {
        let sql = if self.is_sqlite() {
            "UPDATE incidents SET claimed_until = $1 WHERE id IN (SELECT id FROM incidents \
             WHERE next_diagnosis <= $2 AND claimed_until <= $2 ORDER BY next_diagnosis LIMIT $3) \
             RETURNING id, next_diagnosis, labels, annotations, resolved_at, started_at"
        } else {
            "UPDATE incidents SET claimed_until = $1 WHERE id = ANY(ARRAY(SELECT id FROM incidents \
             WHERE next_diagnosis <= $2 AND claimed_until <= $2 ORDER BY next_diagnosis LIMIT $3 FOR UPDATE SKIP LOCKED)) \
             RETURNING id, next_diagnosis, labels, annotations, resolved_at, started_at"
        };
        let mut change = self.change(Lock::None).await?;
        let rows = query(sql)
            .bind(now + CLAIM_MILLIS)
            .bind(now)
            .bind(limit)
            .fetch_all(&mut *change.transaction)
            .await
            .map_err(|error| self.failed(&error))?;
        let mut due = Vec::new();
        for row in &rows {
            let one = read(row).map_err(|error| self.failed(&error))?;
            due.push(one);
        }
        self.commit(change).await?;
        Ok(due)
    }

    /// How many incidents wait to be diagnosed, and how many fire.
    pub(super) async fn counts(&self, now: i64) -> Result<(i64, i64), StoreError> {
        self.read().await?;
        let row = query(
            "SELECT (SELECT count(*) FROM incidents WHERE next_diagnosis <= $1), \
             (SELECT count(*) FROM incidents WHERE state = 'firing')",
        )
        .bind(now)
        .fetch_one(&self.pool)
        .await;
        row.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .map_err(|error| self.failed(&error))
    }

    /// Labels and annotations of the alerts that an incident began with.
    pub(super) async fn first_alert(&self, incident: &str) -> Result<(Labels, Labels), StoreError> {
        let row = query(
            "SELECT labels, annotations FROM alerts WHERE incident = $1 ORDER BY starts_at, fingerprint LIMIT 1",
        )
        .bind(incident)
        .fetch_optional(&self.pool)
        .await
        .map_err(|error| self.failed(&error))?;
        let Some(row) = row else {
            return Ok((Labels::new(), Labels::new()));
        };
        let labels = |i| row.try_get::<String, _>(i).map(|text| labels(&text));
        let both = labels(0).and_then(|first| Ok((first, labels(1)?)));
        both.map_err(|error| self.failed(&error))
    }

    /// Keeps the diagnosis if it says something new, and says when to look again. True: it was kept.
    pub(super) async fn diagnosed(
        &self,
        due: &Due,
        diagnosis: &Diagnosis,
        settings: &Settings,
        now: i64,
    ) -> Result<bool, StoreError> {
        let mut change = self.change(Lock::None).await?;
        let kept = keep(
            &mut change.transaction,
            due,
            diagnosis,
            settings,
            &self.targets,
            now,
        )
        .await
        .map_err(|error| self.failed(&error))?;
        self.commit(change).await?;
        Ok(kept)
    }
}

fn read(row: &sqlx::any::AnyRow) -> Result<Due, sqlx::Error> {
    Ok(Due {
        id: row.try_get(0)?,
        next_diagnosis: row.try_get(1)?,
        labels: labels(row.try_get(2)?),
        annotations: labels(row.try_get(3)?),
        resolved_at: row.try_get(4)?,
        started_at: row.try_get(5)?,
    })
}

/// We wrote it; what another wrote into the table is no label.
pub(super) fn labels(json: &str) -> Labels {
    serde_json::from_str(json).unwrap_or_default()
}

async fn keep(
    connection: &mut AnyConnection,
    due: &Due,
    diagnosis: &Diagnosis,
    settings: &Settings,
    targets: &[&'static str],
    now: i64,
) -> Result<bool, sqlx::Error> {
    let Some(incident) = query(
        "SELECT status, cause, diagnoses, pause, notified_at, state FROM incidents WHERE id = $1",
    )
    .bind(due.id.as_str())
    .fetch_optional(&mut *connection)
    .await?
    else {
        return Ok(false);
    };
    let (status, cause): (String, String) = (incident.try_get(0)?, incident.try_get(1)?);
    let (count, pause): (i64, i64) = (incident.try_get(2)?, incident.try_get(3)?);
    let notified_at: i64 = incident.try_get(4)?;
    let is_firing = incident.try_get::<String, _>(5)? == "firing";

    let latest: Option<String> =
        query("SELECT digest FROM diagnoses WHERE incident = $1 ORDER BY number DESC LIMIT 1")
            .bind(due.id.as_str())
            .fetch_optional(&mut *connection)
            .await?
            .map(|row| row.try_get(0))
            .transpose()?;
    let digest = digest(diagnosis);
    let is_new = latest.as_ref() != Some(&digest);
    let number = count + i64::from(is_new);
    let new_cause = diagnosis
        .hypotheses
        .first()
        .map_or("", |first| first.failure_mode.as_str());
    if is_new {
        query(
            "INSERT INTO diagnoses (incident, number, made_at, digest, body) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(due.id.as_str())
        .bind(number)
        .bind(now)
        .bind(digest)
        .bind(serde_json::to_string(diagnosis).expect("a diagnosis is JSON"))
        .execute(&mut *connection)
        .await?;
        query("DELETE FROM diagnoses WHERE incident = $1 AND number > 1 AND number <= $2")
            .bind(due.id.as_str())
            .bind(number - KEPT)
            .execute(&mut *connection)
            .await?;
        // Values that move about are no news; another cause is.
        if count == 0 || (is_firing && (cause != new_cause || status != diagnosis.status_name())) {
            let key = format!("{}-{number}", due.id);
            outbox::put(connection, &key, &due.id, "diagnosed", number, targets, now).await?;
        }
    }
    let every = millis(settings.rediagnose);
    let is_blind = diagnosis
        .degraded
        .iter()
        .any(|part| part.part == "prometheus");
    let pause = if is_new || is_blind || pause == 0 {
        every
    } else {
        (pause * 2).min(every.saturating_mul(SLOWEST))
    };
    let next = if is_firing && now - notified_at < SILENT_MILLIS {
        now + pause
    } else {
        NEVER
    };
    // A notification that came meanwhile made it due again: that stays.
    query(
        "UPDATE incidents SET status = $1, cause = $2, summary = $3, diagnoses = $4, diagnosed_at = $5, pause = $6, claimed_until = 0, \
         next_diagnosis = CASE WHEN next_diagnosis = $7 THEN $8 ELSE next_diagnosis END WHERE id = $9",
    )
    .bind(diagnosis.status_name())
    .bind(new_cause)
    .bind(diagnosis.summary.as_str())
    .bind(number)
    .bind(now)
    .bind(pause)
    .bind(due.next_diagnosis)
    .bind(next)
    .bind(due.id.as_str())
    .execute(&mut *connection)
    .await?;
    Ok(is_new)
}

/// Names what a diagnosis found: not its time, nor values that move without crossing a threshold.
fn digest(diagnosis: &Diagnosis) -> String {
    let found = |mode: &crate::diagnosis::response::FoundMode| {
        let outcomes: Vec<_> = mode
            .evidence
            .iter()
            .map(|evidence| (&evidence.id, &evidence.outcome))
            .collect();
        serde_json::json!([mode.failure_mode, mode.active, mode.affected, outcomes])
    };
    let parts = serde_json::json!([
        diagnosis.status,
        diagnosis.hypotheses.iter().map(found).collect::<Vec<_>>(),
        diagnosis.checked,
        diagnosis
            .degraded
            .iter()
            .map(|part| &part.part)
            .collect::<Vec<_>>(),
    ]);
    format!("{:032x}", fnv(&[parts.to_string().as_bytes()]))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::incidents::{Incidents, Notification, Place, deliver, now_millis};
    use crate::metrics::Metrics;

    fn notification(fingerprints: &[&str]) -> Notification {
        let alert = |fingerprint: &&str| json!({"status": "firing", "labels": {}, "startsAt": "2026-11-20T03:10:00Z", "fingerprint": fingerprint});
        let alerts: Vec<_> = fingerprints.iter().map(alert).collect();
        let payload = json!({"version": "4", "groupKey": "g", "alerts": alerts});
        Notification::of(serde_json::from_value(payload).unwrap(), now_millis()).unwrap()
    }

    fn incidents(folder: &std::path::Path) -> Incidents {
        let settings = Settings {
            place: Place::Sqlite(folder.join("incidents.db")),
            retention: Duration::from_secs(86_400),
            limit: 10,
            rediagnose: Duration::from_secs(3600),
            targets: deliver::Targets::default(),
        };
        Incidents::new(settings, Arc::new(Metrics::default())).unwrap()
    }

    fn diagnosis() -> Diagnosis {
        serde_json::from_value(json!({
            "time": "", "window": "5m", "scope": {}, "status": "unknown", "summary": "", "hypotheses": [],
            "checked": [], "passages": [], "degraded": []
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn what_was_silent_for_a_day_is_diagnosed_again_when_it_is_heard_of() {
        let folder = tempfile::tempdir().unwrap();
        let incidents = incidents(folder.path());
        let store = &incidents.store;
        let diagnosis = diagnosis();
        incidents.record(notification(&["a"])).await.unwrap();
        let due = store.claim(1, now_millis()).await.unwrap();
        let tomorrow = now_millis() + SILENT_MILLIS;
        let done = store.diagnosed(&due[0], &diagnosis, &incidents.settings, tomorrow);
        done.await.unwrap();
        assert_eq!(store.counts(2 * tomorrow).await.unwrap(), (0, 1));
        incidents.record(notification(&["a"])).await.unwrap();
        assert_eq!(store.counts(now_millis() + 1).await.unwrap(), (1, 1));
    }

    #[tokio::test]
    async fn what_comes_during_a_diagnosis_is_diagnosed_next() {
        let folder = tempfile::tempdir().unwrap();
        let incidents = incidents(folder.path());
        let store = &incidents.store;
        let diagnosis = diagnosis();
        incidents.record(notification(&["a"])).await.unwrap();
        for (known, is_due_again) in [(&["a", "b"][..], true), (&["a", "b"], false)] {
            let due = store.claim(1, now_millis()).await.unwrap();
            assert_eq!(due.len(), 1);
            incidents.record(notification(known)).await.unwrap();
            let done = store.diagnosed(&due[0], &diagnosis, &incidents.settings, now_millis());
            done.await.unwrap();
            let (due, _) = store.counts(now_millis() + 1).await.unwrap();
            assert_eq!(due == 1, is_due_again, "{known:?}");
        }
    }
}
