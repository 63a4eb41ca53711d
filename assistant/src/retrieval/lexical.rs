//! BM25 over one kind of text, on tantivy, in memory. Scores are shares of what a text could reach at most for the
//! same question, so that they can be compared between questions and added to cosines.

use std::collections::HashMap;

use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{Index, Searcher, TantivyDocument, TantivyError, Term};

use super::spelling::Vocabulary;
use super::words::{Word, Words, words};

/// tantivy's k1 + 1: what repeating a word can bring at most.
const MAX_TERM_FACTOR: f32 = 2.2;

/// More than any candidate list needs.
const MAX_HITS: usize = 1000;

/// The rarest words of a very long question decide; the rest costs time only.
const MAX_TERMS: usize = 128;

const MEMORY_BUDGET: usize = 256 << 20;

pub struct LexicalIndex {
    searcher: Searcher,
    field: Field,
    texts: usize,
}

/// A question's words, corrected, each once.
pub struct LexicalQuery {
    words: Vec<Word>,
}

impl LexicalIndex {
    /// Texts are numbered in their order.
    pub fn build<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self, TantivyError> {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer("words")
            .set_index_option(IndexRecordOption::WithFreqs)
            .set_fieldnorms(true);
        let field = schema.add_text_field(
            "text",
            TextOptions::default().set_indexing_options(indexing),
        );
        let builder = Index::builder().schema(schema.build());
        let mut index_builder = builder;
        let tokenizers = tantivy::tokenizer::TokenizerManager::default();
        tokenizers.register("words", TextAnalyzer::builder(Words).build());
        index_builder = index_builder.tokenizers(tokenizers);
        // One segment: numbers are then those of the texts, and scores do not depend on how threads met.
        let mut writer = index_builder.single_segment_index_writer(
            tantivy::directory::RamDirectory::create(),
            MEMORY_BUDGET,
        )?;
        let mut count = 0;
        for text in texts {
            let mut document = TantivyDocument::default();
            document.add_text(field, text);
            writer.add_document(document)?;
            count += 1;
        }
        let index = writer.finalize()?;
        Ok(Self {
            searcher: index.reader()?.searcher(),
            field,
            texts: count,
        })
    }

    /// The best texts with their scores between 0 and 1, best first.
    pub fn search(&self, query: &LexicalQuery) -> Result<Vec<(usize, f32)>, TantivyError> {
        if self.texts == 0 {
            return Ok(Vec::new());
        }
        let mut bound = 0.0;
        let mut terms = Vec::new();
        for word in &query.words {
            let term = Term::from_field_text(self.field, &word.text);
            let count = self.searcher.doc_freq(&term)?;
            // A name that no page has is judged by its parts.
            if count == 0 && word.is_compound {
                continue;
            }
            let weight = self.idf(count);
            bound += weight * MAX_TERM_FACTOR;
            if count > 0 {
                terms.push((weight, term));
            }
        }
        terms.sort_by(|a, b| b.0.total_cmp(&a.0));
        terms.truncate(MAX_TERMS);
        if terms.is_empty() {
            return Ok(Vec::new());
        }
        let clauses = terms
            .into_iter()
            .map(|(_, term)| {
                let query: Box<dyn Query> =
                    Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs));
                (Occur::Should, query)
            })
            .collect();
        let collector = TopDocs::with_limit(MAX_HITS).order_by_score();
        let hits = self
            .searcher
            .search(&BooleanQuery::new(clauses), &collector)?;
        Ok(hits
            .into_iter()
            .map(|(score, address)| (address.doc_id as usize, score / bound))
            .collect())
    }

    /// As tantivy computes it.
    fn idf(&self, count: u64) -> f32 {
        // Counts of texts are far below 2^24, where f32 stops being exact.
        let (texts, count) = (self.texts as f32, count as f32);
        (1.0 + (texts - count + 0.5) / (count + 0.5)).ln()
    }
}

impl LexicalQuery {
    pub(super) fn new(text: &str, vocabulary: &Vocabulary) -> Self {
        let mut words: Vec<Word> = Vec::new();
        let mut add = |text: String, is_compound| {
            if !words.iter().any(|word| word.text == text) {
                words.push(Word { text, is_compound });
            }
        };
        for word in super::words::analyse(text) {
            match vocabulary.correct(&word.text) {
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
        Self { words }
    }
}

/// In how many of the texts each word occurs.
pub(super) fn count_words<'a>(texts: impl Iterator<Item = &'a str>) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for text in texts {
        let mut of_text = words(text);
        of_text.sort_unstable();
        of_text.dedup();
        for word in of_text {
            *counts.entry(word).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(texts: &[&str], query: &str) -> Vec<usize> {
        let index = LexicalIndex::build(texts.iter().copied()).unwrap();
        let vocabulary = Vocabulary::new(count_words(texts.iter().copied()));
        let hits = index
            .search(&LexicalQuery::new(query, &vocabulary))
            .unwrap();
        assert!(
            hits.iter().all(|(_, score)| (0.0..=1.0).contains(score)),
            "{hits:?}"
        );
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
        let texts = ["conntrack table full", "other words here"];
        let index = LexicalIndex::build(texts.iter().copied()).unwrap();
        let vocabulary = Vocabulary::default();
        let score = |query| {
            index
                .search(&LexicalQuery::new(query, &vocabulary))
                .unwrap()[0]
                .1
        };
        assert!(score("conntrack full") > score("conntrack full zebra"));
    }
}
