//! The harness of `bench`, in a try: a second of each load.

use std::fs;
use std::process::Command;

use serde_json::Value;

#[test]
#[ignore = "makes network namespaces and loads BPF: needs root"]
fn a_try_measures_the_programs_and_writes_both_files() {
    let folder = tempfile::tempdir().unwrap();
    let (json, markdown) = (folder.path().join("r.json"), folder.path().join("R.md"));
    fs::write(&markdown, "# Measured\n\n## Search\n\nkept\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_runwire-eval"))
        .args([
            "bench",
            "--only",
            "ebpf",
            "--seconds",
            "0.5",
            "--repeats",
            "1",
        ])
        .arg("--json")
        .arg(&json)
        .arg("--markdown")
        .arg(&markdown)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let results: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let programs = &results["pieces"][0]["figures"]["short connections"];
    // Both ends of a connection change their state five times.
    let runs = programs["tcp_state"]["runs"]["median"].as_f64().unwrap();
    assert!((9.9..11.0).contains(&runs), "{programs}");
    let nanoseconds = &programs["tcp_state"]["nanoseconds"]["median"];
    assert!(nanoseconds.as_f64().unwrap() > 0.0, "{programs}");

    let text = fs::read_to_string(&markdown).unwrap();
    assert!(text.contains("\n## Search\n\nkept\n"), "{text}");
    assert!(text.contains("\n## Collector\n"), "{text}");
    assert!(
        text.contains("| short connections | `tcp_state` |"),
        "{text}"
    );
}

#[test]
fn a_wrong_piece_is_named_with_the_right_ones() {
    let output = Command::new(env!("CARGO_BIN_EXE_runwire-eval"))
        .args(["bench", "--only", "speed"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    // Who is not root is told that first.
    assert!(
        message.contains("there is no piece `speed`") && message.contains("namespaces")
            || message.contains("need root"),
        "{message}"
    );
}
