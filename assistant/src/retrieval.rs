//! Finds the passages that answer a question.
//!
//! A [`Snapshot`] holds everything that was built from the runbooks of one moment. When files change, a new one is
//! built beside it and takes its place at once, so that no reader ever sees half an index.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
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
mod dot;
pub mod embed;
pub mod fuse;
mod graph;
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

use embed::{CrossEncoder, Embedder, MiniLm, Precision, Remembering};
use fuse::Ranking;
pub use names::Names;
pub use search::{Filters, RunbookReference, SearchResponse, SearchResult, SectionReference, url};
use segment::Segment;
use snapshot::{Made, Snapshot};
use store::Store;

/// An index of gigabytes takes seconds to write: at most this share of the time goes into it.
const SAVING_SHARE: u32 = 20;

/// The log tells of an index at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Cheap to clone; all clones share the snapshot.
#[derive(Clone)]
pub struct Retriever {
    shared: Arc<Shared>,
}

struct Shared {
    folders: Vec<PathBuf>,
    embedder: Option<Box<dyn Embedder>>,
    options: Options,
    store: Option<Store>,
    /// `None` until the first one is built.
    current: RwLock<Option<Arc<Snapshot>>>,
    /// Held while building: two at once would do the same work twice.
    building: Mutex<Building>,
}

/// How passages are found and ordered.
pub struct Options {
    pub ranking: Ranking,
    /// From so many passages of one segment on, a graph finds the nearest vectors instead of a scan.
    pub graph_from: usize,
    pub reranker: Option<CrossEncoder>,
    /// Vectors of so many questions are kept, so that those who ask the same again do not wait for the model.
    pub remembered: usize,
}

/// With four kilobytes each at most, and a kilobyte and a half for the vector.
const REMEMBERED: usize = 1024;

/// Fewer are scanned in two milliseconds, as fast as by a graph, which takes minutes to build.
pub const GRAPH_FROM: usize = 200_000;

impl Default for Options {
    fn default() -> Self {
        Self {
            ranking: Ranking::default(),
            graph_from: GRAPH_FROM,
            reranker: None,
            remembered: REMEMBERED,
        }
    }
}

#[derive(Default)]
struct Building {
    loader: Loader,
    /// What is on disk, and whether with its graph.
    saved: Vec<(Arc<Segment>, bool)>,
    /// When it was written, and how long that took.
    last: Option<(Instant, Duration)>,
    /// When the log told of an index, how many were built since, and how long the last of them took.
    told: Option<Instant>,
    untold: usize,
    took: Duration,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct IndexState {
    pub ready: bool,
    pub runbooks: usize,
    pub passages: usize,
    pub warnings: usize,
    /// What vectors are made with; none: words only.
    pub model: Option<String>,
    /// What puts the best passages in order once more; none: nothing does.
    pub reranker: Option<String>,
    /// Segments whose nearest vectors a graph finds.
    pub graphs: usize,
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
        let open = |folder: &PathBuf| {
            CrossEncoder::open(folder, config.onnxruntime.as_deref())
                .with_context(|| format!("cannot use the reranker in {}", folder.display()))
        };
        let reranker = config.reranker.as_ref().map(open).transpose()?;
        let options = Options {
            ranking: config.ranking,
            graph_from: config.graph_from,
            reranker,
            ..Options::default()
        };
        let (folders, cache) = (config.runbooks.clone(), config.cache.as_deref());
        Ok(Self::with(folders, embedder, cache, options))
    }

    pub fn new(
        folders: Vec<PathBuf>,
        embedder: Option<Box<dyn Embedder>>,
        cache: Option<&Path>,
    ) -> Self {
        Self::with(folders, embedder, cache, Options::default())
    }

