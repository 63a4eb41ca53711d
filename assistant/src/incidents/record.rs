//! A notification becomes a change of the tables. The same one again changes nothing.
//!
//! A group is one incident while any of its alerts fires. An alert is known by group, fingerprint and start, so a
//! notification that comes late, twice or to two assistants at once finds the incident that it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AnyConnection, AssertSqlSafe, Row, query};

use super::notification::{Alert, Labels, Notification};
use super::outbox;
use super::over::End;
use super::schema::NEVER;
use super::store::{Lock, Store, StoreError};
use crate::hash::fnv;

/// So long after an alert was told to have ended, «it fires» with the same start is an older notification that comes
/// late. Later it fires again: Prometheus keeps an alert's start over its own restarts.
const LATE_MILLIS: i64 = 60_000;

pub(super) struct Recorded {
    pub(super) incidents: Vec<String>,
    /// It said something new.
    pub(super) changed: bool,
}

/// What the store knows of an alert.
struct Known {
    incident: String,
    ended_at: i64,
    /// When Alertmanager told of the end; 0 where another did.
    ended_seen: i64,
}

impl Store {
    /// Notifications and when they came; all are stored, or none. Several at a time only where changes take turns anyway,
    /// in SQLite: the lock is on the first one's group.
    pub(super) async fn record(
        &self,
        notifications: &[(&Notification, i64)],
    ) -> Result<Vec<Recorded>, StoreError> {
        let lock = match notifications {
            [] => return Ok(Vec::new()),
            [(first, _), ..] => Lock::Group(&first.group_key),
        };
        let mut change = self.change(lock).await?;
        let mut all = Vec::new();
        for (notification, now) in notifications {
            let recorded = apply(&mut change.transaction, notification, &self.targets, *now)
                .await
                .map_err(|error| self.failed(&error))?;
            all.push(recorded);
        }
        self.commit(change).await?;
        Ok(all)
    }

    /// Ends alerts of a group that Alertmanager says nothing of, unless it did meanwhile. Gives how many.
    pub(super) async fn end(
        &self,
        group: &str,
        ends: &[End],
        now: i64,
    ) -> Result<usize, StoreError> {
        let mut change = self.change(Lock::Group(group)).await?;
        let ended = end(&mut change.transaction, ends, &self.targets, now)
            .await
            .map_err(|error| self.failed(&error))?;
        self.commit(change).await?;
        Ok(ended)
    }
}

