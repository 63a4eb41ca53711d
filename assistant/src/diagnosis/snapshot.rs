//! What Prometheus said at one time for one window. Requests about the same moment share one snapshot: a query that is
//! already answered is not asked again, and one that is on its way is waited for, also one that came too late for who asked.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::place::Position;
use crate::prometheus::{Prometheus, QueryError, Sample};

/// Snapshots that are kept. A moment is asked about for seconds, so few are enough.
const KEPT: usize = 8;
/// Series over all snapshots, which bounds the memory where clusters are large.
const KEPT_SERIES: usize = 500_000;

/// One series with a value that is a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub position: Position,
    pub value: f64,
    /// What it was, and how long ago, where evidence compares with that.
    pub earlier: Option<(Duration, f64)>,
}

impl Series {
    /// NaN is a ratio of nothing to nothing and no sample; infinity is a division by zero and no measurement.
    fn of(sample: Sample) -> Option<Self> {
        sample.value.is_finite().then(|| Self {
            position: Position::of(&sample.labels),
            labels: sample.labels,
            value: sample.value,
            earlier: None,
        })
    }
}

pub type Answer = Arc<[Series]>;

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error(transparent)]
    Failed(#[from] QueryError),
    #[error("the deadline of {} passed", humantime::format_duration(*.0))]
    Deadline(Duration),
}

impl Missing {
    /// Whether a query for a part of the cluster may still be answered.
    pub fn is_too_much(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is_too_much())
    }
}

pub struct Snapshot {
    pub time_millis: i64,
    pub window: Duration,
    cells: Mutex<HashMap<String, Arc<Cell>>>,
    /// Why some answer may lack series; of several reasons the first in order, whichever came first.
    partial: Mutex<Option<String>>,
}

/// An answer, or that it is too much: then asking again would be as much again.
type Cell = OnceCell<Result<Answer, QueryError>>;

impl Snapshot {
    fn cell(&self, query: &str) -> Arc<Cell> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(query) {
            return cell.clone();
        }
        cells.entry(query.to_owned()).or_default().clone()
    }

    fn series(&self) -> usize {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells
            .values()
            .filter_map(|cell| cell.get()?.as_ref().ok())
            .map(|answer| answer.len())
            .sum()
    }

    fn note_partial(&self, reason: Option<String>) {
        let mut known = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        *known = known.take().into_iter().chain(reason).min();
    }

    /// Why what is missing from the answers so far may be there all the same.
    pub fn partial(&self) -> Option<String> {
        let known = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// What failed is asked again by the next request.
    async fn ask(
        &self,
        prometheus: &Prometheus,
        query: &str,
        deadline: Deadline,
    ) -> Result<Answer, QueryError> {
        let cell = self.cell(query);
        let ask = async || {
            let vector = prometheus.instant_until(query, self.time_millis, deadline.at);
            match vector.await {
                Ok(vector) => {
                    self.note_partial(vector.partial);
                    let series = vector.samples.into_iter().filter_map(Series::of);
                    Ok(Ok(series.collect()))
                }
                Err(error) if error.is_too_much() => Ok(Err(error)),
                Err(error) => Err(error),
            }
        };
        cell.get_or_try_init(ask).await?.clone()
    }

    /// Asks all `queries` at once, each once. The result has an entry for each of them.
    pub async fn evaluate(
        self: &Arc<Self>,
        prometheus: &Prometheus,
        queries: BTreeSet<String>,
        deadline: Deadline,
    ) -> HashMap<String, Result<Answer, Missing>> {
        let mut tasks = JoinSet::new();
        for query in &queries {
            let (snapshot, prometheus, query) = (self.clone(), prometheus.clone(), query.clone());
            tasks.spawn(async move {
                let answer = snapshot.ask(&prometheus, &query, deadline).await;
                (query, answer)
            });
        }
        let mut answers = HashMap::with_capacity(queries.len());
        let mut rest = Missing::Deadline(deadline.length);
        let mut down = false;
        while let Ok(Some(joined)) = tokio::time::timeout_at(deadline.at, tasks.join_next()).await {
            // A task that panicked leaves its query among the missing ones.
            let Ok((query, answer)) = joined else {
                continue;
            };
            if let Some(error) = answer.as_ref().err().filter(|error| error.is_server_down()) {
                rest = Missing::Failed(error.clone());
                down = true;
            }
            answers.insert(query, answer.map_err(|error| deadline.missing(error)));
            if down {
                break;
            }
        }
        // What was sent is heard out, for who asks about the same moment next.
        if !down {
            tasks.detach_all();
        }
        for query in queries {
            answers.entry(query).or_insert_with(|| Err(rest.clone()));
        }
        answers
    }
}

/// When a request wants its answer.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    length: Duration,
}

impl Deadline {
    pub fn after(length: Duration) -> Self {
        Self {
            at: Instant::now() + length,
            length,
        }
    }

    /// A query that found no turn in time is one that the deadline cut off.
    fn missing(&self, error: QueryError) -> Missing {
        match error {
            QueryError::Busy => Missing::Deadline(self.length),
            // Which of the two clocks rang first is chance.
            QueryError::TimedOut(_) if Instant::now() >= self.at => Missing::Deadline(self.length),
            error => Missing::Failed(error),
        }
    }

    /// `None` when it passes first.
    pub async fn wait<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.at, work).await.ok()
    }
}

/// The latest snapshots.
#[derive(Default)]
pub struct Snapshots {
    kept: Mutex<VecDeque<Arc<Snapshot>>>,
}

impl Snapshots {
    /// The snapshot of that moment, perhaps with answers already in it.
    pub fn at(&self, time_millis: i64, window: Duration) -> Arc<Snapshot> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |snapshot: &Arc<Snapshot>| {
            snapshot.time_millis == time_millis && snapshot.window == window
        };
        if let Some(found) = kept.iter().find(|snapshot| same(snapshot)) {
            return found.clone();
        }
        while kept.len() >= KEPT || (kept.len() > 1 && total(&kept) > KEPT_SERIES) {
            kept.pop_front();
        }
        let snapshot = Arc::new(Snapshot {
            time_millis,
            window,
            cells: Mutex::default(),
            partial: Mutex::default(),
        });
        kept.push_back(snapshot.clone());
        snapshot
    }
}

fn total(snapshots: &VecDeque<Arc<Snapshot>>) -> usize {
    snapshots.iter().map(|snapshot| snapshot.series()).sum()
}
