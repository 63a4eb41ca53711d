//! Everything that is needed to answer, put together from the runbooks of one moment and the segments that were made of
//! them. Never changed, only replaced.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::dense::{DenseIndex, Vectors};
use super::embed::Embedder;
use super::lexical::{LexicalIndex, LexicalQuery};
use super::names::Names;
use super::postings::Postings;
use super::segment::{GONE, Known, Numbers, Segment};
use super::spelling::Vocabulary;
use crate::runbook::{Library, Passage, Runbook};

/// Pages of one step of a long build: after each, what is done so far is saved, and a crash costs a minute at most.
const STEP: usize = 200;

/// A segment is merged with the one after it unless it has so many times its passages: few segments to search, and
/// nothing is merged often.
const GROWTH: usize = 4;

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
    pub(super) segments: Vec<Arc<Segment>>,
}

/// Vectors of all passages and of all intros.
pub(super) struct Meaning {
    pub(super) passages: DenseIndex,
    pub(super) intros: DenseIndex,
}

/// Segments whose pages are cut and indexed as this program does it, and others of which only the vectors are of use.
#[derive(Default)]
pub(super) struct Made {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) vectors: Vec<Arc<Segment>>,
}

impl Snapshot {
    /// Only pages that no segment holds are cut and indexed, and only passages that are new are embedded. Graphs of
    /// segments with `graph_from` passages are asked, where they are there.
    pub(super) fn build(
        library: Library,
        embedder: Option<&dyn Embedder>,
        made: Made,
        graph_from: usize,
        save: impl Fn(&[Arc<Segment>]),
    ) -> anyhow::Result<Self> {
        let segments = segments(&library, embedder, made, save)?;
        let at = places(&segments);
        let runbooks = &library.runbooks;
        let mut passage_numbers: Vec<Vec<u32>> = segments
            .iter()
            .map(|segment| vec![GONE; segment.passage_count()])
            .collect();
        let mut page_numbers: Vec<Vec<u32>> = segments
            .iter()
            .map(|segment| vec![GONE; segment.digests().len()])
            .collect();
        let mut passages = Vec::new();
        let mut passages_of = Vec::with_capacity(runbooks.len());
        for (number, runbook) in runbooks.iter().enumerate() {
            let start = passages.len();
            if let Some(&(in_segment, page)) = at.get(&runbook.digest) {
                let segment = &segments[in_segment];
                page_numbers[in_segment][page] = to_u32(number);
                for row in segment.rows(page) {
                    // Nothing that was read from a file is worth a panic.
                    if segment.passage(row).section >= runbook.sections.len() {
                        continue;
                    }
                    passage_numbers[in_segment][row] = to_u32(passages.len());
                    passages.push((number, segment.passage(row)));
                }
            }
            passages_of.push(start..passages.len());
        }
        let arcs = |numbers: Vec<Vec<u32>>| -> Vec<Arc<Numbers>> {
            numbers
                .into_iter()
                .map(Numbers::new)
                .map(Arc::new)
                .collect()
        };
        let (of_passages, of_pages) = (arcs(passage_numbers), arcs(page_numbers));
        let words = |field: fn(&Segment) -> &Arc<Postings>, numbers: &[Arc<Numbers>]| {
            let postings = segments.iter().map(|segment| Arc::clone(field(segment)));
            LexicalIndex::new(postings.zip(numbers.iter().cloned()).collect())
        };
        let vectors = |field: fn(&Segment) -> &Arc<Vectors>, numbers: &[Arc<Numbers>]| {
            let vectors = segments.iter().map(|segment| Arc::clone(field(segment)));
            DenseIndex::new(vectors.zip(numbers.iter().cloned()).collect(), graph_from)
        };
        let passage_words = words(|segment| &segment.passage_words, &of_passages);
        Ok(Self {
            names: Names::new(runbooks.iter().map(AsRef::as_ref)),
            vocabulary: Vocabulary::new(passage_words.word_counts()),
            page_words: words(|segment| &segment.page_words, &of_pages),
            title_words: words(|segment| &segment.title_words, &of_pages),
            meaning: embedder.map(|_| Meaning {
                passages: vectors(|segment| &segment.passages, &of_passages),
                intros: vectors(|segment| &segment.intros, &of_pages),
            }),
            passage_words,
            passages,
            passages_of,
            segments,
            library: Arc::new(library),
        })
    }

    /// Numbers of a runbook's passages.
    pub(super) fn passages_of(&self, runbook: usize) -> Range<usize> {
        self.passages_of[runbook].clone()
    }

