//! What a collector with a flow store knows after it was stopped or killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::collector::{Collector, stdout};
use crate::kernel::lab::Lab;

/// Makes connections one after the other that are over when it returns, each with its port.
fn connect(lab: &Lab, connections: usize) -> Vec<u16> {
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 100]).unwrap();
            stream.write_all(&[7; 300]).unwrap();
        }
    });
    let mut ports = Vec::new();
    for _ in 0..connections {
        let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
        client.write_all(&[1; 100]).unwrap();
        client.read_exact(&mut [0; 300]).unwrap();
        // The server has closed.
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        ports.push(client.local_addr().unwrap().port());
    }
    served.join().unwrap();
    ports
}

/// The same, once and by datagrams.
fn exchange(lab: &Lab) -> u16 {
    let server = lab.in_server(|| UdpSocket::bind((lab.server4, 0)).unwrap());
    let client = lab.in_client(|| UdpSocket::bind((lab.client4, 0)).unwrap());
    let address = server.local_addr().unwrap();
    client.send_to(&[1; 100], address).unwrap();
    let (_, from) = server.recv_from(&mut [0; 100]).unwrap();
    server.send_to(&[7; 300], from).unwrap();
    client.recv_from(&mut [0; 300]).unwrap();
    from.port()
}

/// How many rows there are of each port of the lab's client since a time.
fn found(collector: &Collector, lab: &Lab, from: &str) -> BTreeMap<u16, usize> {
    let path = format!("/api/flows?workload={}&from={from}&limit=10000", lab.client);
    let (status, body) = collector.get(&path);
    assert_eq!(status, 200, "{body}");
    let rows: Vec<Value> = serde_json::from_str(&body).unwrap();
    let mut ports = BTreeMap::new();
    for row in rows {
        assert_eq!(
            (&row["bytes_sent"], &row["bytes_received"], &row["role"]),
            (&100.into(), &300.into(), &"both".into()),
            "{row}"
        );
        *ports
            .entry(row["src_port"].as_u64().unwrap() as u16)
            .or_default() += 1;
    }
    ports
}

/// Another server's port may be asked from the same port of the client.
fn counted(ports: &[u16]) -> BTreeMap<u16, usize> {
    let mut counted = BTreeMap::new();
    for port in ports {
        *counted.entry(*port).or_default() += 1;
    }
    counted
}

fn config(folder: &Path, more: &str) -> String {
    format!("flow_store: {}\n{more}", folder.display())
}

#[test]
#[ignore = "loads BPF: needs root"]
fn connections_that_have_ended_are_known_after_a_restart() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("flows");
    let start = jiff::Timestamp::now();
    let from = start.to_string();

    let collector = Collector::start(&config(&folder, ""));
    let mut ports = connect(&lab, 30);
    // What is on its way then may be lost: a second's worth.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(found(&collector, &lab, &from), counted(&ports));
    collector.signal(Signal::SIGKILL);
    collector.wait();

    let collector = Collector::start(&config(&folder, ""));
    assert_eq!(
        found(&collector, &lab, &from),
        counted(&ports),
        "after SIGKILL"
    );
    // Nothing is lost at an orderly end, however short the time.
    ports.extend(connect(&lab, 30));
    ports.push(exchange(&lab));
    collector.signal(Signal::SIGTERM);
    collector.wait();
    let end = jiff::Timestamp::now();

    let mut collector = Collector::start(&config(&folder, "flow_timeout: 1s\n"));
    assert_eq!(
        found(&collector, &lab, &from),
        counted(&ports),
        "after SIGTERM"
    );
    let after = end + Duration::from_secs(1);
    assert_eq!(found(&collector, &lab, &after.to_string()), counted(&[]));
    // What memory forgets meanwhile stays, and is there once.
    ports.extend(connect(&lab, 30));
    // Requests that are close share a look.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(found(&collector, &lab, &from), counted(&ports));
    collector.eventually("memory forgets", |collector| {
        let (_, body) = collector.get(&format!("/api/flows?workload={}", lab.client));
        (body == "[]").then_some(())
    });
    assert_eq!(found(&collector, &lab, &from), counted(&ports));
    let filters = ["flows", "--workload", &lab.client, "--from", &from];
    let table = stdout(&collector.command(&[&filters[..], &["--limit", "1000"]].concat()));
    assert_eq!(table.lines().count(), 1 + ports.len(), "{table}");
    assert_eq!(collector.metric("flow_store_lost_total"), 0.0);
    assert!(collector.metric("flow_store_bytes") > 10_000.0);

    // In the files, too, each connection is a line.
    let mut lines = 0;
    for file in fs::read_dir(&folder).unwrap().flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        let of_lab = |line: &&str| line.contains(&lab.client);
        lines += text.lines().filter(of_lab).count();
    }
    assert_eq!(lines, ports.len());

    // A shorter time takes effect at once.
    collector.write_config(&config(&folder, "flow_timeout: 1s\nflow_store_keep: 1s\n"));
    collector.eventually("what is too old is gone", |collector| {
        found(collector, &lab, &from).is_empty().then_some(())
    });
}

