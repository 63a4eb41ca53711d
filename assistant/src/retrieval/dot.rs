//! Sums of products of small numbers, and counts of bits that differ, by the widest vector unit that the processor has.
//! The loops are plain: the compiler makes vector code of each of them once for every unit, and all give the same numbers.

#![expect(
    unsafe_code,
    reason = "code for a vector unit may run only where there is one: checked once, here"
)]

use std::sync::LazyLock;

/// Rows, one after the other, each as long as what it is multiplied with, and where a sum for each of them goes.
type Products = fn(&[i8], &[i16], &mut [i32]);
type Pair = fn(&[i8], &[i8]) -> i32;
type Halves = fn(&[u8], &[i16], &[i16]) -> i32;
type Differences = fn(&[u64], &[u64], &mut [u16]);

struct Unit {
    products: Products,
    pair: Pair,
    halves: Halves,
    differences: Differences,
}

static UNIT: LazyLock<Unit> = LazyLock::new(|| widest().unwrap_or(PLAIN));

const PLAIN: Unit = Unit {
    products: products_of,
    pair: pair_of,
    halves: halves_of,
    differences: differences_of,
};

/// For each row the sum of its products with `by`. The sums must fit: 127 times the sum of all numbers of `by` does.
pub(super) fn products(rows: &[i8], by: &[i16], sums: &mut [i32]) {
    (UNIT.products)(rows, by, sums);
}

/// The same of one row.
pub(super) fn product(row: &[i8], by: &[i16]) -> i32 {
    let mut sum = [0];
    (UNIT.products)(row, by, &mut sum);
    sum[0]
}

/// Of two rows.
pub(super) fn pair(a: &[i8], b: &[i8]) -> i32 {
    (UNIT.pair)(a, b)
}

/// The sum of the products of each byte's lower four bits with one number of `front`, and its upper four with one of `back`.
pub(super) fn halves(bytes: &[u8], front: &[i16], back: &[i16]) -> i32 {
    (UNIT.halves)(bytes, front, back)
}

/// For each row, as long as `from`, in how many bits it differs.
pub(super) fn differences(rows: &[u64], from: &[u64], counts: &mut [u16]) {
    (UNIT.differences)(rows, from, counts);
}

#[inline(always)]
fn products_of(rows: &[i8], by: &[i16], sums: &mut [i32]) {
    for (row, sum) in rows.chunks_exact(by.len().max(1)).zip(sums) {
        let products = row.iter().zip(by);
        *sum = products.map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
    }
}

#[inline(always)]
fn pair_of(a: &[i8], b: &[i8]) -> i32 {
    // Two bytes' product has 14 bits, so thousands of them fit.
    let products = a.iter().zip(b);
    products.map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}

#[inline(always)]
fn halves_of(bytes: &[u8], front: &[i16], back: &[i16]) -> i32 {
    let product = |half: u8, by: &i16| i32::from(half) * i32::from(*by);
    let lower = bytes
        .iter()
        .zip(front)
        .map(|(byte, by)| product(byte & 15, by));
    let upper = bytes
        .iter()
        .zip(back)
        .map(|(byte, by)| product(byte >> 4, by));
    lower.sum::<i32>() + upper.sum::<i32>()
}

#[inline(always)]
fn differences_of(rows: &[u64], from: &[u64], counts: &mut [u16]) {
    for (row, count) in rows.chunks_exact(from.len().max(1)).zip(counts) {
        let bits = row.iter().zip(from).map(|(a, b)| (a ^ b).count_ones());
        // Vectors are far shorter than what 16 bits count.
        *count = bits.sum::<u32>() as u16;
    }
}

/// None: only what every processor of this kind has, as on Arm, where that is wide enough.
#[cfg(not(target_arch = "x86_64"))]
fn widest() -> Option<Unit> {
    None
}

