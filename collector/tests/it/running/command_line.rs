//! Commands that talk to the collector, and that do without it.

use std::net::TcpListener;
use std::process::Command;

use super::collector::{Collector, command, stderr, stdout};

#[test]
fn a_collector_that_is_not_there_is_a_sentence_and_a_code() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let address = free.to_string();
    for arguments in [
        &["status"][..],
        &["config", "get"],
        &["config", "set", "log_level=info"],
        &["trace", "--for", "1s"],
    ] {
        let output = command(arguments, &address);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let expected = format!(
            "runwire-collector: no collector answers on {address}; start `runwire-collector run`, or give its address with --listen"
        );
        assert!(
            stderr(&output).starts_with(&expected),
            "{}",
            stderr(&output)
        );
    }
    let output = command(&["trace", "--for", "2h"], &address);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("write a duration up to 1h"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_schema_names_every_key() {
    let program = env!("CARGO_BIN_EXE_runwire-collector");
    let output = Command::new(program).args(["config", "schema"]).output();
    let text = stdout(&output.unwrap());
    for key in runwire_collector::config::KEYS {
        assert!(
            text.contains(&format!("{}\n  {}.\n", key.name, key.help)),
            "{}",
            key.name
        );
    }
}

#[test]
#[ignore = "loads BPF: needs root"]
fn a_wrong_filter_is_a_wrong_argument() {
    let collector = Collector::start("");
    for (flag, value) in [
        ("--port", "abc"),
        ("--state", "dead"),
        ("--src", "10.0.0.300"),
    ] {
        let output = collector.command(&["flows", flag, value]);
        assert_eq!(output.status.code(), Some(2), "{flag}: {}", stderr(&output));
        assert!(stderr(&output).contains(value), "{}", stderr(&output));
    }
    let output = collector.command(&["flows", "--port", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// Name → content.
fn unpack(archive: &std::path::Path) -> Vec<(String, String)> {
    let run = |arguments: &[&str]| {
        let output = Command::new("tar")
            .args(arguments)
            .arg(archive)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let names: Vec<String> = run(&["-tzf"]).lines().map(str::to_owned).collect();
    let content = |name: String| {
        let output = Command::new("tar")
            .arg("-xzOf")
            .arg(archive)
            .arg(&name)
            .output();
        (name, stdout(&output.unwrap()))
    };
    names.into_iter().map(content).collect()
}

#[test]
#[ignore = "loads BPF: needs root"]
fn a_bundle_holds_what_helps_and_no_secret() {
    const CANARY: &str = "hunter2canary";
    let directory = tempfile::tempdir().unwrap();
    let collector = Collector::start(&format!("# password: {CANARY}\nseries_budget: 432\n"));
    // A file that is wrong, and holds what nobody should see.
    collector.write_config(&format!("http://me:{CANARY}@host/: 1\n"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    let archive = directory.path().join("with.tar.gz");
    let output = Command::new(env!("CARGO_BIN_EXE_runwire-collector"))
        .env("SOME_TOKEN", CANARY)
        .args(["bundle", "--listen", &collector.address().to_string(), "-o"])
        .arg(&archive)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let parts = unpack(&archive);
    let part = |name: &str| {
        let name = format!("runwire-bundle/{name}");
        let found = parts.iter().find(|(found, _)| *found == name);
        &found.unwrap_or_else(|| panic!("no {name}")).1
    };
    assert!(part("version.txt").contains(env!("CARGO_PKG_VERSION")));
    assert!(part("host/version.txt").contains("Linux"));
    assert!(part("metrics.txt").contains("runwire_build_info"));
    assert!(part("readyz.json").contains("tcp_lifecycle"));
    assert!(part("config-in-force.json").contains("432"));
    assert!(part("doctor.txt").contains("CAP_BPF"));
    assert!(
        part("logs.ndjson")
            .lines()
            .all(|line| line.starts_with('{'))
    );
    assert!(part("logs.ndjson").contains("the configuration stays as it was"));
    for (name, content) in &parts {
        assert!(!content.contains(CANARY), "{name} tells");
    }

    let address = collector.address().to_string();
    drop(collector);
    let archive = directory.path().join("without.tar.gz");
    let output = command(&["bundle", "-o", archive.to_str().unwrap()], &address);
    assert!(output.status.success(), "{}", stderr(&output));
    let parts = unpack(&archive);
    let contents = &parts
        .iter()
        .find(|(name, _)| name.ends_with("/contents.txt"))
        .unwrap()
        .1;
    assert!(
        contents.contains("metrics.txt: not there: no collector answers"),
        "{contents}"
    );
    assert!(parts.iter().any(|(name, _)| name.ends_with("/doctor.txt")));

    // A disk of one page, which is taken, seen by this shell alone.
    let script = format!(
        "mount -t tmpfs -o size=4k none {0} && cd {0} && head -c 4096 /dev/zero > full && {1} bundle --listen {address}; code=$?; ls; exit $code",
        directory.path().display(),
        env!("CARGO_BIN_EXE_runwire-collector"),
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("name another place with `--output`"),
        "{}",
        stderr(&output)
    );
    assert_eq!(stdout(&output), "full\n", "a part of an archive is left");
}

#[test]
#[ignore = "loads BPF: needs root"]
fn a_trace_shows_what_happens_and_ends_by_itself() {
    let collector = Collector::start("");
    let address = collector.address().to_string();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let trace = std::thread::spawn(move || {
        command(
            &["trace", "--for", "3s", "--only", "refused", "--json"],
            &address,
        )
    });
    std::thread::sleep(std::time::Duration::from_millis(1500));
    // Nobody listens there any more.
    assert!(std::net::TcpStream::connect(port).is_err());
    let output = trace.join().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let failure = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|line| line["metric"] == "tcp_connect_failures")
        .unwrap_or_else(|| panic!("{text}"));
    assert_eq!(failure["labels"]["reason"], "refused");
}

#[test]
#[ignore = "loads BPF: needs root"]
fn totals_of_status_are_those_of_the_metrics() {
    let collector = Collector::start("disabled_signals: [netns_counters]\n");
    let output = collector.command(&["status", "--json"]);
    assert!(output.status.success());
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["status"], "ready");
    let shown = status["metrics"]["config_reloads"]["series"].as_f64();
    assert_eq!(shown, Some(0.0));
    // Counts only what cannot have moved in between.
    let hooks = status["metrics"]["hook_attached"]["series"]
        .as_f64()
        .unwrap();
    assert_eq!(hooks, collector.metric("series{metric=\"hook_attached\"}"));
    let attempts = status["metrics"]["tcp_connect_attempts"]["total"]
        .as_f64()
        .unwrap();
    assert!(attempts > 0.0 && attempts <= collector.metric("tcp_connect_attempts_total"));
}

#[test]
#[ignore = "loads BPF: needs root"]
fn doctor_names_what_is_in_the_way() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = command(&["doctor"], &taken.local_addr().unwrap().to_string());
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let line = text.lines().find(|line| line.starts_with("FAIL")).unwrap();
    assert!(
        line.contains("listen address") && line.contains("set `listen` to an address"),
        "{line}"
    );

    // Without the kernel's types, and without cgroup2: each in a mount namespace of its own.
    let program = env!("CARGO_BIN_EXE_runwire-collector");
    let without = |hide: &str, name: &str| {
        let script = format!("{hide} && exec {program} doctor --listen 127.0.0.1:0");
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .output();
        let text = stdout(&output.unwrap());
        let named = text
            .lines()
            .find(|line| !line.starts_with("ok") && line.contains(name));
        assert!(
            named.is_some_and(|line| line.contains("; ")),
            "{name}: {text}"
        );
    };
    without("mount -t tmpfs none /sys/kernel/btf", "kernel types");
    without(
        "umount -l $(grep -w cgroup2 /proc/self/mounts | cut -d' ' -f2)",
        "cgroup2",
    );

    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, NO_API_SERVER).unwrap();
    let arguments = ["doctor", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let output = command(&arguments, "127.0.0.1:0");
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let is_named = |line: &str| line.starts_with("FAIL") && line.contains("Kubernetes");
    let line = text.lines().find(|line| is_named(line)).unwrap();
    assert!(line.contains("see that the API server runs"), "{line}");
}

#[test]
#[ignore = "loads BPF: needs root"]
fn doctor_says_when_no_interface_would_be_captured() {
    let line_about = |interfaces: &str| {
        let arguments = [
            "doctor",
            "--capture",
            "tc",
            "--capture-interfaces",
            interfaces,
        ];
        let text = stdout(&command(&arguments, "127.0.0.1:0"));
        let line = text
            .lines()
            .find(|line| line.contains("capture interfaces"));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let none = line_about("nosuch*");
    assert!(none.starts_with("lacks"), "{none}");
    assert!(none.contains("nosuch*") && none.contains("lo"), "{none}");
    assert!(line_about("lo").starts_with("ok"));
}

/// Port 9 of loopback is nobody's.
const NO_API_SERVER: &str = r#"
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
"#;
