//! Search, pages and errors over the router, without a socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use runwire_assistant::api::{self, AppState};
use runwire_assistant::config::{Config, Settings};
use runwire_assistant::diagnosis::{DEADLINE, Engine};
use runwire_assistant::metrics::Metrics;
use runwire_assistant::prometheus::{self, Prometheus};
use runwire_assistant::retrieval::embed::{Embedder, HashingEmbedder, MiniLm, Precision};
use runwire_assistant::retrieval::{Filters, Retriever};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

const DNS: &str = "---
title: DNS answers SERVFAIL
alerts: [CoreDNSErrorsHigh]
labels: {team: network}
failure_modes:
  - {id: dns-servfail, title: The resolver answers SERVFAIL, summary: Names cannot be resolved., anchor: diagnosis}
---
Names cannot be resolved, because the server answers SERVFAIL.

# DNS answers SERVFAIL

## Diagnosis

Ask the server with `dig` and look at the status.

## Mitigation

Restart the forwarder, or take the broken upstream out of its list.

<script>alert(1)</script>
";

const QUEUE: &str = "# Accept queue overflow

A listener does not accept as fast as clients connect.

## Diagnosis

Compare `Recv-Q` and `Send-Q` of the listener with `ss -lnt`.

## Mitigation

Make the program accept faster, or raise net.core.somaxconn.

## Background

The kernel drops the last packet of the handshake when the accept queue is full.
";

const CERTIFICATE: &str = "---\nlabels: {team: security}\n---\n# TLS certificate expired\n\nThe certificate of the server is no longer valid.\n";

struct Service {
    folder: TempDir,
    retriever: Retriever,
    router: Router,
}

