//! Incidents as they are shown, what people say of them, and which are forgotten.

use serde::Serialize;
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{Row, query};
use utoipa::ToSchema;

use super::Settings;
use super::millis;
use super::notification::Labels;
use super::over::{BY_PROMETHEUS, BY_SILENCE, GIVEN_UP_DAYS};
use super::queue::labels;
use super::store::{Lock, Store, StoreError};

/// Alerts that are shown of one incident.
const ALERTS: i64 = 1000;
/// Incidents that are forgotten in one transaction.
const BATCH: i64 = 500;

/// An incident in a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Incident {
    pub id: String,
    /// `firing` or `resolved`.
    pub state: String,
    pub alertname: String,
    /// What all its alerts have in common.
    pub labels: Labels,
    pub annotations: Labels,
    pub group_key: String,
    pub receiver: String,
    pub alertmanager: String,
    pub started_at: String,
    pub notified_at: String,
    pub resolved_at: Option<String>,
    /// Who said so. `alertmanager`; `prometheus`: Alertmanager says nothing of what is silenced, and Prometheus shows it firing no
    /// more; `silence`: for seven days nobody said anything of it, and whether it is over is not known.
    pub resolved_by: Option<String>,
    pub alerts: i64,
    pub alerts_firing: i64,
    /// Alerts that Alertmanager left out of its notification.
    pub alerts_truncated: i64,
    /// Of the latest diagnosis; `None` before the first.
    pub status: Option<String>,
    /// The failure mode that came first in it.
    pub cause: Option<String>,
    pub summary: Option<String>,
    pub diagnosed_at: Option<String>,
    pub url: String,
    #[serde(skip)]
    pub(super) started_millis: i64,
    #[serde(skip)]
    pub(super) resolved_millis: i64,
    #[serde(skip)]
    pub(super) annotation_id: i64,
}

impl Incident {
    /// Of one that is closed without Alertmanager's word: by whose it is.
    pub(crate) fn closed_by(&self) -> Option<String> {
        match self.resolved_by.as_deref()? {
            BY_PROMETHEUS => Some(
                "Alertmanager did not say that it is over (it says nothing of what is silenced): Prometheus shows it firing no more"
                    .into(),
            ),
            BY_SILENCE => Some(format!(
                "Closed because nothing was heard of it for {GIVEN_UP_DAYS} days; whether it is over is not known"
            )),
            _ => None,
        }
    }
}

/// An incident with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = IncidentPage)]
pub struct Page {
    #[serde(flatten)]
    pub incident: Incident,
    /// The first thousand by their start.
    pub members: Vec<Member>,
    /// The latest first.
    pub diagnoses: Vec<Kept>,
    pub feedback: Vec<Given>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Member {
    pub fingerprint: String,
    pub starts_at: String,
    pub ended_at: Option<String>,
    /// Who said so, as `resolved_by`.
    pub ended_by: Option<String>,
    pub labels: Labels,
    pub annotations: Labels,
    pub generator_url: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Kept {
    /// From 1 on.
    pub number: i64,
    pub made_at: String,
    /// As `POST /diagnose` answers.
    #[schema(value_type = crate::diagnosis::Diagnosis)]
    pub diagnosis: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Given {
    pub given_at: String,
    pub verdict: String,
    pub failure_mode: String,
    pub comment: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
        }
    }
}

/// What somebody says of a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    pub verdict: Verdict,
    /// One that the runbooks know, or `none`.
    pub failure_mode: String,
    pub comment: String,
}

/// Which incidents are meant. Empty text and `None` mean any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub state: String,
    pub alertname: String,
    pub namespace: String,
    /// Not over before this, in Unix milliseconds.
    pub from: Option<i64>,
    /// Begun by then.
    pub to: Option<i64>,
    /// Those after this one, in the order of the list.
    pub after: Option<(i64, String)>,
    pub limit: i64,
}

const COLUMNS: &str = "i.id, i.state, i.labels, i.annotations, i.group_key, i.receiver, i.external_url, i.started_at, \
     i.notified_at, i.resolved_at, i.truncated, i.status, i.cause, i.summary, i.diagnosed_at, i.annotation_id, \
     (SELECT count(*) FROM alerts a WHERE a.incident = i.id), \
     (SELECT count(*) FROM alerts a WHERE a.incident = i.id AND a.ended_at = 0), \
     (SELECT min(a.alertname) FROM alerts a WHERE a.incident = i.id), \
     (SELECT max(a.ended_by) FROM alerts a WHERE a.incident = i.id)";

