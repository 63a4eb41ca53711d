//! The same encoder as plain loops, to compare the graph with: BERT as its paper has it, one text at a time.

use super::super::HEADS;
use super::super::weights::Weights;

pub(in crate::retrieval::embed) fn embed(safetensors: &[u8], tokens: &[u32]) -> Vec<f32> {
    let weights = Weights::parse(safetensors).unwrap();
    let row = |name: &str, at: usize| {
        let matrix = weights.matrix(name).unwrap();
        matrix.values[at * matrix.columns..(at + 1) * matrix.columns].to_vec()
    };
    let words = weights.matrix("embeddings.word_embeddings.weight").unwrap();
    let mut state: Vec<Vec<f32>> = Vec::new();
    for (position, &token) in tokens.iter().enumerate() {
        let at = token as usize * words.columns;
        let word = &words.values[at..at + words.columns];
        let position = row("embeddings.position_embeddings.weight", position);
        let of_type = row("embeddings.token_type_embeddings.weight", 0);
        state.push(
            (0..word.len())
                .map(|i| word[i] + position[i] + of_type[i])
                .collect(),
        );
    }
    normalise(&weights, "embeddings.LayerNorm", &mut state);

    for layer in 0..6 {
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        let project = |part: &str| linear(&weights, &at(&format!("attention.self.{part}")), &state);
        let (query, key, value) = (project("query"), project("key"), project("value"));
        let size = query[0].len() / HEADS;
        let mut mixed = vec![vec![0.0; query[0].len()]; state.len()];
        for head in 0..HEADS {
            let part = head * size..(head + 1) * size;
            for (to, query) in query.iter().enumerate() {
                let scores: Vec<f32> = key
                    .iter()
                    .map(|key| {
                        (dot(&query[part.clone()], &key[part.clone()]) / (size as f32).sqrt()).exp()
                    })
                    .collect();
                let sum: f32 = scores.iter().sum();
                for (score, value) in scores.iter().zip(&value) {
                    for i in part.clone() {
                        mixed[to][i] += score / sum * value[i];
                    }
                }
            }
        }
        add(
            &mut state,
            linear(&weights, &at("attention.output.dense"), &mixed),
        );
        normalise(&weights, &at("attention.output.LayerNorm"), &mut state);
        let mut wide = linear(&weights, &at("intermediate.dense"), &state);
        for x in wide.iter_mut().flatten() {
            *x = *x * 0.5 * (1.0 + erf(*x / std::f32::consts::SQRT_2));
        }
        add(&mut state, linear(&weights, &at("output.dense"), &wide));
        normalise(&weights, &at("output.LayerNorm"), &mut state);
    }
    let mut mean: Vec<f32> = (0..state[0].len())
        .map(|i| state.iter().map(|s| s[i]).sum())
        .collect();
    let length = dot(&mean, &mean).sqrt();
    mean.iter_mut().for_each(|x| *x /= length);
    mean
}

fn linear(weights: &Weights, name: &str, inputs: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let matrix = weights.matrix(&format!("{name}.weight")).unwrap();
    let bias = weights.vector(&format!("{name}.bias")).unwrap();
    let row = |input: &Vec<f32>| {
        let rows = matrix.values.chunks_exact(matrix.columns);
        rows.zip(&bias)
            .map(|(row, bias)| dot(row, input) + bias)
            .collect()
    };
    inputs.iter().map(row).collect()
}

fn normalise(weights: &Weights, name: &str, state: &mut [Vec<f32>]) {
    let scale = weights.vector(&format!("{name}.weight")).unwrap();
    let shift = weights.vector(&format!("{name}.bias")).unwrap();
    for vector in state {
        let count = vector.len() as f32;
        let mean = vector.iter().sum::<f32>() / count;
        let variance = vector.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count;
        for (i, x) in vector.iter_mut().enumerate() {
            *x = (*x - mean) / (variance + 1e-12).sqrt() * scale[i] + shift[i];
        }
    }
}

fn add(state: &mut [Vec<f32>], more: Vec<Vec<f32>>) {
    for (to, from) in state.iter_mut().flatten().zip(more.into_iter().flatten()) {
        *to += from;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Abramowitz and Stegun 7.1.26: exact to 1.5e-7.
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let series = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t
        + 0.254_829_6)
        * t;
    (1.0 - series * (-x * x).exp()).copysign(x)
}
