//! Nearest vectors. Each number of a vector is held in a byte, which makes the scan several times as fast for an error of the
//! cosine in the third decimal, and in four bits more, by which the best of what is found are put in order: three eighths of
//! the memory of floats. All are scanned; where they are many, first only the signs of their numbers, a bit each, or a graph
//! says where to look. `benches/search` holds the three against each other.

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use super::codec::{Reader, Writer};
use super::dot;
use super::graph::Graph;
use super::segment::{GONE, Numbers};
use super::top::Top;

/// From so many vectors of one segment on, their signs are scanned first: fewer are as fast without.
const SIGNS_FROM: usize = 8_000;

/// Signs name so many times what is asked for, and no fewer than the second number.
const SIGNS_FACTOR: usize = 10;
const LEAST_BY_SIGNS: usize = 2000;

/// A graph looks at so many times what is asked for, and at no fewer than the second number: with less, now and then one of
/// the best ten is not found.
const BREADTH_FACTOR: usize = 2;
const LEAST_BREADTH: usize = 256;

/// So many of the best are compared closely: by bytes alone one in a hundred of the first ten is not among them where
/// vectors are 100,000, but somewhere below.
const COMPARED_CLOSELY: usize = 64;

/// Rows that are compared with a question at once.
const BLOCK: usize = 64;

/// Vectors of one segment, one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vectors {
    dimensions: usize,
    /// Shares of the vector's largest number, from -127 to 127.
    values: Vec<i8>,
    /// What is left of each number, in 16ths of a share and 8 more, so that none is below zero. A byte holds that of two
    /// numbers: one of the first half of the vector in its lower bits, one of the second half in its upper.
    rests: Vec<u8>,
    /// What a share of one stands for.
    scales: Vec<f32>,
    signs: OnceLock<Vec<u64>>,
    /// Takes minutes to build: search does not wait for it.
    graph: OnceLock<Graph>,
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
        let rest = |x: &f32| {
            let shares = x / scale;
            (((shares - shares.round()) * 16.0).round() + 8.0).clamp(0.0, 15.0) as u8
        };
        let (front, back) = vector.split_at(self.bytes_of_rests());
        let back = back.iter().map(rest).chain([0]);
        (self.rests).extend(front.iter().zip(back).map(|(x, y)| rest(x) | y << 4));
        self.scales.push(scale);
    }

    fn bytes_of_rests(&self) -> usize {
        self.dimensions.div_ceil(2)
    }

    pub(super) fn push_nothing(&mut self) {
        self.values.resize(self.values.len() + self.dimensions, 0);
        (self.rests).resize(self.rests.len() + self.bytes_of_rests(), 0);
        self.scales.push(0.0);
    }

    pub(super) fn push_of(&mut self, other: &Self, row: usize) {
        self.values.extend_from_slice(other.row(row));
        self.rests.extend_from_slice(other.rests(row));
        self.scales.push(other.scales[row]);
    }

    fn row(&self, row: usize) -> &[i8] {
        &self.values[row * self.dimensions..(row + 1) * self.dimensions]
    }

    fn rests(&self, row: usize) -> &[u8] {
        &self.rests[row * self.bytes_of_rests()..(row + 1) * self.bytes_of_rests()]
    }

    fn similarity(&self, row: usize, question: &Question) -> f32 {
        question.cosine(dot::product(self.row(row), &question.values) as f32) * self.scales[row]
    }

    /// As [`Self::similarity`], with what bytes leave out.
    fn close_similarity(&self, row: usize, question: &Question) -> f32 {
        let (front, back) = question.values.split_at(self.bytes_of_rests());
        let rests = dot::halves(self.rests(row), front, back) - 8 * question.sum;
        let shares = dot::product(self.row(row), &question.values) as f32 + rests as f32 / 16.0;
        question.cosine(shares) * self.scales[row]
    }

    /// Of two that are held here.
    pub(super) fn cosine(&self, a: usize, b: usize) -> f32 {
        dot::pair(self.row(a), self.row(b)) as f32 * self.scales[a] * self.scales[b]
    }

    /// Builds the graph, if there is none yet and for as long as it `goes_on`. True: it was built now.
    pub(super) fn build_graph(self: &Arc<Self>, goes_on: impl Fn() -> bool) -> bool {
        if self.has_graph() {
            return false;
        }
        let built = Graph::build(self, goes_on);
        built.is_some_and(|graph| self.graph.set(graph).is_ok())
    }

    pub(super) fn has_graph(&self) -> bool {
        self.graph.get().is_some()
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
        writer.bytes(&self.rests)?;
        writer.f32s(&self.scales)?;
        writer.u64(u64::from(self.has_graph()))?;
        match self.graph.get() {
            Some(graph) => graph.encode(writer),
            None => Ok(()),
        }
    }

    pub(super) fn decode<R: Read>(reader: &mut Reader<R>) -> Option<Self> {
        let vectors = Self {
            dimensions: usize::try_from(reader.u64()?).ok()?,
            values: reader.i8s()?,
            rests: reader.bytes()?,
            scales: reader.f32s()?,
            ..Self::default()
        };
        let (count, of_rests) = (vectors.len(), vectors.bytes_of_rests());
        let fits = vectors.values.len() == count.checked_mul(vectors.dimensions)?
            && vectors.rests.len() == count.checked_mul(of_rests)?;
        if reader.u64()? == 1 {
            let graph = Graph::decode(reader, vectors.len())?;
            vectors.graph.set(graph).ok()?;
        }
        fits.then_some(vectors)
    }
}

