//! One line for every diagnosis: who asked, when, about what, and what came out.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tracing::{debug, warn};

use crate::access::Caller;
use crate::config::{AuditQuestions, ConfigError};
use crate::diagnosis::{Diagnosis, Scope};
use crate::hash::{hex, sha256};
use crate::watched::Troubles;

pub struct Audit {
    file: Option<PathBuf>,
    questions: AuditQuestions,
    /// One writer at a time, so that lines stay whole.
    turn: Mutex<()>,
    troubles: Arc<Troubles>,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    at: String,
    caller: &'a str,
    /// Through which door: `api`, `page`, `mcp` or `webhook`.
    via: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a str>,
    scope: &'a Scope,
    /// The moment that was asked about.
    time: &'a str,
    window: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question_sha256: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_mode: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f64>,
    degraded: usize,
    duration_seconds: f64,
    queries: u64,
}

/// What is known of a diagnosis beside its answer.
pub struct Asked<'a> {
    pub caller: &'a Caller,
    pub via: &'static str,
    /// The one that is diagnosed, if it is one.
    pub incident: Option<&'a str>,
    pub question: &'a str,
    pub took: Duration,
    /// Queries that went to Prometheus meanwhile, those of requests at the same time included.
    pub queries: u64,
}

impl Audit {
    pub fn new(file: Option<PathBuf>, questions: AuditQuestions, troubles: Arc<Troubles>) -> Self {
        Self {
            file,
            questions,
            turn: Mutex::default(),
            troubles,
        }
    }

    /// Whether the file can be written: better known at the start than after the first incident.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let opened = OpenOptions::new().create(true).append(true).open(file);
        opened.map(drop).map_err(|error| {
            ConfigError::value(
                "audit",
                format!("names {}, which cannot be written: {error}; name a file in a folder that is ours", file.display()),
            )
        })
    }

    pub fn record(&self, asked: &Asked<'_>, diagnosis: &Diagnosis) {
        let top = diagnosis.hypotheses.first();
        let has_question = !asked.question.is_empty();
        let line = Line {
            at: jiff::Timestamp::now().to_string(),
            caller: &asked.caller.0,
            via: asked.via,
            incident: asked.incident,
            scope: &diagnosis.scope,
            time: &diagnosis.time,
            window: &diagnosis.window,
            question: (has_question && self.questions == AuditQuestions::Text)
                .then_some(asked.question),
            question_sha256: has_question.then(|| hex(&sha256(asked.question.as_bytes()))),
            status: diagnosis.status_name(),
            failure_mode: top.map(|mode| mode.failure_mode.as_str()),
            confidence: top.map(|mode| mode.confidence),
            degraded: diagnosis.degraded.len(),
            duration_seconds: asked.took.as_secs_f64(),
            queries: asked.queries,
        };
        let Ok(mut text) = serde_json::to_string(&line) else {
            return;
        };
        debug!(target: "runwire_assistant::audit", line = text, "diagnosis");
        let Some(file) = &self.file else { return };
        text.push('\n');
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Opened for each line, so that the file may be rotated away.
        let opened = OpenOptions::new().create(true).append(true).open(file);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        let trouble = written.err().map(|error| {
            warn!(file = %file.display(), %error, "a diagnosis is missing from the audit");
            format!("{} cannot be written: {error}", file.display())
        });
        self.troubles.set("audit", trouble);
    }
}
