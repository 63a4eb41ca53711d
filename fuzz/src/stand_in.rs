//! What the included modules name of modules that are too heavy to include: the embedding model and the HTTP client.

use std::time::Duration;

/// As in `assistant/src/prometheus.rs`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{self:?}")]
pub enum QueryError {
    Unreachable(String),
    TimedOut(Duration),
    Refused(String),
    Status(u16),
    Redirect(String),
    Busy,
    TooLarge(usize),
    Malformed(String),
}

pub mod embed {
    pub const MAX_TOKENS: usize = 256;

    #[derive(Debug, thiserror::Error)]
    #[error("no model is here")]
    pub struct EmbedError;

    /// As in `assistant/src/retrieval/embed.rs`.
    pub trait Embedder: Send + Sync {
        fn name(&self) -> &str;
        fn dimensions(&self) -> usize;
        fn count_tokens(&self, text: &str) -> usize;
        fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;
    }
}
