//! Nearest vectors. Each number of a vector is held in a byte: a quarter of the memory, and a scan that is several times
//! as fast, for an error of the cosine in the third decimal. All are scanned; where they are very many, first only the
//! signs of their numbers, a bit each. `benches/search.rs` holds both against a graph of hnsw_rs.

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use super::codec::{Reader, Writer};
use super::segment::{GONE, Numbers};
use super::top::Top;

/// The scan finds this many times what is asked for, and exact products choose among them.
const SCAN_FACTOR: usize = 2;

/// From so many vectors of one segment on, their signs are scanned. Below, the scan of all takes about two milliseconds.
const SIGNS_FROM: usize = 50_000;

/// Signs name so many times what is asked for, and no fewer than the second number.
const SIGNS_FACTOR: usize = 10;
const LEAST_BY_SIGNS: usize = 2000;

/// Vectors of one segment, one after the other.
#[derive(Debug, Default, PartialEq)]
pub struct Vectors {
    dimensions: usize,
    /// Shares of the vector's largest number, from -127 to 127.
    values: Vec<i8>,
    /// What a share of one stands for.
    scales: Vec<f32>,
    signs: OnceLock<Vec<u64>>,
}

impl Vectors {
    pub fn new(dimensions: usize) -> Self {
        Self {
            dimensions,
            ..Self::default()
        }
    }

    pub fn len(&self) -> usize {
        self.scales.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// A vector of another length counts as nothing, like all zeros.
    pub fn push(&mut self, vector: &[f32]) {
        if vector.len() != self.dimensions {
            return self.push_nothing();
        }
        let largest = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        if !(largest > 0.0 && largest.is_finite()) {
            return self.push_nothing();
        }
        let scale = largest / 127.0;
        // In range by construction: the largest becomes 127.
        self.values
            .extend(vector.iter().map(|x| (x / scale).round() as i8));
        self.scales.push(scale);
    }

    pub(super) fn push_nothing(&mut self) {
        self.values.resize(self.values.len() + self.dimensions, 0);
        self.scales.push(0.0);
    }

    pub(super) fn push_of(&mut self, other: &Self, row: usize) {
        self.values.extend_from_slice(other.row(row));
        self.scales.push(other.scales[row]);
    }

    fn row(&self, row: usize) -> &[i8] {
        &self.values[row * self.dimensions..(row + 1) * self.dimensions]
    }

    fn similarity(&self, row: usize, query: &[f32]) -> f32 {
        let values = self.row(row).iter().zip(query);
        let mut sums = [0.0_f32; 8];
        for (at, (value, x)) in values.enumerate() {
            sums[at % 8] += f32::from(*value) * x;
        }
        sums.iter().sum::<f32>() * self.scales[row]
    }

    /// For each vector as many words as it takes, a bit for each number.
    fn signs(&self) -> &[u64] {
        self.signs.get_or_init(|| {
            let rows = self.values.chunks_exact(self.dimensions.max(1));
            rows.flat_map(|row| {
                row.chunks(64)
                    .map(|part| signs_of(part.iter().map(|x| *x < 0)))
            })
            .collect()
        })
    }

    pub(super) fn encode<W: Write>(&self, writer: &mut Writer<W>) -> io::Result<()> {
        writer.u64(self.dimensions as u64)?;
        writer.i8s(&self.values)?;
        writer.f32s(&self.scales)
    }

    pub(super) fn decode<R: Read>(reader: &mut Reader<R>) -> Option<Self> {
        let vectors = Self {
            dimensions: usize::try_from(reader.u64()?).ok()?,
            values: reader.i8s()?,
            scales: reader.f32s()?,
            signs: OnceLock::new(),
        };
        let fits = vectors.values.len() == vectors.scales.len().checked_mul(vectors.dimensions)?;
        fits.then_some(vectors)
    }
}

/// Vectors of all segments under the numbers of a snapshot.
pub struct DenseIndex {
    parts: Vec<(Arc<Vectors>, Arc<Numbers>)>,
    signs_from: usize,
    /// Number → part and row.
    places: Vec<(u32, u32)>,
}

impl DenseIndex {
    pub(super) fn new(parts: Vec<(Arc<Vectors>, Arc<Numbers>)>) -> Self {
        let count = parts.iter().map(|(_, numbers)| numbers.live).sum();
        let mut places = vec![(0, 0); count];
        for (part, (_, numbers)) in (0..).zip(&parts) {
            for (row, &number) in (0..).zip(&numbers.of_row) {
                if let Some(place) = places.get_mut(number as usize) {
                    *place = (part, row);
                }
            }
        }
        let index = Self {
            parts,
            places,
            signs_from: SIGNS_FROM,
        };
        // Now, while it is built, and not with the first question.
        for (vectors, _) in index
            .parts
            .iter()
            .filter(|(vectors, _)| index.has_signs(vectors))
        {
            vectors.signs();
        }
        index
    }

