//! PromQL that stands in a runbook's text, evaluated for a scope: what an engineer would paste into Prometheus, with the
//! value that it has now, or had then. Blocks of Markdown fenced as ```` ```promql ````.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use promql_parser::parser;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::expression::{Expression, ExpressionError};
use super::live::Moment;
use super::place::Place;
use super::scope::Scope;
use super::snapshot::{Answer, Deadline, Missing, Series, Snapshot};
use super::topology::Topology;
use super::{Engine, words};
use crate::prometheus::Prometheus;
use crate::runbook::End;

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
    /// `present`: series in the scope, one of them beyond the threshold where there is one; `absent`: there are series, and
    /// none is so; `unavailable`: no data.
    pub outcome: String,
    /// Of the strongest series in the scope.
    pub value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "> 0.01")]
    pub threshold: Option<String>,
    /// Series in the scope.
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
            outcome: "unavailable".into(),
            value: None,
            threshold: None,
            series: 0,
            samples: Vec::new(),
            reason: None,
        }
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
        let topology = Topology::default();
        let prometheus = &self.prometheus;
        evaluate(
            prometheus,
            &snapshot,
            blocks,
            &moment.scope,
            &topology,
            deadline,
        )
        .await
    }
}

/// Evaluates blocks for a scope; one result each, in their order.
pub(super) async fn evaluate(
    prometheus: &Prometheus,
    snapshot: &Arc<Snapshot>,
    blocks: &[String],
    scope: &Scope,
    topology: &Topology,
    deadline: Deadline,
) -> Vec<EvaluatedBlock> {
    let mut queries = BTreeSet::new();
    let mut asked = Vec::with_capacity(blocks.len());
    for block in blocks {
        let mut block = Asked::of(block, snapshot.window);
        if block.refused.is_none() && !queries.contains(&block.query) {
            if queries.len() == MAX_BLOCKS {
                block.refused = Some(format!("only {MAX_BLOCKS} blocks are asked at a time"));
            } else {
                queries.insert(block.query.clone());
            }
        }
        asked.push(block);
    }
    let answers = snapshot.evaluate(prometheus, queries, deadline).await;
    let time = words::time(snapshot.time_millis);
    asked
        .into_iter()
        .map(|asked| {
            let answer = answers.get(&asked.query);
            asked.result(answer, &time, scope, topology)
        })
        .collect()
}

struct Asked {
    block: String,
    query: String,
    comparison: Option<Expression>,
    refused: Option<String>,
}

impl Asked {
    fn of(block: &str, window: Duration) -> Self {
        let block = block.trim().to_owned();
        let (comparison, refused) = match Expression::parse(&block) {
            Ok(expression) => (Some(expression), None),
            Err(ExpressionError::TooComplex) => {
                (None, Some(format!("it {}", ExpressionError::TooComplex)))
            }
            // What compares with nothing is a value to look at.
            Err(_) => {
                let refusal = parser::parse(&block).err();
                (
                    None,
                    refusal.map(|reason| format!("it is not PromQL: {reason}")),
                )
            }
        };
        Self {
            query: match &comparison {
                Some(expression) => expression.query(window),
                None => block.clone(),
            },
            block,
            comparison,
            refused,
        }
    }

