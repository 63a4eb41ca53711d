//! Another embedding model by config, on the real ONNX Runtime: what one made is never asked with what another says.
//! `tests/data/sentence` says what the two compute.

use std::fs;
use std::path::{Path, PathBuf};

use runwire_assistant::config::{Config, Settings};
use runwire_assistant::retrieval::{Filters, Retriever, SearchResponse};

use crate::service::service;

const A: &[u8] = include_bytes!("../data/sentence/a.onnx");
const B: &[u8] = include_bytes!("../data/sentence/b.onnx");

const QUESTIONS: [&str; 3] = [
    "certificate expired",
    "hostnames are not looked up any more",
    "new clients hang",
];

fn open(runbooks: &Path, model: PathBuf, cache: &Path) -> Option<Retriever> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runwire");
    let runtime = root.join("onnxruntime/libonnxruntime.so");
    if !runtime.exists() {
        return None;
    }
    let settings = Settings {
        runbooks: Some(vec![runbooks.to_owned()]),
        model: Some(model),
        onnxruntime: Some(runtime),
        cache: Some(cache.to_owned()),
        ..Settings::default()
    };
    let retriever = Retriever::open(&Config::load(settings, "error").unwrap()).unwrap();
    retriever.refresh().unwrap();
    Some(retriever)
}

fn answers(retriever: &Retriever) -> Vec<SearchResponse> {
    let ask = |question: &&str| retriever.search(question, 10, &Filters::default());
    QUESTIONS.iter().map(|q| ask(q).unwrap()).collect()
}

fn indexes(cache: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<PathBuf> = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "bin"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_model_has_an_index_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let model = place.path().join("sines");
    fs::create_dir(&model).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runwire/model");
    for file in [
        "tokenizer.json",
        "config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ] {
        if fs::copy(shipped.join(file), model.join(file)).is_err() {
            return;
        }
    }
    let pages = service(None);
    let runbooks = pages.folder.path();
    let start = |graph: &[u8], cache: &Path| {
        fs::write(model.join("model.onnx"), graph).unwrap();
        open(runbooks, model.clone(), cache)
    };

    // What each answers where nobody was before it.
    let fresh = |graph: &[u8]| {
        let cache = tempfile::tempdir().unwrap();
        Some(answers(&start(graph, cache.path())?))
    };
    let (Some(of_a), Some(of_b)) = (fresh(A), fresh(B)) else {
        return;
    };
    assert_ne!(of_a, of_b);

    let shared = tempfile::tempdir().unwrap();
    let cache = shared.path();
    let shipped = open(runbooks, shipped, cache).unwrap();
    let of_shipped = answers(&shipped);
    let with_a = start(A, cache).unwrap();
    assert_eq!(answers(&with_a), of_a);
    let only_a = indexes(cache);
    // In the same folder, where A was.
    let with_b = start(B, cache).unwrap();
    assert_eq!(answers(&with_b), of_b);
    let names = [&shipped, &with_a, &with_b].map(|retriever| retriever.state().model);
    assert!(names[0] != names[1] && names[1] != names[2], "{names:?}");

    let of_b_file = indexes(cache)
        .into_iter()
        .find(|file| !only_a.contains(file))
        .unwrap();

    // All three are kept, and each comes back to its own.
    assert_eq!(indexes(cache).len(), 3);
    assert_eq!(answers(&start(A, cache).unwrap()), of_a);
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runwire/model");
    assert_eq!(
        answers(&open(runbooks, shipped, cache).unwrap()),
        of_shipped
    );

    // The same graph makes other vectors of other tokens.
    let tokenizer = model.join("tokenizer.json");
    let tokens = fs::read_to_string(&tokenizer).unwrap();
    let changed = tokens.replace("\"lowercase\": true", "\"lowercase\": false");
    let changed = changed.replace("\"lowercase\":true", "\"lowercase\":false");
    assert_ne!(tokens, changed);
    fs::write(&tokenizer, changed).unwrap();
    let with_other_tokens = start(B, cache).unwrap();
    assert_ne!(with_other_tokens.state().model, with_b.state().model);
    assert_eq!(indexes(cache).len(), 4);
    fs::write(&tokenizer, tokens).unwrap();
    assert_eq!(answers(&start(B, cache).unwrap()), of_b);

    // Also where somebody moves files about.
    let kept = fs::read(&of_b_file).unwrap();
    for other in only_a {
        fs::copy(other, &of_b_file).unwrap();
        assert_eq!(answers(&start(B, cache).unwrap()), of_b);
        assert!(
            fs::read(&of_b_file).unwrap() == kept,
            "another index is left in its place"
        );
    }
}