    /// The vectors alone, numbered in their order.
    pub fn of(vectors: Vectors) -> Self {
        let numbers = Numbers::new((0_u32..).take(vectors.len()).collect());
        Self::new(vec![(Arc::new(vectors), Arc::new(numbers))])
    }

    fn has_signs(&self, vectors: &Vectors) -> bool {
        vectors.len() >= self.signs_from
    }

    /// `query` is of unit length.
    pub fn similarity(&self, number: usize, query: &[f32]) -> f32 {
        let (part, row) = self.places[number];
        let vectors = &self.parts[part as usize].0;
        vectors.similarity(row as usize, query)
    }

    /// As it is held: each number is right to a 254th of the largest.
    pub(super) fn vector(&self, number: usize) -> impl Iterator<Item = f32> {
        let (part, row) = self.places[number];
        let vectors = &self.parts[part as usize].0;
        let scale = vectors.scales[row as usize];
        let values = vectors.row(row as usize).iter();
        values.map(move |value| f32::from(*value) * scale)
    }

    /// The most similar ones, best first; ties go to the lower number.
    pub fn search(&self, query: &[f32], limit: usize) -> Vec<(usize, f32)> {
        let query_shares = Shares::of(query);
        let query_signs: Vec<u64> = query
            .chunks(64)
            .map(|part| signs_of(part.iter().map(|x| *x < 0.0)))
            .collect();
        let mut near = Top::new(limit * SCAN_FACTOR);
        let mut near_by_signs = Top::new((limit * SIGNS_FACTOR).max(LEAST_BY_SIGNS));
        for (vectors, numbers) in &self.parts {
            if vectors.dimensions != query.len() || query.is_empty() {
                continue;
            }
            if self.has_signs(vectors) {
                let rows = vectors.signs().chunks_exact(query_signs.len());
                for (row, &number) in rows.zip(&numbers.of_row) {
                    if number != GONE {
                        near_by_signs.push(number as usize, -differing(row, &query_signs));
                    }
                }
                continue;
            }
            let rows = vectors.values.chunks_exact(vectors.dimensions);
            let rows = rows.zip(&vectors.scales).zip(&numbers.of_row);
            for ((row, scale), &number) in rows {
                if number != GONE {
                    near.push(number as usize, query_shares.product(row) * scale);
                }
            }
        }
        let mut best = Top::new(limit);
        for (number, _) in near.finish().into_iter().chain(near_by_signs.finish()) {
            best.push(number, self.similarity(number, query));
        }
        best.finish()
    }
}

fn signs_of(are_negative: impl Iterator<Item = bool>) -> u64 {
    are_negative
        .enumerate()
        .fold(0, |signs, (at, negative)| signs | u64::from(negative) << at)
}

/// In how many signs they differ.
#[inline]
fn differing(a: &[u64], b: &[u64]) -> f32 {
    let bits = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones());
    // A vector has far fewer numbers than an f32 counts exactly.
    bits.sum::<u32>() as f32
}