/// Vectors of all segments under the numbers of a snapshot.
pub struct DenseIndex {
    parts: Vec<(Arc<Vectors>, Arc<Numbers>)>,
    signs_from: usize,
    graph_from: usize,
    /// Number → part and row.
    places: Vec<(u32, u32)>,
}

impl DenseIndex {
    /// The graph of a segment with as many vectors as `graph_from` is asked, once there is one.
    pub(super) fn new(parts: Vec<(Arc<Vectors>, Arc<Numbers>)>, graph_from: usize) -> Self {
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
            graph_from,
        };
        // Now, while it is built, and not with the first question.
        for (vectors, _) in index
            .parts
            .iter()
            .filter(|(vectors, _)| index.has_signs(vectors) && index.graph_of(vectors).is_none())
        {
            vectors.signs();
        }
        index
    }

    /// The vectors alone, numbered in their order.
    pub fn of(vectors: Vectors) -> Self {
        let numbers = Numbers::new((0_u32..).take(vectors.len()).collect());
        Self::new(vec![(Arc::new(vectors), Arc::new(numbers))], usize::MAX)
    }

    /// The same, found by a graph, which is built now.
    pub fn with_graph(vectors: Vectors) -> Self {
        let mut index = Self::of(vectors);
        index.graph_from = 0;
        for (vectors, _) in &index.parts {
            vectors.build_graph(|| true);
        }
        index
    }

    fn graph_of<'a>(&self, vectors: &'a Vectors) -> Option<&'a Graph> {
        let graph = vectors.graph.get();
        graph.filter(|_| vectors.len() >= self.graph_from)
    }

    fn has_signs(&self, vectors: &Vectors) -> bool {
        vectors.len() >= self.signs_from
    }

    /// As the scan has it.
    pub(super) fn similarity(&self, number: usize, question: &Question) -> f32 {
        let (part, row) = self.places[number];
        let vectors = &self.parts[part as usize].0;
        vectors.similarity(row as usize, question)
    }

    fn close_similarity(&self, number: usize, question: &Question) -> f32 {
        let (part, row) = self.places[number];
        let vectors = &self.parts[part as usize].0;
        vectors.close_similarity(row as usize, question)
    }

    /// As the scan has it: each number is right to a 254th of the largest.
    pub(super) fn vector(&self, number: usize) -> impl Iterator<Item = f32> {
        let (part, row) = self.places[number];
        let vectors = &self.parts[part as usize].0;
        let scale = vectors.scales[row as usize];
        let values = vectors.row(row as usize).iter();
        values.map(move |value| f32::from(*value) * scale)
    }

    /// The most similar ones, best first; ties go to the lower number.
    pub fn search(&self, question: &Question, limit: usize) -> Vec<(usize, f32)> {
        let mut best = Top::new(limit.max(COMPARED_CLOSELY));
        for (vectors, numbers) in &self.parts {
            let dimensions = question.values.len();
            if vectors.dimensions != dimensions || dimensions == 0 {
                continue;
            }
            if let Some(graph) = self.graph_of(vectors) {
                let similarity = |row| vectors.similarity(row, question);
                let is_live = |row: usize| numbers.of_row[row] != GONE;
                let breadth = (limit * BREADTH_FACTOR).max(LEAST_BREADTH);
                for (row, similarity) in graph.search(breadth, similarity, is_live) {
                    best.push(numbers.of_row[row] as usize, similarity);
                }
                continue;
            }
            if self.has_signs(vectors) {
                let wanted = (limit * SIGNS_FACTOR).max(LEAST_BY_SIGNS);
                for row in near_by_signs(vectors, numbers, question, wanted) {
                    let similarity = vectors.similarity(row, question);
                    best.push(numbers.of_row[row] as usize, similarity);
                }
                continue;
            }
            let mut sums = [0; BLOCK];
            let rows = vectors.values.chunks(BLOCK * dimensions);
            let rows = rows.zip(vectors.scales.chunks(BLOCK));
            for ((rows, scales), numbers) in rows.zip(numbers.of_row.chunks(BLOCK)) {
                dot::products(rows, &question.values, &mut sums);
                for ((&number, scale), &sum) in numbers.iter().zip(scales).zip(&sums) {
                    if number != GONE {
                        best.push(number as usize, question.cosine(sum as f32) * scale);
                    }
                }
            }
        }
        let best = best.finish();
        let mut ordered = Top::new(limit);
        for (at, &(number, similarity)) in best.iter().enumerate() {
            let similarity = match at {
                ..COMPARED_CLOSELY => self.close_similarity(number, question),
                _ => similarity,
            };
            ordered.push(number, similarity);
        }
        ordered.finish()
    }
}