/// A small disk, gone with the test.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        disk.mount(MsFlags::empty(), size);
        disk
    }

    fn mount(&self, flags: MsFlags, size: &str) {
        let none: Option<&str> = None;
        mount(none, self.path(), Some("tmpfs"), flags, Some(size)).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
#[ignore = "loads BPF: needs root"]
fn a_full_disk_costs_rows_and_is_said() {
    let lab = Lab::new();
    let folder = Disk::new("size=64k");
    let from = jiff::Timestamp::now().to_string();
    let mut collector = Collector::start(&config(folder.path(), "flow_timeout: 1s\n"));
    let begin = Instant::now();
    let mut ports = Vec::new();
    while collector.metric("flow_store_lost_total{reason=\"write_failed\"}") == 0.0 {
        ports.extend(connect(&lab, 20));
        assert!(begin.elapsed() < Duration::from_secs(30), "never full");
        thread::sleep(Duration::from_millis(600));
    }
    // Not a byte is left. It is said for as long as that is so.
    let filler = folder.path().join("filler");
    let mut fill = File::create(&filler).unwrap();
    while fill.write(&[0; 1024]).is_ok() {}
    ports.extend(connect(&lab, 20));
    thread::sleep(Duration::from_millis(1500));
    for _ in 0..12 {
        let (status, readiness) = collector.get("/readyz");
        assert_eq!(status, 200);
        assert!(readiness.contains("No space left on device"), "{readiness}");
        let start = r#"{"status":"degraded""#;
        assert!(readiness.starts_with(start), "{readiness}");
        thread::sleep(Duration::from_millis(200));
    }
    // What was written before is served whole, and what has happened is counted as ever.
    collector.eventually("memory forgets", |collector| {
        let (_, body) = collector.get(&format!("/api/flows?workload={}", lab.client));
        (body == "[]").then_some(())
    });
    let written = found(&collector, &lab, &from);
    let written: usize = written.values().sum();
    let lost = collector.metric("flow_store_lost_total");
    assert!(
        written > 0 && written < ports.len(),
        "{written} of {}",
        ports.len()
    );
    // Others of this host's connections may be among the lost.
    assert!(lost >= (ports.len() - written) as f64, "{lost} lost");
    // It goes on by itself when there is room.
    drop(fill);
    fs::remove_file(filler).unwrap();
    // More than what ends between two tries.
    folder.mount(MsFlags::MS_REMOUNT, "size=4m");
    collector.eventually("it is ready again", |collector| {
        connect(&lab, 1);
        let (_, readiness) = collector.get("/readyz");
        readiness.starts_with(r#"{"status":"ready""#).then_some(())
    });
    assert!(collector.has_logged("flows are stored again"));
    collector.signal(Signal::SIGTERM);
    assert!(collector.wait().success());
}
