//! PromQL that stands in a runbook's text, evaluated for a scope: what an engineer would paste into Prometheus, with the
//! value that it has now, or had then. Blocks of Markdown fenced as ```` ```promql ````.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use promql_parser::parser;
use serde::{Deserialize, Serialize};

use super::expression::Expression;
use super::place::Place;
use super::scope::Scope;
use super::snapshot::{Answer, Deadline, Missing, Series, Snapshot};
use super::topology::Topology;
use super::words;
use crate::prometheus::Prometheus;
use crate::runbook::End;

/// A page has a handful; more than this is no page for a person.
const MAX_BLOCKS: usize = 32;
const MAX_LENGTH: usize = 4096;
const MAX_SAMPLES: usize = 5;

/// A block and what it says. Evaluated at `time`, `query` gives `value`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluatedBlock {
    /// As it stands in the text.
    pub block: String,
    /// What was asked: a comparison with a number at the top is taken off, and each `[5m]` is the window.
    pub query: String,
    pub time: String,
    /// `present`: series in the scope, beyond the threshold where there is one; `absent`: Prometheus answered, and there is
    /// none; `unavailable`: no data.
    pub outcome: String,
    /// Of the strongest series in the scope, or of the largest.
    pub value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<String>,
    pub samples: Vec<BlockSample>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockSample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The PromQL of the fenced blocks of a Markdown text, in order. A block may hold several expressions, separated by empty
/// lines; lines that begin with `#` are comments.
pub fn blocks(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<(String, Vec<&str>)> = None;
    for line in markdown.lines() {
        let text = line.trim();
        match &mut block {
            Some((fence, lines)) if text.starts_with(fence.as_str()) => {
                found.extend(expressions(lines));
                block = None;
            }
            Some((_, lines)) => lines.push(text),
            None => block = opening(text).map(|fence| (fence, Vec::new())),
        }
    }
    // A block that the end of the text closes.
    if let Some((_, lines)) = block {
        found.extend(expressions(&lines));
    }
    found.truncate(MAX_BLOCKS);
    found
}

/// The fence of a line that opens a block of PromQL.
fn opening(line: &str) -> Option<String> {
    let mark = line.chars().next().filter(|c| "`~".contains(*c))?;
    let fence: String = line.chars().take_while(|c| *c == mark).collect();
    let language = line[fence.len()..].split_whitespace().next()?;
    (fence.len() >= 3 && language.eq_ignore_ascii_case("promql")).then_some(fence)
}

fn expressions(lines: &[&str]) -> Vec<String> {
    lines
        .split(|line| line.is_empty())
        .map(|part| {
            let code = part.iter().filter(|line| !line.starts_with('#'));
            code.copied().collect::<Vec<_>>().join("\n")
        })
        .filter(|expression| !expression.is_empty())
        .collect()
}

/// Evaluates expressions for a scope; one result each, in their order. Never fails: what cannot be had is `unavailable`.
pub async fn evaluate(
    prometheus: &Prometheus,
    snapshot: &Arc<Snapshot>,
    blocks: &[String],
    scope: &Scope,
    topology: &Topology,
    deadline: Deadline,
) -> Vec<EvaluatedBlock> {
    let asked: Vec<Asked> = blocks
        .iter()
        .map(|block| Asked::of(block, snapshot.window))
        .collect();
    let queries: BTreeSet<String> = asked
        .iter()
        .filter(|asked| asked.refused.is_none())
        .map(|asked| asked.query.clone())
        .collect();
    let answers = snapshot.evaluate(prometheus, queries, deadline).await;
    let time = words::time(snapshot.time_millis);
    blocks
        .iter()
        .zip(asked)
        .map(|(block, asked)| {
            let answer = answers.get(&asked.query);
            asked.result(block, answer, &time, scope, topology)
        })
        .collect()
}

struct Asked {
    query: String,
    comparison: Option<Expression>,
    refused: Option<String>,
}

impl Asked {
    fn of(block: &str, window: Duration) -> Self {
        if let Ok(expression) = Expression::parse(block) {
            return Self {
                query: expression.query(window),
                comparison: Some(expression),
                refused: None,
            };
        }
        let refused = if block.len() > MAX_LENGTH {
            Some(format!("it is longer than {MAX_LENGTH} characters"))
        } else {
            parser::parse(block).err()
        };
        Self {
            query: block.to_owned(),
            comparison: None,
            refused: refused.map(|reason| format!("it is not PromQL: {reason}")),
        }
    }

    fn result(
        self,
        block: &str,
        answer: Option<&Result<Answer, Missing>>,
        time: &str,
        scope: &Scope,
        topology: &Topology,
    ) -> EvaluatedBlock {
        let mut result = EvaluatedBlock {
            block: block.to_owned(),
            query: self.query,
            time: time.to_owned(),
            outcome: "unavailable".into(),
            value: None,
            threshold: self.comparison.as_ref().map(Expression::threshold),
            samples: Vec::new(),
            reason: self.refused,
        };
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
        let order = |a: &&Series, b: &&Series| match &self.comparison {
            Some(expression) => expression.strongest_first(a.value, b.value),
            None => b.value.total_cmp(&a.value),
        };
        series.sort_by(|a, b| order(a, b).then_with(|| a.labels.cmp(&b.labels)));
        let holds = |series: &&&Series| {
            let expression = self.comparison.as_ref();
            expression.is_none_or(|expression| expression.holds(series.value))
        };
        result.value = series
            .first()
            .map(|series| words::significant(series.value));
        result.samples = series
            .iter()
            .filter(holds)
            .take(MAX_SAMPLES)
            .map(|series| BlockSample {
                labels: series.labels.clone(),
                value: words::significant(series.value),
            })
            .collect();
        result.outcome = match (answer.is_empty(), result.samples.is_empty()) {
            // Without any series it is not known whether somebody looked.
            (true, _) => {
                result.reason = Some("no series".into());
                "unavailable"
            }
            (false, true) => "absent",
            (false, false) => "present",
        }
        .into();
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
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::diagnosis::place::Position;

    #[test]
    fn blocks_of_promql_are_found_and_no_others() {
        let text = "See:\n\n```promql\n# how many\nsum(x)\n\nrate(y[5m])\n  > 1\n```\n\n```sh\nnot this\n```\n1. item\n   ~~~ promql\n   z\n   ~~~\n```promql\nopen";
        assert_eq!(blocks(text), ["sum(x)", "rate(y[5m])\n> 1", "z", "open"]);
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
        let result = asked.result(block, answer.as_ref(), "T", &scope, &Topology::default());
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
        check("x", Some(&[("b", 1.0)]), expect!["absent None None None x"]);
        check(
            "x",
            Some(&[]),
            expect![[r#"unavailable None None Some("no series") x"#]],
        );
        check(
            "sum by (",
            None,
            expect![[
                r#"unavailable None None Some("it is not PromQL: unclosed left parenthesis") sum by ("#
            ]],
        );
    }
}