/// The rows whose signs differ least from the question's, in their order: as many as are wanted, and those that differ as
/// little as the last of these.
fn near_by_signs(
    vectors: &Vectors,
    numbers: &Numbers,
    question: &Question,
    wanted: usize,
) -> impl Iterator<Item = usize> {
    let mut differences = vec![0; vectors.len()];
    dot::differences(vectors.signs(), &question.signs, &mut differences);
    // How many rows differ in so many signs, of one more than there are numbers in a vector.
    let mut rows_of = vec![0_usize; vectors.dimensions + 1];
    let rows = || numbers.of_row.iter().zip(&differences);
    for (_, &count) in rows().filter(|(number, _)| **number != GONE) {
        rows_of[usize::from(count)] += 1;
    }
    let so_far = rows_of.iter().scan(0, |sum, rows| {
        *sum += rows;
        Some(*sum)
    });
    let most = so_far.take_while(|sum| *sum < wanted).count();
    (0..).zip(differences).filter_map(move |(row, count)| {
        (usize::from(count) <= most && numbers.of_row[row] != GONE).then_some(row)
    })
}

fn signs_of(are_negative: impl Iterator<Item = bool>) -> u64 {
    are_negative
        .enumerate()
        .fold(0, |signs, (at, negative)| signs | u64::from(negative) << at)
}

/// A question's vector of unit length in whole numbers of 13 bits: products with bytes, summed over a vector of thousands,
/// stay below the 31 bits that there are, and cosines are right to the fourth decimal.
pub struct Question {
    values: Vec<i16>,
    sum: i32,
    scale: f32,
    signs: Vec<u64>,
}

