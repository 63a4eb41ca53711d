//! Several assistants over one saved index that none of them may write.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::incidents::kill::Program;

/// Once it is ready.
fn ask(program: &Program, query: &str) -> String {
    let started = Instant::now();
    loop {
        let question = json!({"query": query, "limit": 3}).to_string();
        let (status, body) = program.ask("POST", "/search", &question);
        if status == 200 {
            return body;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{body}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// With its own incidents and the shared index.
fn start(runbooks: &Path, cache: &Path) -> (TempDir, Program) {
    let place = tempfile::tempdir().unwrap();
    symlink(cache, place.path().join("cache")).unwrap();
    let assistant = Path::new(env!("CARGO_BIN_EXE_runwire-assistant"));
    let program = Program::start_by(&[], assistant, runbooks, place.path());
    (place, program)
}

#[test]
fn several_serve_one_index_that_they_may_only_read() {
    let shared = tempfile::tempdir().unwrap();
    let (runbooks, cache) = (shared.path().join("runbooks"), shared.path().join("cache"));
    fs::create_dir(&runbooks).unwrap();
    fs::create_dir(&cache).unwrap();
    for page in 0..300 {
        let text = format!("# Page {page}\n\nThe queue of listener {page} is full.\n");
        fs::write(runbooks.join(format!("page-{page}.md")), text).unwrap();
    }
    let first = {
        let (_place, program) = start(&runbooks, &cache);
        let answer = ask(&program, "listener 17");
        let saved = || {
            fs::read_dir(&cache)
                .unwrap()
                .flatten()
                .any(|file| file.path().extension().is_some_and(|e| e == "bin"))
        };
        let started = Instant::now();
        while !saved() {
            assert!(started.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(20));
        }
        answer
    };
    let file = |extension: &str| {
        let files = fs::read_dir(&cache)
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .collect::<Vec<_>>()
    };
    // Root may write anywhere, so the lock's place is taken as well.
    for lock in file("lock") {
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
    }
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o555)).unwrap();
    let index = file("bin").pop().unwrap();
    let (kept, inode) = (
        fs::read(&index).unwrap(),
        fs::metadata(&index).unwrap().ino(),
    );

    let programs = [(); 3].map(|()| start(&runbooks, &cache));
    for (_, program) in &programs {
        assert_eq!(ask(program, "listener 17"), first);
    }
    // Each follows the files for itself.
    fs::write(runbooks.join("zebra.md"), "# Zebra\n\nStripes.\n").unwrap();
    let started = Instant::now();
    for (_, program) in &programs {
        loop {
            let answer: Value = serde_json::from_str(&ask(program, "zebra stripes")).unwrap();
            if answer["results"][0]["runbook"]["id"] == "zebra" {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(5), "{answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    drop(programs);
    assert_eq!(fs::read(&index).unwrap(), kept);
    assert_eq!(fs::metadata(&index).unwrap().ino(), inode);
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
}
