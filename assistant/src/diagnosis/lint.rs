//! What is wrong with an expression before anything is asked: metrics and labels that no collector exports. A label that is
//! not there selects nothing, and would be told as «measured, and not so»; pure.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::parser::{Expr, VectorSelector};

use super::expression::{Expression, parsed};
use super::tree::parts;

const PREFIX: &str = "runwire_";

/// Labels that Prometheus gives to what it scrapes, or a scrape configuration does: those of every series, and `node`.
const OF_TARGETS: [&str; 4] = ["__name__", "job", "instance", "node"];

/// The metrics that collectors export, and the labels of each.
#[derive(Debug, Default)]
pub struct Exported(BTreeMap<String, BTreeSet<String>>);

impl Exported {
    /// From what `/metrics` gives. Lines that are no series are passed over.
    pub fn read(exposition: &str) -> Self {
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in exposition.lines().filter(|line| !line.starts_with('#')) {
            let series = match line.rfind('}') {
                Some(end) => &line[..=end],
                None => line.split_whitespace().next().unwrap_or_default(),
            };
            let Ok(Expr::VectorSelector(selector)) = parsed(series) else {
                continue;
            };
            let names = selector
                .matchers
                .matchers
                .into_iter()
                .map(|label| label.name);
            labels
                .entry(selector.name.unwrap_or_default())
                .or_default()
                .extend(names);
        }
        Self(labels)
    }

    fn problem(&self, selector: &VectorSelector) -> Option<String> {
        let metric = selector
            .name
            .as_deref()
            .filter(|name| name.starts_with(PREFIX))?;
        let Some(labels) = self.0.get(metric) else {
            return Some(format!("asks for `{metric}`, which no collector exports"));
        };
        let mut asked = selector
            .matchers
            .matchers
            .iter()
            .map(|matcher| matcher.name.as_str());
        let unknown = asked.find(|name| !labels.contains(*name) && !OF_TARGETS.contains(name))?;
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        Some(format!(
            "asks `{metric}` for the label `{unknown}`: it has {}",
            labels.join(", ")
        ))
    }
}

/// What is wrong with the expression of a piece of evidence, which ends in a comparison.
pub fn lint(text: &str, exported: Option<&Exported>) -> Vec<String> {
    match Expression::parse(text) {
        Ok(_) => lint_any(text, exported),
        Err(error) => vec![error.to_string()],
    }
}

/// What is wrong with any expression.
pub fn lint_any(text: &str, exported: Option<&Exported>) -> Vec<String> {
    let mut problems = BTreeSet::new();
    match parsed(text) {
        Ok(expr) => {
            if let Some(exported) = exported {
                walk(&expr, &mut |selector| {
                    problems.extend(exported.problem(selector))
                });
            }
        }
        Err(error) => {
            problems.insert(error.to_string());
        }
    }
    problems.into_iter().collect()
}

fn walk(expr: &Expr, visit: &mut impl FnMut(&VectorSelector)) {
    match expr {
        Expr::VectorSelector(selector) => visit(selector),
        Expr::MatrixSelector(selector) => visit(&selector.vs),
        _ => parts(expr).into_iter().for_each(|part| walk(part, visit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPOSITION: &str = "# HELP runwire_a_total x\nrunwire_a_total{src=\"y\",reason=\"…\"} 1\nrunwire_b 2\n\nno series\n";

    #[test]
    fn what_no_collector_exports_is_named() {
        let exported = Exported::read(EXPOSITION);
        let lint = |text: &str| lint(text, Some(&exported));
        assert!(
            lint("runwire_a_total{reason=\"x\",node=\"n\"} + runwire_b + foreign{any=\"y\"} > 1")
                .is_empty()
        );
        assert_eq!(
            lint("runwire_c > 1"),
            ["asks for `runwire_c`, which no collector exports"]
        );
        assert_eq!(
            lint("rate(runwire_a_total{error=\"x\"}[5m]) > 1"),
            ["asks `runwire_a_total` for the label `error`: it has reason, src"]
        );
    }

    #[test]
    fn evidence_ends_in_a_comparison_and_a_block_need_not() {
        assert!(!lint("runwire_b", None).is_empty());
        assert!(lint_any("runwire_b", None).is_empty());
        assert!(!lint_any("runwire_b)", None).is_empty());
    }
}
