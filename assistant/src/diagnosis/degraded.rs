//! What could not be done for an answer, and why.

use std::collections::{BTreeSet, HashMap};

use super::evidence::Evidence;
use super::measure::Facts;
use super::rank::{self, Mode};
use super::response::Part;
use super::snapshot::{Answer, Missing};
use crate::prometheus::Prometheus;

/// Failure modes that are named where some could not be judged; `checked` has them all.
const MAX_NAMED: usize = 20;

/// What could not be done.
#[derive(Debug, Clone, Default)]
pub struct Degraded(BTreeSet<Part>);

impl Degraded {
    pub fn into_parts(self) -> Vec<Part> {
        self.0.into_iter().collect()
    }

    pub fn of(facts: &Facts, prometheus: &Prometheus) -> Self {
        let mut degraded = Self::default();
        if let Some(outage) = &facts.outage {
            degraded.add(
                "prometheus",
                format!("{outage} (asked at {})", prometheus.url()),
            );
        }
        if let Some(stale) = &facts.stale {
            degraded.add("prometheus", stale.as_str());
        }
        for failure in &facts.failures {
            degraded.add(
                "prometheus",
                format!("a part of the evidence is missing: {failure}"),
            );
        }
        if !facts.narrowed.is_empty() {
            degraded.add(
                "prometheus",
                format!(
                    "the cluster is too large for {} queries, which were asked for the scope alone: what lies behind those it calls was not looked for there",
                    facts.narrowed.len()
                ),
            );
        }
        if !facts.unmeasured.is_empty() {
            let names: Vec<&str> = facts.unmeasured.iter().map(String::as_str).collect();
            degraded.add("metrics", format!("not measured: {}", names.join(", ")));
        }
        degraded
    }

    /// Names the modes of which it cannot be told whether they are there, because something did not come.
    pub fn unjudged(&mut self, modes: &[Mode], found: &[usize]) {
        let lost = |mode: &Mode| mode.evidence.iter().any(Evidence::failed);
        let names: Vec<&str> = modes
            .iter()
            .enumerate()
            .filter(|(index, mode)| {
                !found.contains(index) && lost(mode) && !rank::could_be_checked(mode)
            })
            .map(|(_, mode)| mode.id.as_str())
            .collect();
        if names.is_empty() {
            return;
        }
        let reason = if names.len() == modes.len() {
            "no failure mode could be judged".to_owned()
        } else {
            let more = match names.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let first: Vec<&str> = names.iter().copied().take(MAX_NAMED).collect();
            format!(
                "{} of {} failure modes could not be judged: {}{more}",
                names.len(),
                modes.len(),
                first.join(", ")
            )
        };
        self.add("diagnosis", reason);
    }

    /// Says where values of earlier times did not come.
    pub fn earlier(&mut self, answers: &HashMap<String, Result<Answer, Missing>>) {
        for missing in answers.values().filter_map(|answer| answer.as_ref().err()) {
            self.add(
                "prometheus",
                format!("values of earlier times are missing: {missing}"),
            );
        }
    }

    pub fn add(&mut self, part: &str, reason: impl Into<String>) {
        self.0.insert(Part {
            part: part.into(),
            reason: reason.into(),
        });
    }
}
