//! Words of a question that no page has → the nearest ones that pages do have.

use std::collections::HashMap;

use crate::config::edit_distance;

/// Words that fewer passages have are as likely misspelt themselves.
const MIN_PASSAGES: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    counts: HashMap<String, usize>,
    /// Common words by their first letter: a slip there is rare, and looking elsewhere is dear.
    by_letter: HashMap<char, Vec<Common>>,
}

#[derive(Debug)]
struct Common {
    word: String,
    length: usize,
    letters: u32,
    count: usize,
}

impl Vocabulary {
    /// From the number of passages that have each word.
    pub(super) fn new(counts: HashMap<String, usize>) -> Self {
        let mut by_letter: HashMap<char, Vec<Common>> = HashMap::new();
        for (word, &count) in &counts {
            let is_plain = word.chars().all(char::is_alphabetic);
            if count >= MIN_PASSAGES
                && is_plain
                && let Some(letter) = word.chars().next()
            {
                by_letter.entry(letter).or_default().push(Common {
                    word: word.clone(),
                    length: word.chars().count(),
                    letters: letters(word),
                    count,
                });
            }
        }
        // The map's order differs from run to run; answers must not.
        for words in by_letter.values_mut() {
            words.sort_by(|a, b| a.word.cmp(&b.word));
        }
        Self { counts, by_letter }
    }

    pub(super) fn knows(&self, word: &str) -> bool {
        self.counts.contains_key(word)
    }

    /// The most common of the nearest words, or none if the word is known, to us or as `is_english`, or unlike any other.
    pub(super) fn correct(&self, word: &str, is_english: impl Fn(&str) -> bool) -> Option<&str> {
        let length = word.chars().count();
        let allowed = match length {
            0..4 => return None,
            4..8 => 1,
            _ => 2,
        };
        let count = self.counts.get(word).copied().unwrap_or_default();
        if count >= MIN_PASSAGES || !word.chars().all(char::is_alphabetic) {
            return None;
        }
        if is_english(word) {
            return None;
        }
        let first = word.chars().next()?;
        // A slip changes two letters of the set at most: most words need no closer look.
        let has = letters(word);
        let is_near = |common: &&Common| {
            common.length.abs_diff(length) <= allowed
                && (common.letters ^ has).count_ones() as usize <= 2 * allowed
        };
        let near = self.by_letter.get(&first)?.iter().filter(is_near);
        near.map(|common| (distance(word, &common.word), common))
            .filter(|(distance, common)| *distance <= allowed && common.word != word)
            .min_by_key(|(distance, common)| (*distance, usize::MAX - common.count))
            .map(|(_, common)| common.word.as_str())
    }
}

/// Which letters occur, a bit each; those of other alphabets share bits.
fn letters(word: &str) -> u32 {
    word.chars()
        .fold(0, |letters, c| letters | 1 << (u32::from(c) % 32))
}

/// Two neighbours swapped are one slip, not two.
fn distance(a: &str, b: &str) -> usize {
    let plain = edit_distance(a, b);
    if plain == 2 && is_swap(a, b) {
        1
    } else {
        plain
    }
}

fn is_swap(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let differing: Vec<usize> = (0..a.len().min(b.len()))
        .filter(|&i| a[i] != b[i])
        .collect();
    matches!(differing[..], [i, j] if a.len() == b.len() && j == i + 1 && a[i] == b[j] && a[j] == b[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_corrected_and_known_words_left_alone() {
        let words = [
            ("certificate", 9),
            ("timeout", 5),
            ("time", 9),
            ("rare", 1),
            ("pods", 4),
        ];
        let vocabulary =
            Vocabulary::new(words.iter().map(|(w, n)| ((*w).to_owned(), *n)).collect());
        for (word, corrected) in [
            ("certifcate", Some("certificate")),
            ("certifciate", Some("certificate")),
            ("tiemout", Some("timeout")),
            ("timeout", None),
            ("rarr", None),
            ("pdo", None),
            ("x509", None),
            ("pods", None),
            ("podz", Some("pods")),
        ] {
            assert_eq!(vocabulary.correct(word, |_| false), corrected, "{word}");
        }
    }
}
