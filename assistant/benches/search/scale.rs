//! A corpus as large as wanted: pages copied with a line of their own, and vectors that are real ones, shaken.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use runwire_assistant::hash::fnv;
use runwire_assistant::retrieval::embed::{EmbedError, Embedder, Embedding, MiniLm};

use crate::{model, open, pages, resident, time_queries};

/// Real vectors that all others are made of.
const REAL: usize = 2000;

/// How far: two texts about the same thing have a cosine of about 0.8.
const SHAKE: f32 = 0.75;

#[derive(Clone)]
pub(crate) struct Shaken {
    model: Arc<MiniLm>,
    real: Arc<Vec<Embedding>>,
}

impl Shaken {
    pub(crate) fn new(corpus: &Path) -> anyhow::Result<Self> {
        let model = model()?;
        let mut texts = Vec::new();
        for page in pages(corpus)?.iter().take(REAL) {
            let text = fs::read_to_string(page)?;
            texts.extend(
                text.split("\n\n")
                    .filter(|part| part.len() > 200)
                    .take(2)
                    .map(str::to_owned),
            );
        }
        texts.truncate(REAL);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let real = model.embed_passages(&texts)?;
        Ok(Self {
            model: Arc::new(model),
            real: Arc::new(real),
        })
    }

    pub(crate) fn vector(&self, seed: u128) -> Embedding {
        let base = &self.real[(seed % self.real.len() as u128) as usize];
        let mut state = (seed >> 64) as u64 | 1;
        let spread = SHAKE / (base.len() as f32).sqrt() * 3.0_f32.sqrt();
        let mut vector: Embedding = base
            .iter()
            .map(|x| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                x + spread * ((state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0)
            })
            .collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
        vector
    }
}

impl Embedder for Shaken {
    fn name(&self) -> &str {
        "shaken"
    }

    fn dimensions(&self) -> usize {
        self.model.dimensions()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.model.count_tokens(text)
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        Ok(texts
            .iter()
            .map(|text| self.vector(fnv(&[text.as_bytes()])))
            .collect())
    }

    fn embed_query(&self, text: &str) -> Result<Embedding, EmbedError> {
        self.model.embed_query(text)
    }
}

pub(crate) fn run(corpus: &Path, queries: &[String], passages: usize) -> anyhow::Result<()> {
    let shaken = Shaken::new(corpus)?;
    let place = tempfile::tempdir()?;
    let runbooks = place.path().join("runbooks");
    let pages = pages(corpus)?;
    let mut bytes = 0;
    for (number, page) in pages.iter().cycle().enumerate() {
        if bytes > passages * 440 {
            break;
        }
        let folder = runbooks.join(format!("copy-{}", number / pages.len()));
        fs::create_dir_all(&folder)?;
        let text = fs::read_to_string(page)?;
        let text = text.replace("\n## ", &format!("\n## Copy {} ", number / pages.len()));
        bytes += text.len();
        fs::write(folder.join(format!("{number}.md")), text)?;
    }
    let cache = place.path().join("cache");
    let before = resident();
    println!("resident with the model: {before} MiB");

    let started = Instant::now();
    let retriever = open(&runbooks, &cache, Box::new(shaken.clone()), 0)?;
    let count = retriever.state().passages;
    println!(
        "{count} passages indexed in {:?}, but for embedding",
        started.elapsed()
    );
    drop(retriever);
    let file = fs::read_dir(&cache)?
        .flatten()
        .find(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "bin")
        })
        .context("no index was saved")?;
    println!("on disk: {} MiB", file.metadata()?.len() >> 20);

    let started = Instant::now();
    let retriever = open(&runbooks, &cache, Box::new(shaken), 0)?;
    println!("started from the saved index in {:?}", started.elapsed());
    println!("resident: {} MiB", resident());
    time_queries(&retriever, queries, 1)?;
    println!("one at a time: {}", time_queries(&retriever, queries, 3)?);
    fs::write(runbooks.join("new.md"), "# Zebra\n\nStripes.\n")?;
    let started = Instant::now();
    retriever.refresh()?;
    println!(
        "one page more, with saving: {:?}; resident: {} MiB",
        started.elapsed(),
        resident()
    );
    Ok(())
}