async fn end(
    connection: &mut AnyConnection,
    ends: &[End],
    targets: &[&'static str],
    now: i64,
) -> Result<usize, sqlx::Error> {
    let mut touched = BTreeSet::new();
    let mut ended = 0;
    for End { alert, at, by } in ends {
        let row = query(
            "UPDATE alerts SET ended_at = $1, ended_seen = 0, ended_by = $2 WHERE group_key = $3 AND starts_at = $4 \
             AND fingerprint = $5 AND ended_at = 0 AND told_at = $6 RETURNING incident",
        )
        .bind(*at)
        .bind(*by)
        .bind(alert.group_key.as_str())
        .bind(alert.starts_at)
        .bind(alert.fingerprint.as_str())
        .bind(alert.told_at)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(row) = row {
            touched.insert(row.try_get::<String, _>(0)?);
            ended += 1;
        }
    }
    for incident in &touched {
        settle(connection, incident, false, targets, now).await?;
    }
    Ok(ended)
}

async fn apply(
    connection: &mut AnyConnection,
    notification: &Notification,
    targets: &[&'static str],
    now: i64,
) -> Result<Recorded, sqlx::Error> {
    let known = known(connection, notification).await?;
    let open: Option<String> =
        query("SELECT id FROM incidents WHERE group_key = $1 AND state = 'firing'")
            .bind(notification.group_key.as_str())
            .fetch_optional(&mut *connection)
            .await?
            .map(|row| row.try_get(0))
            .transpose()?;

    let mut touched = BTreeSet::new();
    let mut news: BTreeMap<String, bool> = BTreeMap::new();
    let mut fresh: Vec<&Alert> = Vec::new();
    let group = notification.group_key.as_str();
    let told: BTreeSet<(&str, i64)> = notification
        .alerts
        .iter()
        .map(|alert| (alert.fingerprint.as_str(), alert.starts_at))
        .collect();
    for alert in &notification.alerts {
        for (start, earlier) in of_fingerprint(&known, &alert.fingerprint) {
            let is_told = told.contains(&(alert.fingerprint.as_str(), start));
            if earlier.ended_at == 0
                && !is_told
                && let Some(end) = alert.end_of_earlier(start)
            {
                set_end(connection, group, &alert.fingerprint, start, end, now).await?;
                news.entry(earlier.incident.clone()).or_default();
            }
        }
        let Some(known) = known.get(&(alert.fingerprint.clone(), alert.starts_at)) else {
            fresh.push(alert);
            continue;
        };
        touched.insert(known.incident.clone());
        let ended_at = alert.ended_at.unwrap_or(0);
        let is_late = ended_at == 0 && now - known.ended_seen < LATE_MILLIS;
        let changed = match (known.ended_at, ended_at) {
            (0, end) => end != 0,
            (_, 0) => !is_late,
            // Alertmanager's own word of the end is better than another's.
            (_, end) => known.ended_seen == 0 && end != known.ended_at,
        };
        if changed {
            set_end(
                connection,
                group,
                &alert.fingerprint,
                alert.starts_at,
                ended_at,
                now,
            )
            .await?;
            let fires = news.entry(known.incident.clone()).or_default();
            *fires |= ended_at == 0;
        }
    }
    if !fresh.is_empty() {
        let incident = match open {
            Some(open) => open,
            None => create(connection, notification, &fresh, now).await?,
        };
        insert(connection, notification, &fresh, &incident, now).await?;
        touched.insert(incident.clone());
        news.insert(incident, true);
    }
    for incident in &touched {
        mark_told(connection, notification, incident, now).await?;
    }
    for (incident, worth_a_diagnosis) in &news {
        settle(connection, incident, *worth_a_diagnosis, targets, now).await?;
    }
    for incident in &touched {
        describe(connection, notification, incident, now).await?;
    }
    Ok(Recorded {
        incidents: touched.into_iter().collect(),
        changed: !news.is_empty(),
    })
}

impl Alert {
    /// When the alert's time that began at `start` was over, if this one shows that it was. Alertmanager keeps one alert for each
    /// set of labels: what ends and fires anew between two notifications is told with its new start only.
    fn end_of_earlier(&self, start: i64) -> Option<i64> {
        match self.ended_at {
            Some(end) => (start <= end).then_some(end),
            None => (start < self.starts_at).then_some(self.starts_at),
        }
    }
}

/// What is known of an alert, by its starts.
fn of_fingerprint<'a>(
    known: &'a BTreeMap<(String, i64), Known>,
    fingerprint: &str,
) -> impl Iterator<Item = (i64, &'a Known)> {
    let from = (fingerprint.to_owned(), i64::MIN);
    let to = (fingerprint.to_owned(), i64::MAX);
    known
        .range(from..=to)
        .map(|((_, start), known)| (*start, known))
}

/// The alerts of the group that the notification may be about: none that began earlier but those that fire still.
async fn known(
    connection: &mut AnyConnection,
    notification: &Notification,
) -> Result<BTreeMap<(String, i64), Known>, sqlx::Error> {
    let earliest = notification
        .alerts
        .iter()
        .map(|alert| alert.starts_at)
        .min();
    let rows = query(
        "SELECT fingerprint, starts_at, incident, ended_at, ended_seen FROM alerts \
         WHERE group_key = $1 AND starts_at >= $2 \
         UNION SELECT fingerprint, starts_at, incident, ended_at, ended_seen FROM alerts \
         WHERE ended_at = 0 AND incident IN (SELECT id FROM incidents WHERE group_key = $1 AND state = 'firing')",
    )
    .bind(notification.group_key.as_str())
    .bind(earliest.unwrap_or(0))
    .fetch_all(&mut *connection)
    .await?;
    rows.iter()
        .map(|row| {
            let known = Known {
                incident: row.try_get(2)?,
                ended_at: row.try_get(3)?,
                ended_seen: row.try_get(4)?,
            };
            Ok(((row.try_get(0)?, row.try_get(1)?), known))
        })
        .collect()
}

async fn create(
    connection: &mut AnyConnection,
    notification: &Notification,
    alerts: &[&Alert],
    now: i64,
) -> Result<String, sqlx::Error> {
    let first = alerts
        .iter()
        .map(|alert| (alert.starts_at, alert.fingerprint.as_str()))
        .min()
        .expect("an incident is made for an alert");
    // From what it is about: nobody else can make another id for it.
    let parts = [
        notification.group_key.as_bytes(),
        first.1.as_bytes(),
        &first.0.to_be_bytes(),
    ];
    let id = format!("{:016x}", fnv(&parts) >> 64);
    query(
        "INSERT INTO incidents (id, group_key, receiver, state, labels, annotations, external_url, truncated, started_at, \
         notified_at, resolved_at, status, cause, summary, diagnoses, diagnosed_at, next_diagnosis, pause, claimed_until, annotation_id) \
         VALUES ($1, $2, $3, 'firing', '{}', '{}', '', 0, $4, $5, 0, '', '', '', 0, 0, $5, 0, 0, 0)",
    )
    .bind(id.as_str())
    .bind(notification.group_key.as_str())
    .bind(notification.receiver.as_str())
    .bind(first.0)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    Ok(id)
}

/// Rows of one statement: each statement is a way to the database and back.
const ROWS: usize = 50;
const COLUMNS: usize = 12;

async fn insert(
    connection: &mut AnyConnection,
    notification: &Notification,
    alerts: &[&Alert],
    incident: &str,
    now: i64,
) -> Result<(), sqlx::Error> {
    for alerts in alerts.chunks(ROWS) {
        let numbers: Vec<String> = (1..=alerts.len() * COLUMNS)
            .map(|number| format!("${number}"))
            .collect();
        let rows: Vec<String> = numbers
            .chunks(COLUMNS)
            .map(|row| format!("({})", row.join(", ")))
            .collect();
        let sql = format!(
            "INSERT INTO alerts (group_key, fingerprint, starts_at, incident, ended_at, ended_seen, alertname, namespace, labels, \
             annotations, generator_url, told_at) VALUES {}",
            rows.join(", ")
        );
        // Nothing of an alert is in the text: numbers of places alone.
        let mut statement = query(AssertSqlSafe(sql));
        for alert in alerts {
            let label = |name: &str| alert.labels.get(name).map_or("", String::as_str);
            statement = statement
                .bind(notification.group_key.as_str())
                .bind(alert.fingerprint.as_str())
                .bind(alert.starts_at)
                .bind(incident)
                .bind(alert.ended_at.unwrap_or(0))
                .bind(alert.ended_at.map_or(0, |_| now))
                .bind(label("alertname"))
                .bind(label("namespace"))
                .bind(json(&alert.labels))
                .bind(json(&alert.annotations))
                .bind(alert.generator_url.as_str())
                .bind(now);
        }
        statement.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Of which alerts of an incident it says that they fire.
async fn mark_told(
    connection: &mut AnyConnection,
    notification: &Notification,
    incident: &str,
    now: i64,
) -> Result<(), sqlx::Error> {
    let firing = notification
        .alerts
        .iter()
        .filter(|alert| alert.ended_at.is_none());
    let fingerprints: Vec<&str> = firing.map(|alert| alert.fingerprint.as_str()).collect();
    for fingerprints in fingerprints.chunks(10 * ROWS) {
        let places: Vec<String> = (3..fingerprints.len() + 3)
            .map(|number| format!("${number}"))
            .collect();
        let sql = format!(
            "UPDATE alerts SET told_at = $1 WHERE incident = $2 AND ended_at = 0 AND told_at < $1 AND fingerprint IN ({})",
            places.join(", ")
        );
        // Nothing of an alert is in the text: numbers of places alone.
        let mut statement = query(AssertSqlSafe(sql)).bind(now).bind(incident);
        for fingerprint in fingerprints {
            statement = statement.bind(*fingerprint);
        }
        statement.execute(&mut *connection).await?;
    }
    Ok(())
}

/// As Alertmanager tells it. `ended_at` 0: it fires again.
async fn set_end(
    connection: &mut AnyConnection,
    group: &str,
    fingerprint: &str,
    starts_at: i64,
    ended_at: i64,
    now: i64,
) -> Result<(), sqlx::Error> {
    let seen = if ended_at == 0 { 0 } else { now };
    query(
        "UPDATE alerts SET ended_at = $1, ended_seen = $2, ended_by = '' WHERE group_key = $3 AND fingerprint = $4 AND starts_at = $5",
    )
    .bind(ended_at)
    .bind(seen)
    .bind(group)
    .bind(fingerprint)
    .bind(starts_at)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// Brings the incident's state in line with its alerts: resolved when all are, firing when one is.
async fn settle(
    connection: &mut AnyConnection,
    incident: &str,
    worth_a_diagnosis: bool,
    targets: &[&'static str],
    now: i64,
) -> Result<(), sqlx::Error> {
    let row = query(
        "SELECT i.state, i.diagnoses, i.next_diagnosis, \
         (SELECT count(*) FROM alerts a WHERE a.incident = i.id AND a.ended_at = 0), \
         (SELECT max(a.ended_at) FROM alerts a WHERE a.incident = i.id), i.claimed_until FROM incidents i WHERE i.id = $1",
    )
    .bind(incident)
    .fetch_one(&mut *connection)
    .await?;
    let was_firing = row.try_get::<String, _>(0)? == "firing";
    let (diagnoses, next): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
    let (firing, ended_at): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
    let is_firing = firing > 0;
    let is_being_diagnosed = row.try_get::<i64, _>(5)? > now && next <= now;
    let next = match is_firing {
        // That diagnosis knows nothing of this: another time tells it that it is not the last.
        true if worth_a_diagnosis && is_being_diagnosed => now.max(next + 1),
        true if worth_a_diagnosis => now.min(next),
        true => next,
        // What is over before anybody looked is looked at once.
        false if diagnoses == 0 => now.min(next),
        false => NEVER,
    };
    query(
        "UPDATE incidents SET state = $1, resolved_at = $2, next_diagnosis = $3, pause = 0 WHERE id = $4",
    )
    .bind(if is_firing { "firing" } else { "resolved" })
    .bind(if is_firing { 0 } else { ended_at })
    .bind(next)
    .bind(incident)
    .execute(&mut *connection)
    .await?;
    // Who was never told of a diagnosis need not be told that it is over.
    if was_firing && !is_firing && diagnoses > 0 {
        let key = format!("{incident}-resolved-{ended_at}");
        outbox::put(
            connection, &key, incident, "resolved", diagnoses, targets, now,
        )
        .await?;
    }
    Ok(())
}

/// What the latest notification says about the whole group. One that was given up for silence is looked at again.
async fn describe(
    connection: &mut AnyConnection,
    notification: &Notification,
    incident: &str,
    now: i64,
) -> Result<(), sqlx::Error> {
    query(
        "UPDATE incidents SET labels = $1, annotations = $2, external_url = $3, truncated = $4, notified_at = $5, \
         next_diagnosis = CASE WHEN state = 'firing' AND next_diagnosis = $6 THEN $5 ELSE next_diagnosis END WHERE id = $7",
    )
    .bind(json(&notification.common_labels))
    .bind(json(&notification.common_annotations))
    .bind(notification.external_url.as_str())
    .bind(notification.truncated)
    .bind(now)
    .bind(NEVER)
    .bind(incident)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

fn json(labels: &Labels) -> String {
    serde_json::to_string(labels).expect("a map of strings is JSON")
}
