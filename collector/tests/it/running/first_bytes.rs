//! What the collector looked at of other programs' connections is gone soon after.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use regex::bytes::Regex;

use super::collector::Collector;
use crate::kernel::lab::Lab;

const CANARY: &str = "canary-4b8e02d7";

/// How often `wanted` is in what a process can read and has not from a file: heap, stacks, and the
/// kernel's rings.
fn count_in_memory(process: u32, wanted: &str) -> usize {
    let wanted = Regex::new(wanted).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let found = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let is_file = rest.split_ascii_whitespace().nth(4).is_some_and(|path| {
            path.starts_with('/') || path.starts_with("[v") || path.starts_with("[sig")
        });
        if !rest.starts_with('r') || is_file {
            return None;
        }
        let (from, to) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (from, to) = (number(from)?, number(to)?);
        let mut bytes = vec![0; (to - from) as usize];
        // It may have been unmapped meanwhile.
        memory.read_exact_at(&mut bytes, from).ok()?;
        Some(wanted.find_iter(&bytes).count())
    });
    found.sum()
}

#[test]
#[ignore = "loads BPF: needs root"]
fn first_bytes_of_connections_are_nowhere_in_memory_once_they_were_read() {
    let mut collector = Collector::start("");
    let lab = Lab::new();
    let listener = lab.in_server(|| TcpListener::bind((lab.server4, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let request = format!("POST /{CANARY} HTTP/1.1\r\nAuthorization: {CANARY}\r\n\r\n{CANARY}");
    let answer = format!("HTTP/1.1 200 OK\r\n\r\n{CANARY}");
    for _ in 0..20 {
        let mut client = lab.in_client(|| TcpStream::connect(address).unwrap());
        let mut server = listener.accept().unwrap().0;
        // In two pieces, the second before the first has been looked at.
        for piece in request.as_bytes().chunks(40) {
            client.write_all(piece).unwrap();
            server.read_exact(&mut vec![0; piece.len()]).unwrap();
        }
        server.write_all(answer.as_bytes()).unwrap();
        client.read_exact(&mut vec![0; answer.len()]).unwrap();
    }
    let process = collector.pid();
    let before = count_in_memory(process, CANARY);
    assert!(before > 0, "it looks at them: is this the right memory?");
    let counted = format!(
        "protocol_connections_total{{src_namespace=\"host\",src_workload=\"{}\"",
        lab.client
    );
    collector.eventually("their protocol is known", |collector| {
        (collector.metric(&counted) == 20.0).then_some(())
    });
    let start = Instant::now();
    while count_in_memory(process, CANARY) > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "still there: {}, at first {before}",
            count_in_memory(process, CANARY)
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}
