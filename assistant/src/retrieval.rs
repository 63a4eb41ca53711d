//! Finds the passages that answer a question.
//!
//! A [`Snapshot`] holds everything that was built from the runbooks of one moment. When files change, a new one is
//! built beside it and takes its place at once, so that no reader ever sees half an index.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use tracing::{info, warn};
use utoipa::ToSchema;

use crate::config::Config;
use crate::runbook::Library;
use crate::runbook::load::Loader;

mod codec;
pub mod dense;
pub mod embed;
pub mod fuse;
pub mod lexical;
pub mod names;
mod postings;
mod search;
mod segment;
mod snapshot;
mod spelling;
mod store;
mod texts;
mod top;
mod trade;
mod watch;
pub mod words;

use embed::{Embedder, MiniLm, Precision};
use fuse::Ranking;
pub use names::Names;
pub use search::{Filters, RunbookReference, SearchResponse, SearchResult, SectionReference, url};
use segment::Segment;
use snapshot::{Made, Snapshot};
use store::Store;

/// An index of gigabytes takes seconds to write: at most this share of the time goes into it.
const SAVING_SHARE: u32 = 20;

/// Cheap to clone; all clones share the snapshot.
#[derive(Clone)]
pub struct Retriever {
    shared: Arc<Shared>,
}

struct Shared {
    folders: Vec<PathBuf>,
    embedder: Option<Box<dyn Embedder>>,
    ranking: Ranking,
    store: Option<Store>,
    /// `None` until the first one is built.
    current: RwLock<Option<Arc<Snapshot>>>,
    /// Held while building: two at once would do the same work twice.
    building: Mutex<Building>,
}

