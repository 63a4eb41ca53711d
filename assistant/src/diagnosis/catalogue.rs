//! Which metrics there are, by what collectors say of themselves and by name, and how many series each has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::expression::Expression;
use super::screen::Asked;
use super::snapshot::{Answer, Deadline, Snapshot};
use crate::prometheus::Prometheus;
use crate::runbook::Runbook;

/// Of a histogram, about.
const BUCKETS: f64 = 16.0;

/// What a metric's name has behind that of its family.
const SUFFIXES: [&str; 4] = ["_total", "_bucket", "_sum", "_count"];

/// What the collectors measure at the moment of the snapshot.
pub struct Catalogue {
    /// With their series.
    families: BTreeMap<String, f64>,
    /// Of those that are looked for by name; or why it is not known.
    existing: Result<BTreeSet<String>, String>,
}

impl Catalogue {
    /// What our own catalogue does not hold is looked for by name: metrics of others, and ours without `runwire_series`.
    pub(super) async fn look(
        prometheus: &Prometheus,
        snapshot: &Arc<Snapshot>,
        asked: &[Asked],
        families: BTreeMap<String, f64>,
        deadline: Deadline,
    ) -> Self {
        let elsewhere: BTreeSet<&str> = metrics(asked)
            .filter(|metric| !families.contains_key(family(metric)))
            .map(String::as_str)
            .collect();
        let existing = if elsewhere.is_empty() {
            Ok(BTreeSet::new())
        } else {
            let names = elsewhere.into_iter().collect::<Vec<_>>().join("|");
            let query = format!("count by (__name__) ({{__name__=~\"{names}\"}})");
            let queries = BTreeSet::from([query.clone()]);
            let answers = snapshot.evaluate(prometheus, queries, deadline).await;
            match &answers[&query] {
                Ok(answer) => Ok(label_values("__name__", answer)),
                Err(missing) => Err(missing.to_string()),
            }
        };
        Self { families, existing }
    }

    pub(super) fn all_series(&self) -> f64 {
        self.families.values().sum()
    }

    pub fn measures(&self, metric: &str) -> bool {
        let existing = self.existing.as_ref();
        self.families.contains_key(family(metric))
            || existing.is_ok_and(|existing| existing.contains(metric))
    }

    /// About how many a metric has, for whoever wants to ask the cheaper one.
    pub fn series(&self, metric: &str) -> f64 {
        let each = if metric.ends_with("_bucket") {
            BUCKETS
        } else {
            1.0
        };
        each * self.families.get(family(metric)).unwrap_or(&1.0)
    }

    /// Why it is not known whether somebody measures all that an expression needs.
    pub(super) fn unknown(&self, expression: &Expression) -> Option<String> {
        let reason = self.existing.as_ref().err()?;
        let mut metrics = expression.metrics().iter();
        metrics
            .any(|metric| !self.families.contains_key(family(metric)))
            .then(|| reason.clone())
    }
}

/// The name under which a collector counts the series of a metric.
fn family(metric: &str) -> &str {
    let name = metric.strip_prefix("runwire_").unwrap_or(metric);
    SUFFIXES
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

/// Every metric that is asked for and can be looked for by name.
fn metrics(asked: &[Asked]) -> impl Iterator<Item = &String> {
    asked
        .iter()
        .filter_map(|(_, expression)| expression.as_ref().ok())
        .flat_map(|expression| expression.metrics())
        .filter(|metric| is_metric_name(metric))
}

fn is_metric_name(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

/// The names under which a collector may count what is asked for, read off the texts: parsing takes longer than the server should
/// wait for its first query.
pub(super) fn pattern(runbooks: &[Arc<Runbook>]) -> String {
    let mut families = BTreeSet::new();
    for runbook in runbooks {
        let modes = runbook.failure_modes.iter();
        let evidence = modes.flat_map(|mode| &mode.evidence);
        let evidence = evidence.map(|evidence| evidence.expr.as_str());
        let symptoms = runbook.symptoms.iter();
        for text in evidence.chain(symptoms.map(|symptom| symptom.expr.as_str())) {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let words = text.split(|c| !is_name(c));
            families.extend(
                words
                    .filter(|word| word.starts_with("runwire_"))
                    .map(family),
            );
        }
    }
    let families = families.into_iter().collect::<Vec<_>>().join("|");
    format!("(runwire_)?({families})({})?", SUFFIXES.join("|"))
}

pub(super) fn label_values(label: &str, answer: &Answer) -> BTreeSet<String> {
    let labels = answer.iter().filter_map(|series| series.labels.get(label));
    labels.cloned().collect()
}

/// By family, from what collectors say of themselves.
pub(super) fn series_of_families(answer: &Answer) -> BTreeMap<String, f64> {
    let mut families = BTreeMap::new();
    for series in answer.iter() {
        if let Some(metric) = series.labels.get("metric") {
            *families.entry(family(metric).to_owned()).or_default() += series.value;
        }
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_belongs_to_a_family() {
        for (metric, expected) in [
            ("runwire_dns_queries_total", "dns_queries"),
            ("runwire_tcp_rtt_seconds_bucket", "tcp_rtt_seconds"),
            ("runwire_tcp_listeners", "tcp_listeners"),
            ("dns_queries", "dns_queries"),
        ] {
            assert_eq!(family(metric), expected);
        }
    }
}
