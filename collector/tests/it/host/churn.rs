//! Namespaces and interfaces that come and go leave nothing behind.

use std::fs;
use std::time::{Duration, Instant};

use runwire_collector::export::Format;

use super::exact::Reader;
use super::{Namespace, run};
use crate::kernel::lab;

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn lines_about(reader: &Reader, what: &str) -> usize {
    let text = reader.registry.encode(Format::Text, None);
    text.lines().filter(|line| line.contains(what)).count()
}

/// Runs many lines of one `ip` command at once.
fn batch(arguments: &[&str], lines: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("batch");
    fs::write(&path, lines).unwrap();
    lab::run(&format!(
        "ip {} -batch {}",
        arguments.join(" "),
        path.display()
    ));
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn a_hundred_namespaces_leave_no_file_and_no_series() {
    let mut reader = Reader::new();
    reader.collect();
    let prefix = format!("rwhost{}n", std::process::id());
    let files = open_files();
    for round in 0..2 {
        let namespaces: Vec<Namespace> = (0..50)
            .map(|number| {
                let namespace = Namespace::new(&format!("n{round}{number}"));
                run(&format!("ip -n {} link set lo up", namespace.0));
                lab::run(&format!(
                    "ip netns exec {} ping -q -c1 127.0.0.1",
                    namespace.0
                ));
                namespace
            })
            .collect();
        reader.collect();
        reader.collect();
        assert!(
            lines_about(&reader, &prefix) > 50 * 5,
            "{}",
            lines_about(&reader, &prefix)
        );
        assert_eq!(open_files(), files);
        drop(namespaces);
        reader.collect();
    }
    assert_eq!(open_files(), files);
    for gauge in ["conntrack_entries", "interface_up", "interface_mtu_bytes"] {
        let text = reader.registry.encode(Format::Text, None);
        let start = format!("runwire_{gauge}{{");
        assert!(
            !text
                .lines()
                .any(|line| line.starts_with(&start) && line.contains(&prefix)),
            "{gauge}"
        );
    }
    // Counters stay until their last increase was scraped by everybody.
    for _ in 0..3 {
        reader
            .registry
            .sweep(1, |_, name, _| !name.starts_with(&prefix));
    }
    assert_eq!(lines_about(&reader, &prefix), 0);
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn namespaces_that_go_while_they_are_read_go_for_good() {
    let stable = Namespace::new("s");
    run(&format!("ip -n {} link set lo up", stable.0));
    let mut reader = Reader::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..40 {
                let gone = Namespace::new(&format!("g{number}"));
                let (gone, stable) = (&gone.0, &stable.0);
                run(&format!(
                    "ip -n {stable} link add v{number} type veth peer name eth0 netns {gone}"
                ));
                run(&format!("ip -n {gone} link set eth0 up"));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            reader.collect();
        }
    });
    // The other end of a cable goes when its namespace does, and not while somebody holds that.
    let start = Instant::now();
    while lab::run(&format!("ip -n {} -br link", stable.0)).contains('v') {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "somebody holds the namespaces"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    lab::run(&format!("ip netns exec {} ping -q -c3 127.0.0.1", stable.0));
    reader.collect();
    let bytes = reader.value(
        "interface_packets_total",
        &stable.0,
        &[("direction", "receive")],
    );
    assert_eq!(bytes, 6);
}

#[test]
#[ignore = "makes network namespaces: needs root"]
fn a_thousand_veths_leave_no_series_and_are_never_too_many() {
    let namespace = Namespace::new("v");
    let name = &namespace.0;
    let mut reader = Reader::new();
    reader.collect();
    let before = lines_about(&reader, name);
    for round in 0..5 {
        let add: String = (0..100)
            .map(|i| {
                let (a, b) = (format!("a{round}x{i}"), format!("b{round}x{i}"));
                format!("link add {a} type veth peer name {b}\nlink set {a} up\nlink set {b} up\n")
            })
            .collect();
        batch(&["-n", name], &add);
        reader.collect();
        let series = reader.series("interface_up", name).len();
        assert_eq!(
            series, 64,
            "two hundred are more than are worth a series each"
        );
        let delete: String = (0..100)
            .map(|i| format!("link delete a{round}x{i}\n"))
            .collect();
        batch(&["-n", name], &delete);
        reader.collect();
    }
    let left = lines_about(&reader, name);
    let text = reader.registry.encode(Format::Text, None);
    let stale: Vec<&str> = (text.lines())
        .filter(|line| {
            line.contains(name) && line.contains("interface=\"") && !line.contains("~veth")
        })
        .collect();
    assert!(stale.is_empty(), "{stale:?}");
    // Their own counters, the sum of the other veths and what the namespace itself counted.
    assert!(left < before + 60, "{before} {left}");
}
