//! `/chat/completions` as OpenAI defined it and many serve it, whole or as a stream; every way to fail is a [`NarrateError`].

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::prompt::Prompt;
use super::{Key, Settings};

/// A narration is a few sentences; what is longer is something else.
const MAX_ANSWER: usize = 256 << 10;
const MAX_TOKENS: u32 = 800;
/// A busy server is asked once more if it says to come back this soon.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why there is no narration, or no more of it. The texts hold nothing that the server sent.
#[derive(Debug, thiserror::Error)]
pub enum NarrateError {
    #[error("cannot read the key of the language model: {0}")]
    Key(std::io::Error),
    #[error("the language model cannot be reached")]
    Unreachable,
    #[error("the language model was not done within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("the language model's server answers status {0}{hint}", hint = hint(*.0))]
    Status(u16),
    #[error("the language model's answer cannot be read")]
    Malformed,
    #[error("the language model's answer is too long")]
    TooLong,
    #[error("the language model's answer ended early")]
    Cut,
    #[error("the language model said nothing that cites its sources")]
    NothingCited,
}

impl NarrateError {
    /// One word for the metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Unreachable => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::Status(_) => "status",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Cut => "cut",
            Self::NothingCited => "nothing_cited",
        }
    }
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; check `llm_key_file`",
        404 => "; check `llm_base_url` and `llm_model`",
        429 => ", it is busy",
        _ => "",
    }
}

#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
}

impl Client {
    pub(super) fn new(http: reqwest::Client) -> Self {
        Self { http }
    }

    pub(super) async fn whole(
        &self,
        settings: &Settings,
        prompt: &Prompt,
    ) -> Result<String, NarrateError> {
        let body = body(settings, prompt, false);
        let mut response = self.ask(settings, &body).await?;
        let answer = read(&mut response).await?;
        content(&answer)
    }

    pub(super) async fn stream(
        &self,
        settings: &Settings,
        prompt: &Prompt,
    ) -> Result<Stream, NarrateError> {
        let body = body(settings, prompt, true);
        let mut response = self.ask(settings, &body).await?;
        let kind = response.headers().get("content-type");
        let is_stream = kind
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        let mut stream = Stream {
            response: None,
            bytes: Vec::new(),
            read: 0,
            texts: VecDeque::new(),
            done: false,
        };
        if is_stream {
            stream.response = Some(response);
        } else {
            // Some servers do not stream, and answer as a whole.
            let answer = read(&mut response).await?;
            stream.texts.push_back(content(&answer)?);
            stream.done = true;
        }
        Ok(stream)
    }

    async fn ask(
        &self,
        settings: &Settings,
        body: &Value,
    ) -> Result<reqwest::Response, NarrateError> {
        let key = match &settings.key {
            None => None,
            Some(Key::Text(key)) => Some(key.clone()),
            Some(Key::File(path)) => {
                let key = std::fs::read_to_string(path).map_err(NarrateError::Key)?;
                Some(key.trim().to_owned())
            }
        };
        let mut asked = 0;
        loop {
            let mut request = self
                .http
                .post(format!("{}/chat/completions", settings.base_url));
            if let Some(key) = &key {
                request = request.bearer_auth(key);
            }
            let response = request.json(body).send().await.map_err(|error| {
                if error.is_timeout() {
                    NarrateError::TimedOut(settings.timeout)
                } else {
                    NarrateError::Unreachable
                }
            })?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let wait = response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs)
                .filter(|wait| *wait <= LONGEST_WAIT);
            asked += 1;
            match wait {
                Some(wait) if matches!(status.as_u16(), 429 | 503) && asked < 2 => {
                    sleep(wait).await
                }
                _ => return Err(NarrateError::Status(status.as_u16())),
            }
        }
    }
}

fn body(settings: &Settings, prompt: &Prompt, stream: bool) -> Value {
    json!({
        "model": settings.model,
        "messages": [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "stream": stream,
    })
}

async fn read(response: &mut reqwest::Response) -> Result<Vec<u8>, NarrateError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| NarrateError::Cut)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(NarrateError::TooLong);
        }
    }
    Ok(bytes)
}

fn content(answer: &[u8]) -> Result<String, NarrateError> {
    let answer: Value = serde_json::from_slice(answer).map_err(|_| NarrateError::Malformed)?;
    let content = answer["choices"][0]["message"]["content"].as_str();
    content.map(str::to_owned).ok_or(NarrateError::Malformed)
}

/// The texts of a streamed answer.
pub(super) struct Stream {
    response: Option<reqwest::Response>,
    bytes: Vec<u8>,
    read: usize,
    texts: VecDeque<String>,
    done: bool,
}

impl Stream {
    /// The next piece; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<String>, NarrateError> {
        loop {
            if let Some(text) = self.texts.pop_front() {
                return Ok(Some(text));
            }
            let (false, Some(response)) = (self.done, &mut self.response) else {
                return Ok(None);
            };
            let chunk = response.chunk().await.map_err(|_| NarrateError::Cut)?;
            // It says itself when it is done; a connection that just ends was cut.
            let chunk = chunk.ok_or(NarrateError::Cut)?;
            self.read += chunk.len();
            if self.read > MAX_ANSWER {
                return Err(NarrateError::TooLong);
            }
            self.bytes.extend_from_slice(&chunk);
            while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                self.line(&line)?;
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), NarrateError> {
        let line = String::from_utf8_lossy(line);
        let Some(data) = line.trim().strip_prefix("data:") else {
            // Comments, names of events and empty lines.
            return Ok(());
        };
        let data = data.trim();
        if data == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let event: Value = serde_json::from_str(data).map_err(|_| NarrateError::Malformed)?;
        if event.get("error").is_some() {
            return Err(NarrateError::Malformed);
        }
        if let Some(text) = event["choices"][0]["delta"]["content"].as_str() {
            self.texts.push_back(text.to_owned());
        }
        Ok(())
    }
}
