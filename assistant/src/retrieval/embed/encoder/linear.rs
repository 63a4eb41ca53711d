//! Products of matrices of 8-bit numbers, for a few dozen rows: `vpdpbusd` adds four products of bytes to each of 16 sums.

use std::arch::x86_64::{
    __m128i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_cvtps_epi32, _mm512_cvtusepi32_epi8,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_max_epi32, _mm512_max_ps, _mm512_min_ps,
    _mm512_mul_ps, _mm512_reduce_max_ps, _mm512_reduce_min_ps, _mm512_set1_epi32,
    _mm512_setzero_si512,
};

use super::super::weights::{Matrix, quantize_rows};
use super::lanes::{LANES, all, bytes, lanes_of, vector};

/// Outputs that are computed together, in four registers.
const BLOCK: usize = 4 * LANES;
/// Rows that are computed together: their sums fill 24 of the 32 registers.
const TILE: usize = 6;

/// Four consecutive weights of each of 16 outputs, in one line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([i8; 64]);

/// `input · matrixᵀ + bias`.
pub(super) struct Linear {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Block by block, in the order in which they are read.
    lines: Vec<Line>,
    scales: Vec<f32>,
    /// Of the weights of an output, in its scale: what the least number is multiplied with.
    sums: Vec<f32>,
    bias: Vec<f32>,
}

/// Rows of a matrix: each number is `least + scale · value`, as ONNX's `DynamicQuantizeLinear` has it, so that both give the same.
#[derive(Default)]
pub(super) struct Rounded {
    values: Vec<u8>,
    scale: f32,
    least: f32,
}

impl Linear {
    /// None of a shape that it is not made for.
    pub(super) fn new(matrix: &Matrix, bias: Vec<f32>) -> Option<Self> {
        let (inputs, outputs) = (matrix.columns, matrix.rows);
        if outputs % BLOCK > 0 || inputs % BLOCK > 0 || bias.len() != outputs {
            return None;
        }
        let (values, scales) = quantize_rows(&matrix.values, inputs);
        let mut lines = Vec::with_capacity(values.len() / 64);
        for block in (0..outputs).step_by(BLOCK) {
            for input in (0..inputs).step_by(4) {
                for first in (block..block + BLOCK).step_by(LANES) {
                    let weight = |at: usize| values[(first + at / 4) * inputs + input + at % 4];
                    lines.push(Line(std::array::from_fn(weight)));
                }
            }
        }
        let sum = |row: &[i8]| row.iter().map(|value| i32::from(*value)).sum::<i32>();
        let rows = values.chunks_exact(inputs).zip(&scales);
        let sums = rows.map(|(row, scale)| scale * sum(row) as f32).collect();
        Some(Self {
            inputs,
            outputs,
            lines,
            scales,
            sums,
            bias,
        })
    }

    /// A row of outputs for each row of inputs.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn apply(&self, input: &Rounded, output: &mut Vec<f32>) {
        let rows = input.values.len() / self.inputs;
        output.resize(rows * self.outputs, 0.0);
        // The weights of a block stay in the nearest cache while they are used for all rows.
        for (block, lines) in self.lines.chunks_exact(self.inputs).enumerate() {
            let mut first = 0;
            while first < rows {
                let left = rows - first;
                let tile = left.div_ceil(left.div_ceil(TILE));
                let column = block * BLOCK;
                match tile {
                    1 => self.tile::<1>(lines, input, (first, column), output),
                    2 => self.tile::<2>(lines, input, (first, column), output),
                    3 => self.tile::<3>(lines, input, (first, column), output),
                    4 => self.tile::<4>(lines, input, (first, column), output),
                    5 => self.tile::<5>(lines, input, (first, column), output),
                    _ => self.tile::<TILE>(lines, input, (first, column), output),
                }
                first += tile;
            }
        }
    }

    /// One block of outputs for some rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn tile<const ROWS: usize>(
        &self,
        lines: &[Line],
        input: &Rounded,
        (first, column): (usize, usize),
        output: &mut [f32],
    ) {
        let count = self.inputs / 4;
        let lines = &lines.as_chunks::<4>().0[..count];
        let inputs: [&[[u8; 4]]; ROWS] = std::array::from_fn(|row| {
            let row = &input.values[(first + row) * self.inputs..][..self.inputs];
            &row.as_chunks::<4>().0[..count]
        });
        let mut sums = [[_mm512_setzero_si512(); 4]; ROWS];
        for at in 0..count {
            let weights = lines[at].map(|line| bytes(line.0));
            for row in 0..ROWS {
                let four = _mm512_set1_epi32(i32::from_le_bytes(inputs[row][at]));
                for part in 0..4 {
                    sums[row][part] = _mm512_dpbusd_epi32(sums[row][part], four, weights[part]);
                }
            }
        }
        let (scale, least) = (all(input.scale), all(input.least));
        for (row, sums) in sums.iter().enumerate() {
            let output = &mut output[(first + row) * self.outputs + column..][..BLOCK];
            for (part, output) in output.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let of = |values: &[f32]| {
                    let mut lanes = [0.0; LANES];
                    lanes.copy_from_slice(&values[column + part * LANES..][..LANES]);
                    vector(lanes)
                };
                let sum = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[part]), scale);
                let same = _mm512_fmadd_ps(least, of(&self.sums), of(&self.bias));
                *output = lanes_of(_mm512_add_ps(_mm512_mul_ps(sum, of(&self.scales)), same));
            }
        }
    }
}

