//! One question against one snapshot.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tracing::warn;
use utoipa::ToSchema;

use super::dense::{DenseIndex, Question};
use super::embed::{CrossEncoder, Embedder, Embedding};
use super::fuse::{ANSWERABLE, ANSWERABLE_WORDS_ONLY, Ranking, Ranks, Signals, kind_of};
use super::snapshot::Snapshot;
use crate::runbook::Runbook;

/// Candidates that each of the passage indexes names.
const CANDIDATES: usize = 200;
/// Pages of which every passage is a candidate.
const CANDIDATE_PAGES: usize = 50;

/// The pages nearest to a question say what it is about in the words of runbooks: the question is moved so far towards
/// them before pages are compared with it again (Rocchio's feedback, on vectors).
const FEEDBACK_PAGES: usize = 3;
const FEEDBACK: f32 = 0.3;

/// As many passages are given to a reranker, the best first.
const RERANKED: usize = 20;

/// Passages of one page in a list, unless the question is about one page.
const PER_RUNBOOK: usize = 2;

/// Which runbooks may answer. Empty: all.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    #[serde(default)]
    pub runbook: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SearchResponse {
    pub query: String,
    /// False when nothing in the runbooks is about the question.
    pub answerable: bool,
    pub results: Vec<SearchResult>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SearchResult {
    pub rank: usize,
    /// 0 to 1, comparable between questions.
    pub score: f64,
    pub runbook: RunbookReference,
    pub section: SectionReference,
    /// Markdown.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RunbookReference {
    pub id: String,
    pub title: String,
    pub path: String,
    pub url: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SectionReference {
    pub heading_path: Vec<String>,
    pub anchor: String,
    pub line_start: usize,
    pub line_end: usize,
}

impl Filters {
    fn allow(&self, runbook: &Runbook) -> bool {
        (self.runbook.is_empty() || self.runbook.contains(&runbook.id))
            && self
                .labels
                .iter()
                .all(|(name, value)| runbook.labels.get(name) == Some(value))
    }

    fn is_empty(&self) -> bool {
        self.runbook.is_empty() && self.labels.is_empty()
    }
}

impl RunbookReference {
    pub fn new(runbook: &Runbook) -> Self {
        Self {
            id: runbook.id.clone(),
            title: runbook.title.clone(),
            path: runbook.path.clone(),
            url: url(&runbook.id),
        }
    }
}

/// Where the page is served. Ids are paths, so only what would end or change a URL's path is escaped.
pub fn url(id: &str) -> String {
    let mut url = String::from("/runbooks/");
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

pub(super) fn search(
    snapshot: &Snapshot,
    embedder: Option<&dyn Embedder>,
    reranker: Option<&CrossEncoder>,
    ranking: Ranking,
    question: &str,
    limit: usize,
    filters: &Filters,
) -> anyhow::Result<SearchResponse> {
    let runbooks = &snapshot.library.runbooks;
    // None: all.
    let allowed: Option<Vec<bool>> =
        (!filters.is_empty()).then(|| runbooks.iter().map(|page| filters.allow(page)).collect());
    let is_allowed = |page: usize| allowed.as_ref().is_none_or(|allowed| allowed[page]);

    let words = snapshot.words_of_question(question, embedder);
    let passage_words = snapshot.passage_words.search(&words);
    let page_words = snapshot.page_words.search(&words);
    let title_words = snapshot.title_words.search(&words);
    let vector = match embedder {
        Some(embedder) => Some(embedder.embed_query(question)?),
        None => None,
    };
    let asked = vector.as_deref().map(Question::new);
    let dense = snapshot.meaning.as_ref().zip(asked.as_ref());
    let named = match ranking {
        Ranking::Fused => snapshot.names.in_question(question),
        _ => Vec::new(),
    };
    // What a section says may stand below headings of its own.
    let named: Vec<(usize, Range<usize>)> = named
        .into_iter()
        .map(|(page, section)| {
            let runbook = &runbooks[page];
            let all = 0..runbook.sections.len();
            let within = section.map_or(all, |section| runbook.sections_within(section));
            (page, within)
        })
        .collect();
    let about = dense
        .zip(vector.as_ref())
        .map(|((meaning, asked), vector)| {
            let nearest = meaning.intros.search(asked, FEEDBACK_PAGES);
            Question::new(&with_feedback(&meaning.intros, &nearest, vector))
        });

    let mut candidates: Vec<usize> = Vec::new();
    let mut ranks: HashMap<usize, Ranks> = HashMap::new();
    let mut pages: Vec<usize> = named.iter().map(|(page, _)| *page).collect();
    if allowed.is_none() {
        let most_words = passage_words.best(CANDIDATES);
        let near = dense.map_or(Vec::new(), |(meaning, asked)| {
            meaning.passages.search(asked, CANDIDATES)
        });
        if ranking == Ranking::ReciprocalRank {
            for (rank, (passage, _)) in most_words.iter().enumerate() {
                ranks.entry(*passage).or_default().words = Some(rank);
            }
            for (rank, (passage, _)) in near.iter().enumerate() {
                ranks.entry(*passage).or_default().meaning = Some(rank);
            }
        }
        candidates.extend(
            most_words
                .into_iter()
                .chain(near)
                .map(|(passage, _)| passage),
        );
        pages.extend(
            page_words
                .best(CANDIDATE_PAGES)
                .into_iter()
                .map(|(page, _)| page),
        );
        if let Some(((meaning, _), about)) = dense.zip(about.as_ref()) {
            let near = meaning.intros.search(about, CANDIDATE_PAGES);
            pages.extend(near.into_iter().map(|(page, _)| page));
        }
    } else {
        pages = (0..runbooks.len()).collect();
    }
    pages.sort_unstable();
    pages.dedup();
    for page in pages.into_iter().filter(|page| is_allowed(*page)) {
        candidates.extend(snapshot.passages_of(page));
    }
    // Passages of one page follow each other.
    candidates.sort_unstable();
    candidates.dedup();
    if ranking == Ranking::ReciprocalRank && allowed.is_some() {
        // Among what may answer: in the lists of all passages it may stand nowhere.
        for (rank, passage) in ranked(&candidates, |passage| passage_words.of(passage)) {
            ranks.entry(passage).or_default().words = Some(rank);
        }
        if let Some((meaning, asked)) = dense {
            let similarity = |passage| meaning.passages.similarity(passage, asked);
            for (rank, passage) in ranked(&candidates, similarity) {
                ranks.entry(passage).or_default().meaning = Some(rank);
            }
        }
    }

    let kind = kind_of(question);
    let mut page_before = None;
    let mut intro_meaning = 0.0;
    let mut hits = Vec::with_capacity(candidates.len());
    let mut sections = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let (page, passage) = &snapshot.passages[candidate];
        if !is_allowed(*page) {
            continue;
        }
        let name = named
            .iter()
            .any(|(named, sections)| named == page && sections.contains(&passage.section));
        let mut signals = Signals {
            passage_words: passage_words.of(candidate),
            page_words: page_words.of(*page),
            title_words: title_words.of(*page),
            name: if name { 1.0 } else { 0.0 },
            ..Signals::default()
        };
        let score = match dense.zip(about.as_ref()) {
            Some(((meaning, asked), about)) => {
                if page_before != Some(*page) {
                    page_before = Some(*page);
                    intro_meaning = meaning.intros.similarity(*page, about);
                }
                signals.intro_meaning = intro_meaning;
                signals.passage_meaning = meaning.passages.similarity(candidate, asked);
                let ranks = ranks.get(&candidate).copied().unwrap_or_default();
                ranking.score(&signals, kind, ranks)
            }
            None => signals.score_of_words(),
        };
        hits.push(Hit {
            candidate,
            named: name,
            score: rounded(f64::from(score)),
        });
        sections.push(Section {
            candidate,
            named: name,
            score: match ranking {
                Ranking::Fused => signals.score_within_page(),
                _ => score,
            },
        });
    }
    // A heap: only those that are listed are put in order, and most are not.
    let mut hits = BinaryHeap::from(hits);

    let threshold = f64::from(if dense.is_some() {
        ANSWERABLE
    } else {
        ANSWERABLE_WORDS_ONLY
    });
    let answerable = hits
        .peek()
        .is_some_and(|best| best.named || best.score >= threshold);

    let pages_allowed = (0..runbooks.len()).filter(|page| is_allowed(*page));
    let one_page = pages_allowed.take(2).count() == 1;
    let wanted = reranker.map_or(limit, |_| limit.max(RERANKED));
    let mut of_pages: HashMap<usize, OfPage> = HashMap::new();
    let mut listed = Vec::new();
    while listed.len() < wanted
        && let Some(hit) = hits.pop()
    {
        if hit.score <= 0.0 {
            continue;
        }
        let page = snapshot.passages[hit.candidate].0;
        let of_page = (of_pages.entry(page))
            .or_insert_with(|| OfPage::new(&sections, snapshot.passages_of(page)));
        if of_page.shown == PER_RUNBOOK && !one_page {
            continue;
        }
        // The score says how well the page answers; which of its passages is shown for it, they say themselves.
        if let Some(candidate) = of_page.next() {
            listed.push(Hit { candidate, ..hit });
        }
    }
    if let Some(reranker) = reranker {
        rerank(&mut listed, snapshot, reranker, question);
        listed.truncate(limit);
    }
    let results = (1..).zip(listed).map(|(rank, hit)| {
        let (page, passage) = &snapshot.passages[hit.candidate];
        let runbook = &runbooks[*page];
        let section = &runbook.sections[passage.section];
        SearchResult {
            rank,
            score: hit.score,
            runbook: RunbookReference::new(runbook),
            section: SectionReference {
                heading_path: section.heading_path.clone(),
                anchor: section.anchor.clone(),
                line_start: passage.line_start,
                line_end: passage.line_end,
            },
            text: passage.shown(runbook).into_owned(),
        }
    });
    let results = results.collect();
    Ok(SearchResponse {
        query: question.to_owned(),
        answerable,
        results,
    })
}

/// A candidate among the passages of its page.
struct Section {
    candidate: usize,
    named: bool,
    score: f32,
}

/// What of a page is shown.
struct OfPage {
    /// Candidates, the best last: those that are called for by name, then the others.
    left: Vec<usize>,
    shown: usize,
}

impl OfPage {
    /// `sections`: of all pages, in the order of candidates.
    fn new(sections: &[Section], passages: Range<usize>) -> Self {
        let start = sections.partition_point(|section| section.candidate < passages.start);
        let end = sections.partition_point(|section| section.candidate < passages.end);
        let mut of_page: Vec<&Section> = sections[start..end].iter().collect();
        of_page.sort_unstable_by(|a, b| {
            let named = a.named.cmp(&b.named);
            let score = named.then(a.score.total_cmp(&b.score));
            score.then(b.candidate.cmp(&a.candidate))
        });
        Self {
            left: of_page.iter().map(|section| section.candidate).collect(),
            shown: 0,
        }
    }

    fn next(&mut self) -> Option<usize> {
        self.shown += 1;
        self.left.pop()
    }
}

/// Ranks from 0, the best first; what has nothing in common with the question has none.
fn ranked(candidates: &[usize], score: impl Fn(usize) -> f32) -> Vec<(usize, usize)> {
    let scored = candidates.iter().map(|&passage| (passage, score(passage)));
    let mut scored: Vec<(usize, f32)> = scored.filter(|(_, score)| *score > 0.0).collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let passages = scored.into_iter().map(|(passage, _)| passage);
    passages.enumerate().collect()
}

/// The question and what the pages nearest to it say, as one vector of unit length.
fn with_feedback(intros: &DenseIndex, nearest: &[(usize, f32)], question: &[f32]) -> Embedding {
    let share = FEEDBACK / nearest.len().max(1) as f32;
    let mut moved = question.to_vec();
    for &(page, _) in nearest {
        for (moved, intro) in moved.iter_mut().zip(intros.vector(page)) {
            *moved += share * intro;
        }
    }
    let length = moved
        .iter()
        .map(|number| number * number)
        .sum::<f32>()
        .sqrt();
    moved.iter_mut().for_each(|number| *number /= length);
    moved
}

/// Half of a score is what the reranker says. Pages that an alert's name calls for stay first. Where the reranker fails the
/// order stays as it was: it can only add.
fn rerank(listed: &mut [Hit], snapshot: &Snapshot, reranker: &CrossEncoder, question: &str) {
    let texts: Vec<String> = listed
        .iter()
        .take(RERANKED)
        .map(|hit| {
            let (page, passage) = &snapshot.passages[hit.candidate];
            passage.with_breadcrumb(&snapshot.library.runbooks[*page])
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let fits = match reranker.fit(question, &texts) {
        Ok(fits) => fits,
        Err(error) => {
            warn!(
                error = error.to_string(),
                "a question is answered without the reranker"
            );
            return;
        }
    };
    let mut fits = fits.into_iter();
    for hit in listed.iter_mut() {
        // What it has not read fits as little as can be: behind all that it has.
        let fit = fits.next().map_or(0.0, f64::from);
        hit.score = rounded((hit.score + fit) / 2.0);
    }
    listed.sort_unstable_by(|a, b| b.cmp(a));
}

/// What is shown as equal is ordered by place, on every machine.
fn rounded(score: f64) -> f64 {
    (score * 10_000.0).round() / 10_000.0
}

struct Hit {
    candidate: usize,
    named: bool,
    score: f64,
}

/// The better one is the greater: pages that an alert's name calls for, then the score, then what comes first.
impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.named
            .cmp(&other.named)
            .then(self.score.total_cmp(&other.score))
            .then(other.candidate.cmp(&self.candidate))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Hit {}

#[test]
fn sections_of_a_page_are_shown_in_their_own_order_and_those_called_for_first() {
    let section = |(candidate, named, score)| Section {
        candidate,
        named,
        score,
    };
    let sections = [
        (1, false, 0.9),
        (3, false, 0.1),
        (4, true, 0.0),
        (6, false, 0.3),
        (7, false, 0.3),
        (9, false, 0.8),
    ]
    .map(section);
    let mut of_page = OfPage::new(&sections, 3..9);
    let shown: Vec<usize> = std::iter::from_fn(|| of_page.next()).collect();
    assert_eq!(shown, [4, 6, 7, 3]);
}
