//! Which vectors lie near which (Malkov and Yashunin 2016). hnsw_rs finds it out; what is kept are the lists of its lowest
//! layer, flat, and the points of the upper layers as places to begin at. Built once for the
//! vectors of a segment, saved with them, never changed.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use hnsw_rs::prelude::{Distance, Hnsw};

use super::codec::{Reader, Writer};
use super::dense::Vectors;

/// Neighbours of a point in the upper layers; in the lowest there are twice as many.
const NEIGHBOURS: usize = 16;
/// How many near ones are looked at when a point is put in.
const BUILD_BREADTH: usize = 200;
/// More layers than any number of points fills.
const LAYERS: usize = 16;
/// So many points to begin at: few enough to look at all, and more than a corpus has topics far from each other.
const ENTRIES: usize = 512;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Graph {
    entries: Vec<u32>,
    /// Where each row's neighbours end.
    ends: Vec<u32>,
    neighbours: Vec<u32>,
}

impl Graph {
    /// Takes minutes where vectors are many, so it asks now and then whether it `goes_on`; none if not.
    pub(super) fn build(vectors: &Arc<Vectors>, goes_on: impl Fn() -> bool) -> Option<Self> {
        let count = u32::try_from(vectors.len()).ok()?;
        let rows = Rows(Arc::clone(vectors));
        let made = Hnsw::new(NEIGHBOURS, vectors.len(), LAYERS, BUILD_BREADTH, rows);
        // One after the other: the same vectors give the same graph, and a core is left for those who ask.
        for row in 0..count {
            if row % 256 == 0 && !goes_on() {
                return None;
            }
            made.insert_slice((&[row], row as usize));
        }
        let mut levels = vec![0_u8; vectors.len()];
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(); vectors.len()];
        for point in made.get_point_indexation() {
            let row = point.get_origin_id();
            levels[row] = point.get_point_id().0;
            let lists_of_point = point.get_neighborhood_id();
            let lowest = lists_of_point.first().map_or(&[][..], Vec::as_slice);
            let near = lowest
                .iter()
                .filter_map(|near| u32::try_from(near.d_id).ok());
            lists[row] = near.filter(|near| *near < count).collect();
        }
        let mut entries: Vec<u32> = (0..count).collect();
        entries.sort_by_key(|row| Reverse(levels[*row as usize]));
        entries.truncate(ENTRIES);
        let mut graph = Self {
            entries,
            ends: Vec::with_capacity(lists.len()),
            neighbours: Vec::new(),
        };
        for list in lists {
            graph.neighbours.extend(list);
            graph.ends.push(u32::try_from(graph.neighbours.len()).ok()?);
        }
        Some(graph)
    }

    /// The most similar rows that are live, in no order: about the best `breadth` of them.
    pub(super) fn search(
        &self,
        breadth: usize,
        similarity: impl Fn(usize) -> f32,
        is_live: impl Fn(usize) -> bool,
    ) -> Vec<(usize, f32)> {
        let mut seen = vec![0_u64; self.ends.len().div_ceil(64)];
        let mut open: BinaryHeap<Near> = BinaryHeap::new();
        let mut best: BinaryHeap<Reverse<Near>> = BinaryHeap::with_capacity(breadth + 1);
        let mut visit = |row: u32, open: &mut BinaryHeap<Near>, best: &mut BinaryHeap<_>| {
            let bit = 1 << (row % 64);
            let word = &mut seen[row as usize / 64];
            if *word & bit != 0 {
                return;
            }
            *word |= bit;
            let near = Near {
                similarity: similarity(row as usize),
                row,
            };
            let is_full = best.len() == breadth;
            if is_full && best.peek().is_some_and(|Reverse(worst)| near < *worst) {
                return;
            }
            open.push(near);
            if is_live(row as usize) {
                best.push(Reverse(near));
                if is_full {
                    best.pop();
                }
            }
        };
        for &row in &self.entries {
            visit(row, &mut open, &mut best);
        }
        while let Some(near) = open.pop() {
            let is_worse = best.peek().is_some_and(|Reverse(worst)| near < *worst);
            if is_worse && best.len() == breadth {
                break;
            }
            for &row in self.neighbours_of(near.row as usize) {
                visit(row, &mut open, &mut best);
            }
        }
        let found = best.into_iter();
        found
            .map(|Reverse(near)| (near.row as usize, near.similarity))
            .collect()
    }

    fn neighbours_of(&self, row: usize) -> &[u32] {
        let start = match row {
            0 => 0,
            _ => self.ends[row - 1],
        };
        &self.neighbours[start as usize..self.ends[row] as usize]
    }

    pub(super) fn encode<W: Write>(&self, writer: &mut Writer<W>) -> io::Result<()> {
        writer.u32s(&self.entries)?;
        writer.u32s(&self.ends)?;
        writer.u32s(&self.neighbours)
    }

    /// Of a graph over `count` vectors.
    pub(super) fn decode<R: Read>(reader: &mut Reader<R>, count: usize) -> Option<Self> {
        let graph = Self {
            entries: reader.u32s()?,
            ends: reader.u32s()?,
            neighbours: reader.u32s()?,
        };
        let last = graph.ends.last().map_or(0, |end| *end as usize);
        let fits = graph.ends.len() == count
            && graph.ends.is_sorted()
            && last == graph.neighbours.len()
            && graph
                .neighbours
                .iter()
                .chain(&graph.entries)
                .all(|row| (*row as usize) < count);
        fits.then_some(graph)
    }
}

/// A point of hnsw_rs is the number of a row, so that it keeps no vectors of its own.
struct Rows(Arc<Vectors>);

impl Distance<u32> for Rows {
    /// One minus the cosine.
    fn eval(&self, a: &[u32], b: &[u32]) -> f32 {
        let row = |point: &[u32]| point.first().map_or(0, |row| *row as usize);
        (1.0 - self.0.cosine(row(a), row(b))).max(0.0)
    }
}

/// Ordered by similarity; among equals the lower row is the greater one.
#[derive(Clone, Copy, PartialEq)]
struct Near {
    similarity: f32,
    row: u32,
}

impl Eq for Near {}

impl Ord for Near {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_similarity = self.similarity.total_cmp(&other.similarity);
        by_similarity.then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
