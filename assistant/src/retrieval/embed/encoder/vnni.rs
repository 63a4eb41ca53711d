//! From tokens to the vector.

use super::super::sessions::Sessions;
use super::super::weights::{Weights, quantize_rows};
use super::super::{Embedding, HEADS};
use super::attention::SIZE;
use super::layer::{Layer, Norm, Scratch, add};

pub(in super::super) struct Encoder {
    hidden: usize,
    words: Vec<i8>,
    word_scales: Vec<f32>,
    positions: Vec<f32>,
    first: Norm,
    layers: Vec<Layer>,
    /// As many as there are cores: who asks beyond that waits.
    rooms: Sessions<Scratch>,
}

impl Encoder {
    /// From safetensors; none where the processor or the model's shape is not one that this is made for.
    pub(in super::super) fn open(weights: &[u8]) -> Result<Option<Self>, String> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni");
        if !there {
            return Ok(None);
        }
        let weights = Weights::parse(weights)?;
        let words = weights.matrix("embeddings.word_embeddings.weight")?;
        let positions = weights.positions()?;
        let first = Norm::read(&weights, "embeddings.LayerNorm")?;
        let hidden = words.columns;
        if hidden != HEADS * SIZE || positions.columns != hidden || first.columns() != hidden {
            return Ok(None);
        }
        let mut layers = Vec::new();
        while weights.has(&format!(
            "encoder.layer.{}.output.dense.weight",
            layers.len()
        )) {
            match Layer::read(&weights, layers.len())? {
                Some(layer) if layer.hidden() == hidden => layers.push(layer),
                _ => return Ok(None),
            }
        }
        let (words, word_scales) = quantize_rows(&words.values, hidden);
        Ok(Some(Self {
            hidden,
            words,
            word_scales,
            positions: positions.values,
            first,
            layers,
            rooms: Sessions::open(|| Ok::<_, String>(Scratch::default()))?,
        }))
    }

    /// None for tokens that the model does not know, or more of them than it has places for.
    pub(in super::super) fn embed(&self, tokens: &[u32]) -> Option<Embedding> {
        let mut state = Vec::with_capacity(tokens.len() * self.hidden);
        let mut places = self.positions.chunks_exact(self.hidden);
        for token in tokens {
            let token = usize::try_from(*token).ok()?;
            let scale = *self.word_scales.get(token)?;
            let word = &self.words[token * self.hidden..][..self.hidden];
            let number = |(word, place): (&i8, &f32)| f32::from(*word) * scale + place;
            state.extend(word.iter().zip(places.next()?).map(number));
        }
        if state.is_empty() {
            return None;
        }
        let mut room = self.rooms.lend();
        #[expect(
            unsafe_code,
            reason = "vector code may run only where there is such a unit"
        )]
        // SAFETY: without these three there is no encoder.
        unsafe {
            self.run(&mut state, &mut room);
        }

        let mut mean = vec![0.0; self.hidden];
        for row in state.chunks_exact(self.hidden) {
            add(&mut mean, row);
        }
        let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
        mean.iter_mut().for_each(|x| *x /= length);
        mean.iter().all(|x| x.is_finite()).then_some(mean)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn run(&self, state: &mut [f32], room: &mut Scratch) {
        self.first.apply(state);
        for layer in &self.layers {
            layer.apply(state, room);
        }
    }
}
