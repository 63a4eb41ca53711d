//! The real embedding model, where it is installed.

use runwire_assistant::retrieval::Filters;
use runwire_assistant::retrieval::embed::{Embedder, Precision};

use crate::service::{model, service};

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn the_model_knows_what_words_mean() {
    for precision in [Precision::Float32, Precision::Int8] {
        let Some(model) = model(precision) else {
            return;
        };
        let embed = |text: &str| model.embed_query(text).unwrap();
        let question = embed("the domain name cannot be looked up");
        let (near, far) = (embed("DNS resolution fails"), embed("the disk is full"));
        assert!(
            cosine(&question, &near) > cosine(&question, &far) + 0.2,
            "{precision}"
        );
        assert!((cosine(&near, &near) - 1.0).abs() < 1e-5);
        let twice = model
            .embed_passages(&["DNS resolution fails", "the disk is full"])
            .unwrap();
        for (passage, question) in twice.iter().zip([near, far]) {
            // Exactly the same in exact arithmetic; the encoder of rounded questions is another than that of passages.
            let least = match precision {
                Precision::Float32 => 0.99999,
                Precision::Int8 => 0.98,
            };
            let cosine = cosine(passage, &question);
            assert!(cosine >= least, "{precision}: {cosine}");
        }
        let long = "word ".repeat(1000);
        assert_eq!(model.count_tokens(&long), 1002);
        assert_eq!(embed(&long).len(), 384);
        assert_eq!(embed("").len(), 384);
    }
}

#[test]
fn the_real_model_finds_a_symptom_without_its_words() {
    let Some(model) = model(Precision::Int8) else {
        return;
    };
    let service = service(Some(Box::new(model)));
    service.retriever.refresh().unwrap();
    let first = |question: &str| {
        let found = service
            .retriever
            .search(question, 3, &Filters::default())
            .unwrap();
        (found.results[0].runbook.id.clone(), found.answerable)
    };
    assert_eq!(
        first("hostnames don't get looked up any more").0,
        "dns-servfail"
    );
    assert_eq!(
        first("new clients hang while the program is busy").0,
        "tcp/accept-queue"
    );
    assert!(first("our resolver cannot resolve any names").1);
    assert!(!first("how do I bake sourdough bread").1);
}
