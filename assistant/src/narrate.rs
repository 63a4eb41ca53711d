//! A language model may put a finished diagnosis into sentences. It gets the result and the passages that the result
//! cites, nothing else; it ranks nothing and asks nothing. What it says without a valid citation is left out, and when
//! it fails the answer is as it was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use crate::diagnosis::Diagnosis;
use crate::metrics::Metrics;
use crate::prometheus::http_client;

mod client;
mod command;
mod prompt;
mod reply;

use client::Client;
pub use client::NarrateError;
use prompt::Prompt;
use reply::Reader;

/// Narrations on their way at the same time.
const AT_A_TIME: usize = 4;
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// With the version, without a slash at the end: `/chat/completions` follows.
    pub base_url: String,
    pub model: String,
    pub key: Option<Key>,
    /// For a whole narration.
    pub timeout: Duration,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// Read at every request, so it may change.
    File(PathBuf),
    Text(String),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => f.write_str("…"),
        }
    }
}

/// What the model says of a diagnosis. Plain text; to be escaped where it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Narration {
    pub model: String,
    pub sentences: Vec<Sentence>,
    /// Sentences that were left out, because they cite nothing or something that is not there, are no plain text, or hold a command
    /// that no source they cite has.
    pub dropped: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sentence {
    pub text: String,
    /// What it rests on: `evidence:MODE/ID`, `failure_mode:MODE`, or the address of a passage.
    pub citations: Vec<String>,
}

/// The model, as far as it is used here. Cheap to clone.
#[derive(Clone)]
pub struct Narrator {
    client: Client,
    settings: Arc<Settings>,
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Narrator {
    pub fn new(
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, crate::prometheus::ClientError> {
        // Our own deadline comes first, so that what came late is not taken for an answer that was cut.
        let http = http_client(settings.timeout + MARGIN)?;
        Ok(Self {
            client: Client::new(http),
            settings: Arc::new(settings),
            permits: Arc::new(Semaphore::new(AT_A_TIME)),
            metrics,
        })
    }

    /// All of it at once; or why there is nothing.
    pub async fn narrate(&self, diagnosis: &Diagnosis) -> Result<Narration, NarrateError> {
        let prompt = Prompt::of(diagnosis);
        let mut reader = Reader::new(&prompt.sources);
        let result = self
            .in_time(self.client.whole(&self.settings, &prompt))
            .await;
        let result = result.map(|text| {
            let mut sentences = reader.push(&text);
            sentences.extend(reader.end());
            Narration {
                model: self.settings.model.clone(),
                sentences,
                dropped: reader.dropped(),
            }
        });
        let result = result.and_then(|narration| {
            if narration.sentences.is_empty() {
                return Err(NarrateError::NothingCited);
            }
            Ok(narration)
        });
        self.count(result.as_ref().err());
        result
    }

    /// Sentence by sentence, as they come, for as long as somebody receives them. Gives how many were left out.
    pub async fn stream(
        &self,
        diagnosis: &Diagnosis,
        tell: mpsc::Sender<Sentence>,
    ) -> Result<usize, NarrateError> {
        let prompt = Prompt::of(diagnosis);
        let mut reader = Reader::new(&prompt.sources);
        let mut told = 0;
        let read = async {
            let mut stream = self.client.stream(&self.settings, &prompt).await?;
            while let Some(text) = stream.next().await? {
                for sentence in reader.push(&text) {
                    told += 1;
                    if tell.send(sentence).await.is_err() {
                        return Ok(());
                    }
                }
            }
            for sentence in reader.end() {
                told += 1;
                // Nobody has to listen to the last one.
                let _ = tell.send(sentence).await;
            }
            Ok(())
        };
        let result = self.in_time(read).await;
        let result = match result {
            Ok(()) if told == 0 => Err(NarrateError::NothingCited),
            Ok(()) => Ok(reader.dropped()),
            Err(error) => Err(error),
        };
        self.count(result.as_ref().err());
        result
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, NarrateError>>,
    ) -> Result<T, NarrateError> {
        let timeout = self.settings.timeout;
        let deadline = Instant::now() + timeout;
        let all = async {
            let _permit = self
                .permits
                .acquire()
                .await
                .expect("the semaphore is never closed");
            work.await
        };
        timeout_at(deadline, all)
            .await
            .unwrap_or(Err(NarrateError::TimedOut(timeout)))
    }

    fn count(&self, error: Option<&NarrateError>) {
        self.metrics.add(
            "runwire_assistant_narrations_total",
            "Narrations by how they ended",
            &[("outcome", error.map_or("told", NarrateError::name))],
            1.0,
        );
    }
}
