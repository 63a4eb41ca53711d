//! Invariants over a whole corpus of real pages: the one that RUNWIRE_CORPUS names, and else the repository's runbooks.

use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use runwire_assistant::retrieval::embed::{Embedder, Precision};
use runwire_assistant::retrieval::{Filters, url};
use runwire_assistant::runbook::chunk::{Budget, chunk};
use runwire_assistant::runbook::load;

use crate::service::{get, model, over};

/// What a passage may cost.
const TOKENS: usize = 256;

fn corpus() -> PathBuf {
    match std::env::var_os("RUNWIRE_CORPUS") {
        Some(corpus) => corpus.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../runbooks"),
    }
}

#[tokio::test]
async fn every_anchor_is_on_its_page_and_every_line_in_its_file() {
    let service = over(vec![corpus()], None);
    service.retriever.refresh().unwrap();
    let library = service.retriever.library();
    assert!(library.runbooks.len() > 5);
    for runbook in &library.runbooks {
        let page = get(&service.router, &url(&runbook.id)).await;
        assert_eq!(page.status, StatusCode::OK, "{}", runbook.id);
        let lines = runbook.source.lines().count();
        for section in &runbook.sections {
            let anchor = section.anchor.replace('&', "&amp;").replace('\'', "&#39;");
            let id = format!(" id=\"{anchor}\"");
            assert!(page.body.contains(&id), "{}#{anchor}", runbook.path);
            assert!(
                section.line_end <= lines,
                "{}:{}",
                runbook.path,
                section.line_end
            );
        }
    }
    let found = service.retriever.search("dns", 10, &Filters::default());
    assert!(!found.unwrap().results.is_empty());
}

/// What the model would cut off could never be found by its meaning.
#[test]
fn every_passage_fits_the_model_and_every_word_is_in_one() {
    let Some(model) = model(Precision::Int8) else {
        return;
    };
    let count = |text: &str| model.count_tokens(text);
    let budget = Budget::new(TOKENS, &count);
    for runbook in load(&[corpus()]).runbooks {
        let passages = chunk(&runbook, &budget);
        for passage in &passages {
            let tokens = count(&passage.with_breadcrumb(&runbook));
            assert!(
                tokens <= TOKENS,
                "{}:{}: {tokens}",
                runbook.path,
                passage.line_start
            );
        }
        let texts = passages.iter().map(|passage| passage.text(&runbook));
        let kept: String = texts.flat_map(|text| letters(&text)).collect();
        let sections = runbook.sections.iter();
        let all: String = sections
            .flat_map(|section| letters(&section.text))
            .collect();
        assert!(kept == all || all.is_empty(), "{}", runbook.path);
    }
}

fn letters(text: &str) -> Vec<char> {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}
