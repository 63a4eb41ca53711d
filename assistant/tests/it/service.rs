//! A whole assistant over three pages, without a socket, for the other tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use runwire_assistant::api::{self, AppState};
use runwire_assistant::config::{Config, Settings};
use runwire_assistant::diagnosis::{DEADLINE, Engine};
use runwire_assistant::metrics::Metrics;
use runwire_assistant::prometheus::{self, Prometheus};
use runwire_assistant::retrieval::Retriever;
use runwire_assistant::retrieval::embed::{Embedder, HashingEmbedder, MiniLm, Precision};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) const DNS: &str = "---
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

pub(crate) const QUEUE: &str = "# Accept queue overflow

A listener does not accept as fast as clients connect.

## Diagnosis

Compare `Recv-Q` and `Send-Q` of the listener with `ss -lnt`.

## Mitigation

Make the program accept faster, or raise net.core.somaxconn.

## Background

The kernel drops the last packet of the handshake when the accept queue is full.
";

pub(crate) const CERTIFICATE: &str = "---\nlabels: {team: security}\n---\n# TLS certificate expired\n\nThe certificate of the server is no longer valid.\n";

pub(crate) struct Service {
    pub(crate) folder: TempDir,
    pub(crate) retriever: Retriever,
    pub(crate) router: Router,
}

pub(crate) fn service(embedder: Option<Box<dyn Embedder>>) -> Service {
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
    let mut service = over(vec![folder.path().to_owned()], embedder);
    service.folder = folder;
    service
}

/// A service over folders that are there already.
pub(crate) fn over(folders: Vec<PathBuf>, embedder: Option<Box<dyn Embedder>>) -> Service {
    asking("http://127.0.0.1:1", folders, embedder, DEADLINE)
}

/// The same, with a Prometheus to ask.
pub(crate) fn asking(
    prometheus: &str,
    folders: Vec<PathBuf>,
    embedder: Option<Box<dyn Embedder>>,
    deadline: Duration,
) -> Service {
    let settings = Settings {
        runbooks: Some(folders),
        ..Settings::default()
    };
    let config = Config::load(settings, "error").unwrap();
    let retriever = Retriever::new(config.runbooks.clone(), embedder, None);
    let prometheus = Prometheus::new(prometheus::Settings::new(prometheus)).unwrap();
    let engine = Arc::new(Engine::new(prometheus, deadline));
    let state = AppState::new(
        Arc::new(config),
        retriever.clone(),
        Arc::new(Metrics::default()),
        engine,
    );
    Service {
        folder: tempfile::tempdir().unwrap(),
        retriever,
        router: api::with_pages(api::router(state)),
    }
}

pub(crate) fn indexed() -> Service {
    let service = service(Some(Box::new(HashingEmbedder)));
    service.retriever.refresh().unwrap();
    service
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

pub(crate) async fn post(router: &Router, body: impl Into<Body>) -> Answer {
    let request = Request::post("/search")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap();
    send(router, request).await
}

pub(crate) async fn search(router: &Router, request: Value) -> Value {
    let answer = post(router, request.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.json()
}
#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
pub(crate) fn model(precision: Precision) -> Option<MiniLm> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runwire");
    let runtime = root.join("onnxruntime/libonnxruntime.so");
    if !runtime.exists() {
        println!("skipped: no model in .runwire; `make` fetches it");
        return None;
    }
    Some(MiniLm::open(&root.join("model"), Some(&runtime), precision).unwrap())
}
