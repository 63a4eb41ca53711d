//! Clients that are slow, greedy or many.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::collector::{Collector, exchange, stderr};

#[test]
#[ignore = "loads BPF: needs root"]
fn clients_that_hang_do_not_hold_up_the_others() {
    let collector = Collector::start("");
    let connect = |request: &[u8]| {
        let mut stream = TcpStream::connect(collector.address()).unwrap();
        stream.write_all(request).unwrap();
        stream
    };
    // Heads that never end, bodies that never come, answers that nobody reads.
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(connect(b"GET /metrics HTTP/1.1\r\nX-A: "));
        held.push(connect(b"PUT /debug/config/log_level HTTP/1.1\r\nHost: a\r\nrunwire-set: 1\r\nContent-Length: 9\r\n\r\n"));
        held.push(connect(
            &b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20),
        ));
    }
    let start = Instant::now();
    let (status, text) = collector.get("/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("runwire_build_info"));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
#[ignore = "loads BPF: needs root"]
fn clients_do_not_take_the_file_descriptors_that_signals_need() {
    let mut collector = Collector::start_by(&["prlimit", "--nofile=230"], "collect_interval: 1s\n");
    let connect = |_| TcpStream::connect(collector.address()).unwrap();
    let held: Vec<TcpStream> = (0..150).map(connect).collect();
    // Some collections.
    std::thread::sleep(Duration::from_secs(4));
    drop(held);
    collector.eventually("others are served again", |collector| {
        (collector.get("/healthz").0 == 200).then_some(())
    });
    assert!(
        !collector.has_logged("signal is off"),
        "{:?}",
        collector.log()
    );
    assert_eq!(collector.get("/readyz").0, 200);
}

#[test]
#[ignore = "loads BPF: needs root"]
fn requests_that_are_too_large_are_refused() {
    let collector = Collector::start("");
    let header = "x".repeat(100_000);
    let answer = exchange(
        collector.address(),
        &format!("GET /metrics HTTP/1.1\r\nHost: a\r\nX-A: {header}\r\n\r\n"),
    );
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer:.100}");
    assert_eq!(
        exchange(collector.address(), "nonsense\r\n\r\n").get(..12),
        Some("HTTP/1.1 400")
    );
    assert_eq!(collector.get("/healthz").0, 200);
}

#[test]
#[ignore = "loads BPF: needs root"]
fn what_was_asked_before_the_end_is_answered() {
    let collector = Collector::start("");
    let mut client = TcpStream::connect(collector.address()).unwrap();
    client
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    // It waits for the answer to be made.
    std::thread::sleep(Duration::from_millis(5));
    collector.signal(nix::sys::signal::Signal::SIGTERM);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:.100}");
    assert!(answer.contains("runwire_build_info"));
    assert!(collector.wait().success());
}

#[test]
#[ignore = "loads BPF: needs root"]
fn promtool_has_nothing_to_say() {
    let collector = Collector::start("statistics: on\n");
    let (_, text) = collector.get("/metrics");
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        say("skipped: promtool is not installed");
        return;
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[expect(clippy::print_stderr, reason = "who runs the tests must see this")]
fn say(message: &str) {
    eprintln!("{message}");
}
