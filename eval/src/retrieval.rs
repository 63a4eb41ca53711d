//! `retrieval`: questions with judged answers against the assistant's `/search`, for any corpus in the documented format
//! (eval/README.md). One table for each arm: the shipped ranking, and the simpler ones that it has to beat.

mod corpus;
mod measure;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::process::Program;
use crate::stack::{Ports, Programs};
use crate::{http, say, stop};
use corpus::{Corpus, Query};
use measure::Answer;

/// As many as the deepest measure looks at, twice: of one page up to two passages are listed.
const RESULTS: usize = 20;

/// A first index of a large corpus embeds everything.
const PATIENCE: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder with `corpus/`, `queries.jsonl` and `qrels.tsv`.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Rankings to compare; the first is what the others are compared with.
    #[arg(long, value_name = "NAME", num_args = 1.., default_values = ["fused", "sum", "reciprocal-rank", "meaning", "words"])]
    arms: Vec<String>,
    /// Where vectors are kept, so that the second arm starts at once.
    #[arg(long, value_name = "DIR", default_value = ".runwire/eval-cache")]
    cache: PathBuf,
    /// Writes every measure of every query, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    details: Option<PathBuf>,
    #[command(flatten)]
    programs: Programs,
}

#[derive(Deserialize)]
struct Response {
    answerable: bool,
    results: Vec<SearchResult>,
}

#[derive(Deserialize)]
struct SearchResult {
    score: f64,
    runbook: Runbook,
    section: Section,
}

#[derive(Deserialize)]
struct Runbook {
    path: String,
}

#[derive(Deserialize)]
struct Section {
    heading_path: Vec<String>,
}

/// True when every question got an answer.
pub(crate) fn run(options: &Options) -> Result<bool> {
    stop::listen()?;
    let corpus = Corpus::read(&options.data)?;
    let mut arms = Vec::new();
    for arm in &options.arms {
        say::progress(format_args!("{arm}: {} questions", corpus.queries.len()));
        let answers = ask(options, &corpus, arm)?;
        arms.push(report::Arm::new(arm, &corpus, &answers));
    }
    say::result(report::tables(&arms));
    if let Some(file) = &options.details {
        std::fs::write(file, report::details(&arms))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(true)
}

fn ask(options: &Options, corpus: &Corpus, arm: &str) -> Result<Vec<Answer>> {
    let port = Ports::free()?.assistant();
    std::fs::create_dir_all(&options.cache)
        .with_context(|| format!("cannot create {}", options.cache.display()))?;
    let log = options.cache.join(format!("{arm}.log"));
    let flags = [
        "serve",
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--runbooks",
        &corpus.folder.display().to_string(),
        "--cache",
        &options.cache.display().to_string(),
        "--ranking",
        arm,
    ]
    .map(str::to_owned);
    let mut assistant = Program::start("assistant", &options.programs.assistant()?, &flags, &log)?;
    let url = format!("http://127.0.0.1:{port}");
    assistant
        .wait_for(&format!("{url}/readyz"), PATIENCE)
        .with_context(|| format!("see {}", log.display()))?;
    corpus
        .queries
        .iter()
        .map(|query| {
            stop::check()?;
            answer(&url, query)
        })
        .collect()
}

fn answer(url: &str, query: &Query) -> Result<Answer> {
    let body = json!({"query": query.text, "limit": RESULTS});
    let bytes = http::post(&format!("{url}/search"), &body)
        .with_context(|| format!("question {}", query.id))?;
    let response: Response = serde_json::from_slice(&bytes)
        .with_context(|| format!("question {}: not an answer", query.id))?;
    Ok(Answer {
        answerable: response.answerable,
        rows: response
            .results
            .into_iter()
            .map(|result| measure::Row {
                document: result.runbook.path,
                headings: result.section.heading_path,
                score: result.score,
            })
            .collect(),
    })
}
