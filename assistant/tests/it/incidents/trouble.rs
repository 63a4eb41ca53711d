//! The store is not there, full or read-only: 503 with a sentence, told in `/readyz`, and all is well when it is back.

use std::path::Path;
use std::process::Command;

use axum::http::{StatusCode, header};
use runwire_assistant::incidents::Place;

use super::desk::{Desk, alert, notification};
use super::{START, postgres};

async fn is_refused(desk: &Desk, group: &str, words: &str) {
    let answer = desk
        .notify(&notification(group, &[alert("a", START, None)]))
        .await;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.body
    );
    assert_eq!(
        answer.header(header::CONTENT_TYPE),
        "application/problem+json"
    );
    assert!(
        answer.body.contains(words) && answer.body.contains("send it again"),
        "{}",
        answer.body
    );
    let ready = desk.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert!(
        ready.json()["incidents"].as_str().unwrap().contains(words),
        "{}",
        ready.body
    );
}

async fn is_taken(desk: &Desk, group: &str) {
    let answer = desk
        .notify(&notification(group, &[alert("a", START, None)]))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    assert_eq!(desk.get("/readyz").await.json()["incidents"], "ok");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    std::fs::write(&state, "not a folder").unwrap();
    let desk = Desk::at(Place::Sqlite(state.join("incidents.db")));
    is_refused(&desk, "g", "state/incidents.db").await;
    std::fs::remove_file(&state).unwrap();
    is_taken(&desk, "g").await;
    assert_eq!(desk.list("").await.len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("incidents.db");
    let text = "this is a letter, not a database; ".repeat(100);
    std::fs::write(&file, &text).unwrap();
    let desk = Desk::at(Place::Sqlite(file.clone()));
    is_refused(&desk, "g", "not a database").await;
    assert_eq!(std::fs::read_to_string(file).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stops_is_waited_for() {
    let Some(server) = postgres::start() else {
        return;
    };
    let desk = Desk::at(Place::Postgres(server.url.clone()));
    is_taken(&desk, "g").await;
    drop(server);
    let answer = desk
        .notify(&notification("h", &[alert("a", START, None)]))
        .await;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.body
    );
    assert_ne!(desk.get("/readyz").await.json()["incidents"], "ok");
    assert_eq!(
        desk.get("/incidents").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

/// As after a failure of its host: connections that wait for an answer wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_without_a_word_is_asked_again() {
    let Some(server) = postgres::start() else {
        return;
    };
    let desk = Desk::at(Place::Postgres(
        server.silent_after("SET claimed_until").await,
    ));
    let work = desk.work();
    is_taken(&desk, "g").await;
    desk.wait_for(|incident| incident["status"] == "unknown")
        .await;
    work.abort();
}

/// A small disk of its own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(&["-t", "tmpfs", "-o", "size=2m", "tmpfs"], folder.path());
        Self(folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], place: &Path) {
    let status = Command::new("mount")
        .args(arguments)
        .arg(place)
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
#[ignore = "mounts a file system: needs root"]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let disk = Disk::new();
    let desk = Desk::at(Place::Sqlite(disk.0.path().join("incidents.db")));
    is_taken(&desk, "first").await;

    let filler = disk.0.path().join("filler");
    let mut refused = None;
    std::fs::write(&filler, vec![0; 4 << 20]).unwrap_err();
    for group in 0..200 {
        let large: Vec<_> = (0..20)
            .map(|i| alert(&format!("{i}"), START, None))
            .collect();
        let answer = desk
            .notify(&notification(&format!("{group}"), &large))
            .await;
        if answer.status != StatusCode::OK {
            refused = Some((group, answer));
            break;
        }
    }
    let (taken, answer) = refused.expect("a full disk takes no more");
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.body
    );
    assert!(answer.body.contains("full"), "{}", answer.body);
    assert_ne!(desk.get("/readyz").await.json()["incidents"], "ok");
    std::fs::remove_file(&filler).unwrap();
    is_taken(&desk, "after").await;
    assert_eq!(desk.list("limit=500").await.len(), taken + 2);
}
