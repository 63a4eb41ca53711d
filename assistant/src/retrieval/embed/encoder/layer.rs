//! One layer: attention, then two products with a curve between them, each added to what was there and brought to one size.

use super::super::weights::Weights;
use super::attention::{Attention, SIZE};
use super::lanes::{LANES, gelu, lanes_of, vector};
use super::linear::{Linear, Rounded};

pub(super) struct Layer {
    attention: Linear,
    mixed: Linear,
    after_attention: Norm,
    wide: Linear,
    narrow: Linear,
    after: Norm,
}

/// To a mean of 0 and a variance of 1, then by a scale and a shift for each column.
pub(super) struct Norm {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// Room that is used again.
#[derive(Default)]
pub(super) struct Scratch {
    attention: Attention,
    rounded: Rounded,
    projected: Vec<f32>,
    mixed: Vec<f32>,
    wide: Vec<f32>,
}

impl Layer {
    /// None if it has a shape that this is not made for.
    pub(super) fn read(weights: &Weights<'_>, layer: usize) -> Result<Option<Self>, String> {
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        let linear = |name: &str| {
            let matrix = weights.matrix(&format!("{}.weight", at(name)))?;
            Ok::<_, String>(Linear::new(
                &matrix,
                weights.vector(&format!("{}.bias", at(name)))?,
            ))
        };
        let (matrix, bias) = weights.attention_inputs(layer, SIZE)?;
        let products = (
            Linear::new(&matrix, bias),
            linear("attention.output.dense")?,
            linear("intermediate.dense")?,
            linear("output.dense")?,
        );
        let (Some(attention), Some(mixed), Some(wide), Some(narrow)) = products else {
            return Ok(None);
        };
        let after_attention = Norm::read(weights, &at("attention.output.LayerNorm"))?;
        let after = Norm::read(weights, &at("output.LayerNorm"))?;
        let hidden = attention.inputs;
        let fits = attention.outputs == 3 * hidden
            && (mixed.inputs, mixed.outputs) == (hidden, hidden)
            && (wide.inputs, wide.outputs) == (hidden, narrow.inputs)
            && narrow.outputs == hidden
            && after_attention.columns() == hidden
            && after.columns() == hidden;
        Ok(fits.then_some(Self {
            attention,
            mixed,
            after_attention,
            wide,
            narrow,
            after,
        }))
    }

    pub(super) fn hidden(&self) -> usize {
        self.attention.inputs
    }

    /// `state` has a row for each token.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn apply(&self, state: &mut [f32], room: &mut Scratch) {
        let hidden = self.hidden();
        room.rounded.fill(state);
        self.attention.apply(&room.rounded, &mut room.projected);
        room.attention
            .mix(&room.projected, state.len() / hidden, &mut room.mixed);
        room.rounded.fill(&room.mixed);
        self.mixed.apply(&room.rounded, &mut room.projected);
        add(state, &room.projected);
        self.after_attention.apply(state);

        room.rounded.fill(state);
        self.wide.apply(&room.rounded, &mut room.wide);
        for lanes in room.wide.as_chunks_mut::<LANES>().0 {
            *lanes = lanes_of(gelu(vector(*lanes)));
        }
        room.rounded.fill(&room.wide);
        self.narrow.apply(&room.rounded, &mut room.projected);
        add(state, &room.projected);
        self.after.apply(state);
    }
}

impl Norm {
    pub(super) fn read(weights: &Weights<'_>, name: &str) -> Result<Self, String> {
        let (scale, shift) = (format!("{name}.weight"), format!("{name}.bias"));
        let norm = Self {
            scale: weights.vector(&scale)?,
            shift: weights.vector(&shift)?,
        };
        match norm.scale.len() == norm.shift.len() {
            true => Ok(norm),
            false => Err(format!("`{scale}` and `{shift}` differ in length")),
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.scale.len()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn apply(&self, state: &mut [f32]) {
        let count = self.columns() as f32;
        for row in state.chunks_exact_mut(self.columns()) {
            let mean = total(row, |x| x) / count;
            let variance = total(row, |x| (x - mean) * (x - mean)) / count;
            let by = 1.0 / (variance + 1e-12).sqrt();
            for ((x, scale), shift) in row.iter_mut().zip(&self.scale).zip(&self.shift) {
                *x = (*x - mean) * by * scale + shift;
            }
        }
    }
}

/// In sixteen sums, which the compiler keeps in one register.
#[inline(always)]
fn total(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for lanes in row.as_chunks::<LANES>().0 {
        for (sum, x) in sums.iter_mut().zip(lanes) {
            *sum += of(*x);
        }
    }
    sums.iter().sum()
}

#[inline(always)]
pub(super) fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}
