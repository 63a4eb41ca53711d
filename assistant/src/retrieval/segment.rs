//! What was made of some pages: where they are cut, the vectors and the words. Built once, saved as it is, and never
//! changed: an edited page is in a later segment, and its row here is counted as gone.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tracing::info;

use super::codec::{Reader, Writer};
use super::dense::Vectors;
use super::embed::{Embedder, MAX_TOKENS};
use super::postings::Postings;
use super::texts;
use crate::hash::fnv;
use crate::parallel;
use crate::runbook::chunk::{Budget, chunk};
use crate::runbook::{Passage, Runbook};

/// Number of a row that is not in the snapshot.
pub(super) const GONE: u32 = u32::MAX;

/// Texts handed to the embedder at once.
const BATCH: usize = 128;

/// Embedding a large folder takes minutes.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// Numbers of a segment's rows in a snapshot.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) of_row: Vec<u32>,
    /// How many are not gone.
    pub(super) live: usize,
}

impl Numbers {
    pub(super) fn new(of_row: Vec<u32>) -> Self {
        let live = of_row.iter().filter(|number| **number != GONE).count();
        Self { of_row, live }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.live == self.of_row.len()
    }

    #[cfg(test)]
    pub(super) fn in_order(count: usize) -> Self {
        Self::new((0_u32..).take(count).collect())
    }
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Segment {
    /// What the pages were made from.
    digests: Vec<u128>,
    /// Where each page's passages end.
    ends: Vec<u32>,
    /// Section, lines and bytes of each passage.
    places: Vec<u32>,
    /// What each vector was made from: of the passages, then of the intros.
    keys: Vec<u128>,
    pub(super) passages: Arc<Vectors>,
    pub(super) intros: Arc<Vectors>,
    pub(super) passage_words: Arc<Postings>,
    pub(super) page_words: Arc<Postings>,
    pub(super) title_words: Arc<Postings>,
}

/// Vectors by what they were made from.
pub(super) type Known<'a> = HashMap<u128, (&'a Vectors, usize)>;

const PLACE: usize = 5;

impl Segment {
    /// Only texts that are not `known` are embedded.
    pub(super) fn build(
        pages: &[&Runbook],
        embedder: Option<&dyn Embedder>,
        known: &Known,
    ) -> anyhow::Result<Self> {
        let cut = parallel::chunks(pages, |pages| cut(pages, embedder));
        let mut segment = Self::default();
        let mut passages: Vec<(&Runbook, Passage)> = Vec::new();
        for (page, of_page) in pages.iter().zip(cut) {
            passages.extend(of_page.into_iter().map(|passage| (*page, passage)));
            segment.digests.push(page.digest);
            segment.ends.push(to_u32(passages.len()));
        }
        for (_, passage) in &passages {
            let Passage {
                section,
                line_start,
                line_end,
                start,
                end,
            } = *passage;
            let place = [section, line_start, line_end, start, end].map(to_u32);
            segment.places.extend(place);
        }
        if let Some(embedder) = embedder {
            let of_passages = passages
                .iter()
                .map(|(page, passage)| passage.with_breadcrumb(page));
            let texts: Vec<String> = of_passages
                .chain(pages.iter().map(|page| texts::intro(page)))
                .collect();
            segment.embed(&texts, passages.len(), embedder, known)?;
        }

        let (passage_words, (page_words, title_words)) = std::thread::scope(|scope| {
            let of_passages = scope
                .spawn(|| Postings::build(passages.iter().map(|(page, p)| texts::words(page, p))));
            let of_pages = (
                Postings::build(pages.iter().map(|page| texts::page(page))),
                Postings::build(pages.iter().map(|page| texts::title(page))),
            );
            (of_passages.join(), of_pages)
        });
        let passage_words = passage_words
            .ok()
            .context("a thread that indexes words panicked")??;
        segment.passage_words = Arc::new(passage_words);
        segment.page_words = Arc::new(page_words?);
        segment.title_words = Arc::new(title_words?);
        Ok(segment)
    }

