//! What each token takes from the others: exact, as there is little of it in a short text.

use std::arch::x86_64::{
    _mm512_add_ps, _mm512_div_ps, _mm512_fmadd_ps, _mm512_max_ps, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

use super::lanes::{LANES, all, exp, lanes_of, vector};

/// Numbers of a head.
pub(super) const SIZE: usize = 2 * LANES;
/// Tokens that are computed together: one alone would wait for itself.
const TILE: usize = 4;

/// Room that is used again.
#[derive(Default)]
pub(super) struct Attention {
    /// Of sixteen tokens after the other, number by number.
    keys: Vec<[f32; LANES]>,
    /// Of sixteen tokens after the other, what they have in each token of a tile.
    shares: Vec<[[f32; LANES]; TILE]>,
}

impl Attention {
    /// `projected` has a row for each token, with all heads' queries, then all keys, then all values; `mixed` gets a third of that.
    #[target_feature(enable = "avx512f")]
    pub(super) fn mix(&mut self, projected: &[f32], tokens: usize, mixed: &mut Vec<f32>) {
        let hidden = projected.len() / tokens / 3;
        mixed.resize(tokens * hidden, 0.0);
        let projected = projected.as_chunks::<SIZE>().0;
        let heads = hidden / SIZE;
        let part =
            |token: usize, part: usize, head: usize| &projected[(3 * token + part) * heads + head];

        let sixteens = tokens.div_ceil(LANES);
        self.keys.resize(sixteens * SIZE, [0.0; LANES]);
        self.shares.resize(sixteens, [[0.0; LANES]; TILE]);
        for head in 0..heads {
            for from in 0..tokens {
                let keys = &mut self.keys[from / LANES * SIZE..][..SIZE];
                for (key, place) in part(from, 1, head).iter().zip(keys) {
                    place[from % LANES] = *key;
                }
            }
            for first in (0..tokens).step_by(TILE) {
                // Where they do not divide, the last is computed more than once.
                let queries = std::array::from_fn(|at| part((first + at).min(tokens - 1), 0, head));
                let totals = self.share(queries, tokens);
                let mut sums = [[_mm512_setzero_ps(); 2]; TILE];
                for from in 0..tokens {
                    let [left, right] = halves(part(from, 2, head)).map(vector);
                    let shares = &self.shares[from / LANES];
                    for (shares, sums) in shares.iter().zip(&mut sums) {
                        let share = all(shares[from % LANES]);
                        sums[0] = _mm512_fmadd_ps(share, left, sums[0]);
                        sums[1] = _mm512_fmadd_ps(share, right, sums[1]);
                    }
                }
                let rows = mixed[first * hidden..].chunks_exact_mut(hidden);
                for ((row, sums), total) in rows.zip(sums).zip(totals) {
                    let row = row[head * SIZE..][..SIZE].as_chunks_mut::<LANES>().0;
                    for (place, sum) in row.iter_mut().zip(sums) {
                        *place = lanes_of(_mm512_div_ps(sum, all(total)));
                    }
                }
            }
        }
    }

    /// The powers of all scores, and for each query the sum of its own.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn share(&mut self, queries: [&[f32; SIZE]; TILE], tokens: usize) -> [f32; TILE] {
        for (keys, shares) in self.keys.as_chunks::<SIZE>().0.iter().zip(&mut self.shares) {
            let mut scores = [_mm512_setzero_ps(); TILE];
            for (number, key) in keys.iter().enumerate() {
                let key = vector(*key);
                for (score, query) in scores.iter_mut().zip(&queries) {
                    *score = _mm512_fmadd_ps(all(query[number]), key, *score);
                }
            }
            *shares = scores.map(lanes_of);
        }
        // What lies beyond the last token is of an earlier text.
        if let (Some(last), 1..) = (self.shares.last_mut(), tokens % LANES) {
            for shares in last {
                shares[tokens % LANES..].fill(f32::NEG_INFINITY);
            }
        }
        let mut totals = [0.0; TILE];
        for (at, total) in totals.iter_mut().enumerate() {
            let mut most = all(f32::NEG_INFINITY);
            for shares in &self.shares {
                most = _mm512_max_ps(most, vector(shares[at]));
            }
            let most = all(_mm512_reduce_max_ps(most));
            let mut sum = _mm512_setzero_ps();
            for shares in &mut self.shares {
                let powers = exp(_mm512_sub_ps(vector(shares[at]), most));
                sum = _mm512_add_ps(sum, powers);
                shares[at] = lanes_of(powers);
            }
            *total = _mm512_reduce_add_ps(sum);
        }
        totals
    }
}

#[inline(always)]
fn halves(values: &[f32; SIZE]) -> [[f32; LANES]; 2] {
    let mut halves = [[0.0; LANES]; 2];
    halves.as_flattened_mut().copy_from_slice(values);
    halves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_definition_says_whatever_was_there_before() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        let mut attention = Attention::default();
        let mut mixed = Vec::new();
        for tokens in [40, 1, 3, 16, 17, 5] {
            let width = 3 * 2 * SIZE;
            let projected: Vec<f32> = (0..tokens * width)
                .map(|at| (at as f32 * 0.7 + tokens as f32).sin())
                .collect();
            #[expect(unsafe_code, reason = "checked above")]
            // SAFETY: the processor has what it asks for.
            unsafe {
                attention.mix(&projected, tokens, &mut mixed);
            }
            let part = |token: usize, part: usize, head: usize| {
                &projected[token * width + part * 2 * SIZE + head * SIZE..][..SIZE]
            };
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            for token in 0..tokens {
                for head in 0..2 {
                    let powers: Vec<f32> = (0..tokens)
                        .map(|from| dot(part(token, 0, head), part(from, 1, head)).exp())
                        .collect();
                    let total: f32 = powers.iter().sum();
                    for at in 0..SIZE {
                        let sum: f32 = powers
                            .iter()
                            .enumerate()
                            .map(|(from, power)| power * part(from, 2, head)[at])
                            .sum();
                        let given = mixed[token * 2 * SIZE + head * SIZE + at];
                        assert!(
                            (given - sum / total).abs() < 1e-5,
                            "{tokens} tokens, {token}: {given}"
                        );
                    }
                }
            }
        }
    }
}
