//! all-MiniLM-L6-v2, or another model that the user has as an ONNX graph, on ONNX Runtime through fastembed. Questions to the model
//! that we know go through our own encoder, where the processor can.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fastembed::{
    InitOptionsUserDefined, Pooling, TextEmbedding, TokenizerFiles, UserDefinedEmbeddingModel,
};
use ort::environment::Environment;

use super::encoder::Encoder;
use super::sessions::Sessions;
use super::{EmbedError, Embedder, Embedding, MAX_TOKENS, Precision, graph};
use crate::hash::checksum;

/// A graph in the model's folder is used as it is; without one it is made from the weights that we know.
pub const GRAPH: &str = "model.onnx";
pub const WEIGHTS: &str = "model.safetensors";

/// Tokens of a question that are read, but for the two marks of its ends: each costs time while somebody waits.
const QUESTION_TOKENS: usize = 62;

/// They are in fewer bytes than this, unless somebody writes spaces.
const QUESTION_BYTES: usize = 4096;

/// A payload's marks are half of its tokens and say nothing.
const MARKS: &[char] = &['{', '}', '[', ']', '"', '\'', ',', ';'];

/// Of a text, what the tokenizer says of it.
type OfText<T> = Box<dyn Fn(&str) -> T + Send + Sync>;

pub struct MiniLm {
    name: String,
    dimensions: usize,
    sessions: Sessions<TextEmbedding>,
    count: OfText<usize>,
    /// With the marks of both ends.
    tokens: OfText<Option<Vec<u32>>>,
    encoder: Option<Encoder>,
    /// Where the first [`QUESTION_TOKENS`] of a text end; at its end if it has no more.
    end: OfText<usize>,
}

impl MiniLm {
    /// Reads the folder of the model and starts ONNX Runtime from `runtime`, or from where the loader finds it.
    pub fn open(
        folder: &Path,
        runtime: Option<&Path>,
        precision: Precision,
    ) -> Result<Self, EmbedError> {
        let own_graph = folder.join(GRAPH);
        let tokenizer = tokenizer_files(folder)?;
        let (name, model, encoder) = if own_graph.is_file() {
            let model = read(&own_graph)?;
            let identity = identity(&model, &tokenizer);
            let folder = folder.file_name().unwrap_or_default().to_string_lossy();
            (format!("{folder}/{identity:016x}"), model, None)
        } else {
            let weights_path = folder.join(WEIGHTS);
            let weights = read(&weights_path)?;
            let identity = identity(&weights, &tokenizer);
            let unknown = |reason| EmbedError::Weights {
                path: weights_path.display().to_string(),
                reason,
            };
            let model = graph::build(&weights, precision).map_err(unknown)?;
            let encoder = match precision {
                Precision::Float32 => None,
                Precision::Int8 => Encoder::open(&weights).map_err(unknown)?,
            };
            let name = format!("all-MiniLM-L6-v2/{precision}/{identity:016x}");
            (name, model, encoder)
        };

        let model = UserDefinedEmbeddingModel::new(model, tokenizer).with_pooling(Pooling::Mean);
        let environment = environment(runtime)?;
        let sessions = Sessions::open(|| {
            let options = InitOptionsUserDefined::new()
                .with_environment(environment.clone())
                .with_max_length(MAX_TOKENS)
                .with_intra_threads(1)
                .with_session_config("session.intra_op.allow_spinning", "0");
            TextEmbedding::try_new_from_user_defined(model.clone(), options)
                .map_err(|error| EmbedError::Runtime(error.to_string()))
        })?;

        let mut tokenizer = sessions.lend().tokenizer.clone();
        tokenizer
            .with_truncation(None)
            .map_err(|error| EmbedError::Inference(error.to_string()))?;
        let for_questions = tokenizer.clone();
        let for_encoder = tokenizer.clone();
        let tokens = move |text: &str| {
            let tokens = for_encoder.encode_fast(text, true).ok()?;
            Some(tokens.get_ids().to_vec())
        };
        let end = move |text: &str| {
            let tokens = for_questions.encode(text, false);
            let offsets = tokens
                .as_ref()
                .map_or(&[][..], |tokens| tokens.get_offsets());
            match offsets.len() > QUESTION_TOKENS {
                true => text.floor_char_boundary(offsets[QUESTION_TOKENS - 1].1),
                false => text.len(),
            }
        };
        // A text that the tokenizer refuses could not be embedded either: as if it were too long.
        let count = move |text: &str| {
            tokenizer
                .encode_fast(text, true)
                .map_or(usize::MAX, |tokens| tokens.len())
        };
        let mut model = Self {
            name,
            dimensions: 0,
            sessions,
            count: Box::new(count),
            tokens: Box::new(tokens),
            encoder,
            end: Box::new(end),
        };
        model.dimensions = model.run("length")?.len();
        Ok(model)
    }

