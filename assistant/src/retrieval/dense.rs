//! Nearest vectors: an exact scan while that is fast, an HNSW graph beyond.

use hnsw_rs::prelude::{Distance, Hnsw};

/// Up to here the scan takes a few milliseconds and misses nothing.
const EXACT_UP_TO: usize = 40_000;

const NEIGHBOURS: usize = 16;
const EF_CONSTRUCTION: usize = 200;
/// With 16 neighbours, recall@10 is 0.99 from here on.
const EF_SEARCH: usize = 256;
const LAYERS: usize = 16;

pub struct DenseIndex {
    dimensions: usize,
    /// One vector after the other.
    vectors: Vec<f32>,
    graph: Option<Hnsw<'static, f32, Angle>>,
}

/// One minus the cosine. The crate's own distance for unit vectors takes no negative cosines.
#[derive(Debug, Clone, Copy, Default)]
struct Angle;

impl Distance<f32> for Angle {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - dot(a, b)).max(0.0)
    }
}

impl DenseIndex {
    /// Vectors of unit length, `dimensions` numbers each.
    pub fn new(dimensions: usize, vectors: Vec<f32>) -> Self {
        Self::with_threshold(dimensions, vectors, EXACT_UP_TO)
    }

    fn with_threshold(dimensions: usize, vectors: Vec<f32>, exact_up_to: usize) -> Self {
        let count = vectors.len() / dimensions.max(1);
        let graph = (count > exact_up_to).then(|| {
            let graph = Hnsw::new(NEIGHBOURS, count, LAYERS, EF_CONSTRUCTION, Angle);
            let rows: Vec<(&[f32], usize)> = vectors.chunks_exact(dimensions).zip(0..).collect();
            graph.parallel_insert_slice(&rows);
            graph
        });
        Self {
            dimensions,
            vectors,
            graph,
        }
    }

    pub fn len(&self) -> usize {
        self.vectors.len() / self.dimensions.max(1)
    }

    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    pub fn vector(&self, index: usize) -> &[f32] {
        &self.vectors[index * self.dimensions..(index + 1) * self.dimensions]
    }

    pub fn similarity(&self, index: usize, query: &[f32]) -> f32 {
        dot(self.vector(index), query)
    }

    /// The most similar ones, best first; ties go to the lower index.
    pub fn search(&self, query: &[f32], limit: usize) -> Vec<(usize, f32)> {
        if self.dimensions == 0 || query.len() != self.dimensions {
            return Vec::new();
        }
        let mut found: Vec<(usize, f32)> = match &self.graph {
            None => self
                .vectors
                .chunks_exact(self.dimensions)
                .map(|vector| dot(vector, query))
                .enumerate()
                .collect(),
            Some(graph) => graph
                .search(query, limit, EF_SEARCH.max(limit))
                .into_iter()
                .map(|neighbour| (neighbour.d_id, self.similarity(neighbour.d_id, query)))
                .collect(),
        };
        let best_first =
            |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if found.len() > limit && limit > 0 {
            found.select_nth_unstable_by(limit - 1, best_first);
        }
        found.truncate(limit);
        found.sort_unstable_by(best_first);
        found
    }
}

/// Eight sums side by side, so that the compiler uses the vector unit; always in the same order.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors that are the same every time.
    fn unit_vectors(count: usize, dimensions: usize) -> Vec<f32> {
        let mut state = 1_u64;
        let mut vectors = Vec::with_capacity(count * dimensions);
        for _ in 0..count {
            let vector: Vec<f32> = (0..dimensions)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
                })
                .collect();
            let length = dot(&vector, &vector).sqrt();
            vectors.extend(vector.iter().map(|x| x / length));
        }
        vectors
    }

    #[test]
    fn the_graph_finds_what_the_scan_finds() {
        let vectors = unit_vectors(2000, 32);
        let exact = DenseIndex::with_threshold(32, vectors.clone(), usize::MAX);
        let graph = DenseIndex::with_threshold(32, vectors, 0);
        let mut same = 0;
        for query in (0..50).map(|i| exact.vector(i * 7).to_vec()) {
            let wanted: Vec<usize> = exact.search(&query, 10).iter().map(|f| f.0).collect();
            let found = graph.search(&query, 10);
            assert_eq!(found[0].0, wanted[0]);
            same += found
                .iter()
                .filter(|(index, _)| wanted.contains(index))
                .count();
        }
        assert!(same >= 495, "recall@10 is {}", same as f32 / 500.0);
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        let index = DenseIndex::new(2, vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(index.search(&[1.0, 0.0], 2), [(0, 1.0), (1, 1.0)]);
        assert!(index.search(&[1.0], 2).is_empty());
    }
}
