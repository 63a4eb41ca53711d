//! Incidents: what Alertmanager tells, kept, diagnosed and told on.
//!
//! ```text
//! POST /webhook/alertmanager ─► Notification ─► Store (SQLite, PostgreSQL) ─► 200
//!              Prometheus' ALERTS ─► over ────────┤
//!                                                 │ due diagnoses             │ due deliveries
//!                                                 ▼                           ▼
//!                                               work ─► Diagnosis ─► Store   deliver ─► webhook, Slack, Grafana
//! ```
//!
//! The store is the queue: what is due is a time in a row, claimed for a while by one assistant. So nothing that was
//! acknowledged is lost when a process is killed, and several assistants share the work.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::metrics::Metrics;

pub mod deliver;
mod intake;
pub mod notification;
mod outbox;
pub mod over;
mod queue;
mod read;
mod record;
mod schema;
pub mod store;
pub mod work;

pub use notification::Notification;
pub use read::{Feedback, Filter, Incident, Page, Verdict};
pub use store::{Place, Store, StoreError};

/// How incidents are kept and followed.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub place: Place,
    /// How long an incident without news is kept.
    pub retention: Duration,
    /// Resolved incidents that are kept, at most.
    pub limit: u64,
    /// How soon an open incident is diagnosed again. Where nothing changes, the pause doubles up to ten times this.
    pub rediagnose: Duration,
    pub targets: deliver::Targets,
}

/// The incidents of this assistant, or of all that share the store. Cheap to clone.
#[derive(Clone)]
pub struct Incidents {
    pub store: Arc<Store>,
    pub settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    /// Something is due.
    wake: Arc<Notify>,
}

impl Incidents {
    /// Must be called inside the async runtime. Nothing is opened yet: a store that is not there now may come.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        Ok(Self {
            store: Arc::new(Store::new(&settings.place, settings.targets.names())?),
            settings: Arc::new(settings),
            metrics,
            wake: Arc::new(Notify::new()),
        })
    }

    /// Stores what Alertmanager says. When this returns, it is on disk. Gives the incidents that it is about.
    pub async fn record(&self, notification: Notification) -> Result<Vec<String>, StoreError> {
        let recorded = self.store.take_in(notification, now_millis()).await;
        let outcome = match &recorded {
            Ok(recorded) if recorded.changed => "changed",
            Ok(_) => "known",
            Err(_) => "failed",
        };
        self.metrics.add(
            "runwire_assistant_alert_notifications_total",
            "Notifications from Alertmanager, by whether they said anything new and could be stored",
            &[("outcome", outcome)],
            1.0,
        );
        let recorded = recorded?;
        if recorded.changed {
            self.wake.notify_one();
        }
        Ok(recorded.incidents)
    }

    /// Stores whether a cause was right, and counts it.
    pub async fn judge(&self, incident: &str, feedback: &Feedback) -> Result<(), StoreError> {
        self.store.judge(incident, feedback, now_millis()).await?;
        self.count_feedback(feedback.verdict.name(), &feedback.failure_mode, 1.0);
        Ok(())
    }

    fn count_feedback(&self, verdict: &str, failure_mode: &str, n: f64) {
        self.metrics.add(
            "runwire_assistant_feedback_total",
            "Causes that people said to be right or wrong",
            &[("verdict", verdict), ("failure_mode", failure_mode)],
            n,
        );
    }
}

pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    millis(since)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
