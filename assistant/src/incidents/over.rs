//! Alerts whose end nobody tells. Alertmanager sends nothing of what is silenced or inhibited, not even that it is over; so
//! Prometheus is asked for its own series of them. What cannot be known that way is closed after a week without a word.
//!
//! Nothing is closed for want of an answer: Prometheus must have shown this very alert firing, from its start and as late as
//! Alertmanager told of it, and must have gone on without it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use sqlx::{Row, query};
use tokio::time::interval;
use tracing::{debug, info};

use super::notification::Labels;
use super::queue::labels;
use super::store::{Store, StoreError};
use super::{Incidents, now_millis};
use crate::prometheus::{Prometheus, QueryError, Sample, escaped};

const LOOK_EVERY: Duration = Duration::from_secs(120);
const MINUTE: i64 = 60_000;
/// Neither told of nor shown for so long. Alertmanager says that an alert is over within its `group_interval`, by default five
/// minutes, and an alert that flaps is back by then.
const QUIET_MILLIS: i64 = 15 * MINUTE;
/// An alert that Prometheus no longer sends fires in Alertmanager for four minutes more.
const SLACK_MILLIS: i64 = 5 * MINUTE;
/// Prometheus is asked for no more than this of the past.
const LOOK_BACK_MILLIS: i64 = 24 * 60 * MINUTE;
/// Alertmanager forgets after five days (`--data.retention`) that it told of an alert, and tells again of what fires.
pub(crate) const GIVEN_UP_DAYS: i64 = 7;
/// Alerts of one name that are looked at, those first of which nothing was heard for the longest.
const MOST: i64 = 5000;
/// Different starts of one name's alerts that are asked about at a time: a query each.
const MOST_STARTS: usize = 100;

/// Who ended an alert that Alertmanager did not: as it stands in the table. By the alphabet the weaker word comes later.
pub(super) const BY_PROMETHEUS: &str = "prometheus";
pub(super) const BY_SILENCE: &str = "silence";

/// An alert that fires as far as is known, and of which nothing was heard for a while.
#[derive(Debug, Clone)]
pub(super) struct Untold {
    pub(super) group_key: String,
    pub(super) fingerprint: String,
    pub(super) starts_at: i64,
    pub(super) told_at: i64,
    labels: Labels,
}

/// An alert that is over, when, and by whose word.
pub(super) struct End {
    pub(super) alert: Untold,
    pub(super) at: i64,
    pub(super) by: &'static str,
}

/// What Prometheus shows of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Firing,
    OverSince(i64),
    /// It answers, and this alert is not in it.
    Never,
    /// It does not answer, or not with all.
    Unknown,
}

/// Runs until the process ends.
pub(super) async fn run(prometheus: &Prometheus, incidents: &Incidents) {
    let mut ticks = interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        // What the store refuses is logged where diagnoses are taken from it.
        let _ = look(incidents, prometheus, now_millis()).await;
    }
}

/// Ends the alerts that are over as of `now`, in Unix milliseconds. Gives how many.
pub async fn look(
    incidents: &Incidents,
    prometheus: &Prometheus,
    now: i64,
) -> Result<usize, StoreError> {
    let store = &incidents.store;
    let mut ends: BTreeMap<String, Vec<End>> = BTreeMap::new();
    for name in store.in_time(store.untold_names(now)).await? {
        let alerts = store.in_time(store.untold(&name, now)).await?;
        let shown = shown(prometheus, &name, &alerts, now).await;
        for (alert, shown) in alerts.into_iter().zip(shown) {
            let is_given_up = now - alert.told_at > GIVEN_UP_DAYS * 24 * 60 * MINUTE;
            let (at, by) = match shown {
                Shown::OverSince(at) => (at.max(alert.starts_at), BY_PROMETHEUS),
                Shown::Never if is_given_up => (now, BY_SILENCE),
                Shown::Firing | Shown::Never | Shown::Unknown => continue,
            };
            let of_group = ends.entry(alert.group_key.clone()).or_default();
            of_group.push(End { alert, at, by });
        }
    }
    let mut count = 0;
    for (group, ends) in &ends {
        let ended = store.in_time(store.end(group, ends, now)).await?;
        count += ended;
        if ended > 0 {
            info!(
                group,
                alerts = ended,
                by = ends[0].by,
                "alerts are over of which Alertmanager did not say so"
            );
            incidents.wake.notify_one();
        }
    }
    Ok(count)
}

impl Store {
    async fn untold_names(&self, now: i64) -> Result<Vec<String>, StoreError> {
        self.read().await?;
        let rows = query(
            "SELECT DISTINCT alertname FROM alerts WHERE ended_at = 0 AND told_at < $1 \
             AND incident IN (SELECT id FROM incidents WHERE state = 'firing')",
        )
        .bind(now - QUIET_MILLIS)
        .fetch_all(&self.pool)
        .await;
        rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
            .map_err(|error| self.failed(&error))
    }