impl Store {
    /// The latest first; and, where there are more, what [`Filter::after`] must be to get them.
    pub async fn list(
        &self,
        filter: &Filter,
    ) -> Result<(Vec<Incident>, Option<(i64, String)>), StoreError> {
        self.read().await?;
        let after = filter.after.clone().unwrap_or((i64::MAX, String::new()));
        let sql = format!(
            "SELECT {COLUMNS} FROM incidents i WHERE ($1 = '' OR i.state = $1) \
             AND ($2 = '' OR EXISTS (SELECT 1 FROM alerts a WHERE a.incident = i.id AND a.alertname = $2)) \
             AND ($3 = '' OR EXISTS (SELECT 1 FROM alerts a WHERE a.incident = i.id AND a.namespace = $3)) \
             AND (i.resolved_at = 0 OR i.resolved_at >= $4) AND i.started_at <= $5 \
             AND (i.started_at < $6 OR (i.started_at = $6 AND i.id < $7)) \
             ORDER BY i.started_at DESC, i.id DESC LIMIT $8"
        );
        let rows = query(sqlx::AssertSqlSafe(sql))
            .bind(filter.state.as_str())
            .bind(filter.alertname.as_str())
            .bind(filter.namespace.as_str())
            .bind(filter.from.unwrap_or(0))
            .bind(filter.to.unwrap_or(i64::MAX))
            .bind(after.0)
            .bind(after.1)
            .bind(filter.limit + 1)
            .fetch_all(&self.pool)
            .await;
        let incidents =
            rows.and_then(|rows| rows.iter().map(incident).collect::<Result<Vec<_>, _>>());
        let mut incidents = incidents.map_err(|error| self.failed(&error))?;
        let has_more = incidents.len() as i64 > filter.limit;
        incidents.truncate(usize::try_from(filter.limit).unwrap_or(0));
        let next = incidents
            .last()
            .filter(|_| has_more)
            .map(|last| (last.started_millis, last.id.clone()));
        Ok((incidents, next))
    }

    pub async fn get(&self, id: &str) -> Result<Option<Page>, StoreError> {
        self.read().await?;
        self.page(id).await.map_err(|error| self.failed(&error))
    }

    async fn page(&self, id: &str) -> Result<Option<Page>, sqlx::Error> {
        // As of one moment: a diagnosis that comes meanwhile must not be beside the status of before.
        let mut moment = self.pool.begin().await?;
        if !self.is_sqlite() {
            query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                .execute(&mut *moment)
                .await?;
        }
        let sql = format!("SELECT {COLUMNS} FROM incidents i WHERE i.id = $1");
        let row = query(sqlx::AssertSqlSafe(sql))
            .bind(id)
            .fetch_optional(&mut *moment);
        let Some(row) = row.await? else {
            return Ok(None);
        };
        let members = query(
            "SELECT fingerprint, starts_at, ended_at, labels, annotations, generator_url, ended_by FROM alerts \
             WHERE incident = $1 ORDER BY starts_at, fingerprint LIMIT $2",
        )
        .bind(id)
        .bind(ALERTS)
        .fetch_all(&mut *moment)
        .await?;
        let diagnoses = query(
            "SELECT number, made_at, body FROM diagnoses WHERE incident = $1 ORDER BY number DESC",
        )
        .bind(id)
        .fetch_all(&mut *moment)
        .await?;
        let feedback = query(
            "SELECT given_at, verdict, failure_mode, comment FROM feedback WHERE incident = $1 ORDER BY given_at",
        )
        .bind(id)
        .fetch_all(&mut *moment)
        .await?;
        moment.commit().await?;
        Ok(Some(Page {
            incident: incident(&row)?,
            members: members.iter().map(member).collect::<Result<_, _>>()?,
            diagnoses: diagnoses.iter().map(kept).collect::<Result<_, _>>()?,
            feedback: feedback.iter().map(given).collect::<Result<_, _>>()?,
        }))
    }

