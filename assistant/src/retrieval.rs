//! Finds the passages that answer a question.

use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use crate::config::Config;
use crate::runbook::{Library, load};

/// Answers from one whole snapshot of the runbooks at a time. Cheap to clone; all clones share the snapshot.
#[derive(Clone)]
pub struct Retriever {
    snapshot: Arc<RwLock<Arc<Library>>>,
}

#[derive(Debug, Clone, Serialize)]
pub struct IndexState {
    pub ready: bool,
    pub runbooks: usize,
    pub passages: usize,
    pub warnings: usize,
}

impl Retriever {
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let library = Arc::new(load(&config.runbooks));
        Ok(Self {
            snapshot: Arc::new(RwLock::new(library)),
        })
    }

    /// The runbooks as of now.
    pub fn library(&self) -> Arc<Library> {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&snapshot)
    }

    pub fn state(&self) -> IndexState {
        let library = self.library();
        IndexState {
            ready: true,
            runbooks: library.runbooks.len(),
            passages: 0,
            warnings: library.warnings.len(),
        }
    }
}