    fn result(
        self,
        answer: Option<&Result<Answer, Missing>>,
        time: &str,
        scope: &Scope,
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
        let mut series: Vec<&Series> = answer
            .iter()
            .filter(|series| is_in_scope(series, scope, topology))
            .collect();
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
        (result.outcome, result.reason) = if answer.is_empty() {
            // Without any series it is not known whether somebody looked.
            ("unavailable".into(), Some("no series".into()))
        } else if series.is_empty() {
            ("absent".into(), Some("no series in this scope".into()))
        } else if series.iter().any(holds) {
            ("present".into(), None)
        } else {
            ("absent".into(), None)
        };
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

fn is_in_scope(series: &Series, scope: &Scope, topology: &Topology) -> bool {
    let position = &series.position;
    let at = match (&position.device, position.workloads().next()) {
        (Some(_), _) => End::Link,
        (None, None) => End::Node,
        (None, Some(_)) => End::Pair,
    };
    scope.contains(&Place::suggested_by(position, at), topology)
        || names_the_workload(&series.labels, scope)
}

/// A block is written for people: it may group by a workload without its namespace, or by the one who drops beside the pair.
fn names_the_workload(labels: &BTreeMap<String, String>, scope: &Scope) -> bool {
    let Some(workload) = &scope.workload else {
        return false;
    };
    ["", "src_", "dst_"].iter().any(|end| {
        let namespace = labels.get(&format!("{end}namespace"));
        labels.get(&format!("{end}workload")) == Some(workload)
            && (namespace.is_none()
                || scope.namespace.is_none()
                || namespace == scope.namespace.as_ref())
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::diagnosis::place::Position;

    #[test]
    fn blocks_of_promql_are_found_and_no_others() {
        let text = "See:\n\n```promql\n# how many\nsum(x)\n```\n\n````md\n```promql\nshown as text\n```\n````\n\n```sh\nnot this\n```\n1. item\n\n      ~~~ PromQL title\n      z\n        > 1\n      ~~~\n```promql\n```\n```promql\nopen";
        assert_eq!(blocks(text), ["# how many\nsum(x)", "z\n> 1", "open"]);
        assert_eq!(blocks("``` \npromql\n```"), Vec::<String>::new());
    }

    #[test]
    fn a_block_may_name_the_workload_alone_or_beside_who_drops() {
        let scope = Scope {
            namespace: Some("shop".into()),
            workload: Some("a".into()),
            ..Scope::default()
        };
        let is_in = |labels: &[(&str, &str)]| {
            let labels = labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let labels: BTreeMap<String, String> = labels.collect();
            let position = Position::of(&labels);
            let series = Series {
                position,
                labels,
                value: 1.0,
                earlier: None,
            };
            is_in_scope(&series, &scope, &Topology::default())
        };
        assert!(is_in(&[("src_workload", "a"), ("dst_workload", "b")]));
        assert!(is_in(&[
            ("namespace", "host"),
            ("workload", "~host"),
            ("src_workload", "a")
        ]));
        assert!(!is_in(&[("src_namespace", "other"), ("src_workload", "a")]));
        assert!(!is_in(&[("src_workload", "b"), ("dst_workload", "c")]));
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
        let result = asked.result(answer.as_ref(), "T", &scope, &Topology::default());
        let EvaluatedBlock {
            query,
            outcome,
            value,
            threshold,
            reason,
            ..
        } = result;
        expected.assert_eq(&format!(
            "{outcome} {value:?} {threshold:?} {reason:?} {query}"
        ));
    }

    #[test]
    fn a_block_says_what_it_finds_in_the_scope() {
        let series: &[(&str, f64)] = &[("b", 9.0), ("a", 2.0)];
        check(
            "rate(x[5m]) > 1",
            Some(series),
            expect![[r#"present Some(2.0) Some("> 1") None rate(x[1m])"#]],
        );
        check(
            "rate(x[5m]) > 3",
            Some(series),
            expect![[r#"absent Some(2.0) Some("> 3") None rate(x[1m])"#]],
        );
        check(
            "rate(x[5m])",
            Some(series),
            expect!["present Some(2.0) None None rate(x[5m])"],
        );
        check(
            "x",
            Some(&[("b", 1.0)]),
            expect![[r#"absent None None Some("no series in this scope") x"#]],
        );
        check(
            "x",
            Some(&[]),
            expect![[r#"unavailable None None Some("no series") x"#]],
        );
        check(
            "sum by (",
            None,
            expect![[
                r#"unavailable None None Some("it is not PromQL: unclosed left parenthesis") "#
            ]],
        );
    }
}