    /// What the encoder cannot do, ONNX Runtime does or says why not.
    fn run_question(&self, text: &str) -> Result<Embedding, EmbedError> {
        let encoder = self.encoder.as_ref();
        let vector = encoder.and_then(|encoder| encoder.embed(&(self.tokens)(text)?));
        vector.map_or_else(|| self.run(text), Ok)
    }

    fn run(&self, text: &str) -> Result<Embedding, EmbedError> {
        let failed = |reason: String| EmbedError::Inference(reason);
        let mut vectors = self
            .sessions
            .lend()
            .embed([text], None)
            .map_err(|error| failed(error.to_string()))?;
        vectors
            .pop()
            .filter(|vector| !vector.is_empty() && vector.iter().all(|x| x.is_finite()))
            .ok_or_else(|| failed("it gave no usable vector".into()))
    }

    /// What is too long for the model is embedded in parts, and their middle stands for it: nothing is cut off.
    fn embed(&self, text: &str) -> Result<Embedding, EmbedError> {
        // No token is shorter than a byte, and two mark the ends: short texts need no counting.
        if text.len() + 2 <= MAX_TOKENS || self.count_tokens(text) <= MAX_TOKENS {
            return self.run(text);
        }
        let mut sum = vec![0.0_f32; self.dimensions];
        for part in halves(text, &|part| self.count_tokens(part) <= MAX_TOKENS) {
            let vector = self.run(part)?;
            sum.iter_mut().zip(&vector).for_each(|(sum, x)| *sum += x);
        }
        let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
        if length > 0.0 {
            sum.iter_mut().for_each(|x| *x /= length);
        }
        Ok(sum)
    }
}

impl Embedder for MiniLm {
    fn name(&self) -> &str {
        &self.name
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn count_tokens(&self, text: &str) -> usize {
        (self.count)(text)
    }

    fn is_word(&self, word: &str) -> bool {
        // Between the marks of beginning and end.
        self.count_tokens(word) == 3
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        let share = texts.len().div_ceil(self.sessions.count()).max(1);
        // One text at a time: on a CPU a batch brings nothing, and padding makes the results depend on neighbours.
        let embed = |texts: &[&str]| texts.iter().map(|text| self.embed(text)).collect();
        std::thread::scope(|scope| {
            let workers: Vec<_> = texts
                .chunks(share)
                .map(|texts| scope.spawn(move || embed(texts)))
                .collect();
            let mut vectors = Vec::with_capacity(texts.len());
            for worker in workers {
                let part: Result<Vec<Embedding>, EmbedError> = worker
                    .join()
                    .map_err(|_| EmbedError::Inference("a worker panicked".into()))?;
                vectors.extend(part?);
            }
            Ok(vectors)
        })
    }

    /// A long question, as payloads of alerts are, is read without its marks, and what is still too long not to its end.
    fn embed_query(&self, text: &str) -> Result<Embedding, EmbedError> {
        let text = &text[..text.floor_char_boundary(QUESTION_BYTES)];
        // No token is shorter than a byte.
        if text.len() <= QUESTION_TOKENS || (self.end)(text) == text.len() {
            return self.run_question(text);
        }
        let plain = text.replace(MARKS, " ");
        self.run_question(&plain[..(self.end)(&plain)])
    }
}

/// Parts of the text, cut at white space where there is some, that fit.
fn halves<'a>(text: &'a str, fits: &dyn Fn(&str) -> bool) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut open = vec![text];
    while let Some(part) = open.pop() {
        let middle = part.floor_char_boundary(part.len() / 2);
        if middle == 0 || fits(part) {
            parts.push(part);
            continue;
        }
        let space = part[..middle].rfind(char::is_whitespace);
        let (left, right) = part.split_at(space.filter(|at| *at > 0).unwrap_or(middle));
        open.push(right);
        open.push(left);
    }
    parts
}

