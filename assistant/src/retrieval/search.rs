//! One question against one snapshot.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::dense::DenseIndex;
use super::embed::{Embedder, Embedding};
use super::fuse::{ANSWERABLE_WORDS_ONLY, Ranking, Ranks, Signals, kind_of};
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
    ranking: Ranking,
    question: &str,
    limit: usize,
    filters: &Filters,
) -> anyhow::Result<SearchResponse> {
    let runbooks = &snapshot.library.runbooks;
    let allowed: Vec<bool> = runbooks
        .iter()
        .map(|runbook| filters.allow(runbook))
        .collect();

    let words = snapshot.words_of_question(question, embedder);
    let passage_words = snapshot.passage_words.search(&words);
    let page_words = snapshot.page_words.search(&words);
    let title_words: HashMap<usize, f32> =
        snapshot.title_words.search(&words).into_iter().collect();
    let vector = match embedder {
        Some(embedder) => Some(embedder.embed_query(question)?),
        None => None,
    };
    let dense = snapshot.meaning.as_ref().zip(vector.as_ref());
    let named = match ranking {
        Ranking::Fused => snapshot.names.in_question(question),
        _ => Vec::new(),
    };
    let about = dense.map(|(meaning, vector)| with_feedback(&meaning.intros, vector));

    let mut candidates: HashSet<usize> = HashSet::new();
    let mut nearest: HashMap<usize, usize> = HashMap::new();
    let mut pages: HashSet<usize> = named.iter().map(|(page, _)| *page).collect();
    if filters.is_empty() {
        candidates.extend(
            passage_words
                .iter()
                .take(CANDIDATES)
                .map(|(passage, _)| *passage),
        );
        pages.extend(
            page_words
                .iter()
                .take(CANDIDATE_PAGES)
                .map(|(page, _)| *page),
        );
        if let Some((meaning, vector)) = dense {
            let near = meaning.passages.search(vector, CANDIDATES);
            candidates.extend(near.iter().map(|(passage, _)| *passage));
            nearest.extend(near.into_iter().map(|(passage, _)| passage).zip(0..));
            let near = meaning
                .intros
                .search(about.as_ref().unwrap_or(vector), CANDIDATE_PAGES);
            pages.extend(near.into_iter().map(|(page, _)| page));
        }
    } else {
        pages = (0..runbooks.len()).collect();
    }
    for page in pages.into_iter().filter(|page| allowed[*page]) {
        candidates.extend(snapshot.passages_of(page));
    }

    let most_words: HashMap<usize, usize> = passage_words
        .iter()
        .map(|(passage, _)| *passage)
        .zip(0..)
        .collect();
    let passage_words: HashMap<usize, f32> = passage_words.into_iter().collect();
    let page_words: HashMap<usize, f32> = page_words.into_iter().collect();
    let of =
        |scores: &HashMap<usize, f32>, key: usize| scores.get(&key).copied().unwrap_or_default();
    let kind = kind_of(question);
    let mut intros: HashMap<usize, f32> = HashMap::new();
    let mut hits = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let (page, passage) = &snapshot.passages[candidate];
        if !allowed[*page] {
            continue;
        }
        let name = named.iter().any(|(named, section)| {
            named == page && section.is_none_or(|section| section == passage.section)
        });
        let mut signals = Signals {
            passage_words: of(&passage_words, candidate),
            page_words: of(&page_words, *page),
            title_words: of(&title_words, *page),
            name: if name { 1.0 } else { 0.0 },
            ..Signals::default()
        };
        let score = match dense.zip(about.as_ref()) {
            Some(((meaning, vector), about)) => {
                signals.passage_meaning = meaning.passages.similarity(candidate, vector);
                signals.intro_meaning = *intros
                    .entry(*page)
                    .or_insert_with(|| meaning.intros.similarity(*page, about));
                let ranks = Ranks {
                    words: most_words.get(&candidate).copied(),
                    meaning: nearest.get(&candidate).copied(),
                };
                ranking.score(&signals, kind, ranks)
            }
            None => signals.score_of_words(),
        };
        hits.push(Hit {
            candidate,
            named: name,
            // Rounded before sorting: what is shown as equal is ordered by place, on every machine.
            score: (f64::from(score) * 10_000.0).round() / 10_000.0,
        });
    }
    hits.sort_by(|a, b| {
        b.named
            .cmp(&a.named)
            .then(b.score.total_cmp(&a.score))
            .then(a.candidate.cmp(&b.candidate))
    });

    let threshold = f64::from(if dense.is_some() {
        kind.answerable()
    } else {
        ANSWERABLE_WORDS_ONLY
    });
    let answerable = hits
        .iter()
        .take(limit)
        .any(|hit| hit.named || hit.score >= threshold);

    let one_page = allowed.iter().filter(|allowed| **allowed).count() == 1;
    let mut taken: HashMap<usize, usize> = HashMap::new();
    let mut results = Vec::new();
    for hit in hits {
        if results.len() == limit {
            break;
        }
        let (page, passage) = &snapshot.passages[hit.candidate];
        let of_page = taken.entry(*page).or_default();
        if hit.score <= 0.0 || (*of_page == PER_RUNBOOK && !one_page) {
            continue;
        }
        *of_page += 1;
        let runbook = &runbooks[*page];
        let section = &runbook.sections[passage.section];
        results.push(SearchResult {
            rank: results.len() + 1,
            score: hit.score,
            runbook: RunbookReference::new(runbook),
            section: SectionReference {
                heading_path: section.heading_path.clone(),
                anchor: section.anchor.clone(),
                line_start: passage.line_start,
                line_end: passage.line_end,
            },
            text: passage.text(runbook).into_owned(),
        });
    }
    Ok(SearchResponse {
        query: question.to_owned(),
        answerable,
        results,
    })
}

/// The question and what the pages nearest to it say, as one vector of unit length.
fn with_feedback(intros: &DenseIndex, question: &[f32]) -> Embedding {
    let nearest = intros.search(question, FEEDBACK_PAGES);
    let share = FEEDBACK / nearest.len().max(1) as f32;
    let mut moved = question.to_vec();
    for (page, _) in nearest {
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

struct Hit {
    candidate: usize,
    named: bool,
    score: f64,
}
