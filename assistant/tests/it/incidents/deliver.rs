//! Others are told: once, in order, signed, and again where they were not there.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, post};
use runwire_assistant::incidents::Place;
use runwire_assistant::incidents::deliver::{Format, Grafana, Targets, Webhook};
use serde_json::{Value, json};

use super::desk::{Desk, alert, notification, until};
use super::{LATER, START};

#[derive(Clone)]
struct Request {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: String,
}

impl Request {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// What was received; answered with the statuses in turn, then with 200.
#[derive(Clone, Default)]
struct Peer {
    requests: Arc<Mutex<Vec<Request>>>,
    statuses: Arc<Mutex<Vec<u16>>>,
    annotations: Arc<Mutex<Vec<Value>>>,
}

impl Peer {
    fn take(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Option<StatusCode> {
        self.requests.lock().unwrap().push(Request {
            method,
            path: path.to_owned(),
            headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        });
        self.statuses
            .lock()
            .unwrap()
            .pop()
            .map(|status| StatusCode::from_u16(status).unwrap())
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn hook(State(peer): State<Peer>, headers: HeaderMap, body: Bytes) -> Response {
    let status = peer.take(Method::POST, "/hook", headers, body);
    (status.unwrap_or(StatusCode::OK), [("retry-after", "1")]).into_response()
}

/// As Grafana's API documents it.
async fn annotations(
    State(peer): State<Peer>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if method == Method::GET {
        peer.take(method, "/api/annotations", headers, body);
        let found: Vec<Value> = peer
            .annotations
            .lock()
            .unwrap()
            .iter()
            .take(1)
            .map(|_| json!({"id": 1}))
            .collect();
        return axum::Json(found).into_response();
    }
    let made: Value = serde_json::from_slice(&body).unwrap();
    let status = peer.take(method, "/api/annotations", headers, body);
    let mut all = peer.annotations.lock().unwrap();
    all.push(made);
    // It took it, and something on the way back broke.
    if let Some(status) = status {
        return status.into_response();
    }
    axum::Json(json!({"message": "Annotation added", "id": all.len()})).into_response()
}

async fn annotation(
    State(peer): State<Peer>,
    Path(id): Path<usize>,
    headers: HeaderMap,
    method: Method,
    body: Bytes,
) -> Response {
    peer.take(method, &format!("/api/annotations/{id}"), headers, body);
    axum::Json(json!({"message": "Annotation patched"})).into_response()
}

async fn peer(statuses: &[u16]) -> (Peer, String) {
    let peer = Peer::default();
    peer.statuses.lock().unwrap().extend(statuses.iter().rev());
    let router = Router::new()
        .route("/hook", post(hook))
        .route("/moved", any(async || Redirect::to("/log-in")))
        .route("/log-in", any(async || "Who are you?"))
        .route("/api/annotations", any(annotations))
        .route("/api/annotations/{id}", any(annotation))
        .with_state(peer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (peer, url)
}

fn secret(folder: &std::path::Path, name: &str, text: &str) -> Option<std::path::PathBuf> {
    let file = folder.join(name);
    std::fs::write(&file, format!("{text}\n")).unwrap();
    Some(file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_told_of_the_diagnosis_and_of_the_end_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let (peer, url) = peer(&[500, 429]).await;
    let webhook = Webhook {
        url: format!("{url}/hook"),
        format: Format::Runwire,
        token_file: secret(folder.path(), "token", "t0ken"),
        secret_file: secret(folder.path(), "secret", "s3cret"),
    };
    let targets = Targets {
        webhook: Some(webhook),
        grafana: None,
    };
    let desk = Desk::with(Place::Sqlite(folder.path().join("incidents.db")), targets);
    let work = desk.work();
    desk.notify(&notification("g", &[alert("a", START, None)]))
        .await;
    desk.until_metric("runwire_assistant_deliveries_total{target=\"webhook\",outcome=\"told\"} 1")
        .await;
    desk.notify(&notification("g", &[alert("a", START, Some(LATER))]))
        .await;
    desk.until_metric("runwire_assistant_deliveries_total{target=\"webhook\",outcome=\"told\"} 2")
        .await;
    work.abort();

    let requests = peer.requests();
    assert_eq!(requests.len(), 4);
    let keys: Vec<&str> = requests
        .iter()
        .map(|r| r.header("idempotency-key"))
        .collect();
    assert!(
        !keys[0].is_empty() && keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3],
        "{keys:?}"
    );
    for request in &requests {
        assert_eq!(request.header("authorization"), "Bearer t0ken");
        let signature = std::process::Command::new("python3")
            .args(["-c", "import hmac,sys; print('sha256=' + hmac.new(b's3cret', sys.argv[1].encode(), 'sha256').hexdigest())"])
            .arg(&request.body)
            .output()
            .unwrap();
        assert_eq!(
            request.header("x-runwire-signature-256"),
            String::from_utf8(signature.stdout).unwrap().trim()
        );
    }
    let (first, last) = (requests[2].json(), requests[3].json());
    assert_eq!(
        (&first["event"], &last["event"]),
        (&json!("diagnosed"), &json!("resolved"))
    );
    assert_eq!(first["diagnosis"]["status"], "unknown");
    let url = first["incident"]["url"].as_str().unwrap();
    assert!(
        url.starts_with("https://runwire.example/incidents/"),
        "{url}"
    );
}

fn webhook(url: String, format: Format) -> Targets {
    Targets {
        webhook: Some(Webhook {
            url,
            format,
            token_file: None,
            secret_file: None,
        }),
        grafana: None,
    }
}

/// Who follows asks for the page with GET, is given one, and the diagnosis is told to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_no_delivery() {
    let (_, url) = peer(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let targets = webhook(format!("{url}/moved"), Format::Runwire);
    let desk = Desk::with(Place::Sqlite(folder.path().join("incidents.db")), targets);
    let work = desk.work();
    desk.notify(&notification("g", &[alert("a", START, None)]))
        .await;
    desk.until_metric(
        "runwire_assistant_deliveries_total{target=\"webhook\",outcome=\"postponed\"} 1",
    )
    .await;
    work.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_gets_text_in_which_an_alert_can_call_nobody() {
    let (peer, url) = peer(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let targets = webhook(format!("{url}/hook"), Format::Slack);
    let desk = Desk::with(Place::Sqlite(folder.path().join("incidents.db")), targets);
    let work = desk.work();
    let mut group = notification("g", &[alert("a", START, None)]);
    group["commonLabels"]["alertname"] = "<!channel> & more".into();
    desk.notify(&group).await;
    until(async || !peer.requests().is_empty()).await;
    work.abort();
    let text = peer.requests()[0].json()["text"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        text.starts_with("*&lt;!channel&gt; &amp; more*\n"),
        "{text}"
    );
    assert!(
        text.contains("<https://runwire.example/incidents/"),
        "{text}"
    );

    // It was over before anybody looked, and nothing else will be told of it.
    desk.notify(&notification("h", &[alert("b", START, Some(LATER))]))
        .await;
    let work = desk.work();
    until(async || peer.requests().len() > 1).await;
    work.abort();
    let text = peer.requests()[1].json()["text"].to_string();
    assert!(text.starts_with("\"*Over by now: CheckoutSlow"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grafana_has_one_region_from_the_start_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    // The first attempt arrives, and its answer is lost.
    let (peer, url) = peer(&[502]).await;
    let grafana = Grafana {
        url,
        token_file: secret(folder.path(), "token", "glsa_x"),
    };
    let targets = Targets {
        webhook: None,
        grafana: Some(grafana),
    };
    let desk = Desk::with(Place::Sqlite(folder.path().join("incidents.db")), targets);
    let work = desk.work();
    desk.notify(&notification("g", &[alert("a", START, None)]))
        .await;
    desk.until_metric("runwire_assistant_deliveries_total{target=\"grafana\",outcome=\"told\"} 1")
        .await;
    desk.notify(&notification("g", &[alert("a", START, Some(LATER))]))
        .await;
    desk.until_metric("runwire_assistant_deliveries_total{target=\"grafana\",outcome=\"told\"} 2")
        .await;
    work.abort();
    let made = peer.annotations.lock().unwrap().clone();
    assert_eq!(made.len(), 1);
    assert_eq!(made[0]["time"], 1_795_144_200_000_i64);
    let requests = peer.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.header("authorization") == "Bearer glsa_x")
    );
    let last = requests.last().unwrap();
    assert_eq!(
        (last.method.as_str(), last.path.as_str()),
        ("PATCH", "/api/annotations/1")
    );
    assert_eq!(last.json()["timeEnd"], 1_795_147_800_000_i64);
}