    fn embed(
        &mut self,
        texts: &[String],
        passages: usize,
        embedder: &dyn Embedder,
        known: &Known,
    ) -> anyhow::Result<()> {
        let dimensions = embedder.dimensions();
        self.keys = texts.iter().map(|text| fnv(&[text.as_bytes()])).collect();
        let mut fresh_row: HashMap<u128, usize> = HashMap::new();
        let mut missing: Vec<&str> = Vec::new();
        for (key, text) in self.keys.iter().zip(texts) {
            if !known.contains_key(key) && !fresh_row.contains_key(key) {
                fresh_row.insert(*key, missing.len());
                missing.push(text);
            }
        }
        let mut fresh = Vectors::new(dimensions);
        let mut told = Instant::now();
        for batch in missing.chunks(BATCH) {
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                info!(done = fresh.len(), of = missing.len(), "embedding passages");
            }
            let vectors = embedder
                .embed_passages(batch)
                .context("cannot embed the runbooks")?;
            for vector in &vectors {
                fresh.push(vector);
            }
            // The embedder gave fewer vectors than it was asked for: like nothing.
            for _ in vectors.len()..batch.len() {
                fresh.push_nothing();
            }
        }
        let collect = |keys: &[u128]| {
            let mut vectors = Vectors::new(dimensions);
            for key in keys {
                match (known.get(key), fresh_row.get(key)) {
                    (Some((of, row)), _) => vectors.push_of(of, *row),
                    (None, Some(row)) => vectors.push_of(&fresh, *row),
                    (None, None) => vectors.push_nothing(),
                }
            }
            Arc::new(vectors)
        };
        self.passages = collect(&self.keys[..passages]);
        self.intros = collect(&self.keys[passages..]);
        Ok(())
    }

    /// What each page was made from.
    pub(super) fn digests(&self) -> &[u128] {
        &self.digests
    }

    pub(super) fn passage_count(&self) -> usize {
        self.places.len() / PLACE
    }

    /// Rows of a page's passages.
    pub(super) fn rows(&self, page: usize) -> std::ops::Range<usize> {
        let start = match page {
            0 => 0,
            _ => self.ends[page - 1] as usize,
        };
        start..self.ends[page] as usize
    }

    pub(super) fn passage(&self, row: usize) -> Passage {
        let at = |field: usize| self.places[row * PLACE + field] as usize;
        Passage {
            section: at(0),
            line_start: at(1),
            line_end: at(2),
            start: at(3),
            end: at(4),
        }
    }

    /// Adds a page's vectors to those that need not be made again.
    pub(super) fn add_known<'a>(&'a self, page: usize, known: &mut Known<'a>) {
        if self.keys.is_empty() {
            return;
        }
        let (of_passages, of_intros) = self.keys.split_at(self.passage_count());
        for row in self.rows(page) {
            known.insert(of_passages[row], (&self.passages, row));
        }
        known.insert(of_intros[page], (&self.intros, page));
    }

    pub(super) fn encode<W: Write>(&self, writer: &mut Writer<W>) -> io::Result<()> {
        writer.u128s(&self.digests)?;
        writer.u32s(&self.ends)?;
        writer.u32s(&self.places)?;
        writer.u128s(&self.keys)?;
        self.passages.encode(writer)?;
        self.intros.encode(writer)?;
        self.passage_words.encode(writer)?;
        self.page_words.encode(writer)?;
        self.title_words.encode(writer)
    }

    pub(super) fn decode<R: Read>(reader: &mut Reader<R>) -> Option<Self> {
        let segment = Self {
            digests: reader.u128s()?,
            ends: reader.u32s()?,
            places: reader.u32s()?,
            keys: reader.u128s()?,
            passages: Arc::new(Vectors::decode(reader)?),
            intros: Arc::new(Vectors::decode(reader)?),
            passage_words: Arc::new(Postings::decode(reader)?),
            page_words: Arc::new(Postings::decode(reader)?),
            title_words: Arc::new(Postings::decode(reader)?),
        };
        let (pages, passages) = (segment.digests.len(), segment.passage_count());
        let words_fit = segment.passage_words.lengths().len() == passages
            && segment.page_words.lengths().len() == pages
            && segment.title_words.lengths().len() == pages;
        let vectors_fit = segment.keys.is_empty()
            || (segment.keys.len() == passages + pages
                && segment.passages.len() == passages
                && segment.intros.len() == pages);
        let pages_fit = segment.ends.len() == pages
            && segment.ends.is_sorted()
            && segment.ends.last().map_or(0, |end| *end as usize) == passages;
        (words_fit && vectors_fit && pages_fit).then_some(segment)
    }
}

fn cut(pages: &[&Runbook], embedder: Option<&dyn Embedder>) -> Vec<Vec<Passage>> {
    let count_bytes = |text: &str| text.len();
    let count_tokens = |text: &str| embedder.map_or(0, |embedder| embedder.count_tokens(text));
    let budget = match embedder {
        Some(_) => Budget::new(MAX_TOKENS, &count_tokens),
        None => Budget::new(4 * MAX_TOKENS, &count_bytes),
    };
    pages.iter().map(|page| chunk(page, &budget)).collect()
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
