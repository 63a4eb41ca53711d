//! From how many vectors on a graph would be faster than the scan, what it finds, and what building it costs.

use std::path::Path;
use std::time::{Duration, Instant};

use hnsw_rs::prelude::{Distance, Hnsw};
use runwire_assistant::hash::fnv;
use runwire_assistant::retrieval::dense::{DenseIndex, Vectors};

use crate::quantiles;
use crate::scale::Shaken;

const QUERIES: u64 = 200;
const SIZES: [u64; 5] = [10_000, 25_000, 50_000, 100_000, 200_000];

/// A graph of more takes a quarter of an hour.
const LARGEST_GRAPH: u64 = 50_000;

pub(crate) fn run(corpus: &Path) -> anyhow::Result<()> {
    let shaken = Shaken::new(corpus)?;
    let vector = |number: u64| shaken.vector(fnv(&[&number.to_le_bytes()]));
    for size in SIZES {
        let vectors: Vec<Vec<f32>> = (0..size).map(vector).collect();
        let mut rows = Vectors::new(vectors[0].len());
        vectors.iter().for_each(|vector| rows.push(vector));
        let index = DenseIndex::of(rows);
        let queries: Vec<Vec<f32>> = (0..QUERIES)
            .map(|query| vector(query + (1 << 40)))
            .collect();
        let truth: Vec<Vec<usize>> = queries.iter().map(|query| exact(&vectors, query)).collect();

        let found = |query: &[f32]| index.search(query, 10).into_iter().map(|f| f.0).collect();
        report(&format!("{size} vectors, scan"), &queries, &truth, found);
        if size > LARGEST_GRAPH {
            continue;
        }
        let started = Instant::now();
        let graph = Hnsw::new(16, vectors.len(), 16, 200, Angle);
        let rows: Vec<(&[f32], usize)> = vectors.iter().map(Vec::as_slice).zip(0..).collect();
        graph.parallel_insert_slice(&rows);
        println!(
            "{size} vectors, graph of M 16 built in {:?}",
            started.elapsed()
        );
        for ef in [64, 128, 256] {
            let found =
                |query: &[f32]| graph.search(query, 10, ef).iter().map(|f| f.d_id).collect();
            report(
                &format!("{size} vectors, graph with ef {ef}"),
                &queries,
                &truth,
                found,
            );
        }
    }
    Ok(())
}

/// One minus the cosine. The crate's own distance for unit vectors takes no negative cosines.
#[derive(Clone, Copy, Default)]
struct Angle;

impl Distance<f32> for Angle {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - dot(a, b)).max(0.0)
    }
}

/// Eight sums side by side, so that the compiler uses the vector unit.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum()
}

fn exact(vectors: &[Vec<f32>], query: &[f32]) -> Vec<usize> {
    let products = vectors.iter().map(|vector| dot(vector, query));
    let mut ranked: Vec<(f32, usize)> = products.zip(0..).collect();
    ranked.select_nth_unstable_by(10, |a, b| b.0.total_cmp(&a.0));
    ranked[..10].iter().map(|(_, number)| *number).collect()
}

fn report(
    what: &str,
    queries: &[Vec<f32>],
    truth: &[Vec<usize>],
    find: impl Fn(&[f32]) -> Vec<usize>,
) {
    let mut took: Vec<Duration> = Vec::new();
    let mut same = 0;
    for (query, wanted) in queries.iter().zip(truth) {
        let started = Instant::now();
        let found = find(query);
        took.push(started.elapsed());
        same += found
            .iter()
            .filter(|number| wanted.contains(number))
            .count();
    }
    let recall = same as f64 / (10 * queries.len()) as f64;
    println!("{what}: recall@10 {recall:.3}, {}", quantiles(took));
}
