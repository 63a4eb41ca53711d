//! What a collector that ends leaves behind, and what the next one sees.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use nix::sys::signal::Signal;

use super::collector::Collector;
use crate::kernel::lab::Lab;

const CONNECTIONS: usize = 50;

/// Numbers of the programs and maps that a process has open.
fn kernel_objects(process: u32) -> BTreeSet<(String, String)> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap();
    let mut found = BTreeSet::new();
    for descriptor in descriptors.flatten() {
        let info = fs::read_to_string(descriptor.path()).unwrap_or_default();
        for line in info.lines() {
            let kind = ["prog_id", "map_id", "link_id"]
                .into_iter()
                .find(|kind| line.starts_with(kind));
            if let Some(kind) = kind {
                let number = line.split_ascii_whitespace().next_back().unwrap();
                found.insert((kind.trim_end_matches("_id").to_owned(), number.to_owned()));
            }
        }
    }
    found
}

#[test]
#[ignore = "loads BPF: needs root"]
fn connections_that_are_open_stay_in_view_over_a_crash() {
    let lab = Lab::new();
    let mut pairs = Vec::new();
    for server in [lab.server4, lab.server6] {
        let listener = lab.in_server(|| TcpListener::bind((server, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        for _ in 0..CONNECTIONS / 2 {
            let client = lab.in_client(|| TcpStream::connect(address).unwrap());
            pairs.push((client, listener.accept().unwrap().0));
        }
    }
    let open = |namespace: &str| {
        format!(
            "tcp_connections{{namespace=\"host\",workload=\"{namespace}\",kind=\"netns\",state=\"established\"}}"
        )
    };
    let (client, server) = (open(&lab.client), open(&lab.server));
    let sent = format!(
        "tcp_bytes_sent_total{{src_namespace=\"host\",src_workload=\"{}\"",
        lab.client
    );
    let all_are_seen = |collector: &mut Collector| {
        collector.eventually("every connection is seen at both ends", |collector| {
            let open = (collector.metric(&client), collector.metric(&server));
            (open == (CONNECTIONS as f64, CONNECTIONS as f64)).then_some(())
        });
    };
    let mut send = |bytes: usize| {
        for (client, server) in &mut pairs {
            client.write_all(&vec![7; bytes]).unwrap();
            server.read_exact(&mut vec![0; bytes]).unwrap();
        }
    };

    let mut collector = Collector::start("");
    all_are_seen(&mut collector);
    send(1000);
    collector.eventually("their bytes are counted", |collector| {
        (collector.metric(&sent) == (CONNECTIONS * 1000) as f64).then_some(())
    });
    let left = kernel_objects(collector.pid());
    assert!(left.iter().any(|(kind, _)| kind == "prog"), "{left:?}");
    collector.signal(Signal::SIGKILL);
    collector.wait();

    let mut collector = Collector::start("");
    all_are_seen(&mut collector);
    send(500);
    collector.eventually("their bytes go on", |collector| {
        (collector.metric(&sent) == (CONNECTIONS * 500) as f64).then_some(())
    });

    // The kernel frees them a moment after the process.
    for (kind, number) in left {
        let arguments = [kind.as_str(), "show", "id", number.as_str()];
        let is_there = || {
            Command::new("bpftool")
                .args(arguments)
                .output()
                .unwrap()
                .status
                .success()
        };
        let start = std::time::Instant::now();
        while is_there() {
            assert!(
                start.elapsed().as_secs() < 10,
                "{kind} {number} is left behind"
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
