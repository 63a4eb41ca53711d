//! The answer of `POST /diagnose` as it is on the wire: what is fixed for those who call it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::passages::CitedPassage;
use super::scope::Scope;
use super::steps;
use crate::narrate::Narration;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// The moment that is told about, RFC 3339.
    #[schema(example = "2026-11-20T03:10:00Z")]
    pub time: String,
    #[schema(example = "5m")]
    pub window: String,
    #[serde(deserialize_with = "Scope::of_answer")]
    pub scope: Scope,
    pub status: Status,
    pub summary: String,
    pub hypotheses: Vec<FoundMode>,
    pub checked: Vec<Checked>,
    #[schema(value_type = Vec<CitedPassage>)]
    pub passages: Vec<serde_json::Value>,
    pub degraded: Vec<Part>,
    /// Only where it was asked for, and the model said something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narration: Option<Narration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Fault,
    NoNetworkFault,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FoundMode {
    pub rank: usize,
    pub failure_mode: String,
    pub title: String,
    /// 0 to 1.
    pub confidence: f64,
    /// False: its signs are in the window, but not in its most recent part.
    pub active: bool,
    pub affected: Vec<Affected>,
    pub evidence: Vec<ShownEvidence>,
    pub explains: Vec<String>,
    pub runbook: Link,
    pub next_steps: Vec<steps::Step>,
    #[schema(value_type = Vec<CitedPassage>)]
    pub passages: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Affected {
    pub namespace: Option<String>,
    pub workload: Option<String>,
    pub peer_namespace: Option<String>,
    pub peer_workload: Option<String>,
    /// Where it is a machine or a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShownEvidence {
    pub id: String,
    /// `requires`, `supports` or `contradicts`.
    pub role: String,
    /// `present`, `absent` or `unavailable`: what is not measured is never absent.
    pub outcome: String,
    /// Of what is present, whether it goes on.
    pub active: Option<bool>,
    pub title: String,
    /// Evaluated at `time` it gives `value` and `samples`.
    pub query: String,
    pub value: Option<f64>,
    #[schema(example = "> 0.01")]
    pub threshold: String,
    pub unit: Option<String>,
    /// The value of the same query `baseline_offset` earlier.
    pub baseline: Option<f64>,
    pub baseline_offset: Option<String>,
    pub samples: Vec<ShownSample>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShownSample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    pub id: String,
    pub title: String,
    pub url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checked {
    pub failure_mode: String,
    /// `absent` or `unavailable`.
    pub outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Part {
    pub part: String,
    pub reason: String,
}

impl Diagnosis {
    pub fn degrade(&mut self, part: &str, reason: impl Into<String>) {
        self.degraded.push(Part {
            part: part.into(),
            reason: reason.into(),
        });
        self.degraded.sort();
    }

    pub fn status_name(&self) -> &'static str {
        match self.status {
            Status::Fault => "fault",
            Status::NoNetworkFault => "no_network_fault",
            Status::Unknown => "unknown",
        }
    }
}
