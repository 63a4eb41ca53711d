//! Words hashed into a vector: no model, no files, the same on every machine. For tests.

use super::{EmbedError, Embedder, Embedding};
use crate::retrieval::words;

const DIMENSIONS: usize = 256;

#[derive(Debug, Clone, Copy, Default)]
pub struct HashingEmbedder;

impl Embedder for HashingEmbedder {
    fn name(&self) -> &str {
        "hashing-1"
    }

    fn dimensions(&self) -> usize {
        DIMENSIONS
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count() + 2
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Embedding>, EmbedError> {
        texts.iter().map(|text| self.embed_query(text)).collect()
    }

    fn embed_query(&self, text: &str) -> Result<Embedding, EmbedError> {
        let mut vector = vec![0.0_f32; DIMENSIONS];
        for word in words::words(text) {
            let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
            let slot = usize::try_from(hash % DIMENSIONS as u64).unwrap_or_default();
            vector[slot] += sign;
        }
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if length > 0.0 {
            vector.iter_mut().for_each(|x| *x /= length);
        }
        Ok(vector)
    }
}
