//! How fast search is, and what it takes. Not part of the tests: it wants a quiet machine, the model, and a corpus.
//!
//! ```sh
//! cargo bench --package runwire-assistant --bench search -- speed CORPUS QUERIES.jsonl [PASSAGES]
//! cargo bench --package runwire-assistant --bench search -- load ADDRESS:PORT QUERIES.jsonl
//! cargo bench --package runwire-assistant --bench search -- graph CORPUS LARGEST-GRAPH SIZE…
//! cargo bench --package runwire-assistant --bench search -- scale CORPUS QUERIES.jsonl PASSAGES
//! ```
//!
//! `speed`: start, edits, what the vector of a question takes of a search, latency at 1, 8 and 64 clients, requests per
//! second, with every question as if new and then with those remembered that were asked before. `load`: the clients alone,
//! for any server with such a `/search`, such as the peer in `peer/`. `graph`: the scan against graphs, by number of vectors. `scale`: a corpus copied
//! many times, its vectors made by shaking real ones. `README.md` beside says what came out.

#![expect(clippy::print_stdout, reason = "the numbers are its output")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use runwire_assistant::retrieval::embed::{Embedder, MiniLm, Precision};
use runwire_assistant::retrieval::{Filters, Options, Retriever};

mod graph;
mod load;
mod scale;
mod speed;

fn main() -> anyhow::Result<()> {
    // cargo bench adds a flag of its own.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["speed", corpus, queries] => speed::run(Path::new(corpus), &read(queries)?, 10_000),
        ["speed", corpus, queries, passages] => {
            speed::run(Path::new(corpus), &read(queries)?, passages.parse()?)
        }
        ["load", address, queries] => Ok(load::run(address, &speed::load_bodies(&read(queries)?))?),
        ["graph", corpus, largest, ref sizes @ ..] => {
            let sizes: Result<Vec<u64>, _> = sizes.iter().map(|size| size.parse()).collect();
            graph::run(Path::new(corpus), &sizes?, largest.parse()?)
        }
        ["scale", corpus, queries, passages] => {
            scale::run(Path::new(corpus), &read(queries)?, passages.parse()?)
        }
        _ => {
            bail!("give `speed`, `load`, `graph` or `scale`; the head of this file says with what")
        }
    }
}

/// The `text` of each line.
fn read(path: &str) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    text.lines()
        .map(|line| {
            let query: serde_json::Value = serde_json::from_str(line)?;
            Ok(query["text"]
                .as_str()
                .context("a query has no text")?
                .to_owned())
        })
        .collect()
}

fn model() -> anyhow::Result<MiniLm> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runwire");
    let runtime = root.join("onnxruntime/libonnxruntime.so");
    let model = MiniLm::open(&root.join("model"), Some(&runtime), Precision::Int8);
    model.context("the benchmark needs the real model; scripts/setup fetches it")
}

/// The same questions are asked many times: unless that is what is measured, none may be `remembered`.
fn open(
    runbooks: &Path,
    cache: &Path,
    embedder: Box<dyn Embedder>,
    remembered: usize,
) -> anyhow::Result<Retriever> {
    let options = Options {
        remembered,
        ..Options::default()
    };
    let folders = vec![runbooks.to_owned()];
    let retriever = Retriever::with(folders, Some(embedder), Some(cache), options);
    retriever.refresh()?;
    Ok(retriever)
}

/// All pages below a folder, in an order that mixes the sources.
fn pages(corpus: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut open = vec![corpus.to_owned()];
    let mut pages = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort_by_key(|path| runwire_assistant::hash::fnv(&[path.as_os_str().as_encoded_bytes()]));
    Ok(pages)
}

/// Latencies in milliseconds: median, 99th percentile, most.
fn quantiles(mut took: Vec<Duration>) -> String {
    took.sort();
    let at = |share: f64| {
        let index = ((took.len() as f64 * share) as usize).min(took.len() - 1);
        took[index].as_secs_f64() * 1000.0
    };
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

/// One question at a time: what the clock says, and what the core was busy for, which others on the machine do not change.
fn time_queries(
    retriever: &Retriever,
    queries: &[String],
    rounds: usize,
) -> anyhow::Result<String> {
    let (mut took, mut busy) = (Vec::new(), Vec::new());
    for query in queries.iter().cycle().take(rounds * queries.len()) {
        let (started, before) = (Instant::now(), cpu_time());
        retriever.search(query, 10, &Filters::default())?;
        took.push(started.elapsed());
        busy.push(cpu_time() - before);
    }
    Ok(format!(
        "{}; of the core: {}",
        quantiles(took),
        quantiles(busy)
    ))
}

/// Of this thread.
fn cpu_time() -> Duration {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = schedule
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// Resident memory in MiB, now.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() >> 10
}
