//! What a user and a client see at a usual size.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use runwire_assistant::api::{self, AppState};
use runwire_assistant::config::{Config, Settings};
use runwire_assistant::diagnosis::{DEADLINE, Engine};
use runwire_assistant::metrics::Metrics;
use runwire_assistant::prometheus::{self, Prometheus};
use runwire_assistant::retrieval::embed::{Embedder, MiniLm};
use runwire_assistant::retrieval::{Filters, Retriever};

use crate::{load, model, open, pages, quantiles, resident, time_queries};

/// Of Markdown, as it is cut.
const BYTES_OF_A_PASSAGE: usize = 440;

pub(crate) fn run(corpus: &Path, queries: &[String], passages: usize) -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let runbooks = place.path().join("runbooks");
    fs::create_dir(&runbooks)?;
    let mut bytes = 0;
    for (number, page) in pages(corpus)?.iter().enumerate() {
        if bytes > passages * BYTES_OF_A_PASSAGE {
            break;
        }
        bytes += usize::try_from(fs::copy(page, runbooks.join(format!("{number}.md")))?)?;
    }
    let cache = place.path().join("cache");

    let started = Instant::now();
    let retriever = open(&runbooks, &cache, Box::new(model()?), 0)?;
    println!(
        "{} passages indexed in {:?}",
        retriever.state().passages,
        started.elapsed()
    );
    drop(retriever);
    let started = Instant::now();
    let embedder = Box::new(model()?);
    let model_loaded = started.elapsed();
    let retriever = open(&runbooks, &cache, embedder, 0)?;
    println!(
        "started from the saved index in {:?}, of which the model {model_loaded:?}; resident {} MiB",
        started.elapsed(),
        resident()
    );

    time_queries(&retriever, queries, 1)?;
    println!(
        "in process, one at a time: {}",
        time_queries(&retriever, queries, 10)?
    );
    // As a person types them; payloads of alerts have a hundred tokens and more.
    let short = |query: &&String| query.len() < 80;
    let short: Vec<String> = queries.iter().filter(short).cloned().collect();
    println!(
        "those of fewer than 80 bytes: {}",
        time_queries(&retriever, &short, 10)?
    );

    println!(
        "the vectors of those alone: {}",
        time_embedding(&model()?, &short)?
    );

    retriever.watch()?;
    std::thread::sleep(Duration::from_secs(2));
    let mut took = Vec::new();
    for edit in 0..5 {
        let word = format!("zebracrossing{edit}");
        fs::write(
            runbooks.join("0.md"),
            format!("# Zebra\n\nA {word} fails.\n"),
        )?;
        let started = Instant::now();
        while !found(&retriever, &word)? {
            std::thread::sleep(Duration::from_millis(2));
        }
        took.push(started.elapsed());
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("an edit is found after: {}", quantiles(took));

    let runtime = tokio::runtime::Runtime::new()?;
    println!("every question as if it were new");
    runtime.block_on(over_http(&runbooks, retriever, &short))?;
    println!("questions that were asked before");
    let remembering = open(&runbooks, &cache, Box::new(model()?), 1024)?;
    runtime.block_on(over_http(&runbooks, remembering, &short))
}

fn time_embedding(model: &MiniLm, questions: &[String]) -> anyhow::Result<String> {
    let mut took = Vec::new();
    for question in questions.iter().cycle().take(20 * questions.len()) {
        let started = Instant::now();
        model.embed_query(question)?;
        took.push(started.elapsed());
    }
    Ok(quantiles(took))
}

fn found(retriever: &Retriever, word: &str) -> anyhow::Result<bool> {
    let found = retriever.search(word, 1, &Filters::default())?;
    Ok(found
        .results
        .iter()
        .any(|result| result.text.contains(word)))
}

async fn over_http(
    runbooks: &Path,
    retriever: Retriever,
    queries: &[String],
) -> anyhow::Result<()> {
    let settings = Settings {
        runbooks: Some(vec![runbooks.to_owned()]),
        ..Settings::default()
    };
    let config = Config::load(settings, "error")?;
    let prometheus = Prometheus::new(prometheus::Settings::new("http://127.0.0.1:1"))?;
    let engine = Arc::new(Engine::new(prometheus, DEADLINE));
    let metrics = Arc::new(Metrics::default());
    let state = AppState::new(Arc::new(config), retriever, metrics, engine);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, api::router(state)).await });
    let bodies = load_bodies(queries);
    let asked = tokio::task::spawn_blocking(move || load::run(&address.to_string(), &bodies));
    asked.await.context("a client panicked")??;
    server.abort();
    Ok(())
}

pub(crate) fn load_bodies(queries: &[String]) -> Vec<String> {
    let body = |query| serde_json::json!({"query": query}).to_string();
    queries.iter().map(body).collect()
}
