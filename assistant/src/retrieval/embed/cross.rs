//! A cross-encoder reads a question and a passage together and says how well they fit. It takes as long for each passage
//! as a whole search without it, so it looks only at what search found already, and only where the user names one.

use std::path::Path;

use fastembed::{RerankInitOptionsUserDefined, TextRerank, UserDefinedRerankingModel};

use super::minilm::{GRAPH, environment, read, tokenizer_files};
use super::sessions::Sessions;
use super::{EmbedError, MAX_TOKENS};

/// Tokens of question and passage together; what is longer is cut off its passage.
const MAX_PAIR: usize = 2 * MAX_TOKENS;

pub struct CrossEncoder {
    name: String,
    sessions: Sessions<TextRerank>,
}

impl CrossEncoder {
    /// Reads `model.onnx` and its tokenizer's files. The graph must have an output `logits`, a number for each pair.
    pub fn open(folder: &Path, runtime: Option<&Path>) -> Result<Self, EmbedError> {
        let graph = folder.join(GRAPH);
        let model = UserDefinedRerankingModel::new(read(&graph)?, tokenizer_files(folder)?);
        let environment = environment(runtime)?;
        let sessions = Sessions::open(|| {
            let options = RerankInitOptionsUserDefined::new()
                .with_environment(environment.clone())
                .with_max_length(MAX_PAIR)
                .with_intra_threads(1)
                .with_session_config("session.intra_op.allow_spinning", "0");
            TextRerank::try_new_from_user_defined(model.clone(), options)
                .map_err(|error| EmbedError::Runtime(error.to_string()))
        })?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let encoder = Self {
            name: name.into_owned(),
            sessions,
        };
        // A graph of another kind is told at the start, and not by the first question.
        encoder.fit("question", &["passage"])?;
        Ok(encoder)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// How well each passage answers the question, between 0 and 1, in their order.
    pub fn fit(&self, question: &str, passages: &[&str]) -> Result<Vec<f32>, EmbedError> {
        let failed = |reason: String| EmbedError::Inference(reason);
        let mut session = self.sessions.lend();
        // One at a time: padding to the longest costs more than a batch brings.
        let ranked = session
            .rerank(question, passages, false, Some(1))
            .map_err(|error| failed(error.to_string()))?;
        let mut fits = vec![0.0; passages.len()];
        for result in ranked {
            let fit = 1.0 / (1.0 + (-result.score).exp());
            if !fit.is_finite() {
                return Err(failed("it gave no usable number".into()));
            }
            if let Some(slot) = fits.get_mut(result.index) {
                *slot = fit;
            }
        }
        Ok(fits)
    }
}