/// A question's vector in whole numbers of 13 bits: products with bytes, summed over a vector of thousands, stay below
/// the 31 bits that there are.
struct Shares {
    values: Vec<i16>,
    scale: f32,
}

impl Shares {
    fn of(vector: &[f32]) -> Self {
        let largest = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let scale = if largest > 0.0 { largest / 4095.0 } else { 1.0 };
        Self {
            values: vector.iter().map(|x| (x / scale).round() as i16).collect(),
            scale,
        }
    }

    /// Written so that the compiler uses the vector unit: pairs of 16 bits, multiplied and added at once.
    #[inline]
    fn product(&self, row: &[i8]) -> f32 {
        let mut sum = 0_i32;
        for (a, b) in row.iter().zip(&self.values) {
            sum += i32::from(i16::from(*a)) * i32::from(*b);
        }
        sum as f32 * self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(vectors: &[Vec<f32>]) -> DenseIndex {
        let mut rows = Vectors::new(vectors.first().map_or(0, Vec::len));
        vectors.iter().for_each(|vector| rows.push(vector));
        DenseIndex::of(rows)
    }

    /// Unit vectors that are the same every time.
    fn unit_vectors(count: usize, dimensions: usize) -> Vec<Vec<f32>> {
        let mut state = 1_u64;
        let mut number = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
        };
        let unit = |vector: Vec<f32>| {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter().map(|x| x / length).collect()
        };
        (0..count)
            .map(|_| unit((0..dimensions).map(|_| number()).collect()))
            .collect()
    }

    /// As texts lie: around topics.
    fn around_topics(count: usize) -> Vec<Vec<f32>> {
        let topics = unit_vectors(50, 384);
        let noise = unit_vectors(count, 384);
        let mix = |(at, noise): (usize, &Vec<f32>)| {
            let topic = &topics[at % topics.len()];
            let mixed = topic.iter().zip(noise).map(|(t, n)| 0.6 * t + 0.8 * n);
            let mixed: Vec<f32> = mixed.collect();
            let length = mixed.iter().map(|x| x * x).sum::<f32>().sqrt();
            mixed.into_iter().map(|x| x / length).collect()
        };
        noise.iter().enumerate().map(mix).collect()
    }

    #[test]
    fn bytes_and_signs_find_what_floats_find() {
        for signs_from in [usize::MAX, 0] {
            let vectors = around_topics(5000);
            let mut index = index(&vectors);
            index.signs_from = signs_from;
            check_recall(&index, &vectors);
        }
    }

    fn check_recall(index: &DenseIndex, vectors: &[Vec<f32>]) {
        let mut same = 0;
        for query in vectors.iter().step_by(vectors.len() / 50) {
            let product = |vector: &[f32]| vector.iter().zip(query).map(|(a, b)| a * b).sum();
            let mut exact = Top::new(10);
            for (number, vector) in vectors.iter().enumerate() {
                exact.push(number, product(vector));
            }
            let exact = exact.finish();
            let found = index.search(query, 10);
            assert_eq!(found[0].0, exact[0].0);
            assert!((found[0].1 - 1.0).abs() < 0.005);
            same += found
                .iter()
                .filter(|(number, _)| exact.iter().any(|(wanted, _)| wanted == number))
                .count();
        }
        assert!(same >= 495, "recall@10 is {}", same as f32 / 500.0);
    }

    #[test]
    fn ties_go_to_the_lower_number_and_odd_input_finds_nothing() {
        let index = index(&[vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]]);
        let found = index.search(&[1.0, 0.0], 2);
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [0, 1]);
        assert!(index.search(&[1.0], 2).is_empty());
        assert!(index.search(&[], 2).is_empty());
        assert_eq!(index.search(&[0.0, 0.0], 3).len(), 3);
    }
}