    pub fn with(
        folders: Vec<PathBuf>,
        embedder: Option<Box<dyn Embedder>>,
        cache: Option<&Path>,
        options: Options,
    ) -> Self {
        let model = embedder.as_ref().map_or("words", |model| model.name());
        let store = cache.map(|cache| Store::new(cache, model, &folders));
        let embedder = match NonZeroUsize::new(options.remembered) {
            Some(count) => embedder.map(|embedder| {
                let remembering = Remembering::new(embedder, count);
                Box::new(remembering) as Box<dyn Embedder>
            }),
            None => embedder,
        };
        Self {
            shared: Arc::new(Shared {
                folders,
                embedder,
                options,
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
                building.note_saved(&made.segments);
                made
            }
        };
        let embedder = shared.embedder.as_deref();
        let graph_from = shared.options.graph_from;
        let snapshot = Snapshot::build(library, embedder, made, graph_from, |segments| {
            shared.save(segments);
        })?;
        building.took = started.elapsed();
        building.untold += 1;
        building.tell(&snapshot);
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
        if let Some(snapshot) = self.current() {
            building.tell(&snapshot);
        }
        let is_early = building
            .last
            .is_some_and(|(last, took)| last.elapsed() < SAVING_SHARE * took);
        if is_early {
            return;
        }
        if let Some(snapshot) = self.current().filter(|now| building.is_new(now)) {
            let started = Instant::now();
            self.shared.save(&snapshot.segments);
            building.note_saved(&snapshot.segments);
            building.last = Some((Instant::now(), started.elapsed()));
        }
    }

    /// Builds the index and keeps it as the files are, from threads of its own, until the last clone is gone.
    pub fn watch(&self) -> std::io::Result<()> {
        watch::start(&self.shared)
    }

    /// Builds the graphs that large segments lack, which takes minutes; search goes on without them.
    pub fn build_graphs(&self) {
        build_graphs(&Arc::downgrade(&self.shared));
        self.save();
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
            self.shared.options.reranker.as_ref(),
            self.shared.options.ranking,
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
        let graph_from = self.shared.options.graph_from;
        let segments = current.iter().flat_map(|snapshot| &snapshot.segments);
        let graphs = segments
            .filter(|segment| segment.passages.len() >= graph_from && segment.passages.has_graph());
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
            reranker: self
                .shared
                .options
                .reranker
                .as_ref()
                .map(|reranker| reranker.name().to_owned()),
            graphs: graphs.count(),
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

/// Ends early where a segment or all clones are gone.
fn build_graphs(shared: &Weak<Shared>) {
    let segments = || {
        let retriever = Retriever {
            shared: shared.upgrade()?,
        };
        let snapshot = retriever.current()?;
        Some((
            snapshot.segments.clone(),
            retriever.shared.options.graph_from,
        ))
    };
    let Some((mut missing, graph_from)) = segments() else {
        return;
    };
    missing.retain(|segment| segment.passages.len() >= graph_from && !segment.passages.has_graph());
    for segment in missing {
        let started = Instant::now();
        let is_used = || {
            segments().is_some_and(|(now, _)| now.iter().any(|used| Arc::ptr_eq(used, &segment)))
        };
        if segment.passages.build_graph(is_used) {
            info!(
                passages = segment.passages.len(),
                seconds = started.elapsed().as_secs(),
                "graph of vectors built"
            );
        }
    }
}

impl Building {
    /// A file that changes all the time must not fill the log.
    fn tell(&mut self, snapshot: &Snapshot) {
        if self.untold == 0 || self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        info!(
            runbooks = snapshot.library.runbooks.len(),
            passages = snapshot.passages.len(),
            milliseconds = self.took.as_millis(),
            builds = self.untold,
            "index built"
        );
        self.told = Some(Instant::now());
        self.untold = 0;
    }

    fn note_saved(&mut self, segments: &[Arc<Segment>]) {
        let with_graph =
            |segment: &Arc<Segment>| (Arc::clone(segment), segment.passages.has_graph());
        self.saved = segments.iter().map(with_graph).collect();
    }

    fn is_new(&self, snapshot: &Snapshot) -> bool {
        let (ours, saved) = (&snapshot.segments, &self.saved);
        let is_same = |(ours, (saved, with_graph)): (&Arc<Segment>, &(Arc<Segment>, bool))| {
            Arc::ptr_eq(ours, saved) && ours.passages.has_graph() == *with_graph
        };
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