fn service(embedder: Option<Box<dyn Embedder>>) -> Service {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("dns-servfail", DNS),
        ("tcp/accept-queue", QUEUE),
        ("tls", CERTIFICATE),
    ] {
        let path = folder.path().join(format!("{name}.md"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let settings = Settings {
        runbooks: Some(vec![folder.path().to_owned()]),
        ..Settings::default()
    };
    let config = Config::load(settings, "error").unwrap();
    let retriever = Retriever::new(config.runbooks.clone(), embedder, None);
    let prometheus = Prometheus::new(prometheus::Settings::new("http://127.0.0.1:1")).unwrap();
    let engine = Arc::new(Engine::new(prometheus, DEADLINE));
    let state = AppState::new(
        Arc::new(config),
        retriever.clone(),
        Arc::new(Metrics::default()),
        engine,
    );
    Service {
        folder,
        retriever,
        router: api::router(state),
    }
}

fn indexed() -> Service {
    let service = service(Some(Box::new(HashingEmbedder)));
    service.retriever.refresh().unwrap();
    service
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(router: &Router, body: impl Into<Body>) -> Answer {
    let request = Request::post("/search")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap();
    send(router, request).await
}

async fn search(router: &Router, request: Value) -> Value {
    let answer = post(router, request.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.json()
}

#[tokio::test]
async fn an_answer_has_the_shape_of_the_contract() {
    let service = indexed();
    let answer = search(
        &service.router,
        json!({"query": "resolver answers SERVFAIL diagnosis dig", "limit": 1}),
    )
    .await;
    assert_eq!(answer["query"], "resolver answers SERVFAIL diagnosis dig");
    assert_eq!(answer["answerable"], true);
    let result = &answer["results"][0];
    assert_eq!(result["rank"], 1);
    assert!(result["score"].as_f64().unwrap() > 0.3);
    assert_eq!(result["runbook"]["id"], "dns-servfail");
    assert_eq!(result["runbook"]["title"], "DNS answers SERVFAIL");
    assert_eq!(result["runbook"]["url"], "/runbooks/dns-servfail");
    assert!(
        result["runbook"]["path"]
            .as_str()
            .unwrap()
            .ends_with("/dns-servfail.md")
    );
    let section = &result["section"];
    assert_eq!(
        section["heading_path"],
        json!(["DNS answers SERVFAIL", "Diagnosis"])
    );
    assert_eq!(section["anchor"], "diagnosis");
    assert_eq!(
        (&section["line_start"], &section["line_end"]),
        (&json!(14), &json!(14))
    );
    assert_eq!(
        result["text"],
        "Ask the server with `dig` and look at the status."
    );
}

#[tokio::test]
async fn the_same_question_gives_the_same_bytes() {
    let (one, other) = (indexed(), indexed());
    let ask = json!({"query": "listener does not accept connections", "k": 7}).to_string();
    let first = post(&one.router, ask.clone()).await;
    assert!(first.headers.contains_key("server-timing"));
    for _ in 0..5 {
        assert_eq!(post(&one.router, ask.clone()).await.body, first.body);
    }
    let place = |service: &Service| service.folder.path().display().to_string();
    let moved = post(&other.router, ask)
        .await
        .body
        .replace(&place(&other), &place(&one));
    assert_eq!(moved, first.body);
}

#[tokio::test]
async fn an_alert_name_goes_to_its_runbook_first() {
    let service = indexed();
    for query in [
        "CoreDNSErrorsHigh",
        "accept queue listener overflow CoreDNSErrorsHigh",
        "core dns errors high",
    ] {
        let answer = search(&service.router, json!({"query": query})).await;
        assert_eq!(
            answer["results"][0]["runbook"]["id"], "dns-servfail",
            "{query}"
        );
        assert_eq!(answer["answerable"], true);
    }
}

#[tokio::test]
async fn two_passages_of_a_runbook_are_enough_unless_it_is_asked_for() {
    let service = indexed();
    let count = |answer: &Value| {
        let results = answer["results"].as_array().unwrap();
        results
            .iter()
            .filter(|r| r["runbook"]["id"] == "tcp/accept-queue")
            .count()
    };
    let all = search(&service.router, json!({"query": "accept queue full"})).await;
    assert_eq!(count(&all), 2);
    let filters = json!({"runbook": ["tcp/accept-queue"]});
    let one = search(
        &service.router,
        json!({"query": "accept queue full", "filters": filters}),
    )
    .await;
    assert!(count(&one) > 2);
    assert_eq!(one["results"].as_array().unwrap().len(), count(&one));
    let filters = json!({"labels": {"team": "security"}});
    let labelled = search(
        &service.router,
        json!({"query": "accept queue", "filters": filters}),
    )
    .await;
    let results = labelled["results"].as_array().unwrap();
    assert!(results.iter().all(|r| r["runbook"]["id"] == "tls"));
}

#[tokio::test]
async fn bad_requests_are_told_what_to_change() {
    let service = indexed();
    for (body, status, words) in [
        (r#"{"query": ""}"#, 400, "`query` is empty"),
        (r#"{"query": " \n"}"#, 400, "`query` is empty"),
        (r#"{"query": "x", "limit": 0}"#, 400, "from 1 to 100"),
        (r#"{"query": "x", "limit": -1}"#, 400, "from 1 to 100"),
        (r#"{"query": "x", "k": 101}"#, 400, "from 1 to 100"),
        (r#"{"query": "x", "limit": "ten"}"#, 422, "limit"),
        (r#"{"query": "x", "limit": 1.5}"#, 422, "limit"),
        (r#"{"query": 5}"#, 422, "query"),
        (r#"{"limit": 5}"#, 422, "query"),
        (r#"{"query": "x", "limitt": 5}"#, 422, "limitt"),
        (
            r#"{"query": "x", "filters": {"labels": []}}"#,
            422,
            "filters",
        ),
        ("{\"query\": ", 400, "not JSON"),
        ("", 400, "not JSON"),
        ("[]", 422, "does not fit"),
        ("\u{0}", 400, "not JSON"),
    ] {
        let answer = post(&service.router, body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.body);
        assert_eq!(
            answer.header(header::CONTENT_TYPE),
            "application/problem+json"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{body}: {problem}"
        );
    }

    let long = json!({"query": "x".repeat(70 << 10)}).to_string();
    assert_eq!(
        post(&service.router, long).await.status,
        StatusCode::BAD_REQUEST
    );
    let large = json!({"query": "x".repeat(2 << 20)}).to_string();
    assert_eq!(
        post(&service.router, large).await.status,
        StatusCode::PAYLOAD_TOO_LARGE
    );

    let untyped = Request::post("/search").body(Body::from("{}")).unwrap();
    assert_eq!(
        send(&service.router, untyped).await.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let wrong_method = get(&service.router, "/search").await;
    assert_eq!(wrong_method.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong_method.header(header::ALLOW), "POST");
    assert_eq!(
        wrong_method.header(header::CONTENT_TYPE),
        "application/problem+json"
    );
    let nowhere = get(&service.router, "/nowhere").await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert_eq!(
        nowhere.header(header::CONTENT_TYPE),
        "application/problem+json"
    );
}

#[tokio::test]
async fn odd_questions_are_answered_all_the_same() {
    let service = indexed();
    for query in [
        "?",
        "🙂",
        "\u{0}",
        "....",
        "a:b::c->",
        "\" OR 1=1 --",
        "*:* AND [a TO z]",
        "ß\u{301}",
    ] {
        let answer = search(&service.router, json!({"query": query})).await;
        assert_eq!(answer["query"], query);
    }
}

#[tokio::test]
async fn pages_have_the_anchors_that_answers_point_to() {
    let service = indexed();
    let page = get(&service.router, "/runbooks/tcp/accept-queue").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.header(header::CONTENT_SECURITY_POLICY)
            .contains("default-src 'none'")
    );
    let answer = search(
        &service.router,
        json!({"query": "accept queue", "limit": 100}),
    )
    .await;
    for result in answer["results"].as_array().unwrap() {
        let page = get(&service.router, result["runbook"]["url"].as_str().unwrap()).await;
        let anchor = format!("id=\"{}\"", result["section"]["anchor"].as_str().unwrap());
        assert!(page.body.contains(&anchor), "{anchor}");
    }
    let dns = get(&service.router, "/runbooks/dns-servfail").await;
    assert!(!dns.body.contains("<script>alert"));
    assert_eq!(
        get(&service.router, "/runbooks/dns-servfail.md").await.body,
        DNS
    );
    assert_eq!(
        get(&service.router, "/runbooks/none").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(&service.router, "/runbooks/..%2f..%2fetc%2fpasswd")
            .await
            .status,
        StatusCode::NOT_FOUND
    );

    let list = get(&service.router, "/runbooks").await.json();
    let ids: Vec<_> = list["runbooks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["id"].clone())
        .collect();
    assert_eq!(ids, ["dns-servfail", "tcp/accept-queue", "tls"]);
}

#[tokio::test]
async fn an_alert_leads_to_its_page_and_an_unknown_one_to_its_neighbours() {
    let service = indexed();
    let known = get(&service.router, "/r/CoreDNSErrorsHigh").await;
    assert_eq!(known.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(known.header(header::LOCATION), "/runbooks/dns-servfail");
    let unknown = get(&service.router, "/r/CoreDNSErrors%3Cb%3E").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(
        unknown
            .body
            .contains("<a href=\"/runbooks/dns-servfail\">CoreDNSErrorsHigh</a>")
    );
    assert!(!unknown.body.contains("<b>"));
}

#[tokio::test]
async fn health_and_metrics_tell_how_it_is() {
    let service = service(Some(Box::new(HashingEmbedder)));
    assert_eq!(
        get(&service.router, "/healthz").await.status,
        StatusCode::OK
    );
    assert_eq!(
        get(&service.router, "/readyz").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let early = post(&service.router, r#"{"query": "x"}"#).await;
    assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(early.header(header::RETRY_AFTER), "1");

    service.retriever.refresh().unwrap();
    let ready = get(&service.router, "/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.json()["index"]["runbooks"], 3);
    let metrics = get(&service.router, "/metrics").await.body;
    assert!(metrics.contains("runwire_assistant_runbooks 3\n"));
    assert!(
        metrics.contains(
            "runwire_assistant_http_requests_total{route=\"/search\",status=\"503\"} 1\n"
        )
    );
    assert!(
        get(&service.router, "/")
            .await
            .body
            .contains("<form id=\"ask\">")
    );
    assert_eq!(
        get(&service.router, "/assets/start.js").await.status,
        StatusCode::OK
    );
}

#[test]
fn an_edit_is_found_and_a_deleted_page_is_not() {
    let service = service(Some(Box::new(HashingEmbedder)));
    service.retriever.watch().unwrap();
    let ids = |query: &str| -> Vec<String> {
        match service.retriever.search(query, 10, &Filters::default()) {
            Ok(found) => found.results.into_iter().map(|r| r.runbook.id).collect(),
            Err(_) => Vec::new(),
        }
    };
    let within = |what: &str, limit: Duration, holds: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !holds() {
            assert!(
                started.elapsed() < limit,
                "{what} took longer than {limit:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    within("the first index", Duration::from_secs(10), &|| {
        !ids("certificate").is_empty()
    });

    let new = service.folder.path().join("zebra.md");
    std::fs::write(&new, "# Zebra\n\nStripes on the console.\n").unwrap();
    within("a new page", Duration::from_secs(2), &|| {
        ids("zebra stripes").first().is_some_and(|id| id == "zebra")
    });
    std::fs::write(&new, "# Giraffe\n\nA long neck.\n").unwrap();
    within("an edit", Duration::from_secs(2), &|| {
        ids("giraffe neck").first().is_some_and(|id| id == "zebra")
    });
    std::fs::remove_file(&new).unwrap();
    within("a deletion", Duration::from_secs(2), &|| {
        !ids("giraffe neck").contains(&"zebra".to_owned())
    });
}

#[test]
fn vectors_are_kept_between_starts_and_a_damaged_file_is_made_anew() {
    let service = service(None);
    let cache = tempfile::tempdir().unwrap();
    let start = || {
        let folders = vec![service.folder.path().to_owned()];
        let retriever =
            Retriever::new(folders, Some(Box::new(HashingEmbedder)), Some(cache.path()));
        retriever.refresh().unwrap();
        retriever
            .search("certificate expired", 3, &Filters::default())
            .unwrap()
    };
    let first = start();
    let file: PathBuf = std::fs::read_dir(cache.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let kept = std::fs::read(&file).unwrap();
    assert_eq!(start(), first);
    std::fs::write(&file, &kept[..kept.len() / 2]).unwrap();
    assert_eq!(start(), first);
    assert_eq!(std::fs::read(&file).unwrap(), kept);
}

#[test]
fn without_a_model_words_are_enough() {
    let service = service(None);
    service.retriever.refresh().unwrap();
    let found = service
        .retriever
        .search("certifcate expired", 3, &Filters::default())
        .unwrap();
    assert_eq!(found.results[0].runbook.id, "tls");
    let nothing = service
        .retriever
        .search("zebra crossing", 3, &Filters::default())
        .unwrap();
    assert!(!nothing.answerable);
}

#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
fn model(precision: Precision) -> Option<MiniLm> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runwire");
    let runtime = root.join("onnxruntime/libonnxruntime.so");
    if !runtime.exists() {
        println!("skipped: no model in .runwire; `make` fetches it");
        return None;
    }
    Some(MiniLm::open(&root.join("model"), Some(&runtime), precision).unwrap())
}

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
        assert_eq!(twice, [near, far]);
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
