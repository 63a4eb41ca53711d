//! What the collector holds of Kubernetes: the index, and how up to date it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Resource;
use super::index::{Index, Settings};

/// A watch that could not be started is tried again within 60 s, and the try may take another 30 s.
/// Its success does not show before there is an event. So no news for so long is good news.
const NO_NEWS: Duration = Duration::from_secs(95);

/// The same trouble is logged again after so long.
const LOG_AGAIN: Duration = Duration::from_mins(10);

#[derive(Default)]
pub struct Cluster {
    index: RwLock<Index>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    node: Option<String>,
    /// Why no client could be made yet.
    no_client: Option<String>,
    watches: BTreeMap<Resource, Watch>,
    /// When a trouble was logged, by its reason; of which resource, where others may not have it.
    logged: BTreeMap<(Option<Resource>, &'static str), Instant>,
}

#[derive(Default)]
struct Watch {
    is_synced: bool,
    failure: Option<(Instant, Failure)>,
    /// By reason.
    failures: BTreeMap<&'static str, u64>,
}

/// Why a watch does not tell anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// From a closed set.
    pub(super) reason: &'static str,
    pub(super) detail: String,
    /// It goes on by itself at once: a cut connection, or a history that is too short.
    pub(super) is_passing: bool,
}

/// As `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KubernetesHealth {
    /// `starting`, `synced`, `lost` (names are as of then), `partial` (what some resources would
    /// tell is missing) or `unavailable` (no pod has a name).
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    pub resources: Vec<WatchHealth>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchHealth {
    pub resource: &'static str,
    /// Listed, and followed since.
    pub synced: bool,
    pub objects: usize,
    /// Why it is not followed now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// So far, by reason.
    pub failures: BTreeMap<&'static str, u64>,
}

impl Cluster {
    /// A cluster that is asked. The default is one that is not.
    pub fn new(node: Option<&str>, grace: Duration) -> Self {
        let settings = Settings {
            on: true,
            node: node.map(Into::into),
            grace,
        };
        Self {
            index: RwLock::new(Index::new(settings)),
            state: Mutex::new(State {
                node: node.map(str::to_owned),
                ..State::default()
            }),
        }
    }

    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn change(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are to be followed.
    pub(crate) fn expect(&self, resource: Resource) {
        self.change().expect(resource);
        self.state().watches.entry(resource).or_default();
    }

    pub(super) fn set_client(&self, failure: Option<String>) {
        self.state().no_client = failure;
    }

    /// An event came.
    pub(super) fn succeeded(&self, resource: Resource) {
        if let Some(watch) = self.state().watches.get_mut(&resource) {
            watch.failure = None;
        }
    }

    pub(super) fn synced(&self, resource: Resource) {
        let mut state = self.state();
        let watch = state.watches.entry(resource).or_default();
        watch.failure = None;
        watch.is_synced = true;
    }

    /// True if this is to be logged: it was not lately.
    pub(super) fn failed(&self, resource: Resource, failure: Failure, now: Instant) -> bool {
        if !failure.is_passing {
            self.change().fail(resource, now);
        }
        let mut state = self.state();
        let watch = state.watches.entry(resource).or_default();
        *watch.failures.entry(failure.reason).or_default() += 1;
        if failure.is_passing {
            return false;
        }
        let reason = failure.reason;
        watch.failure = Some((now, failure));
        let of_all = matches!(reason, "unreachable" | "unauthorized");
        let trouble = ((!of_all).then_some(resource), reason);
        let before = state.logged.get(&trouble);
        let is_due =
            before.is_none_or(|&before| now.saturating_duration_since(before) >= LOG_AGAIN);
        if is_due {
            state.logged.insert(trouble, now);
        }
        is_due
    }

    /// `None` if Kubernetes is not asked.
    pub fn health(&self, now: Instant) -> Option<KubernetesHealth> {
        let index = self.index();
        if !index.is_on() {
            return None;
        }
        let state = self.state();
        let resources: Vec<WatchHealth> = (state.watches.iter())
            .map(|(&resource, watch)| watch.health(resource, index.count(resource), now))
            .collect();
        let failing: Vec<String> = (resources.iter())
            .filter_map(|watch| Some(format!("{}: {}", watch.resource, watch.detail.as_ref()?)))
            .collect();
        let reason = (state.no_client.clone())
            .or_else(|| (!failing.is_empty()).then(|| failing.join("; ")))
            .or_else(|| {
                let node = index.missing_node()?;
                Some(format!(
                    "no node is called `{node}`: set `node_name` to this node's name in Kubernetes"
                ))
            });
        let all_synced = !resources.is_empty() && resources.iter().all(|watch| watch.synced);
        let state_name = match (&reason, all_synced) {
            (None, true) => "synced",
            (None, false) => "starting",
            (Some(_), true) => "lost",
            (Some(_), false) if index.is_synced(Resource::LocalPods) => "partial",
            (Some(_), false) => "unavailable",
        };
        Some(KubernetesHealth {
            state: state_name,
            reason,
            node: state.node.clone(),
            resources,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KubernetesHealth {
    pub fn is_synced(&self) -> bool {
        self.state == "synced"
    }
}

impl Watch {
    fn health(&self, resource: Resource, objects: usize, now: Instant) -> WatchHealth {
        let recent = (self.failure.as_ref()).filter(|(at, _)| {
            // Without a list there is nothing, whatever the news.
            !self.is_synced || now.saturating_duration_since(*at) < NO_NEWS
        });
        WatchHealth {
            resource: resource.as_str(),
            synced: self.is_synced,
            objects,
            reason: recent.map(|(_, failure)| failure.reason),
            detail: recent.map(|(_, failure)| failure.detail.clone()),
            failures: self.failures.clone(),
        }
    }
}
