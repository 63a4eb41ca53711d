//! The scan, the graph that search uses, and hnsw_rs's own search of the same graph: what they find, how fast, and what
//! building costs. With 10 results, as is usual to report, and with the 200 that search asks for.

use std::path::Path;
use std::time::{Duration, Instant};

use hnsw_rs::prelude::{Distance, Hnsw};
use runwire_assistant::hash::fnv;
use runwire_assistant::retrieval::dense::{DenseIndex, Question, Vectors};

use crate::scale::Shaken;
use crate::{quantiles, resident};

const QUERIES: u64 = 200;
const LIMITS: [usize; 2] = [10, 200];

pub(crate) fn run(corpus: &Path, sizes: &[u64], largest_graph: u64) -> anyhow::Result<()> {
    let shaken = Shaken::new(corpus)?;
    let vector = |number: u64| shaken.vector(fnv(&[&number.to_le_bytes()]));
    for &size in sizes {
        let vectors: Vec<Vec<f32>> = (0..size).map(vector).collect();
        let mut rows = Vectors::new(vectors[0].len());
        vectors.iter().for_each(|vector| rows.push(vector));
        let queries: Vec<Vec<f32>> = (0..QUERIES)
            .map(|query| vector(query + (1 << 40)))
            .collect();
        let truth: Vec<Vec<usize>> = queries.iter().map(|query| exact(&vectors, query)).collect();
        let report = |what: &str, index: &DenseIndex| {
            for limit in LIMITS {
                let found = |query: &[f32]| {
                    index
                        .search(&Question::new(query), limit)
                        .into_iter()
                        .map(|f| f.0)
                        .collect()
                };
                report(
                    &format!("{size} vectors, {what} for {limit}"),
                    &queries,
                    &truth,
                    found,
                );
            }
        };
        report("scan", &DenseIndex::of(rows.clone()));
        if size > largest_graph {
            continue;
        }
        let (started, before) = (Instant::now(), resident());
        let index = DenseIndex::with_graph(rows);
        println!(
            "{size} vectors, graph built in {:?} on one core; {} MiB more",
            started.elapsed(),
            resident().saturating_sub(before)
        );
        report("graph", &index);
        drop(index);

        let started = Instant::now();
        let graph = Hnsw::new(16, vectors.len(), 16, 200, Angle);
        let rows: Vec<(&[f32], usize)> = vectors.iter().map(Vec::as_slice).zip(0..).collect();
        graph.parallel_insert_slice(&rows);
        println!(
            "{size} vectors, hnsw_rs built in {:?} on all cores",
            started.elapsed()
        );
        for (limit, ef) in [(10, 128), (10, 256), (200, 400)] {
            let found = |query: &[f32]| {
                graph
                    .search(query, limit, ef)
                    .iter()
                    .map(|f| f.d_id)
                    .collect()
            };
            let what = format!("{size} vectors, hnsw_rs with ef {ef} for {limit}");
            self::report(&what, &queries, &truth, found);
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
            .take(10)
            .filter(|number| wanted.contains(number))
            .count();
    }
    let recall = same as f64 / (10 * queries.len()) as f64;
    println!("{what}: recall@10 {recall:.3}, {}", quantiles(took));
}