    pub(super) async fn judge(
        &self,
        incident: &str,
        feedback: &Feedback,
        now: i64,
    ) -> Result<(), StoreError> {
        let mut change = self.change(Lock::None).await?;
        let done = query(
            "INSERT INTO feedback (incident, given_at, verdict, failure_mode, comment) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(incident)
        .bind(now)
        .bind(feedback.verdict.name())
        .bind(feedback.failure_mode.as_str())
        .bind(feedback.comment.as_str())
        .execute(&mut *change.transaction)
        .await;
        done.map_err(|error| self.failed(&error))?;
        self.commit(change).await
    }

    /// All feedback there is: verdict, failure mode, how often.
    pub(super) async fn judged(&self) -> Result<Vec<(String, String, i64)>, StoreError> {
        self.read().await?;
        let rows = query(
            "SELECT verdict, failure_mode, count(*) FROM feedback GROUP BY verdict, failure_mode",
        )
        .fetch_all(&self.pool)
        .await;
        let judged = rows.and_then(|rows| {
            let one = |row: &AnyRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            rows.iter().map(one).collect()
        });
        judged.map_err(|error| self.failed(&error))
    }

    /// Forgets what is too old, and the oldest resolved ones where there are too many. Gives how many went.
    pub async fn forget(&self, settings: &Settings, now: i64) -> Result<u64, StoreError> {
        let oldest = now.saturating_sub(millis(settings.retention));
        let limit = i64::try_from(settings.limit).unwrap_or(i64::MAX);
        let mut forgotten = 0;
        loop {
            let mut change = self.change(Lock::Tables).await?;
            let rows = query(
                "SELECT id FROM incidents WHERE notified_at < $1 UNION SELECT id FROM (SELECT id FROM incidents \
                 WHERE state = 'resolved' ORDER BY resolved_at DESC, id LIMIT $2 OFFSET $3) AS beyond LIMIT $2",
            )
            .bind(oldest)
            .bind(BATCH)
            .bind(limit)
            .fetch_all(&mut *change.transaction)
            .await
            .map_err(|error| self.failed(&error))?;
            for row in &rows {
                let id: String = row.try_get(0).map_err(|error| self.failed(&error))?;
                for table in [
                    "DELETE FROM alerts WHERE incident = $1",
                    "DELETE FROM diagnoses WHERE incident = $1",
                    "DELETE FROM feedback WHERE incident = $1",
                    "DELETE FROM deliveries WHERE incident = $1",
                    "DELETE FROM incidents WHERE id = $1",
                ] {
                    let done = query(table).bind(id.as_str());
                    let done = done.execute(&mut *change.transaction).await;
                    done.map_err(|error| self.failed(&error))?;
                }
            }
            self.commit(change).await?;
            forgotten += rows.len() as u64;
            if rows.is_empty() {
                return Ok(forgotten);
            }
        }
    }

    pub(super) async fn set_annotation(&self, incident: &str, id: i64) -> Result<(), StoreError> {
        let mut change = self.change(Lock::None).await?;
        let done = query("UPDATE incidents SET annotation_id = $1 WHERE id = $2")
            .bind(id)
            .bind(incident)
            .execute(&mut *change.transaction)
            .await;
        done.map_err(|error| self.failed(&error))?;
        self.commit(change).await
    }
}

fn incident(row: &AnyRow) -> Result<Incident, sqlx::Error> {
    let diagnosed: i64 = row.try_get(14)?;
    let of_diagnosis = |text: String| (diagnosed != 0 && !text.is_empty()).then_some(text);
    let id: String = row.try_get(0)?;
    let labels_in_common = labels(row.try_get(2)?);
    Ok(Incident {
        url: format!("/incidents/{id}"),
        id,
        state: row.try_get(1)?,
        alertname: match labels_in_common.get("alertname") {
            Some(name) => name.clone(),
            None => row.try_get(18)?,
        },
        labels: labels_in_common,
        annotations: labels(row.try_get(3)?),
        group_key: row.try_get(4)?,
        receiver: row.try_get(5)?,
        alertmanager: row.try_get(6)?,
        started_at: time(row.try_get(7)?),
        notified_at: time(row.try_get(8)?),
        resolved_at: time_unless_zero(row.try_get(9)?),
        resolved_by: who_ended(row.try_get(9)?, row.try_get(19)?),
        alerts_truncated: row.try_get(10)?,
        status: of_diagnosis(row.try_get(11)?),
        cause: of_diagnosis(row.try_get(12)?),
        summary: of_diagnosis(row.try_get(13)?),
        diagnosed_at: time_unless_zero(diagnosed),
        alerts: row.try_get(16)?,
        alerts_firing: row.try_get(17)?,
        started_millis: row.try_get(7)?,
        resolved_millis: row.try_get(9)?,
        annotation_id: row.try_get(15)?,
    })
}

fn member(row: &AnyRow) -> Result<Member, sqlx::Error> {
    Ok(Member {
        fingerprint: row.try_get(0)?,
        starts_at: time(row.try_get(1)?),
        ended_at: time_unless_zero(row.try_get(2)?),
        ended_by: who_ended(row.try_get(2)?, row.try_get(6)?),
        labels: labels(row.try_get(3)?),
        annotations: labels(row.try_get(4)?),
        generator_url: row.try_get(5)?,
    })
}

fn kept(row: &AnyRow) -> Result<Kept, sqlx::Error> {
    let body: &str = row.try_get(2)?;
    Ok(Kept {
        number: row.try_get(0)?,
        made_at: time(row.try_get(1)?),
        diagnosis: serde_json::from_str(body).unwrap_or(Value::Null),
    })
}

fn given(row: &AnyRow) -> Result<Given, sqlx::Error> {
    Ok(Given {
        given_at: time(row.try_get(0)?),
        verdict: row.try_get(1)?,
        failure_mode: row.try_get(2)?,
        comment: row.try_get(3)?,
    })
}

/// RFC 3339 in UTC.
fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| millis.to_string(), |time| time.to_string())
}

fn who_ended(ended_at: i64, by: String) -> Option<String> {
    let by = match by.is_empty() {
        true => "alertmanager".into(),
        false => by,
    };
    (ended_at != 0).then_some(by)
}

fn time_unless_zero(millis: i64) -> Option<String> {
    (millis != 0).then(|| time(millis))
}
