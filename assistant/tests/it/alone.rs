//! As a user without rights and without certificate authorities, in a network of its own: it starts, searches and diagnoses, and nothing wants out that no key names,
//! not from the libraries that it loads either.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::incidents::kill::Program;

const NOBODY: &str = "65534";

/// A network namespace whose only way out is an interface that leads nowhere and counts what it is given.
struct Island(String);

impl Island {
    fn new() -> Self {
        let island = Self(format!("runwire-alone-{}", std::process::id()));
        run("ip", &["netns", "add", &island.0]);
        for words in [
            "ip link set lo up",
            "ip link add out type veth peer name nowhere",
            "ip addr add 198.51.100.1/24 dev out",
            "ip link set out up",
            "ip link set nowhere up",
            "ip route add default dev out",
            "nft add table inet watch",
            "nft add chain inet watch out { type filter hook output priority 0; }",
            "nft add rule inet watch out oifname != lo meta l4proto { tcp, udp } counter",
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            run("ip", &[&["netns", "exec", &island.0], &words[..]].concat());
        }
        island
    }

    fn packets_out(&self) -> u64 {
        let rules = run(
            "ip",
            &[
                "netns", "exec", &self.0, "nft", "list", "table", "inet", "watch",
            ],
        );
        let count = rules.split("packets ").nth(1).unwrap();
        count.split(' ').next().unwrap().parse().unwrap()
    }

    /// Status line and body, asked from inside.
    fn ask(&self, port: u16, method: &str, path: &str, body: &str) -> (String, String) {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '%s' \"$0\" >&3; cat <&3");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = run(
            "ip",
            &["netns", "exec", &self.0, "bash", "-c", &script, &request],
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .status();
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "makes a network namespace: needs root"]
#[expect(
    clippy::print_stdout,
    reason = "a test that leaves something out must say so"
)]
fn without_rights_and_network_it_answers_and_asks_nobody_whom_no_key_names() {
    let place = tempfile::tempdir().unwrap();
    // The checkout may be where only its owner may look.
    let program = place.path().join("runwire-assistant");
    fs::copy(env!("CARGO_BIN_EXE_runwire-assistant"), &program).unwrap();
    let runbooks = concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks");
    run("cp", &["-r", runbooks, place.path().to_str().unwrap()]);
    let state = place.path().join("state");
    fs::create_dir(&state).unwrap();
    for (path, mode) in [(place.path(), 0o755), (&program, 0o755), (&state, 0o777)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    let cache = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.runwire"));
    let has_model = cache.join("onnxruntime").exists();
    if has_model {
        for part in ["model", "onnxruntime"] {
            let [from, to] = [cache, place.path()].map(|folder| folder.join(part));
            run("cp", &["-rL", from.to_str().unwrap(), to.to_str().unwrap()]);
        }
    } else {
        println!("partly: no model in .runwire, so ONNX Runtime is not loaded; `make` fetches it");
    }
    let model = format!("RUNWIRE_MODEL={}/model", place.path().display());
    let runtime = format!(
        "RUNWIRE_ONNXRUNTIME={}/onnxruntime/libonnxruntime.so",
        place.path().display()
    );
    let home = format!("HOME={}", state.display());

    let island = Island::new();
    let mut wrapper = vec![
        "ip",
        "netns",
        "exec",
        &island.0,
        "setpriv",
        "--reuid",
        NOBODY,
        "--regid",
        NOBODY,
        "--clear-groups",
        // As in a bare container.
        "env",
        // It must not depend on what runs the tests.
        "--unset=ORT_DISABLE_TELEMETRY",
        "SSL_CERT_FILE=/nowhere",
        "SSL_CERT_DIR=/nowhere",
        &home,
    ];
    if has_model {
        wrapper.extend([model.as_str(), &runtime]);
    }
    let running = Program::start_by(&wrapper, &program, Path::new("../runbooks"), &state);
    let port = running.address.port();

    let started = Instant::now();
    while !island
        .ask(port, "GET", "/readyz", "")
        .1
        .contains("\"ready\":true")
    {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it is not ready"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let ready = Instant::now();
    let (status, found) = island.ask(
        port,
        "POST",
        "/search",
        r#"{"query": "dns answers servfail"}"#,
    );
    assert!(status.contains("200"), "{status} {found}");
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["results"][0]["runbook"]["id"], "dns-servfail");
    let (status, diagnosis) =
        island.ask(port, "POST", "/diagnose", r#"{"query": "checkout hangs"}"#);
    assert!(status.contains("200"), "{status} {diagnosis}");
    let diagnosis: Value = serde_json::from_str(&diagnosis).unwrap();
    assert_eq!(diagnosis["status"], "unknown");
    assert_eq!(diagnosis["degraded"][0]["part"], "prometheus");

    // ONNX Runtime sends what it has to say some nine seconds after it is loaded, which it is now.
    if has_model {
        std::thread::sleep(Duration::from_secs(15).saturating_sub(ready.elapsed()));
        assert!(!state.join(".cache/Microsoft").exists());
    }
    let process = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    let line = |name: &str| process.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(
        line("Uid:")
            .split_whitespace()
            .skip(1)
            .all(|id| id == NOBODY),
        "{process}"
    );
    assert!(line("CapEff:").ends_with("0000000000000000"), "{process}");
    assert_eq!(
        island.packets_out(),
        0,
        "something was sent to where no key points"
    );
    // What would have been seen.
    run(
        "ip",
        &[
            "netns",
            "exec",
            &island.0,
            "bash",
            "-c",
            "echo > /dev/udp/203.0.113.1/53",
        ],
    );
    assert_eq!(island.packets_out(), 1);
}