#[cfg(target_arch = "x86_64")]
use x86::widest;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Unit, differences_of, halves_of, pair_of, products_of};

    pub(super) fn widest() -> Option<Unit> {
        avx512().or_else(avx2)
    }

    pub(super) fn avx2() -> Option<Unit> {
        let there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt");
        // SAFETY: the processor has both, and that is all that these ask for.
        there.then_some(Unit {
            products: |rows, by, sums| unsafe { products_avx2(rows, by, sums) },
            pair: |a, b| unsafe { pair_avx2(a, b) },
            halves: |bytes, front, back| unsafe { halves_avx2(bytes, front, back) },
            differences: |rows, from, counts| unsafe { differences_popcnt(rows, from, counts) },
        })
    }

    pub(super) fn avx512() -> Option<Unit> {
        let avx2 = avx2()?;
        let there = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        // SAFETY: the processor has both, and that is all that these ask for.
        there.then_some(Unit {
            products: |rows, by, sums| unsafe { products_avx512(rows, by, sums) },
            pair: |a, b| unsafe { pair_avx512(a, b) },
            halves: |bytes, front, back| unsafe { halves_avx512(bytes, front, back) },
            ..avx2
        })
    }

    #[target_feature(enable = "avx2")]
    fn products_avx2(rows: &[i8], by: &[i16], sums: &mut [i32]) {
        products_of(rows, by, sums);
    }

    #[target_feature(enable = "avx2")]
    fn pair_avx2(a: &[i8], b: &[i8]) -> i32 {
        pair_of(a, b)
    }

    #[target_feature(enable = "avx2")]
    fn halves_avx2(bytes: &[u8], front: &[i16], back: &[i16]) -> i32 {
        halves_of(bytes, front, back)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn halves_avx512(bytes: &[u8], front: &[i16], back: &[i16]) -> i32 {
        halves_of(bytes, front, back)
    }

    #[target_feature(enable = "popcnt")]
    fn differences_popcnt(rows: &[u64], from: &[u64], counts: &mut [u16]) {
        differences_of(rows, from, counts);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn products_avx512(rows: &[i8], by: &[i16], sums: &mut [i32]) {
        products_of(rows, by, sums);
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn pair_avx512(a: &[i8], b: &[i8]) -> i32 {
        pair_of(a, b)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units() -> Vec<Unit> {
        #[cfg(target_arch = "x86_64")]
        let units = vec![x86::avx2(), x86::avx512()];
        #[cfg(not(target_arch = "x86_64"))]
        let units = vec![];
        let there = units.into_iter().flatten();
        there.chain([PLAIN]).collect()
    }

    proptest! {
        #[test]
        fn every_unit_gives_what_one_number_after_the_other_gives(
            by in prop::collection::vec(-4095_i16..=4095, 1..200),
            row in prop::collection::vec(-127_i8..=127, 200),
            other in prop::collection::vec(-127_i8..=127, 200),
            bits in prop::collection::vec(any::<u64>(), 7),
        ) {
            let (a, b) = (&row[..by.len()], &other[..by.len()]);
            let mut expected = [0_i32; 2];
            for at in 0..by.len() {
                expected[0] += i32::from(a[at]) * i32::from(by[at]);
                expected[1] += i32::from(b[at]) * i32::from(by[at]);
            }
            let of_pair: i32 = (0..by.len()).map(|at| i32::from(a[at]) * i32::from(b[at])).sum();
            let bytes: Vec<u8> = b.iter().map(|x| x.cast_unsigned()).collect();
            let of_halves: i32 = bytes.iter().zip(&by).map(|(byte, by)| (i32::from(byte & 15) - i32::from(byte >> 4)) * i32::from(*by)).sum();
            let turned: Vec<i16> = by.iter().map(|by| -by).collect();
            let apart: Vec<u16> = bits.chunks_exact(2).map(|row| ((row[0] ^ 1).count_ones() + row[1].count_ones()) as u16).collect();
            for unit in units() {
                let mut sums = [0; 2];
                (unit.products)(&[a, b].concat(), &by, &mut sums);
                prop_assert_eq!(sums, expected);
                prop_assert_eq!((unit.pair)(a, b), of_pair);
                prop_assert_eq!((unit.halves)(&bytes, &by, &turned), of_halves);
                let mut counts = [0; 3];
                (unit.differences)(&bits, &[1, 0], &mut counts);
                prop_assert_eq!(counts.as_slice(), apart.as_slice());
            }
        }
    }

    #[test]
    fn nothing_and_the_most_there_can_be_are_counted() {
        for unit in units() {
            let mut sums = [7];
            (unit.products)(&[], &[], &mut sums);
            assert_eq!(sums, [7]);
            (unit.products)(&[-127; 384], &[4095; 384], &mut sums);
            assert_eq!(sums, [-127 * 4095 * 384]);
        }
    }
}
