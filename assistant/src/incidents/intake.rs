//! Notifications on their way into the tables. SQLite waits for the disk at every commit and has one writer, so what comes
//! while it waits is committed together: in a storm that is one wait for many notifications.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::notification::Notification;
use super::record::Recorded;
use super::store::{Store, StoreError};

/// Alerts that one commit takes. A single notification may have more.
const MOST_ALERTS: usize = 500;

/// Who waits to be stored, in the order in which they came.
#[derive(Default)]
pub(super) struct Intake {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// A task stores them, and takes also what comes while it does.
    is_running: bool,
    latest: Option<Instant>,
}

struct Waiting {
    notification: Notification,
    now: i64,
    answer: oneshot::Sender<Result<Recorded, StoreError>>,
}

impl Intake {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long nothing came.
    pub(super) fn quiet_for(&self) -> Duration {
        let latest = self.queue().latest;
        latest.map_or(Duration::MAX, |latest| latest.elapsed())
    }

    /// What the next commit takes; none: nobody waits, and who comes must begin anew.
    fn next(&self) -> Vec<Waiting> {
        let mut queue = self.queue();
        // Who waited too long was told to send it again.
        queue.waiting.retain(|waiting| !waiting.answer.is_closed());
        let mut alerts = 0;
        let fits = |waiting: &&Waiting| {
            alerts += waiting.notification.alerts.len();
            alerts <= MOST_ALERTS
        };
        let count = queue.waiting.iter().take_while(fits).count();
        let count = count.max(1).min(queue.waiting.len());
        queue.is_running = count > 0;
        queue.waiting.drain(..count).collect()
    }
}

/// However the task ends, nobody waits for it any longer.
struct Running(Arc<Store>);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.intake.queue() = Queue::default();
        }
    }
}

impl Store {
    /// Stores a notification. When this returns well, it is on disk.
    pub(super) async fn take_in(
        self: &Arc<Self>,
        notification: Notification,
        now: i64,
    ) -> Result<Recorded, StoreError> {
        self.intake.queue().latest = Some(Instant::now());
        if !self.is_sqlite() {
            let recorded = self.in_time(self.record(&[(&notification, now)])).await;
            return recorded.map(only);
        }
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut queue = self.intake.queue();
            queue.waiting.push(Waiting {
                notification,
                now,
                answer,
            });
            !mem::replace(&mut queue.is_running, true)
        };
        if begins {
            // A task of its own: who asked may go away, and the others' notifications must not go with it.
            let running = Running(Arc::clone(self));
            tokio::spawn(async move {
                loop {
                    let batch = running.0.intake.next();
                    if batch.is_empty() {
                        return;
                    }
                    running.0.store(batch).await;
                }
            });
        }
        let stopped = |_| Err(self.because("could not take it: storing stopped".into()));
        self.in_time(async { answered.await.unwrap_or_else(stopped) })
            .await
    }

    async fn store(&self, batch: Vec<Waiting>) {
        let together: Vec<_> = batch
            .iter()
            .map(|one| (&one.notification, one.now))
            .collect();
        let stored = self.record(&together).await;
        match stored {
            Ok(all) => {
                for (waiting, recorded) in batch.into_iter().zip(all) {
                    // Who does not wait any longer does not want to know.
                    let _ = waiting.answer.send(Ok(recorded));
                }
            }
            // What one of them cannot have must not be the others' trouble.
            Err(_) if batch.len() > 1 => {
                for waiting in batch.into_iter().filter(|one| !one.answer.is_closed()) {
                    let alone = self.record(&[(&waiting.notification, waiting.now)]).await;
                    let _ = waiting.answer.send(alone.map(only));
                }
            }
            Err(error) => {
                for waiting in batch {
                    let _ = waiting.answer.send(Err(error.clone()));
                }
            }
        }
    }
}

fn only(recorded: Vec<Recorded>) -> Recorded {
    let mut recorded = recorded.into_iter();
    recorded.next().expect("one record for one notification")
}
