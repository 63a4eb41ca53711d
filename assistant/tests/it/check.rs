//! `check`: its exit codes, by which a pipeline tells a finding from a mistake of its own; and what all commands do that print.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn a_finding_and_a_mistake_have_different_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    write("good/a.md", "# A\n");
    write("bad/a.md", "# A\n\n[b](nowhere.md)\n");
    let empty = write("rules.yaml", "groups: []\n");
    for (runbooks, more, code, words) in [
        ("good", ["--log", "error"], 0, ""),
        ("bad", ["--log", "error"], 1, ""),
        (
            "good",
            ["--metrics", "/nowhere"],
            2,
            "`metrics` names /nowhere",
        ),
        (
            "good",
            ["--alert-rules", "/nowhere"],
            2,
            "`alert_rules` is of no use: cannot read /nowhere",
        ),
        ("good", ["--alert-rules", &empty], 2, "holds no alert"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_runwire-assistant"))
            .args(["check", "--runbooks"])
            .arg(folder.path().join(runbooks))
            .args(more)
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{more:?}: {told}");
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_makes_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.md"), "# A\n\n[b](nowhere.md)\n").unwrap();
    for command in [&["check"][..], &["rules"], &["search", "words"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_runwire-assistant"))
            .args(command)
            .arg("--runbooks")
            .arg(folder.path())
            .env("XDG_CACHE_HOME", folder.path().join("cache"))
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("cannot print"), "{command:?}: {told}");
        assert_eq!(output.status.code(), Some(1), "{command:?}: {told}");
    }
}

#[test]
fn a_program_that_watches_reads_answers_and_nothing_else() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_runwire-assistant"))
        .args(["diagnose", "--watch", "60", "--json"])
        .args(["--url", "http://127.0.0.1:1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let (sender, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stderr).read_line(&mut line);
        sender.send(line)
    });
    let line = told.recv_timeout(Duration::from_secs(20));
    child.kill().unwrap();
    let mut answers = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut answers).unwrap();
    child.wait().unwrap();
    assert_eq!(answers, "");
    assert!(line.unwrap().starts_with("error: cannot reach"));
}
