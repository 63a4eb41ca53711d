//! BM25 over one kind of text. Scores are shares of what a text could reach at most for the same question, so that they
//! can be compared between questions and added to cosines.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::postings::{List, Postings};
use super::segment::{GONE, Numbers};
use super::spelling::Vocabulary;
use super::top::Top;
use super::words::Word;

/// How soon repeating a word stops to matter, and how much longer texts are marked down: the usual values.
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// The rarest words of a very long question decide; the rest costs time only.
const MAX_TERMS: usize = 128;

/// Words of all segments under the numbers of a snapshot. Scores do not depend on how the texts are spread over
/// segments: counts are of all that are not gone.
pub struct LexicalIndex {
    parts: Vec<Part>,
    texts: usize,
    /// Number → part and row.
    places: Vec<(u32, u32)>,
}

struct Part {
    postings: Arc<Postings>,
    numbers: Arc<Numbers>,
    /// Of each text, what its length makes of [`K1`].
    marks: Vec<f32>,
}

/// What every text scores for one question, between 0 and 1.
pub struct Scores<'a> {
    index: &'a LexicalIndex,
    /// By part and row.
    sums: Vec<Vec<f32>>,
    /// What a text could reach at most.
    bound: f32,
}

/// A question's words, corrected, each once.
pub struct LexicalQuery {
    words: Vec<Word>,
}

struct Term {
    weight: f32,
    /// Where it is listed in each part that has it.
    lists: Vec<(usize, List)>,
}

impl LexicalIndex {
    pub(super) fn new(parts: Vec<(Arc<Postings>, Arc<Numbers>)>) -> Self {
        let texts = parts.iter().map(|(_, numbers)| numbers.live).sum();
        let mut length = 0_u64;
        let mut places = vec![(0, 0); texts];
        for (part, (postings, numbers)) in (0..).zip(&parts) {
            let rows = (0..).zip(postings.lengths()).zip(&numbers.of_row);
            for ((row, of_text), &number) in rows.filter(|(_, number)| **number != GONE) {
                length += u64::from(*of_text);
                if let Some(place) = places.get_mut(number as usize) {
                    *place = (part, row);
                }
            }
        }
        // Both stay far below 2^52.
        let average = (length as f64 / texts.max(1) as f64).max(1.0) as f32;
        let mark = |length: &u32| K1 * (1.0 - B + B * (*length as f32 / average));
        let parts = parts.into_iter().map(|(postings, numbers)| Part {
            marks: postings.lengths().iter().map(mark).collect(),
            postings,
            numbers,
        });
        Self {
            parts: parts.collect(),
            texts,
            places,
        }
    }

    pub fn search(&self, query: &LexicalQuery) -> Scores<'_> {
        let mut bound = 0.0;
        let mut terms = Vec::new();
        for word in &query.words {
            let (count, lists) = self.find(&word.text);
            // A name that no page has is judged by its parts.
            if count == 0 && word.is_compound {
                continue;
            }
            let weight = self.idf(count) * (K1 + 1.0);
            bound += weight;
            if count > 0 {
                terms.push(Term { weight, lists });
            }
        }
        terms.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        terms.truncate(MAX_TERMS);

        let empty = |part: &Part| vec![0.0_f32; part.marks.len()];
        let mut sums: Vec<Vec<f32>> = self.parts.iter().map(empty).collect();
        for term in &terms {
            for (at, list) in &term.lists {
                let (part, sums) = (&self.parts[*at], &mut sums[*at]);
                part.postings.each_block(list, |rows, frequencies| {
                    for (&row, &frequency) in rows.iter().zip(frequencies) {
                        let row = row as usize;
                        if let (Some(sum), Some(mark)) = (sums.get_mut(row), part.marks.get(row)) {
                            let frequency = frequency as f32;
                            *sum += term.weight * frequency / (frequency + mark);
                        }
                    }
                });
            }
        }
        Scores {
            index: self,
            sums,
            bound,
        }
    }

    /// In how many texts a word is, and where.
    fn find(&self, word: &str) -> (usize, Vec<(usize, List)>) {
        let mut count = 0;
        let mut lists = Vec::new();
        for (part, of) in self.parts.iter().enumerate() {
            let Some(list) = of.postings.find(word) else {
                continue;
            };
            let of_part = of.live_count(&list);
            if of_part > 0 {
                lists.push((part, list));
            }
            count += of_part;
        }
        (count, lists)
    }

    fn idf(&self, count: usize) -> f32 {
        // Counts of texts are far below 2^24, where f32 stops being exact.
        let (texts, count) = (self.texts as f32, count as f32);
        (1.0 + (texts - count + 0.5) / (count + 0.5)).ln()
    }

    /// In how many of the texts each word occurs.
    pub(super) fn word_counts(&self) -> HashMap<String, usize> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for part in &self.parts {
            part.postings.each_word(|word, list| {
                let count = part.live_count(list);
                if count == 0 {
                    return;
                }
                match counts.get_mut(word) {
                    Some(known) => *known += count,
                    None => {
                        counts.insert(word.to_owned(), count);
                    }
                }
            });
        }
        counts
    }
}