impl Question {
    pub fn new(vector: &[f32]) -> Self {
        let largest = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let scale = if largest > 0.0 { largest / 4095.0 } else { 1.0 };
        let parts = vector.chunks(64);
        let values: Vec<i16> = vector.iter().map(|x| (x / scale).round() as i16).collect();
        Self {
            sum: values.iter().map(|value| i32::from(*value)).sum(),
            values,
            scale,
            signs: parts
                .map(|part| signs_of(part.iter().map(|x| *x < 0.0)))
                .collect(),
        }
    }

    /// Of products with a row's bytes; still to be multiplied with the row's scale.
    #[inline]
    fn cosine(&self, sum: f32) -> f32 {
        sum * self.scale
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

    #[test]
    fn a_graph_finds_what_floats_find_and_is_read_as_it_was_written() {
        let vectors = around_topics(800);
        let mut rows = Vectors::new(384);
        vectors.iter().for_each(|vector| rows.push(vector));
        let built = DenseIndex::with_graph(rows);
        check_recall(&built, &vectors);

        let mut writer = Writer::new(Vec::new());
        built.parts[0].0.encode(&mut writer).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::new(bytes.as_slice(), bytes.len() as u64);
        let read = Vectors::decode(&mut reader).unwrap();
        assert!(reader.ends_well() && read.has_graph() && read == *built.parts[0].0);
        for end in [bytes.len() / 2, bytes.len() - 1000, bytes.len() - 1] {
            let mut reader = Reader::new(&bytes[..end], end as u64);
            assert_eq!(Vectors::decode(&mut reader), None);
        }

        // Of every two rows one is gone: its neighbours are still found through it.
        let numbers = (0..800).map(|row| if row % 2 == 0 { row / 2 } else { GONE });
        let numbers = Numbers::new(numbers.collect());
        let half = DenseIndex::new(vec![(Arc::new(read), Arc::new(numbers))], 0);
        let left: Vec<Vec<f32>> = vectors.into_iter().step_by(2).collect();
        check_recall(&half, &left);
    }

    #[test]
    fn a_graph_that_is_not_wanted_any_more_is_given_up() {
        let mut rows = Vectors::new(4);
        (0..300).for_each(|_| rows.push(&[1.0, 0.0, 0.0, 0.0]));
        let rows = Arc::new(rows);
        assert!(!rows.build_graph(|| false));
        assert!(!rows.has_graph());
        // All are equal, and all are found; the same vectors give the same graph.
        let same = Arc::new(Vectors::clone(&rows));
        assert!(rows.build_graph(|| true) && same.build_graph(|| true));
        assert_eq!(rows, same);
        let numbers = Arc::new(Numbers::in_order(300));
        let found = DenseIndex::new(vec![(rows, numbers)], 0)
            .search(&Question::new(&[1.0, 0.0, 0.0, 0.0]), 5);
        assert_eq!(found.len(), 5);
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
            let found = index.search(&Question::new(query), 10);
            assert_eq!(found[0].0, exact[0].0);
            assert!((found[0].1 - 1.0).abs() < 0.0003, "{}", found[0].1);
            same += found
                .iter()
                .filter(|(number, _)| exact.iter().any(|(wanted, _)| wanted == number))
                .count();
        }
        assert!(same >= 499, "recall@10 is {}", same as f32 / 500.0);
    }

    #[test]
    fn ties_go_to_the_lower_number_and_odd_input_finds_nothing() {
        let index = index(&[vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]]);
        let found = index.search(&Question::new(&[1.0, 0.0]), 2);
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [0, 1]);
        assert!(index.search(&Question::new(&[1.0]), 2).is_empty());
        assert!(index.search(&Question::new(&[]), 2).is_empty());
        assert_eq!(index.search(&Question::new(&[0.0, 0.0]), 3).len(), 3);
    }
}
