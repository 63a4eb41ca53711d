//! BM25 over one kind of text. Scores are shares of what a text could reach at most for the same question, so that they
//! can be compared between questions and added to cosines.

use std::collections::HashMap;
use std::sync::Arc;

use super::postings::{List, Postings};
use super::segment::{GONE, Numbers};
use super::spelling::Vocabulary;
use super::top::Top;
use super::words::Word;

/// How soon repeating a word stops to matter, and how much longer texts are marked down: the usual values.
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// More than any candidate list needs.
const MAX_HITS: usize = 1000;

/// The rarest words of a very long question decide; the rest costs time only.
const MAX_TERMS: usize = 128;

/// Words of all segments under the numbers of a snapshot. Scores do not depend on how the texts are spread over
/// segments: counts are of all that are not gone.
pub struct LexicalIndex {
    parts: Vec<(Arc<Postings>, Arc<Numbers>)>,
    texts: usize,
    average_length: f32,
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
        let mut texts = 0_usize;
        let mut length = 0_u64;
        for (postings, numbers) in &parts {
            texts += numbers.live;
            for (of_text, number) in postings.lengths().iter().zip(&numbers.of_row) {
                if *number != GONE {
                    length += u64::from(*of_text);
                }
            }
        }
        Self {
            parts,
            texts,
            // Both stay far below 2^52.
            average_length: (length as f64 / texts.max(1) as f64).max(1.0) as f32,
        }
    }

    /// The best texts with their scores between 0 and 1, best first.
    pub fn search(&self, query: &LexicalQuery) -> Vec<(usize, f32)> {
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

        let mut top = Top::new(MAX_HITS);
        for (at, (postings, numbers)) in self.parts.iter().enumerate() {
            let lengths = postings.lengths();
            let mut scores = vec![0.0_f32; lengths.len()];
            for term in &terms {
                for (_, list) in term.lists.iter().filter(|(part, _)| *part == at) {
                    for (row, frequency) in postings.list(list) {
                        let (Some(score), Some(&length)) = (scores.get_mut(row), lengths.get(row))
                        else {
                            continue;
                        };
                        let frequency = frequency as f32;
                        let share = length as f32 / self.average_length;
                        *score +=
                            term.weight * frequency / (frequency + K1 * (1.0 - B + B * share));
                    }
                }
            }
            for (score, &number) in scores.iter().zip(&numbers.of_row) {
                if *score > 0.0 && number != GONE {
                    top.push(number as usize, (score / bound).min(1.0));
                }
            }
        }
        top.finish()
    }

    /// In how many texts a word is, and where.
    fn find(&self, word: &str) -> (usize, Vec<(usize, List)>) {
        let mut count = 0;
        let mut lists = Vec::new();
        for (part, (postings, numbers)) in self.parts.iter().enumerate() {
            let Some(list) = postings.find(word) else {
                continue;
            };
            let of_part = live_count(postings, numbers, &list);
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
        for (postings, numbers) in &self.parts {
            postings.each_word(|word, list| {
                let count = live_count(postings, numbers, list);
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

fn live_count(postings: &Postings, numbers: &Numbers, list: &List) -> usize {
    if numbers.is_whole() {
        return list.count();
    }
    let is_live = |row: usize| {
        numbers
            .of_row
            .get(row)
            .is_some_and(|number| *number != GONE)
    };
    postings.list(list).filter(|(row, _)| is_live(*row)).count()
}

impl LexicalQuery {
    pub(super) fn new(
        text: &str,
        vocabulary: &Vocabulary,
        is_english: impl Fn(&str) -> bool,
    ) -> Self {
        let mut words: Vec<Word> = Vec::new();
        let mut add = |text: String, is_compound| {
            if !words.iter().any(|word| word.text == text) {
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
        let hits = index.search(&LexicalQuery::new(query, &vocabulary, |_| false));
        assert!(
            hits.iter().all(|(_, score)| (0.0..=1.0).contains(score)),
            "{hits:?}"
        );
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
