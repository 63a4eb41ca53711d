//! PromQL that stands in a runbook's text, evaluated for whom it is shown: what an engineer would paste into Prometheus, with the
//! value that it has now, or had then. Blocks of Markdown fenced as ```` ```promql ````.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::expression::{self, Expression};
use super::live::Moment;
use super::snapshot::{Answer, Deadline, Missing, Series, Snapshot};
use super::topology::Topology;
use super::{Engine, words};
use crate::prometheus::Prometheus;

mod subject;

pub(super) use subject::Subject;

/// Different expressions that are asked for one page or one answer; a page has a handful.
const MAX_BLOCKS: usize = 32;
const MAX_SAMPLES: usize = 5;

/// A PromQL block of a runbook and what it says. Evaluated at `time`, `query` gives `value` and `samples`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluatedBlock {
    /// As it stands in the text.
    pub block: String,
    /// What was asked: a comparison with a number at the top is taken off, and then each `[5m]` is the window. Empty where
    /// nothing was.
    pub query: String,
    /// The moment that is told about, RFC 3339.
    pub time: String,
    /// Whose series were looked at: in what a failure mode's text says, the pair, listener, node or link where the mode is;
    /// elsewhere the scope. One end of it, where the series name no other; all workloads, where they name nobody, or where the
    /// expression ranks all with `topk` or `bottomk`. Left out where there are no series at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "shop/cart → shop/payments")]
    pub about: Option<String>,
    /// `present`: there are such series, one of them beyond the threshold where there is one; `absent`: there are series, and
    /// none is so; `unavailable`: no data.
    pub outcome: String,
    /// Of the strongest of these series.
    pub value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "> 0.01")]
    pub threshold: Option<String>,
    /// How many they are.
    pub series: usize,
    /// The first of them, strongest first.
    pub samples: Vec<BlockSample>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BlockSample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl EvaluatedBlock {
    /// One that nobody has asked for yet.
    pub(super) fn open(block: String) -> Self {
        Self {
            block,
            query: String::new(),
            time: String::new(),
            about: None,
            outcome: "unavailable".into(),
            value: None,
            threshold: None,
            series: 0,
            samples: Vec::new(),
            reason: None,
        }
    }

    /// Where answers lack series, what is there is, and nothing is known not to be.
    fn doubted(mut self, reason: &str) -> Self {
        if self.outcome != "present" {
            self.outcome = "unavailable".into();
        }
        self.reason = Some(reason.to_owned());
        self
    }
}

/// Whether the words after a fence say that PromQL follows.
pub fn is_promql(info: &str) -> bool {
    let language = info.split_whitespace().next();
    language.is_some_and(|language| language.eq_ignore_ascii_case("promql"))
}

/// The fenced blocks of PromQL in a part of a Markdown text, in order. Indentation means nothing: a part may begin in the middle
/// of a list.
pub fn blocks(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(String, bool, Vec<&str>)> = None;
    for line in markdown.lines() {
        let text = line.trim();
        match &mut open {
            Some((fence, is_promql, lines)) if closes(text, fence) => {
                found.extend(is_promql.then(|| lines.join("\n")));
                open = None;
            }
            Some((_, _, lines)) => lines.push(text),
            None => {
                open = fence(text).map(|fence| {
                    let info = &text[fence.len()..];
                    (fence.to_owned(), is_promql(info), Vec::new())
                });
            }
        }
    }
    // A block that the end of the text closes.
    if let Some((_, true, lines)) = open {
        found.push(lines.join("\n"));
    }
    found.retain(|block| !block.trim().is_empty());
    found
}

fn fence(line: &str) -> Option<&str> {
    let mark = line.chars().next().filter(|c| "`~".contains(*c))?;
    let end = line.find(|c| c != mark).unwrap_or(line.len());
    (end >= 3).then(|| &line[..end])
}

fn closes(line: &str, opening: &str) -> bool {
    fence(line).is_some_and(|fence| fence == line && fence.starts_with(opening))
}

