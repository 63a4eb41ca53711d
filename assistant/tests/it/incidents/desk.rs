//! An assistant that keeps incidents, without a socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use runwire_assistant::api::{self, AppState};
use runwire_assistant::config::{self, Config};
use runwire_assistant::diagnosis::{DEADLINE, Engine};
use runwire_assistant::incidents::deliver::Targets;
use runwire_assistant::incidents::{Incidents, Place, Settings, work};
use runwire_assistant::metrics::Metrics;
use runwire_assistant::prometheus::{self, Prometheus};
use runwire_assistant::retrieval::Retriever;
use runwire_assistant::retrieval::embed::HashingEmbedder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::service::{Answer, get, send};

pub(super) struct Desk {
    pub(super) router: Router,
    state: AppState,
    pub(super) incidents: Incidents,
    config: Arc<Config>,
    retriever: Retriever,
    metrics: Arc<Metrics>,
    /// Where diagnoses are written down.
    audit: PathBuf,
    _folders: Vec<TempDir>,
}

pub(super) fn alert(fingerprint: &str, start: &str, end: Option<&str>) -> Value {
    json!({
        "status": if end.is_some() { "resolved" } else { "firing" },
        "labels": {"alertname": "CheckoutSlow", "instance": fingerprint},
        "annotations": {"summary": "the checkout is slow"},
        "startsAt": start, "endsAt": end.unwrap_or("0001-01-01T00:00:00Z"),
        "generatorURL": "http://prometheus/graph", "fingerprint": fingerprint,
    })
}

pub(super) fn notification(group: &str, alerts: &[Value]) -> Value {
    let fires = alerts.iter().any(|alert| alert["status"] == "firing");
    json!({
        "version": "4", "groupKey": format!("{{}}:{{group=\"{group}\"}}"), "truncatedAlerts": 0,
        "status": if fires { "firing" } else { "resolved" }, "receiver": "runwire", "notification_reason": "new",
        "groupLabels": {}, "commonLabels": {"alertname": "CheckoutSlow"},
        "commonAnnotations": {"summary": "the checkout is slow"}, "externalURL": "http://alertmanager", "alerts": alerts,
    })
}

impl Desk {
    pub(super) fn at(place: Place) -> Self {
        Self::with(place, Targets::default())
    }

    pub(super) fn temporary() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = Self::at(Place::Sqlite(folder.path().join("incidents.db")));
        desk._folders.push(folder);
        desk
    }

    pub(super) fn with(place: Place, targets: Targets) -> Self {
        let runbooks = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks"));
        let folder = tempfile::tempdir().unwrap();
        let audit = folder.path().join("audit.jsonl");
        let access = config::AccessSettings {
            audit: Some(audit.clone()),
            ..config::AccessSettings::default()
        };
        let settings = config::Settings {
            access,
            runbooks: Some(vec![runbooks]),
            external_url: Some("https://runwire.example".into()),
            incidents: Some("off".into()),
            ..config::Settings::default()
        };
        let config = Arc::new(Config::load(settings, "error").unwrap());
        let retriever = Retriever::new(
            config.runbooks.clone(),
            Some(Box::new(HashingEmbedder)),
            None,
        );
        retriever.refresh().unwrap();
        let metrics = Arc::new(Metrics::default());
        let settings = Settings {
            place,
            retention: Duration::from_secs(86_400),
            limit: 1000,
            rediagnose: Duration::from_secs(1),
            targets,
        };
        let incidents = Incidents::new(settings, metrics.clone()).unwrap();
        let state = state(
            &config,
            &retriever,
            &metrics,
            &incidents,
            "http://127.0.0.1:1",
        );
        Self {
            router: api::with_pages(api::router(state.clone())),
            state,
            incidents,
            config,
            retriever,
            metrics,
            audit,
            _folders: vec![folder],
        }
    }

    /// Another Prometheus from now on.
    pub(super) fn look_at(&mut self, prometheus: &str) {
        self.state = state(
            &self.config,
            &self.retriever,
            &self.metrics,
            &self.incidents,
            prometheus,
        );
        self.router = api::with_pages(api::router(self.state.clone()));
    }

    /// Diagnoses and deliveries go on until this is aborted.
    pub(super) fn work(&self) -> JoinHandle<()> {
        tokio::spawn(work::run(self.state.clone(), self.incidents.clone()))
    }

    /// The lines of the audit.
    pub(super) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.audit).unwrap();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    pub(super) async fn notify(&self, notification: &Value) -> Answer {
        self.post("/webhook/alertmanager", notification).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string()).await
    }

    pub(super) async fn post_text(&self, path: &str, body: &str) -> Answer {
        self.post_as(path, body, "application/json").await
    }

    pub(super) async fn post_form(&self, path: &str, body: &str) -> Answer {
        self.post_as(path, body, "application/x-www-form-urlencoded")
            .await
    }

    async fn post_as(&self, path: &str, body: &str, kind: &str) -> Answer {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body.to_owned()))
            .unwrap();
        send(&self.router, request).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        get(&self.router, path).await
    }

    pub(super) async fn get_html(&self, path: &str) -> Answer {
        let request = Request::get(path)
            .header(
                header::ACCEPT,
                "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
            )
            .body(Body::empty())
            .unwrap();
        send(&self.router, request).await
    }

    pub(super) async fn list(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/incidents?{query}")).await;
        assert!(answer.status.is_success(), "{}", answer.body);
        answer.json()["incidents"].as_array().unwrap().clone()
    }

    /// The page of the only incident, once it is as wanted.
    pub(super) async fn wait_for(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let list = self.list("").await;
            if let Some(incident) = list.first() {
                let page = self.get(incident["url"].as_str().unwrap()).await.json();
                if is_wanted(&page) {
                    return page;
                }
                assert!(started.elapsed() < Duration::from_secs(30), "{page:#}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn until_metric(&self, line: &str) {
        until(async || self.get("/metrics").await.body.lines().any(|l| l == line)).await;
    }

    pub(super) async fn forget(&self, retention: Duration, limit: u64) -> u64 {
        let settings = Settings {
            retention,
            limit,
            ..(*self.incidents.settings).clone()
        };
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let now = i64::try_from(now.as_millis()).unwrap();
        self.incidents.store.forget(&settings, now).await.unwrap()
    }
}

pub(super) async fn until(is_so: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(
            started.elapsed() < Duration::from_secs(90),
            "it does not come"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn state(
    config: &Arc<Config>,
    retriever: &Retriever,
    metrics: &Arc<Metrics>,
    incidents: &Incidents,
    prometheus: &str,
) -> AppState {
    let prometheus = Prometheus::new(prometheus::Settings::new(prometheus)).unwrap();
    let engine = Arc::new(Engine::new(prometheus, DEADLINE));
    AppState::new(config.clone(), retriever.clone(), metrics.clone(), engine)
        .with_incidents(incidents.clone())
}
