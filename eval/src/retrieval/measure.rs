//! The usual measures of a ranked list (Järvelin and Kekäläinen 2002 for nDCG, gain 2^grade − 1), and how well the best score
//! tells questions with an answer from those without.

use std::collections::HashSet;

use super::corpus::{Judgements, plain};

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) answerable: bool,
    /// Best first.
    pub(super) rows: Vec<Row>,
}

#[derive(Debug)]
pub(super) struct Row {
    /// Path of the file; its end is the id of a document.
    pub(super) document: String,
    pub(super) headings: Vec<String>,
    pub(super) score: f64,
}

/// Each between 0 and 1.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measures {
    pub(super) ndcg: f64,
    pub(super) reciprocal_rank: f64,
    pub(super) recall: f64,
    pub(super) hit: f64,
    /// A right section among the first three; `None` where no section was judged.
    pub(super) section: Option<f64>,
}

const DEPTH: usize = 10;
const RECALL_DEPTH: usize = 5;
const SECTION_DEPTH: usize = 3;
/// From this grade a document is relevant.
const RELEVANT: u32 = 2;

impl Measures {
    pub(super) fn of(answer: &Answer, judgements: &Judgements) -> Self {
        let mut seen = HashSet::new();
        let grades: Vec<(&str, u32)> = answer
            .rows
            .iter()
            .filter(|row| seen.insert(row.document.as_str()))
            .map(|row| (row.document.as_str(), grade(&row.document, judgements)))
            .take(DEPTH)
            .collect();
        let mut ideal: Vec<u32> = judgements.documents.values().copied().collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        let best = gain(ideal.iter().take(DEPTH).copied());
        // Where nobody found a page that would solve it, one that helps is right.
        let least = ideal.first().copied().unwrap_or(RELEVANT).min(RELEVANT);
        let relevant = ideal.iter().filter(|grade| **grade >= least).count();
        let is_relevant = |(_, grade): &(&str, u32)| *grade >= least;
        let found = grades
            .iter()
            .take(RECALL_DEPTH)
            .filter(|row| is_relevant(row));
        Self {
            ndcg: ratio(gain(grades.iter().map(|(_, grade)| *grade)), best),
            reciprocal_rank: grades
                .iter()
                .position(&is_relevant)
                .map_or(0.0, |at| 1.0 / (at + 1) as f64),
            recall: ratio(found.count() as f64, relevant.min(RECALL_DEPTH) as f64),
            hit: f64::from(u8::from(grades.first().is_some_and(is_relevant))),
            section: section(answer, judgements),
        }
    }
}

fn grade(path: &str, judgements: &Judgements) -> u32 {
    let is_it = |document: &str| {
        path.strip_suffix(document)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    judgements
        .documents
        .iter()
        .find(|(document, _)| is_it(document))
        .map_or(0, |(_, grade)| *grade)
}

fn gain(grades: impl Iterator<Item = u32>) -> f64 {
    grades
        .zip(2..)
        .map(|(grade, place): (u32, u32)| {
            (2_f64.powi(grade.cast_signed()) - 1.0) / f64::from(place).log2()
        })
        .sum()
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn section(answer: &Answer, judgements: &Judgements) -> Option<f64> {
    let mut wanted = judgements
        .sections
        .iter()
        .filter(|(_, grade)| **grade >= RELEVANT)
        .map(|(key, _)| key)
        .peekable();
    wanted.peek()?;
    let wanted: Vec<_> = wanted.collect();
    let is_right = |row: &Row| {
        wanted.iter().any(|(document, heading)| {
            row.document.ends_with(document.as_str())
                && row.headings.iter().any(|h| plain(h) == *heading)
        })
    };
    let found = answer.rows.iter().take(SECTION_DEPTH).any(is_right);
    Some(f64::from(u8::from(found)))
}

/// The chance that a question with an answer scores above one without; ties count half.
pub(super) fn auroc(with: &[f64], without: &[f64]) -> Option<f64> {
    if with.is_empty() || without.is_empty() {
        return None;
    }
    let wins: f64 = with
        .iter()
        .flat_map(|a| without.iter().map(move |b| (a, b)))
        .map(|(a, b)| match a.total_cmp(b) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        })
        .sum();
    Some(wins / (with.len() * without.len()) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(documents: &[(&str, u32)]) -> Judgements {
        Judgements {
            documents: documents
                .iter()
                .map(|(d, g)| ((*d).to_owned(), *g))
                .collect(),
            sections: [(("b.md".to_owned(), "fix".to_owned()), 2)].into(),
        }
    }

    fn answer(rows: &[(&str, &str)]) -> Answer {
        Answer {
            answerable: true,
            rows: rows
                .iter()
                .map(|(document, heading)| Row {
                    document: (*document).to_owned(),
                    headings: vec![(*heading).to_owned()],
                    score: 0.5,
                })
                .collect(),
        }
    }

    #[test]
    fn a_perfect_list_has_1_and_a_page_counts_once() {
        let judgements = judged(&[("a.md", 3), ("b.md", 2), ("c.md", 1)]);
        let list = [
            ("x/a.md", "T"),
            ("x/a.md", "U"),
            ("x/b.md", "Fix"),
            ("x/c.md", ""),
        ];
        let perfect = Measures::of(&answer(&list), &judgements);
        assert!((perfect.ndcg - 1.0).abs() < 1e-9, "{perfect:?}");
        assert_eq!(
            (
                perfect.reciprocal_rank,
                perfect.recall,
                perfect.hit,
                perfect.section
            ),
            (1.0, 1.0, 1.0, Some(1.0))
        );
    }

    #[test]
    fn what_is_missing_or_late_costs() {
        let judgements = judged(&[("a.md", 3), ("b.md", 2)]);
        let late = Measures::of(&answer(&[("x/za.md", ""), ("x/a.md", "")]), &judgements);
        // 7/log2(3) of 7 + 3/log2(3)
        assert!((late.ndcg - 4.416_508 / 8.892_789).abs() < 1e-6, "{late:?}");
        assert_eq!(
            (late.reciprocal_rank, late.recall, late.hit, late.section),
            (0.5, 0.5, 0.0, Some(0.0))
        );
        let nothing = Measures::of(&answer(&[]), &judgements);
        assert_eq!((nothing.ndcg, nothing.hit), (0.0, 0.0));
    }

    #[test]
    fn auroc_is_the_share_of_pairs_in_order() {
        assert_eq!(auroc(&[0.9, 0.5], &[0.5, 0.1]), Some(0.875));
        assert_eq!(auroc(&[], &[0.1]), None);
    }
}
