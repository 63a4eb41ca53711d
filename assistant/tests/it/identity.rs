//! Who we are to Prometheus: a server on loopback that asks for it and counts what it was told.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use runwire_assistant::config::IdentitySettings;
use runwire_assistant::prometheus::{Identity, Prometheus, Settings};
use runwire_assistant::watched::Troubles;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Answers whoever sends these headers.
type Wanted = Arc<Mutex<Vec<(&'static str, String)>>>;

async fn query(State(wanted): State<Wanted>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let wanted = wanted.lock().unwrap();
    let has = |(name, value): &(&'static str, String)| {
        headers
            .get(*name)
            .is_some_and(|given| given == value.as_str())
    };
    if wanted.iter().all(has) {
        let answer =
            json!({"status": "success", "data": {"resultType": "scalar", "result": [1, "1"]}});
        return (StatusCode::OK, Json(answer));
    }
    (StatusCode::UNAUTHORIZED, Json(json!({})))
}

async fn server(wanted: &Wanted) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/api/v1/query", post(query))
        .with_state(Arc::clone(wanted));
    tokio::spawn(async { axum::serve(listener, router).await });
    url
}

fn client(url: &str, keys: &IdentitySettings) -> Prometheus {
    let mut settings = Settings::new(url);
    settings.identity = Identity::open(keys).unwrap();
    Prometheus::new(settings).unwrap()
}

fn file(folder: &TempDir, text: &str) -> Option<PathBuf> {
    let path = folder.path().join(format!("secret-{}", text.len()));
    std::fs::write(&path, text).unwrap();
    Some(path)
}

#[tokio::test]
async fn prometheus_is_told_tenant_token_and_password() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = Wanted::default();
    let url = server(&wanted).await;

    let keys = IdentitySettings {
        prometheus_headers: Some(vec!["X-Scope-OrgID: team-a".into(), "X-More:1".into()]),
        prometheus_user: Some("runwire".into()),
        prometheus_password: file(&folder, "open sesame\n"),
        ..IdentitySettings::default()
    };
    *wanted.lock().unwrap() = vec![
        ("x-scope-orgid", "team-a".into()),
        ("x-more", "1".into()),
        ("authorization", "Basic cnVud2lyZTpvcGVuIHNlc2FtZQ==".into()),
    ];
    assert_eq!(client(&url, &keys).check().await, Ok(()));
    assert!(
        client(&url, &IdentitySettings::default())
            .check()
            .await
            .is_err()
    );

    let keys = IdentitySettings {
        prometheus_token: file(&folder, "1st-word"),
        ..IdentitySettings::default()
    };
    let prometheus = client(&url, &keys);
    tokio::spawn(prometheus.clone().keep_fresh(Arc::new(Troubles::default())));
    *wanted.lock().unwrap() = vec![("authorization", "Bearer 1st-word".into())];
    assert_eq!(prometheus.instant("1", 0).await.unwrap().samples.len(), 1);
    // A token that is replaced, as Kubernetes does every hour.
    file(&folder, "2nd-word");
    *wanted.lock().unwrap() = vec![("authorization", "Bearer 2nd-word".into())];
    for _ in 0..50 {
        if prometheus.check().await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(prometheus.check().await, Ok(()));
}

#[test]
fn what_makes_no_sense_is_refused_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let given = || Some(PathBuf::from("/nonexistent/secret"));
    let refused = |keys: IdentitySettings| Identity::open(&keys).err().unwrap().to_string();
    let none = IdentitySettings::default;
    for (keys, words) in [
        (
            IdentitySettings {
                prometheus_headers: Some(vec!["hunter2".into()]),
                ..none()
            },
            "`prometheus_headers`",
        ),
        (
            IdentitySettings {
                prometheus_user: Some("u".into()),
                ..none()
            },
            "`prometheus_password` is not set",
        ),
        (
            IdentitySettings {
                prometheus_password: given(),
                ..none()
            },
            "`prometheus_user` is not set",
        ),
        (
            IdentitySettings {
                prometheus_token: given(),
                prometheus_user: Some("u".into()),
                ..none()
            },
            "one or the other",
        ),
        (
            IdentitySettings {
                prometheus_token: given(),
                ..none()
            },
            "/nonexistent/secret",
        ),
        (
            IdentitySettings {
                prometheus_token: file(&folder, "hunter2\nhunter2"),
                ..none()
            },
            "one line",
        ),
        (
            IdentitySettings {
                prometheus_ca: file(&folder, "hunter2"),
                ..none()
            },
            "`prometheus_ca`",
        ),
    ] {
        let sentence = refused(keys);
        assert!(
            sentence.contains(words) && !sentence.contains("hunter2"),
            "{sentence}"
        );
    }
}