impl Rounded {
    /// From so many numbers, a multiple of 32.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn fill(&mut self, values: &[f32]) {
        self.values.resize(values.len(), 0);
        let lanes = values.as_chunks::<LANES>().0;
        // Zero is always among them. Two of each: one would wait for itself.
        let (mut low, mut high) = ([all(0.0); 2], [all(0.0); 2]);
        for pair in lanes.as_chunks::<2>().0 {
            for at in 0..2 {
                low[at] = _mm512_min_ps(low[at], vector(pair[at]));
                high[at] = _mm512_max_ps(high[at], vector(pair[at]));
            }
        }
        let least = _mm512_reduce_min_ps(_mm512_min_ps(low[0], low[1]));
        let most = _mm512_reduce_max_ps(_mm512_max_ps(high[0], high[1]));
        self.scale = if most > least {
            (most - least) / 255.0
        } else {
            1.0
        };
        let zero = (-least / self.scale).round_ties_even();
        self.least = -zero * self.scale;
        let (by, zero) = (all(1.0 / self.scale), all(zero));
        for (lanes, rounded) in lanes.iter().zip(self.values.as_chunks_mut::<LANES>().0) {
            let value = _mm512_cvtps_epi32(_mm512_fmadd_ps(vector(*lanes), by, zero));
            let value = _mm512_max_epi32(value, _mm512_setzero_si512());
            *rounded = sixteen(_mm512_cvtusepi32_epi8(value));
        }
    }
}

#[inline(always)]
#[expect(unsafe_code, reason = "a register and an array of the same bits")]
fn sixteen(vector: __m128i) -> [u8; LANES] {
    // SAFETY: both are 16 bytes.
    unsafe { std::mem::transmute(vector) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_product_is_what_plain_loops_give_but_for_rounding(
            rows in 1_usize..20,
            weights in prop::collection::vec(-2.0_f32..2.0, 128 * 64),
            inputs in prop::collection::vec(-3.0_f32..5.0, 19 * 64),
        ) {
            let vnni = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw");
            if !vnni {
                return Ok(());
            }
            let bias: Vec<f32> = (0..128).map(|at| at as f32).collect();
            let matrix = Matrix { rows: 128, columns: 64, values: weights.clone() };
            let linear = Linear::new(&matrix, bias.clone()).unwrap();
            let (mut rounded, mut outputs) = (Rounded::default(), Vec::new());
            let inputs = &inputs[..rows * 64];
            #[expect(unsafe_code, reason = "checked above")]
            // SAFETY: the processor has what both ask for.
            unsafe {
                rounded.fill(inputs);
                linear.apply(&rounded, &mut outputs);
            }
            prop_assert_eq!(outputs.len(), rows * 128);
            for (input, outputs) in inputs.chunks_exact(64).zip(outputs.chunks_exact(128)) {
                for ((weights, bias), output) in weights.chunks_exact(64).zip(&bias).zip(outputs) {
                    let exact: f32 = weights.iter().zip(input).map(|(a, b)| a * b).sum::<f32>() + bias;
                    // Half a step of an input (8/255) and of a weight (2/127), for 64 products of numbers below 5 and 2.
                    prop_assert!((exact - output).abs() < 64.0 * (0.5 * 8.0 / 255.0 * 2.0 + 0.5 * 2.0 / 127.0 * 5.0));
                }
            }
        }
    }

    #[test]
    fn another_shape_is_refused_and_one_number_everywhere_is_kept() {
        let matrix = |rows, columns| Matrix {
            rows,
            columns,
            values: vec![0.5; rows * columns],
        };
        assert!(Linear::new(&matrix(60, 64), vec![0.0; 60]).is_none());
        assert!(Linear::new(&matrix(64, 60), vec![0.0; 64]).is_none());
        assert!(Linear::new(&matrix(64, 64), vec![0.0; 63]).is_none());
        if !is_x86_feature_detected!("avx512vnni") || !is_x86_feature_detected!("avx512bw") {
            return;
        }
        let linear = Linear::new(&matrix(64, 64), vec![1.0; 64]).unwrap();
        let (mut rounded, mut outputs) = (Rounded::default(), Vec::new());
        #[expect(unsafe_code, reason = "checked above")]
        // SAFETY: the processor has what both ask for.
        unsafe {
            rounded.fill(&[2.0; 64]);
            linear.apply(&rounded, &mut outputs);
        }
        assert!(
            outputs.iter().all(|x| (x - 65.0).abs() < 1e-3),
            "{outputs:?}"
        );
    }
}