    async fn untold(&self, alertname: &str, now: i64) -> Result<Vec<Untold>, StoreError> {
        let rows = query(
            "SELECT group_key, fingerprint, starts_at, told_at, labels FROM alerts WHERE ended_at = 0 AND told_at < $1 \
             AND alertname = $2 AND incident IN (SELECT id FROM incidents WHERE state = 'firing') ORDER BY told_at, fingerprint LIMIT $3",
        )
        .bind(now - QUIET_MILLIS)
        .bind(alertname)
        .bind(MOST)
        .fetch_all(&self.pool)
        .await;
        let alerts = rows.and_then(|rows| {
            let alert = |row: &sqlx::any::AnyRow| {
                Ok(Untold {
                    group_key: row.try_get(0)?,
                    fingerprint: row.try_get(1)?,
                    starts_at: row.try_get(2)?,
                    told_at: row.try_get(3)?,
                    labels: labels(row.try_get(4)?),
                })
            };
            rows.iter().map(alert).collect::<Result<_, sqlx::Error>>()
        });
        alerts.map_err(|error| self.failed(&error))
    }
}

/// What Prometheus shows of each of the alerts, which have the same name.
async fn shown(prometheus: &Prometheus, name: &str, alerts: &[Untold], now: i64) -> Vec<Shown> {
    match ask(prometheus, name, alerts, now).await {
        Ok(shown) => shown,
        Err(reason) => {
            debug!(
                alertname = name,
                reason, "whether alerts are over is not known"
            );
            vec![Shown::Unknown; alerts.len()]
        }
    }
}

async fn ask(
    prometheus: &Prometheus,
    name: &str,
    alerts: &[Untold],
    now: i64,
) -> Result<Vec<Shown>, String> {
    // What pends is not over either: after a restart of Prometheus an alert pends before it fires again.
    let selector = format!("ALERTS{{alertname=\"{}\"}}", escaped(name));
    let there = whole(prometheus.instant(&selector, now).await)?;
    let mut shown: Vec<Shown> = alerts
        .iter()
        .map(
            |alert| match there.iter().any(|series| fits(series, alert)) {
                true => Shown::Firing,
                false => Shown::Never,
            },
        )
        .collect();
    if !shown.contains(&Shown::Never) {
        return Ok(shown);
    }
    is_alive(prometheus, now).await?;

    let missing: Vec<usize> = (0..alerts.len())
        .filter(|at| shown[*at] == Shown::Never)
        .collect();
    let told = missing.iter().map(|at| alerts[*at].told_at);
    let back = (now - told.min().unwrap_or(now) + SLACK_MILLIS).min(LOOK_BACK_MILLIS);
    let minutes = back / MINUTE + 1;
    let last = format!("max_over_time(timestamp({selector})[{minutes}m:1m])");
    let last = whole(prometheus.instant(&last, now).await)?;
    // At its start an alert is known from others with the same labels: those of another cluster, whose Prometheus sends to the
    // same Alertmanager, and those of another day.
    let firing = format!(
        "ALERTS{{alertname=\"{}\",alertstate=\"firing\"}}",
        escaped(name)
    );
    let began = format!("max_over_time({firing}[2m]) unless {firing} offset 2m");
    let mut begun: BTreeMap<i64, Vec<Sample>> = BTreeMap::new();
    for at in missing {
        let alert = &alerts[at];
        let own: Vec<&Sample> = last.iter().filter(|series| fits(series, alert)).collect();
        // Seconds, of which a f64 holds every millisecond.
        let ends = own.iter().map(|series| (series.value * 1000.0) as i64);
        let end = ends.max().filter(|end| {
            // Where Alertmanager was told later that it fires, another tells it.
            *end >= alert.told_at - SLACK_MILLIS && *end <= now - QUIET_MILLIS
        });
        let Some(end) = end else { continue };
        let count = begun.len();
        let first: &[Sample] = match begun.entry(alert.starts_at) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if count == MOST_STARTS => continue,
            Entry::Vacant(place) => {
                let series = prometheus.instant(&began, alert.starts_at + MINUTE);
                place.insert(whole(series.await)?)
            }
        };
        let has_begun = |series: &&Sample| {
            first
                .iter()
                .any(|first| identity(first) == identity(series))
        };
        if own.iter().any(has_begun) {
            shown[at] = Shown::OverSince(end);
        }
    }
    Ok(shown)
}

/// Of an answer that may lack series nothing can be concluded.
fn whole(answer: Result<crate::prometheus::Vector, QueryError>) -> Result<Vec<Sample>, String> {
    let vector = answer.map_err(|error| error.to_string())?;
    match vector.partial {
        Some(reason) => Err(reason),
        None => Ok(vector.samples),
    }
}

/// Whether Prometheus has gone on all the while: one that was away shows no alerts, and all may fire.
async fn is_alive(prometheus: &Prometheus, now: i64) -> Result<(), String> {
    let minutes = QUIET_MILLIS / MINUTE;
    let alive = format!("count_over_time(count(up)[{minutes}m:1m])");
    let alive = whole(prometheus.instant(&alive, now).await)?;
    let seen = alive.first().map_or(0.0, |sample| sample.value);
    if seen >= (minutes - 1) as f64 {
        return Ok(());
    }
    Err(format!(
        "Prometheus has scraped in {seen} of the last {minutes} minutes"
    ))
}

/// Prometheus adds its `external_labels` only to what it sends, and Thanos adds labels only to what is stored.
fn fits(series: &Sample, alert: &Untold) -> bool {
    identity(series)
        .iter()
        .all(|(name, value)| alert.labels.get(name).is_none_or(|known| known == value))
}

fn identity(series: &Sample) -> Labels {
    let mut labels = series.labels.clone();
    labels.retain(|name, _| name != "__name__" && name != "alertstate");
    labels
}
