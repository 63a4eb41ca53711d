//! Everything that is needed to answer, built from the runbooks of one moment. Never changed, only replaced.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use anyhow::Context;

use super::dense::DenseIndex;
use super::embed::{Embedder, Embedding, MAX_TOKENS};
use super::lexical::{LexicalIndex, LexicalQuery, count_words};
use super::names::Names;
use super::spelling::Vocabulary;
use super::store::{Store, hash};
use super::words::humps;
use crate::runbook::chunk::{Budget, chunk};
use crate::runbook::{Library, Passage, Runbook};

/// Of a page's first sentences, as many characters say what it is about.
const INTRO_CHARACTERS: usize = 400;

/// So many new vectors are kept on disk at a time: a crash costs a minute at most.
const SAVE_EVERY: usize = 2000;

/// Texts handed to the embedder at once.
const BATCH: usize = 128;

pub(super) struct Snapshot {
    pub(super) library: Arc<Library>,
    /// With the number of its runbook, in the order of the runbooks.
    pub(super) passages: Vec<(usize, Passage)>,
    passages_of: Vec<Range<usize>>,
    pub(super) names: Names,
    vocabulary: Vocabulary,
    pub(super) passage_words: LexicalIndex,
    pub(super) page_words: LexicalIndex,
    pub(super) title_words: LexicalIndex,
    pub(super) meaning: Option<Meaning>,
}

/// Vectors of all passages and of all intros, and from which content each was made.
pub(super) struct Meaning {
    pub(super) passages: DenseIndex,
    pub(super) intros: DenseIndex,
    keys: Vec<u128>,
}

impl Snapshot {
    /// Only passages that neither `before` nor the store knows are embedded.
    pub(super) fn build(
        library: Library,
        embedder: Option<&dyn Embedder>,
        store: Option<&Store>,
        before: Option<&Snapshot>,
    ) -> anyhow::Result<Self> {
        let count_bytes = |text: &str| text.len();
        let count_tokens = |text: &str| embedder.map_or(0, |embedder| embedder.count_tokens(text));
        let budget = match embedder {
            Some(_) => Budget {
                tokens: MAX_TOKENS,
                count: &count_tokens,
            },
            None => Budget {
                tokens: 4 * MAX_TOKENS,
                count: &count_bytes,
            },
        };
        let mut passages = Vec::new();
        let mut passages_of = Vec::new();
        for (at, runbook) in library.runbooks.iter().enumerate() {
            let start = passages.len();
            passages.extend(
                chunk(runbook, &budget)
                    .into_iter()
                    .map(|passage| (at, passage)),
            );
            passages_of.push(start..passages.len());
        }

        let pages = || library.runbooks.iter().map(AsRef::as_ref);
        let passage_texts: Vec<String> = passages
            .iter()
            .map(|(runbook, passage)| words_of(&library.runbooks[*runbook], passage))
            .collect();
        let titles: Vec<String> = pages().map(title_words).collect();
        let page_texts: Vec<String> = pages()
            .zip(&titles)
            .map(|(runbook, title)| format!("{title}\n{}", runbook.body()))
            .collect();
        let texts = |texts: &[String]| {
            LexicalIndex::build(texts.iter().map(String::as_str))
                .context("cannot build the word index")
        };
        let meaning = match embedder {
            Some(embedder) => Some(Meaning::build(
                embedder,
                store,
                before.and_then(|before| before.meaning.as_ref()),
                &passages
                    .iter()
                    .map(|(_, passage)| passage.with_breadcrumb())
                    .collect::<Vec<_>>(),
                &pages().map(intro).collect::<Vec<_>>(),
            )?),
            None => None,
        };
        Ok(Self {
            names: Names::new(pages()),
            vocabulary: Vocabulary::new(count_words(passage_texts.iter().map(String::as_str))),
            passage_words: texts(&passage_texts)?,
            page_words: texts(&page_texts)?,
            title_words: texts(&titles)?,
            meaning,
            passages,
            passages_of,
            library: Arc::new(library),
        })
    }

    /// Numbers of a runbook's passages.
    pub(super) fn passages_of(&self, runbook: usize) -> Range<usize> {
        self.passages_of[runbook].clone()
    }

    pub(super) fn words_of_question(&self, question: &str) -> LexicalQuery {
        LexicalQuery::new(question, &self.vocabulary)
    }
}

