//! Text → vector.

use std::fmt;

mod cross;
mod encoder;
mod graph;
mod hashing;
mod minilm;
mod remembering;
mod sessions;
mod weights;

pub use cross::CrossEncoder;
pub use hashing::HashingEmbedder;
pub use minilm::{GRAPH, MiniLm, WEIGHTS};
pub(super) use remembering::Remembering;

/// Of unit length, so that the dot product is the cosine.
pub type Embedding = Vec<f32>;

/// A passage with more tokens would be cut by the model: chunking keeps below.
pub const MAX_TOKENS: usize = 256;

/// Of attention, in the model that we know.
const HEADS: usize = 12;

pub trait Embedder: Send + Sync {
    /// Changes whenever the vectors would: cached ones of another name are not used.
    fn name(&self) -> &str;
    fn dimensions(&self) -> usize;
    /// What the text costs of [`MAX_TOKENS`].
    fn count_tokens(&self, text: &str) -> usize;
    /// Whether the model learnt the word whole, as it did common ones: then it is no slip.
    fn is_word(&self, _word: &str) -> bool {
        false
    }
    // Two methods because some models want a prefix on one of the two.
    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError>;
    fn embed_query(&self, text: &str) -> Result<Embedding, EmbedError>;
}

#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    #[error("cannot read {path}: {reason}")]
    File { path: String, reason: String },
    #[error("{path} is not the model we know: {reason}")]
    Weights { path: String, reason: String },
    #[error("cannot load ONNX Runtime: {0}")]
    Runtime(String),
    #[error("the embedding model failed: {0}")]
    Inference(String),
}

/// How the weights are held: exact, or in a quarter of the memory and several times as fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Float32,
    /// Weights rounded per output channel, activations while running.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Float32 => "fp32",
            Precision::Int8 => "int8",
        })
    }
}