    pub(super) fn words_of_question(
        &self,
        question: &str,
        embedder: Option<&dyn Embedder>,
    ) -> LexicalQuery {
        let is_english = |word: &str| embedder.is_some_and(|embedder| embedder.is_word(word));
        LexicalQuery::new(question, &self.vocabulary, is_english)
    }
}

/// Digest → segment and page in it.
fn places(segments: &[Arc<Segment>]) -> HashMap<u128, (usize, usize)> {
    let mut places = HashMap::new();
    for (number, segment) in segments.iter().enumerate() {
        for (page, digest) in segment.digests().iter().enumerate() {
            places.insert(*digest, (number, page));
        }
    }
    places
}

/// Pages that belong in one segment, and that segment, if there is one with just these.
struct Group<'a> {
    pages: Vec<&'a Runbook>,
    passages: usize,
    made: Option<Arc<Segment>>,
}

/// Segments that hold each page of the library once, largest first.
fn segments(
    library: &Library,
    embedder: Option<&dyn Embedder>,
    mut made: Made,
    save: impl Fn(&[Arc<Segment>]),
) -> anyhow::Result<Vec<Arc<Segment>>> {
    let at = places(&made.segments);
    let pages = || library.runbooks.iter().map(AsRef::as_ref);
    let missing: Vec<&Runbook> = pages()
        .filter(|page| !at.contains_key(&page.digest))
        .collect();
    if missing.len() > STEP && embedder.is_some() {
        tracing::info!(pages = missing.len(), "indexing");
        let known = known(&made, |_, _| true);
        let mut steps = Vec::new();
        for step in missing.chunks(STEP) {
            steps.push(Arc::new(Segment::build(step, embedder, &known)?));
            let so_far: Vec<_> = made.segments.iter().chain(&steps).cloned().collect();
            save(&so_far);
        }
        drop(known);
        made.segments.extend(steps);
    }

    let at = places(&made.segments);
    let mut groups: Vec<Group> = made
        .segments
        .iter()
        .map(|segment| Group {
            pages: Vec::new(),
            passages: 0,
            made: Some(Arc::clone(segment)),
        })
        .collect();
    let mut new = Group {
        pages: Vec::new(),
        passages: 0,
        made: None,
    };
    for page in pages() {
        match at.get(&page.digest) {
            Some(&(segment, row)) => {
                groups[segment].pages.push(page);
                groups[segment].passages += made.segments[segment].rows(row).len();
            }
            None => {
                new.pages.push(page);
                new.passages += 1 + page.source.len() / 500;
            }
        }
    }
    groups.push(new);
    groups.retain(|group| !group.pages.is_empty());
    for group in &mut groups {
        // Mostly gone: not worth its memory.
        let is_hollow = |segment: &Arc<Segment>| segment.passage_count() > 2 * group.passages;
        if group.made.as_ref().is_some_and(is_hollow) {
            group.made = None;
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.passages));
    let mut merged: Vec<Group> = Vec::new();
    for mut group in groups.into_iter().rev() {
        while let Some(smaller) = merged.pop_if(|last| group.passages < GROWTH * last.passages) {
            group.pages.extend(smaller.pages);
            group.passages += smaller.passages;
            group.made = None;
        }
        merged.push(group);
    }
    merged.reverse();

    let live: HashSet<u128> = pages().map(|page| page.digest).collect();
    let is_kept = |segment: usize, page: usize| {
        let segment = &made.segments[segment];
        let same = |group: &Group| group.made.as_ref().is_some_and(|m| Arc::ptr_eq(m, segment));
        merged.iter().any(same) && live.contains(&segment.digests()[page])
    };
    let needs_known = merged.iter().any(|group| group.made.is_none());
    let known = match needs_known {
        true => known(&made, |segment, page| !is_kept(segment, page)),
        false => Known::new(),
    };
    merged
        .iter_mut()
        .map(|group| {
            if let Some(made) = group.made.take() {
                return Ok(made);
            }
            group.pages.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(Arc::new(Segment::build(&group.pages, embedder, &known)?))
        })
        .collect()
}

fn known(made: &Made, wanted: impl Fn(usize, usize) -> bool) -> Known<'_> {
    let mut known = Known::new();
    for segment in &made.vectors {
        (0..segment.digests().len()).for_each(|page| segment.add_known(page, &mut known));
    }
    for (number, segment) in made.segments.iter().enumerate() {
        for page in 0..segment.digests().len() {
            if wanted(number, page) {
                segment.add_known(page, &mut known);
            }
        }
    }
    known
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