impl Meaning {
    fn build(
        embedder: &dyn Embedder,
        store: Option<&Store>,
        before: Option<&Meaning>,
        passages: &[String],
        intros: &[String],
    ) -> anyhow::Result<Self> {
        let texts: Vec<&str> = passages.iter().chain(intros).map(String::as_str).collect();
        let keys: Vec<u128> = texts.iter().map(|text| hash(text.as_bytes())).collect();

        let mut known: HashMap<u128, Embedding> = match (before, store) {
            (Some(before), _) => before.known(&keys),
            (None, Some(store)) => store.load().unwrap_or_else(|error| {
                tracing::warn!(
                    error = error.to_string(),
                    "kept embeddings are of no use: all are made again"
                );
                HashMap::new()
            }),
            (None, None) => HashMap::new(),
        };
        // A vector of another length would be read as something else.
        known.retain(|_, vector| vector.len() == embedder.dimensions());

        let mut asked = HashSet::new();
        let missing: Vec<(u128, &str)> = keys
            .iter()
            .zip(&texts)
            .filter(|(key, _)| !known.contains_key(key) && asked.insert(**key))
            .map(|(key, text)| (*key, *text))
            .collect();
        if missing.len() > SAVE_EVERY {
            tracing::info!(passages = missing.len(), "embedding");
        }
        let save = |known: &HashMap<u128, Embedding>| {
            let Some(store) = store else { return };
            let mut of_now: Vec<(u128, &[f32])> = keys
                .iter()
                .filter_map(|key| Some((*key, known.get(key)?.as_slice())))
                .collect();
            of_now.sort_unstable_by_key(|(key, _)| *key);
            of_now.dedup_by_key(|(key, _)| *key);
            if let Err(error) = store.save(of_now.into_iter()) {
                tracing::warn!(
                    error = error.to_string(),
                    "embeddings are not kept for the next start"
                );
            }
        };
        let mut unsaved = 0;
        for batch in missing.chunks(BATCH) {
            let texts: Vec<&str> = batch.iter().map(|(_, text)| *text).collect();
            let vectors = embedder
                .embed_passages(&texts)
                .context("cannot embed the runbooks")?;
            known.extend(batch.iter().map(|(key, _)| *key).zip(vectors));
            unsaved += batch.len();
            if unsaved >= SAVE_EVERY {
                save(&known);
                unsaved = 0;
            }
        }
        if unsaved > 0 {
            save(&known);
        }

        let dimensions = embedder.dimensions();
        let index = |keys: &[u128]| {
            let mut vectors = Vec::with_capacity(keys.len() * dimensions);
            for key in keys {
                match known.get(key) {
                    Some(vector) => vectors.extend_from_slice(vector),
                    // The embedder gave fewer vectors than it was asked for: like nothing.
                    None => vectors.resize(vectors.len() + dimensions, 0.0),
                }
            }
            DenseIndex::new(dimensions, vectors)
        };
        let (of_passages, of_intros) = keys.split_at(passages.len());
        Ok(Self {
            passages: index(of_passages),
            intros: index(of_intros),
            keys,
        })
    }

    /// Those of our vectors that are asked for.
    fn known(&self, wanted: &[u128]) -> HashMap<u128, Embedding> {
        let wanted: HashSet<&u128> = wanted.iter().collect();
        let count = self.passages.len();
        let vector = |at: usize| match at.checked_sub(count) {
            None => self.passages.vector(at),
            Some(at) => self.intros.vector(at),
        };
        self.keys
            .iter()
            .enumerate()
            .filter(|(_, key)| wanted.contains(key))
            .map(|(at, key)| (*key, vector(at).to_vec()))
            .collect()
    }
}

/// What BM25 sees of a passage: the text under its headings, and the names it answers to.
fn words_of(runbook: &Runbook, passage: &Passage) -> String {
    let mut text = passage.with_breadcrumb();
    let anchor = &runbook.sections[passage.section].anchor;
    for mode in runbook
        .failure_modes
        .iter()
        .filter(|mode| mode.anchor == *anchor)
    {
        for part in [&mode.id, &mode.title, &mode.summary] {
            text.push('\n');
            text.push_str(part);
        }
    }
    for alert in &runbook.alerts {
        text.push('\n');
        text.push_str(alert);
    }
    text
}

/// The page's title, its file's name and what it says it is for.
fn title_words(runbook: &Runbook) -> String {
    let mut text = runbook.title.clone();
    let stem = runbook.id.rsplit('/').next().unwrap_or(&runbook.id);
    let names = std::iter::once(stem)
        .chain(runbook.alerts.iter().map(String::as_str))
        .chain(runbook.failure_modes.iter().map(|mode| mode.title.as_str()));
    for name in names {
        if !text.contains(name) {
            text.push('\n');
            text.push_str(name);
        }
    }
    text
}

/// Title, taken apart, and the first sentences: where a runbook says its symptom.
fn intro(runbook: &Runbook) -> String {
    let title: Vec<String> = runbook
        .title
        .split_whitespace()
        .map(|word| humps(word).join(" "))
        .collect();
    let mut intro = format!("{}. ", title.join(" "));
    for mode in &runbook.failure_modes {
        intro.push_str(&mode.summary);
        intro.push(' ');
    }
    let mut room = INTRO_CHARACTERS;
    for section in &runbook.sections {
        let mut in_code = false;
        for line in section.text.lines() {
            let line = line.trim();
            if line.starts_with("```") || line.starts_with("~~~") {
                in_code = !in_code;
                continue;
            }
            if in_code || line.is_empty() || line.starts_with(['|', '<', '{']) {
                continue;
            }
            let line: String = line.chars().take(room).collect();
            room -= line.chars().count();
            intro.push_str(&line);
            intro.push(' ');
            if room == 0 {
                return intro;
            }
        }
    }
    intro
}
