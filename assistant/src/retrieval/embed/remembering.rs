//! Vectors of the last questions, kept: an alert that fires again, and a page that is opened again, ask the same as before,
//! and most of the time of a search goes into the vector of its question.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::{EmbedError, Embedder, Embedding};

/// Longer ones are rare and would take the place of many.
const MAX_BYTES: usize = 4096;

pub(in crate::retrieval) struct Remembering {
    embedder: Box<dyn Embedder>,
    recent: Mutex<LruCache<String, Embedding>>,
}

impl Remembering {
    /// Keeps the vectors of the last `count` questions that differ.
    pub(in crate::retrieval) fn new(embedder: Box<dyn Embedder>, count: NonZeroUsize) -> Self {
        Self {
            embedder,
            recent: Mutex::new(LruCache::new(count)),
        }
    }

    fn recent(&self) -> MutexGuard<'_, LruCache<String, Embedding>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Embedder for Remembering {
    fn name(&self) -> &str {
        self.embedder.name()
    }

    fn dimensions(&self) -> usize {
        self.embedder.dimensions()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.embedder.count_tokens(text)
    }

    fn is_word(&self, word: &str) -> bool {
        self.embedder.is_word(word)
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        self.embedder.embed_passages(texts)
    }

    fn embed_query(&self, text: &str) -> Result<Embedding, EmbedError> {
        if text.len() > MAX_BYTES {
            return self.embedder.embed_query(text);
        }
        if let Some(vector) = self.recent().get(text) {
            return Ok(vector.clone());
        }
        // Not under the lock: two who ask the same at once both wait for the model, and nobody waits for them.
        let vector = self.embedder.embed_query(text)?;
        self.recent().put(text.to_owned(), vector.clone());
        Ok(vector)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::HashingEmbedder;
    use super::*;

    /// Counts what it is asked, and fails for one question.
    struct Counting(Arc<AtomicUsize>);

    impl Embedder for Counting {
        fn name(&self) -> &str {
            "counting"
        }

        fn dimensions(&self) -> usize {
            HashingEmbedder.dimensions()
        }

        fn count_tokens(&self, text: &str) -> usize {
            HashingEmbedder.count_tokens(text)
        }

        fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
            HashingEmbedder.embed_passages(texts)
        }

        fn embed_query(&self, text: &str) -> Result<Embedding, EmbedError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match text {
                "broken" => Err(EmbedError::Inference("broken".into())),
                _ => HashingEmbedder.embed_query(text),
            }
        }
    }

    #[test]
    fn the_last_questions_are_answered_from_memory_and_nothing_else_is() {
        let asked = Arc::new(AtomicUsize::new(0));
        let inner = Box::new(Counting(Arc::clone(&asked)));
        let embedder = Remembering::new(inner, NonZeroUsize::new(2).unwrap());
        let long = "word ".repeat(1000);
        for (question, fresh) in [
            ("dns fails", true),
            ("dns fails", false),
            ("DNS fails", true),
            ("dns fails", false),
            // The third throws out the one asked longest ago.
            ("disk full", true),
            ("DNS fails", true),
            ("broken", true),
            ("broken", true),
            (&long, true),
            (&long, true),
            ("disk full", false),
        ] {
            let before = asked.load(Ordering::Relaxed);
            let vector = embedder.embed_query(question).ok();
            assert_eq!(vector, Counting(Arc::default()).embed_query(question).ok());
            let is_fresh = asked.load(Ordering::Relaxed) > before;
            assert_eq!(is_fresh, fresh, "{question}");
        }
    }
}