#[derive(Default)]
struct Building {
    loader: Loader,
    /// What is on disk.
    saved: Vec<Arc<Segment>>,
    /// When it was written, and how long that took.
    last: Option<(Instant, Duration)>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct IndexState {
    pub ready: bool,
    pub runbooks: usize,
    pub passages: usize,
    pub warnings: usize,
    /// What vectors are made with; none: words only.
    pub model: Option<String>,
}

/// The first index is not built yet.
#[derive(Debug, thiserror::Error)]
#[error("the runbooks are still being indexed; ask again in a moment")]
pub struct NotReady;

impl Retriever {
    /// Loads the model, but no runbooks: [`refresh`](Self::refresh) or [`watch`](Self::watch) does.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let embedder: Option<Box<dyn Embedder>> = match &config.model {
            Some(folder) => {
                let model = MiniLm::open(folder, config.onnxruntime.as_deref(), Precision::Int8)
                    .with_context(|| format!("cannot use the model in {}", folder.display()))?;
                Some(Box::new(model))
            }
            None => {
                warn!("no embedding model found: search goes by words only (see --model)");
                None
            }
        };
        Ok(Self::with_ranking(
            config.runbooks.clone(),
            embedder,
            config.cache.as_deref(),
            config.ranking,
        ))
    }

    pub fn new(
        folders: Vec<PathBuf>,
        embedder: Option<Box<dyn Embedder>>,
        cache: Option<&Path>,
    ) -> Self {
        Self::with_ranking(folders, embedder, cache, Ranking::default())
    }

    fn with_ranking(
        folders: Vec<PathBuf>,
        embedder: Option<Box<dyn Embedder>>,
        cache: Option<&Path>,
        ranking: Ranking,
    ) -> Self {
        let model = embedder.as_ref().map_or("words", |model| model.name());
        let store = cache.map(|cache| Store::new(cache, model, &folders));
        Self {
            shared: Arc::new(Shared {
                folders,
                embedder,
                ranking,
                store,
                current: RwLock::new(None),
                building: Mutex::default(),
            }),
        }
    }

    /// Reads the runbooks and builds the index now.
    pub fn refresh(&self) -> anyhow::Result<()> {
        let shared = &self.shared;
        let mut building = shared.building();
        let started = Instant::now();
        let before = self.current();
        let library = building.loader.load(&shared.folders);
        for warning in &library.warnings {
            let is_new = before
                .as_ref()
                .is_none_or(|before| !before.library.warnings.contains(warning));
            if is_new {
                warn!("{warning}");
            }
        }
        let made = match &before {
            Some(before) => Made {
                segments: before.segments.clone(),
                vectors: Vec::new(),
            },
            None => {
                let made = shared.saved();
                building.saved = made.segments.clone();
                made
            }
        };
        let embedder = shared.embedder.as_deref();
        let snapshot = Snapshot::build(library, embedder, made, |segments| {
            shared.save(segments);
        })?;
        info!(
            runbooks = snapshot.library.runbooks.len(),
            passages = snapshot.passages.len(),
            milliseconds = started.elapsed().as_millis(),
            "index built"
        );
        *shared
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(snapshot));
        drop(building);
        self.save();
        Ok(())
    }

    /// Writes what is new to disk, unless that was done a moment ago.
    fn save(&self) {
        let mut building = self.shared.building();
        let is_early = building
            .last
            .is_some_and(|(last, took)| last.elapsed() < SAVING_SHARE * took);
        if is_early {
            return;
        }
        if let Some(snapshot) = self.current().filter(|now| building.is_new(now)) {
            let started = Instant::now();
            self.shared.save(&snapshot.segments);
            building.saved.clone_from(&snapshot.segments);
            building.last = Some((Instant::now(), started.elapsed()));
        }
    }

    /// Builds the index and keeps it as the files are, from a thread of its own, until the last clone is gone.
    pub fn watch(&self) -> std::io::Result<()> {
        watch::start(&self.shared)
    }

    /// The runbooks as of now; none until the first index is there.
    pub fn library(&self) -> Arc<Library> {
        self.current()
            .map_or_else(Arc::default, |snapshot| Arc::clone(&snapshot.library))
    }

    /// The passages that answer a question, best first. The same question to the same files gives the same answer.
    pub fn search(
        &self,
        question: &str,
        limit: usize,
        filters: &Filters,
    ) -> anyhow::Result<SearchResponse> {
        let snapshot = self.current().ok_or(NotReady)?;
        search::search(
            &snapshot,
            self.shared.embedder.as_deref(),
            self.shared.ranking,
            question,
            limit,
            filters,
        )
    }

    /// The page and section that treat an alert of this name, and else the nearest names with theirs.
    pub fn alert(&self, name: &str) -> AlertPlace {
        let Some(snapshot) = self.current() else {
            return AlertPlace::Unknown(Vec::new());
        };
        let link = |(page, section): names::Place| {
            let runbook = &snapshot.library.runbooks[page];
            let page = url(&runbook.id);
            match section {
                Some(section) => format!("{page}#{}", runbook.sections[section].anchor),
                None => page,
            }
        };
        match snapshot.names.exact(name).first() {
            Some(&place) => AlertPlace::Known(link(place)),
            None => AlertPlace::Unknown(
                snapshot
                    .names
                    .nearest(name, 3)
                    .into_iter()
                    .map(|(name, place)| (name.to_owned(), link(place)))
                    .collect(),
            ),
        }
    }

    pub fn state(&self) -> IndexState {
        let current = self.current();
        let count = |of: fn(&Snapshot) -> usize| current.as_deref().map_or(0, of);
        IndexState {
            ready: current.is_some(),
            runbooks: count(|snapshot| snapshot.library.runbooks.len()),
            passages: count(|snapshot| snapshot.passages.len()),
            warnings: count(|snapshot| snapshot.library.warnings.len()),
            model: self
                .shared
                .embedder
                .as_ref()
                .map(|embedder| embedder.name().to_owned()),
        }
    }

    fn current(&self) -> Option<Arc<Snapshot>> {
        let current = self
            .shared
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

impl Building {
    fn is_new(&self, snapshot: &Snapshot) -> bool {
        let (ours, saved) = (&snapshot.segments, &self.saved);
        let is_same = |(ours, saved)| Arc::ptr_eq(ours, saved);
        ours.len() != saved.len() || !ours.iter().zip(saved).all(is_same)
    }
}

impl Drop for Shared {
    /// What was too early to save after the last change.
    fn drop(&mut self) {
        if let Some(snapshot) = self.current.read().ok().and_then(|current| current.clone())
            && self.building().is_new(&snapshot)
        {
            self.save(&snapshot.segments);
        }
    }
}

impl Shared {
    fn building(&self) -> MutexGuard<'_, Building> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an earlier run left, if it is of use.
    fn saved(&self) -> Made {
        let Some(store) = &self.store else {
            return Made::default();
        };
        store.load().unwrap_or_else(|error| {
            warn!(
                error = error.to_string(),
                "the saved index is of no use: it is built again"
            );
            Made::default()
        })
    }

    fn save(&self, segments: &[Arc<Segment>]) {
        if let Some(store) = &self.store
            && let Err(error) = store.save(segments)
        {
            warn!(
                error = error.to_string(),
                "the index is not kept for the next start"
            );
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertPlace {
    /// Its address.
    Known(String),
    /// Names and addresses of the nearest.
    Unknown(Vec<(String, String)>),
}
