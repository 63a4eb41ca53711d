//! A cross-encoder that puts the best passages in order once more, on the real ONNX Runtime. `tests/data/reranker` says
//! what it computes: the share of the question's words that a passage has.

use std::fs;
use std::path::{Path, PathBuf};

use runwire_assistant::config::{Config, Settings};
use runwire_assistant::retrieval::{Filters, Retriever, SearchResponse, SearchResult};
use tempfile::TempDir;

/// Where the model of the repository is, if it is there.
fn root() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runwire");
    root.join("onnxruntime/libonnxruntime.so")
        .exists()
        .then_some(root)
}

/// Pages, and a folder with a cross-encoder.
fn place(root: &Path, graph: &[u8]) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let runbooks = place.path().join("runbooks");
    let reranker = place.path().join("overlap");
    fs::create_dir(&runbooks).unwrap();
    fs::create_dir(&reranker).unwrap();
    for (name, text) in [
        (
            "certificate",
            "# Certificate expired\n\nThe certificate of the server is no longer valid: renew it.\n",
        ),
        (
            "names",
            "# Names cannot be resolved\n\nThe resolver answers SERVFAIL. Restart the forwarder.\n",
        ),
        (
            "diary",
            "# Diary\n\nOn Monday the shop was closed, and why lookups failed all day nobody could say.\n",
        ),
        ("SlowLookups", "# SlowLookups\n\nThe cache is cold.\n"),
    ] {
        fs::write(runbooks.join(format!("{name}.md")), text).unwrap();
    }
    for file in [
        "tokenizer.json",
        "config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ] {
        fs::copy(root.join("model").join(file), reranker.join(file)).unwrap();
    }
    fs::write(reranker.join("model.onnx"), graph).unwrap();
    place
}

const OVERLAP: &[u8] = include_bytes!("../data/reranker/model.onnx");

fn open(root: &Path, place: &Path, reranker: Option<PathBuf>) -> anyhow::Result<Retriever> {
    let settings = Settings {
        runbooks: Some(vec![place.join("runbooks")]),
        model: Some(root.join("model")),
        onnxruntime: Some(root.join("onnxruntime/libonnxruntime.so")),
        cache: Some(place.join("cache")),
        reranker,
        ..Settings::default()
    };
    let retriever = Retriever::open(&Config::load(settings, "error")?)?;
    retriever.refresh()?;
    Ok(retriever)
}

fn ids(answer: &SearchResponse) -> Vec<&str> {
    answer
        .results
        .iter()
        .map(|result| result.runbook.id.as_str())
        .collect()
}

/// Of words that the tokenizer takes whole.
const QUESTIONS: [&str; 6] = [
    "why nobody could say names",
    "the cache is cold and why all day",
    "renew the certificate or nobody could say why all day",
    "server no longer valid and the shop was closed",
    "expired certificate nobody could say why the shop was closed on monday",
    "names cannot be on monday the shop was closed",
];

/// What the cross-encoder of `tests/data/reranker` says of a passage.
fn fit(question: &str, result: &SearchResult) -> f64 {
    let passage = format!("{} {}", result.section.heading_path.join(" "), result.text);
    let passage = passage.to_lowercase();
    let known: Vec<&str> = passage.split(|c: char| !c.is_alphanumeric()).collect();
    let words: Vec<&str> = question.split(' ').collect();
    let found = words.iter().filter(|word| known.contains(word)).count();
    let share = found as f64 / words.len() as f64;
    1.0 / (1.0 + (4.0 - 8.0 * share).exp())
}

#[test]
fn a_reranker_has_half_of_the_say_and_none_over_a_named_alert() {
    let Some(root) = root() else { return };
    let place = place(&root, OVERLAP);
    let plain = open(&root, place.path(), None).unwrap();
    let reranked = open(&root, place.path(), Some(place.path().join("overlap"))).unwrap();
    assert_eq!(plain.state().reranker, None);
    assert_eq!(reranked.state().reranker.as_deref(), Some("overlap"));

    let ask = |retriever: &Retriever, query: &str, limit| {
        retriever.search(query, limit, &Filters::default()).unwrap()
    };
    let mut reordered = 0;
    for question in QUESTIONS {
        let (before, after) = (ask(&plain, question, 10), ask(&reranked, question, 10));
        for result in &after.results {
            let id = &result.runbook.id;
            let was = before
                .results
                .iter()
                .find(|before| before.runbook.id == *id);
            let expected = (was.unwrap().score + fit(question, result)) / 2.0;
            assert!(
                (result.score - expected).abs() < 0.000_11,
                "{question}: {id} has {} and not {expected}",
                result.score
            );
        }
        assert!(after.results.is_sorted_by(|a, b| a.score >= b.score));
        assert_eq!(after.answerable, before.answerable);
        assert_eq!(ask(&reranked, question, 1).results, after.results[..1]);
        reordered += usize::from(ids(&before) != ids(&after));
    }
    assert!(reordered > 0, "it changed nothing");

    let named = "SlowLookups: nobody could say why lookups failed all day on Monday";
    assert_eq!(ids(&ask(&reranked, named, 10))[0], "SlowLookups");
}

#[test]
fn a_folder_that_holds_no_reranker_is_told_at_the_start() {
    let Some(root) = root() else { return };
    let place = place(&root, b"no graph");
    let fails = |folder: &str| {
        let reranker = Some(place.path().join(folder));
        let error = open(&root, place.path(), reranker).map(|_| ()).unwrap_err();
        format!("{error:#}")
    };
    let error = fails("overlap");
    assert!(error.contains("cannot use the reranker in"), "{error}");
    let error = fails("runbooks");
    assert!(
        error.contains("reranker") && error.contains("model.onnx"),
        "{error}"
    );
}