/// Of all that vectors depend on: the same weights make others of other tokens.
fn identity(weights: &[u8], tokenizer: &TokenizerFiles) -> u64 {
    let files = [
        weights,
        &tokenizer.tokenizer_file,
        &tokenizer.config_file,
        &tokenizer.special_tokens_map_file,
        &tokenizer.tokenizer_config_file,
    ];
    let sums: Vec<u8> = files
        .iter()
        .flat_map(|file| checksum(file).to_le_bytes())
        .collect();
    checksum(&sums)
}

/// They go by the same names in every model's folder.
pub(super) fn tokenizer_files(folder: &Path) -> Result<TokenizerFiles, EmbedError> {
    Ok(TokenizerFiles {
        tokenizer_file: read(&folder.join("tokenizer.json"))?,
        config_file: read(&folder.join("config.json"))?,
        special_tokens_map_file: read(&folder.join("special_tokens_map.json"))?,
        tokenizer_config_file: read(&folder.join("tokenizer_config.json"))?,
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, EmbedError> {
    std::fs::read(path).map_err(|error| EmbedError::File {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// A process can have one environment only: it is made once and lent to whoever asks.
pub(super) fn environment(runtime: Option<&Path>) -> Result<Environment, EmbedError> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = environment.as_ref() {
        return Ok(environment.clone());
    }
    // Without a path the dynamic loader looks for the name, and says so if it finds none.
    let library = runtime.unwrap_or(Path::new("libonnxruntime.so"));
    let made = ort::init_from(library)
        .map_err(|error| EmbedError::Runtime(error.to_string()))?
        .with_name("runwire")
        .with_telemetry(false)
        .build()
        .map_err(|error| EmbedError::Runtime(error.to_string()))?;
    *environment = Some(made.clone());
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ONNX Runtime, the encoder and plain loops over the same weights must agree.
    #[test]
    #[expect(clippy::print_stdout, reason = "a skipped test must say so")]
    fn all_compute_what_the_weights_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runwire");
        let runtime = root.join("onnxruntime/libonnxruntime.so");
        if !runtime.exists() {
            println!("skipped: no model in .runwire; `make` fetches it");
            return;
        }
        let folder = root.join("model");
        let weights = read(&folder.join("model.safetensors")).unwrap();
        let open = |precision| MiniLm::open(&folder, Some(&runtime), precision).unwrap();
        let (exact, rounded) = (open(Precision::Float32), open(Precision::Int8));
        for text in [
            "OOM",
            "DNS answers SERVFAIL",
            "dial tcp 10.96.0.10:53: i/o timeout",
            "KubePodCrashLooping: our app keeps dying a few seconds after boot, and nobody knows why it does",
        ] {
            let tokens = (rounded.tokens)(text).unwrap();
            let expected = graph::reference::embed(&weights, &tokens);
            let agrees = |vector: &Embedding, least: f32, by: &str| {
                let cosine: f32 = vector.iter().zip(&expected).map(|(a, b)| a * b).sum();
                println!("{by} {cosine:.6} {text}");
                assert!(cosine >= least, "{by}: cosine {cosine} for {text}");
            };
            agrees(&exact.embed_query(text).unwrap(), 0.99999, "fp32");
            let by_runtime = rounded.run(text).unwrap();
            agrees(&by_runtime, 0.97, "int8");
            if let Some(encoder) = &rounded.encoder {
                let vector = encoder.embed(&tokens).unwrap();
                let cosine: f32 = vector.iter().zip(&by_runtime).map(|(a, b)| a * b).sum();
                println!("encoder and runtime {cosine:.6} {text}");
                // Rounding is a step: where a number lies at its edge, a millionth more changes what follows by a hundredth.
                assert!(cosine >= 0.98, "encoder and runtime: {cosine} for {text}");
            }
        }
        if let Some(encoder) = &rounded.encoder {
            assert_eq!(encoder.embed(&[]), None);
            assert_eq!(encoder.embed(&[u32::MAX]), None);
            assert_eq!(encoder.embed(&[101; 513]), None, "there are 512 places");
        }
    }
}