impl Engine {
    /// What the PromQL blocks of a page say, one result each in their order. Never fails: what cannot be had is
    /// `unavailable`.
    pub async fn live_blocks(
        &self,
        blocks: &[String],
        moment: &Moment,
        patience: Duration,
    ) -> Vec<EvaluatedBlock> {
        let snapshot = self.snapshots.at(moment.time_millis, moment.window);
        let deadline = Deadline::after(patience);
        let scope = Subject::Scope(&moment.scope);
        let wanted: Vec<(&str, Subject<'_>)> =
            blocks.iter().map(|block| (block.as_str(), scope)).collect();
        // A page does not wait until it is known who runs where.
        let topology = Topology::default();
        evaluate(&self.prometheus, &snapshot, &wanted, &topology, deadline).await
    }
}

/// Evaluates blocks, each for its subject; one result each, in their order.
pub(super) async fn evaluate(
    prometheus: &Prometheus,
    snapshot: &Arc<Snapshot>,
    wanted: &[(&str, Subject<'_>)],
    topology: &Topology,
    deadline: Deadline,
) -> Vec<EvaluatedBlock> {
    let mut queries = BTreeSet::new();
    let mut asked = Vec::with_capacity(wanted.len());
    for (block, subject) in wanted {
        let mut block = Asked::of(block, snapshot.window);
        if block.refused.is_none() && !queries.contains(&block.query) {
            if queries.len() == MAX_BLOCKS {
                block.refused = Some(format!("only {MAX_BLOCKS} blocks are asked at a time"));
            } else {
                queries.insert(block.query.clone());
            }
        }
        asked.push((block, *subject));
    }
    let answers = snapshot.evaluate(prometheus, queries, deadline).await;
    let time = words::time(snapshot.time_millis);
    let partial = snapshot.partial();
    asked
        .into_iter()
        .map(|(asked, subject)| {
            let answer = answers.get(&asked.query);
            let is_answered = matches!(answer, Some(Ok(_))) && asked.refused.is_none();
            let result = asked.result(answer, &time, subject, topology);
            match &partial {
                Some(reason) if is_answered => result.doubted(reason),
                _ => result,
            }
        })
        .collect()
}

struct Asked {
    block: String,
    query: String,
    comparison: Option<Expression>,
    /// It chooses among all series.
    ranks: bool,
    refused: Option<String>,
}

impl Asked {
    fn of(block: &str, window: Duration) -> Self {
        let block = block.trim().to_owned();
        let tree = expression::parsed(&block);
        // What compares with nothing is a value to look at.
        let comparison = Expression::parse(&block).ok();
        Self {
            query: match &comparison {
                Some(expression) => expression.query(window),
                None => block.clone(),
            },
            block,
            comparison,
            ranks: tree.as_ref().is_ok_and(subject::ranks),
            refused: tree.err().map(|refusal| format!("it {refusal}")),
        }
    }

    fn result(
        self,
        answer: Option<&Result<Answer, Missing>>,
        time: &str,
        subject: Subject<'_>,
        topology: &Topology,
    ) -> EvaluatedBlock {
        let mut result = EvaluatedBlock {
            time: time.to_owned(),
            threshold: self.comparison.as_ref().map(Expression::threshold),
            reason: self.refused,
            ..EvaluatedBlock::open(self.block)
        };
        if result.reason.is_some() {
            return result;
        }
        result.query = self.query;
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(missing)) => {
                result.reason = Some(missing.to_string());
                return result;
            }
            None => return result,
        };
        if answer.is_empty() {
            // Without any series it is not known whether somebody looked.
            result.reason = Some("no series".into());
            return result;
        }
        let chosen = subject.choose(answer, self.ranks, topology);
        let mut series = chosen.series;
        series.sort_by(|a, b| {
            let order = match &self.comparison {
                Some(expression) => expression.strongest_first(a.value, b.value),
                None => b.value.total_cmp(&a.value),
            };
            order.then_with(|| a.labels.cmp(&b.labels))
        });
        let holds = |series: &&Series| {
            let expression = self.comparison.as_ref();
            expression.is_none_or(|expression| expression.holds(series.value))
        };
        (result.outcome, result.reason) = if series.is_empty() {
            (
                "absent".into(),
                Some(format!("no series of {}", chosen.about)),
            )
        } else if series.iter().any(holds) {
            ("present".into(), None)
        } else {
            ("absent".into(), None)
        };
        result.about = Some(chosen.about);
        result.series = series.len();
        result.samples = series
            .into_iter()
            .take(MAX_SAMPLES)
            .map(|series| BlockSample {
                labels: series.labels.clone(),
                value: words::significant(series.value),
            })
            .collect();
        result.value = result.samples.first().map(|sample| sample.value);
        result
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::diagnosis::Scope;
    use crate::diagnosis::place::Position;

    #[test]
    fn blocks_of_promql_are_found_and_no_others() {
        let text = "See:\n\n```promql\n# how many\nsum(x)\n```\n\n````md\n```promql\nshown as text\n```\n````\n\n```sh\nnot this\n```\n1. item\n\n      ~~~ PromQL title\n      z\n        > 1\n      ~~~\n```promql\n```\n```promql\nopen";
        assert_eq!(blocks(text), ["# how many\nsum(x)", "z\n> 1", "open"]);
        assert_eq!(blocks("``` \npromql\n```"), Vec::<String>::new());
    }

    fn check(block: &str, answer: Option<&[(&str, f64)]>, expected: Expect) {
        let answer: Option<Result<Answer, Missing>> = answer.map(|series| {
            let series = series.iter().map(|(workload, value)| {
                let labels = BTreeMap::from([("workload".to_owned(), (*workload).to_owned())]);
                Series {
                    position: Position::of(&labels),
                    labels,
                    value: *value,
                    earlier: None,
                }
            });
            Ok(series.collect())
        });
        let scope = Scope {
            workload: Some("a".into()),
            ..Scope::default()
        };
        let asked = Asked::of(block, Duration::from_secs(60));
        let subject = Subject::Scope(&scope);
        let result = asked.result(answer.as_ref(), "T", subject, &Topology::default());
        let EvaluatedBlock {
            query,
            about,
            outcome,
            value,
            threshold,
            reason,
            ..
        } = result;
        expected.assert_eq(&format!(
            "{outcome} {value:?} {threshold:?} {about:?} {reason:?} {query}"
        ));
    }

    #[test]
    fn a_block_says_what_it_finds_and_of_whom() {
        let series: &[(&str, f64)] = &[("b", 9.0), ("a", 2.0)];
        check(
            "rate(x[5m]) > 1",
            Some(series),
            expect![[r#"present Some(2.0) Some("> 1") Some("a") None rate(x[1m])"#]],
        );
        check(
            "rate(x[5m]) > 3",
            Some(series),
            expect![[r#"absent Some(2.0) Some("> 3") Some("a") None rate(x[1m])"#]],
        );
        check(
            "rate(x[5m])",
            Some(series),
            expect![[r#"present Some(2.0) None Some("a") None rate(x[5m])"#]],
        );
        check(
            "x",
            Some(&[("b", 1.0)]),
            expect![[r#"absent None None Some("a") Some("no series of a") x"#]],
        );
        check(
            "x",
            Some(&[]),
            expect![[r#"unavailable None None None Some("no series") x"#]],
        );
        check(
            "topk(1, x)",
            Some(series),
            expect![[r#"present Some(9.0) None Some("all workloads") None topk(1, x)"#]],
        );
        check(
            "sum by (",
            None,
            expect![[
                r#"unavailable None None None Some("it is not PromQL: unclosed left parenthesis") "#
            ]],
        );
    }
}
