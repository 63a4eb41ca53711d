//! Measures → tables, with intervals from the bootstrap (Efron 1979): the questions are drawn again and again.

use std::fmt::Write as _;

use serde_json::json;

use super::corpus::{Corpus, NEGATIVE};
use super::measure::{Answer, Measures, auroc};
use crate::seed::Random;

const DRAWS: usize = 2000;

pub(super) struct Arm {
    name: String,
    /// Of every question that has an answer: its id, its class.
    queries: Vec<(String, String, Measures)>,
    auroc: Option<f64>,
    /// Share of questions with an answer that are called answerable, and of those without that are not.
    answered: f64,
    refused: f64,
}

impl Arm {
    pub(super) fn new(name: &str, corpus: &Corpus, answers: &[Answer]) -> Self {
        let none = super::corpus::Judgements::default();
        let top = |answer: &Answer| answer.rows.iter().map(|row| row.score).fold(-1.0, f64::max);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let (mut answered, mut refused) = (0, 0);
        let mut queries = Vec::new();
        for (query, answer) in corpus.queries.iter().zip(answers) {
            if query.class == NEGATIVE {
                without.push(top(answer));
                refused += usize::from(!answer.answerable);
                continue;
            }
            with.push(top(answer));
            answered += usize::from(answer.answerable);
            let judgements = corpus.judgements.get(&query.id).unwrap_or(&none);
            let measures = Measures::of(answer, judgements);
            queries.push((query.id.clone(), query.class.clone(), measures));
        }
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        Self {
            name: name.to_owned(),
            auroc: auroc(&with, &without),
            answered: share(answered, with.len()),
            refused: share(refused, without.len()),
            queries,
        }
    }

    fn of_class<'a>(&'a self, class: &'a str) -> impl Iterator<Item = &'a Measures> {
        self.queries
            .iter()
            .filter(move |(_, of, _)| class == OVERALL || of == class)
            .map(|(_, _, measures)| measures)
    }

    /// Classes in the order in which they come, then all together.
    fn classes(&self) -> Vec<&str> {
        let mut classes: Vec<&str> = Vec::new();
        for (_, class, _) in &self.queries {
            if !classes.contains(&class.as_str()) {
                classes.push(class);
            }
        }
        classes.push(OVERALL);
        classes
    }
}

const OVERALL: &str = "overall";

pub(super) fn tables(arms: &[Arm]) -> String {
    let mut text = String::new();
    for arm in arms {
        let _ = writeln!(text, "{}", arm.name);
        let _ = writeln!(
            text,
            "  {:<10} {:>4}  {:>23} {:>7} {:>8} {:>6} {:>9}",
            "class", "n", "nDCG@10 [95 %]", "MRR@10", "Recall@5", "Hit@1", "Section@3"
        );
        for class in arm.classes() {
            let _ = writeln!(
                text,
                "  {}",
                row(class, &arm.of_class(class).copied().collect::<Vec<_>>())
            );
        }
        let auroc = arm
            .auroc
            .map_or("–".to_owned(), |auroc| format!("{auroc:.3}"));
        let _ = writeln!(
            text,
            "  AUROC {auroc}  answered {:.3}  refused {:.3}\n",
            arm.answered, arm.refused
        );
    }
    if let Some((first, others)) = arms.split_first().filter(|(_, others)| !others.is_empty()) {
        let _ = writeln!(
            text,
            "nDCG@10 of {} minus that of the others, question by question [95 %]",
            first.name
        );
        for other in others {
            let _ = write!(text, "  {:<16}", other.name);
            for class in first.classes() {
                let differences: Vec<f64> = first
                    .of_class(class)
                    .zip(other.of_class(class))
                    .map(|(a, b)| a.ndcg - b.ndcg)
                    .collect();
                let (low, high) = interval(&differences);
                let _ = write!(
                    text,
                    "  {class} {:+.3} [{low:+.3}, {high:+.3}]",
                    mean(&differences)
                );
            }
            text.push('\n');
        }
    }
    text.trim_end().to_owned()
}

fn row(class: &str, measures: &[Measures]) -> String {
    let of = |get: fn(&Measures) -> f64| measures.iter().map(get).collect::<Vec<f64>>();
    let ndcg = of(|m| m.ndcg);
    let (low, high) = interval(&ndcg);
    let sections: Vec<f64> = measures.iter().filter_map(|m| m.section).collect();
    let section = if sections.is_empty() {
        "–".to_owned()
    } else {
        format!("{:.3}", mean(&sections))
    };
    format!(
        "{class:<10} {:>4}  {:.3} [{low:.3}, {high:.3}] {:>7.3} {:>8.3} {:>6.3} {section:>9}",
        measures.len(),
        mean(&ndcg),
        mean(&of(|m| m.reciprocal_rank)),
        mean(&of(|m| m.recall)),
        mean(&of(|m| m.hit)),
    )
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Where 95 % of the means lie when as many values are drawn with replacement.
fn interval(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mut random = Random::new(1, "bootstrap");
    let mut means: Vec<f64> = (0..DRAWS)
        .map(|_| (0..values.len()).map(|_| *random.pick(values)).sum::<f64>() / values.len() as f64)
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    (means[DRAWS / 40], means[DRAWS - 1 - DRAWS / 40])
}

/// One JSON object for each arm and question.
pub(super) fn details(arms: &[Arm]) -> String {
    let mut text = String::new();
    for arm in arms {
        for (id, class, measures) in &arm.queries {
            let line = json!({
                "arm": arm.name, "qid": id, "class": class, "ndcg_at_10": measures.ndcg, "mrr_at_10": measures.reciprocal_rank,
                "recall_at_5": measures.recall, "hit_at_1": measures.hit, "section_at_3": measures.section,
            });
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[test]
fn the_interval_holds_the_mean_and_narrows_with_agreement() {
    let (low, high) = interval(&[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    assert!(low < 0.5 && 0.5 < high && low >= 0.0 && high <= 1.0);
    assert_eq!(interval(&[0.7; 5]), (0.7, 0.7));
}
