//! Deliveries: rows that say what is to be told where. Claimed by one assistant, kept until told or given up.

use std::time::Duration;

use sqlx::{AnyConnection, Row, query};

use super::millis;
use super::store::{Lock, Store, StoreError};

/// After so many attempts, over about a day, a delivery is given up.
const ATTEMPTS: i64 = 24;
const FIRST_PAUSE_MILLIS: i64 = 2_000;
const LONGEST_PAUSE_MILLIS: i64 = 2 * 3600 * 1000;
/// A claimed delivery is another's again after so long; an attempt takes less.
pub(super) const CLAIM: Duration = Duration::from_secs(60);

/// One thing to tell one target.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// The same at every attempt.
    pub(super) key: String,
    pub(super) incident: String,
    pub(super) target: String,
    /// `diagnosed` or `resolved`.
    pub(super) event: String,
    /// Of the diagnosis that it is about.
    pub(super) number: i64,
    pub(super) attempts: i64,
}

/// Puts one delivery for each target. The same key twice is one.
pub(super) async fn put(
    connection: &mut AnyConnection,
    key: &str,
    incident: &str,
    event: &'static str,
    number: i64,
    targets: &[&'static str],
    now: i64,
) -> Result<(), sqlx::Error> {
    for target in targets {
        query(
            "INSERT INTO deliveries (key, incident, target, event, number, attempts, made_at, next_attempt, claimed_until) \
             VALUES ($1, $2, $3, $4, $5, 0, $6, $6, 0) ON CONFLICT (key) DO NOTHING",
        )
        .bind(format!("{key}-{target}"))
        .bind(incident)
        .bind(*target)
        .bind(event)
        .bind(number)
        .bind(now)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

impl Store {
    /// Takes up to `limit` deliveries that are due.
    pub(super) async fn claim_deliveries(
        &self,
        limit: i64,
        now: i64,
    ) -> Result<Vec<Delivery>, StoreError> {
        // In order for one target and incident: what is over is told after what was found.
        const DUE: &str = "next_attempt <= $2 AND claimed_until <= $2 AND NOT EXISTS (SELECT 1 FROM deliveries e \
             WHERE e.incident = d.incident AND e.target = d.target AND e.made_at < d.made_at)";
        let sql = if self.is_sqlite() {
            format!(
                "UPDATE deliveries SET claimed_until = $1 WHERE key IN (SELECT d.key FROM deliveries d WHERE {DUE} \
                 ORDER BY d.next_attempt LIMIT $3) RETURNING key, incident, target, event, number, attempts"
            )
        } else {
            format!(
                "UPDATE deliveries SET claimed_until = $1 WHERE key = ANY(ARRAY(SELECT d.key FROM deliveries d WHERE {DUE} \
                 ORDER BY d.next_attempt LIMIT $3 FOR UPDATE SKIP LOCKED)) RETURNING key, incident, target, event, number, attempts"
            )
        };
        let mut change = self.change(Lock::None).await?;
        let rows = query(sqlx::AssertSqlSafe(sql))
            .bind(now + millis(CLAIM))
            .bind(now)
            .bind(limit)
            .fetch_all(&mut *change.transaction)
            .await;
        let deliveries = rows.and_then(|rows| {
            rows.iter()
                .map(|row| {
                    Ok(Delivery {
                        key: row.try_get(0)?,
                        incident: row.try_get(1)?,
                        target: row.try_get(2)?,
                        event: row.try_get(3)?,
                        number: row.try_get(4)?,
                        attempts: row.try_get(5)?,
                    })
                })
                .collect::<Result<Vec<_>, sqlx::Error>>()
        });
        let deliveries = deliveries.map_err(|error| self.failed(&error))?;
        self.commit(change).await?;
        Ok(deliveries)
    }

    /// It was told, or there is no use in trying again.
    pub(super) async fn finish_delivery(&self, delivery: &Delivery) -> Result<(), StoreError> {
        let mut change = self.change(Lock::None).await?;
        let done = query("DELETE FROM deliveries WHERE key = $1")
            .bind(delivery.key.as_str())
            .execute(&mut *change.transaction)
            .await;
        done.map_err(|error| self.failed(&error))?;
        self.commit(change).await
    }

    /// It could not be told: later again, after `pause_millis` if the target said so. False: it was given up.
    pub(super) async fn postpone_delivery(
        &self,
        delivery: &Delivery,
        pause_millis: Option<i64>,
        now: i64,
    ) -> Result<bool, StoreError> {
        if delivery.attempts + 1 >= ATTEMPTS {
            self.finish_delivery(delivery).await?;
            return Ok(false);
        }
        let pause = pause_millis
            .unwrap_or_else(|| usual_pause(delivery.attempts))
            .clamp(FIRST_PAUSE_MILLIS / 2, LONGEST_PAUSE_MILLIS);
        let mut change = self.change(Lock::None).await?;
        let done = query(
            "UPDATE deliveries SET attempts = attempts + 1, next_attempt = $1, claimed_until = 0 WHERE key = $2",
        )
        .bind(now + pause)
        .bind(delivery.key.as_str())
        .execute(&mut *change.transaction)
        .await;
        done.map_err(|error| self.failed(&error))?;
        self.commit(change).await?;
        Ok(true)
    }
}

/// After so many attempts before the one that failed: twice as long each time.
fn usual_pause(attempts: i64) -> i64 {
    (FIRST_PAUSE_MILLIS << attempts.clamp(0, 20)).min(LONGEST_PAUSE_MILLIS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who mends their channel in the morning must not have lost the night.
    #[test]
    fn a_delivery_is_tried_for_about_a_day() {
        let all: i64 = (0..ATTEMPTS - 1).map(usual_pause).sum();
        let hours = all / 3_600_000;
        assert!((20..=28).contains(&hours), "{hours} h");
    }
}
