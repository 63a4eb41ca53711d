//! `GET /api/tls`: the TLS handshakes of late. `GET /api/tls/{id}`: all that is known of one.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::problem;
use crate::agent::Agent;
use crate::tls::table::{Entry, Seen};

pub(super) fn routes() -> Router<Arc<Agent>> {
    Router::new()
        .route("/api/tls", get(list))
        .route("/api/tls/{id}", get(detail))
}

async fn list(State(agent): State<Arc<Agent>>) -> Response {
    let entries = spawn_blocking(move || agent.tls_table().list()).await;
    let rows: Vec<Value> = entries.unwrap_or_default().iter().map(row).collect();
    Json(rows).into_response()
}

async fn detail(State(agent): State<Arc<Agent>>, Path(id): Path<String>) -> Response {
    let entry = spawn_blocking(move || agent.tls_table().get(&id)).await;
    let Some(entry) = entry.ok().flatten() else {
        let detail = "there is no such handshake, or no more; /api/tls lists those that are known";
        return problem(StatusCode::NOT_FOUND, detail);
    };
    let mut body = row(&entry);
    if let Value::Object(body) = &mut body {
        body.insert("port".into(), json!(entry.key.server.port));
        body.insert("clientTLSVersions".into(), json!(entry.client_versions));
        body.insert("clientCipherSuites".into(), json!(entry.client_ciphers));
        body.insert("clientALPN".into(), json!(entry.client_alpn));
        body.insert("usedALPN".into(), json!(entry.alpn));
        body.insert(
            "certificate".into(),
            json!(entry.certificate.as_ref().map(certificate)),
        );
    }
    Json(body).into_response()
}

fn row(entry: &Entry) -> Value {
    let key = &entry.key;
    json!({
        "id": entry.id,
        "src": key.src,
        "srcName": &*entry.src.name,
        "srcNamespace": &*entry.src.namespace,
        "dst": key.server.address,
        "dstName": &*entry.dst.name,
        "dstNamespace": &*entry.dst.namespace,
        "dstPort": key.server.port,
        "domain": key.server.name.as_deref().unwrap_or_default(),
        "usedTLSVersion": key.version,
        "usedCipherSuite": key.cipher,
        "handshakes": entry.handshakes,
        "failures": entry.failures,
        "lastFailure": entry.last_failure,
        "lastSeen": entry.last_seen,
    })
}

fn certificate(seen: &Seen) -> Value {
    let certificate = &seen.certificate;
    let time = |seconds| Timestamp::from_second(seconds).ok();
    json!({
        "notBefore": time(certificate.not_before),
        "notAfter": time(certificate.not_after),
        "notAfterSeconds": certificate.not_after,
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "names": certificate.names,
        "fingerprint": certificate.fingerprint,
        "serverChain": certificate.chain.join("\n"),
        "lastScrape": seen.at,
    })
}
