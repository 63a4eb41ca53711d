//! Sixteen numbers at a time, and the functions of them that the compiler does not make vector code of.
//! Whoever calls them has made sure that the processor has AVX-512.

#![expect(unsafe_code, reason = "a register and an array of the same bits")]

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GT_OQ, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_fmadd_ps,
    _mm512_mask_sub_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_slli_epi32, _mm512_sub_ps,
};
use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

pub(super) const LANES: usize = 16;

#[inline(always)]
pub(super) fn vector(lanes: [f32; LANES]) -> __m512 {
    // SAFETY: both are 64 bytes, and all of them are numbers.
    unsafe { std::mem::transmute(lanes) }
}

#[inline(always)]
pub(super) fn lanes_of(vector: __m512) -> [f32; LANES] {
    // SAFETY: as above.
    unsafe { std::mem::transmute(vector) }
}

#[inline(always)]
pub(super) fn bytes(line: [i8; 64]) -> __m512i {
    // SAFETY: as above.
    unsafe { std::mem::transmute(line) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn all(x: f32) -> __m512 {
    _mm512_set1_ps(x)
}

/// eˣ, to 2·10⁻⁷ of it; below -80 as at -80, and for nothing above 80. After Cephes' `expf` (Moshier).
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp(x: __m512) -> __m512 {
    let x = _mm512_max_ps(x, all(-80.0));
    // x = power · ln 2 + rest. Added to 1.5 · 2²³, a number stands in the lowest bits as an integer.
    let shift = all(12_582_912.0);
    let whole = _mm512_fmadd_ps(x, all(LOG2_E), shift);
    let power = _mm512_sub_ps(whole, shift);
    // ln 2 in two parts, of which the first times a power is exact.
    let rest = _mm512_fmadd_ps(power, all(-0.693_359_4), x);
    let rest = _mm512_fmadd_ps(power, all(2.121_944_4e-4), rest);
    let mut series = all(1.987_569_1e-4);
    for factor in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        series = _mm512_fmadd_ps(series, rest, all(factor));
    }
    let series = _mm512_fmadd_ps(_mm512_mul_ps(series, rest), rest, rest);
    let series = _mm512_castps_si512(_mm512_add_ps(series, all(1.0)));
    let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(whole));
    _mm512_castsi512_ps(_mm512_add_epi32(series, power))
}

/// x · Φ(x), by Abramowitz and Stegun 7.1.26: to 1.5·10⁻⁷ of x.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn gelu(x: __m512) -> __m512 {
    let z = _mm512_mul_ps(_mm512_abs_ps(x), all(FRAC_1_SQRT_2));
    let t = _mm512_div_ps(all(1.0), _mm512_fmadd_ps(z, all(0.327_591_1), all(1.0)));
    let mut series = all(1.061_405_4);
    for factor in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        series = _mm512_fmadd_ps(series, t, all(factor));
    }
    let square = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(z, z));
    let series = _mm512_mul_ps(series, t);
    let tail = _mm512_mul_ps(_mm512_mul_ps(all(0.5), series), exp(square));
    // Φ(-z√2) is the tail, and Φ(z√2) what it leaves of 1.
    let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps());
    _mm512_mul_ps(x, _mm512_mask_sub_ps(tail, positive, all(1.0), tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_as_exact_as_they_say() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        for at in -8000..8000 {
            let x = at as f32 / 100.0;
            // SAFETY: the processor has it.
            let [y, ..] = unsafe { lanes_of(exp(all(x))) };
            let exact = f64::from(x).exp();
            assert!(
                (f64::from(y) - exact).abs() < 2.5e-7 * exact,
                "exp({x}) = {y}"
            );
            // SAFETY: the processor has it.
            let [y, ..] = unsafe { lanes_of(gelu(all(x / 10.0))) };
            let x = f64::from(x / 10.0);
            let exact = x * normal(x);
            assert!(
                (f64::from(y) - exact).abs() <= 4e-7 * x.abs(),
                "gelu({x}) = {y}"
            );
        }
    }

    /// Φ, by its series.
    fn normal(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..300 {
            term *= x * x / f64::from(2 * n + 1);
            sum += term;
        }
        0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }
}