impl Part {
    fn live_count(&self, list: &List) -> usize {
        if self.numbers.is_whole() {
            return list.count();
        }
        let mut count = 0;
        self.postings.each_block(list, |rows, _| {
            let of_row = |row: &&u32| self.numbers.of_row.get(**row as usize);
            let is_live = |row: &&u32| of_row(row).is_some_and(|number| *number != GONE);
            count += rows.iter().filter(is_live).count();
        });
        count
    }
}

impl Scores<'_> {
    pub fn of(&self, number: usize) -> f32 {
        let place = self.index.places.get(number);
        let sum = place.and_then(|&(part, row)| self.sums.get(part as usize)?.get(row as usize));
        sum.map_or(0.0, |sum| self.share(*sum))
    }

    /// The best `limit` texts that have a word of the question, best first.
    pub fn best(&self, limit: usize) -> Vec<(usize, f32)> {
        let mut top = Top::new(limit);
        for (part, sums) in self.index.parts.iter().zip(&self.sums) {
            for (sum, &number) in sums.iter().zip(&part.numbers.of_row) {
                if *sum > 0.0 && number != GONE {
                    top.push(number as usize, *sum);
                }
            }
        }
        let best = top.finish().into_iter();
        best.map(|(number, sum)| (number, self.share(sum)))
            .collect()
    }

    fn share(&self, sum: f32) -> f32 {
        if sum > 0.0 {
            (sum / self.bound).min(1.0)
        } else {
            0.0
        }
    }
}

impl LexicalQuery {
    pub(super) fn new(
        text: &str,
        vocabulary: &Vocabulary,
        is_english: impl Fn(&str) -> bool,
    ) -> Self {
        let mut words: Vec<Word> = Vec::new();
        let mut known: HashSet<String> = HashSet::new();
        let mut add = |text: String, is_compound| {
            if known.insert(text.clone()) {
                words.push(Word { text, is_compound });
            }
        };
        for word in super::words::analyse(text) {
            match vocabulary.correct(&word.text, &is_english) {
                Some(corrected) if !word.is_compound => {
                    let corrected = corrected.to_owned();
                    if vocabulary.knows(&word.text) {
                        add(word.text, false);
                    }
                    add(corrected, false);
                }
                _ => add(word.text, word.is_compound),
            }
        }
        for word in super::words::analyse(&super::trade::implied(text)) {
            if vocabulary.knows(&word.text) {
                add(word.text, word.is_compound);
            }
        }
        Self { words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(texts: &[&str]) -> LexicalIndex {
        let postings = Postings::build(texts.iter()).unwrap();
        let numbers = Numbers::in_order(texts.len());
        LexicalIndex::new(vec![(Arc::new(postings), Arc::new(numbers))])
    }

    fn search(index: &LexicalIndex, query: &str) -> Vec<(usize, f32)> {
        let vocabulary = Vocabulary::new(index.word_counts());
        let scores = index.search(&LexicalQuery::new(query, &vocabulary, |_| false));
        let hits = scores.best(100);
        assert!(
            hits.iter().all(|(_, score)| (0.0..=1.0).contains(score)),
            "{hits:?}"
        );
        assert!(hits.iter().all(|(text, score)| scores.of(*text) == *score));
        hits
    }

    fn ranking(texts: &[&str], query: &str) -> Vec<usize> {
        let hits = search(&index(texts), query);
        hits.into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn rare_words_count_more_and_names_are_found_by_their_parts() {
        let texts = [
            "the pod is the pod",
            "KubePodCrashLooping fires",
            "conntrack table of the node is full",
        ];
        assert_eq!(ranking(&texts, "the conntrack"), [2, 0]);
        assert_eq!(ranking(&texts, "crash looping"), [1]);
        assert_eq!(ranking(&texts, "kubepodcrashlooping"), [1]);
        assert_eq!(ranking(&texts, "nothing-of_that"), [2]);
        assert_eq!(ranking(&texts, "zebra"), [0; 0]);
        assert_eq!(ranking(&[], "anything"), [0; 0]);
    }

    #[test]
    fn an_unknown_word_makes_the_same_answer_less_sure() {
        let index = index(&["conntrack table full", "other words here"]);
        let score = |query| search(&index, query)[0].1;
        assert!(score("conntrack full") > score("conntrack full zebra"));
    }

    /// Edits leave rows behind and spread pages over segments: nobody must be able to tell by the scores.
    #[test]
    fn scores_do_not_depend_on_segments_or_on_what_is_gone() {
        let texts = [
            "a table is full",
            "the queue is full",
            "a full disk",
            "b c d",
        ];
        let whole = index(&texts);
        let parts = [
            (
                &["the queue is full", "gone table", "b c d"][..],
                vec![1, GONE, 3],
            ),
            (&["a full disk", "a table is full"], vec![2, 0]),
        ];
        let parts = parts.map(|(texts, numbers)| {
            (
                Arc::new(Postings::build(texts.iter()).unwrap()),
                Arc::new(Numbers::new(numbers)),
            )
        });
        let spread = LexicalIndex::new(parts.into());
        assert_eq!(spread.word_counts(), whole.word_counts());
        for query in ["full table", "queue", "gone", "a b"] {
            assert_eq!(search(&spread, query), search(&whole, query), "{query}");
        }
    }
}
