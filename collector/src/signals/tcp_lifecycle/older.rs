//! Sockets that are older than the collector and in no program's hands: not accepted yet, or closed
//! and not yet gone. Only a walk through the kernel's table finds them, one namespace at a time and
//! some milliseconds each, so it is done once.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::enrich::Enricher;
use crate::host::netns::{self, Inode};
use crate::kernel::{IteratorKind, KernelTypes, Object};

const PROGRAM: &str = "tcp_existing_in_namespace";
/// A collection is not kept waiting for longer; the next one goes on.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct OlderSockets {
    can_find: bool,
    /// Namespaces still to be looked at. `None` before the first collection.
    left: Option<Vec<(Inode, PathBuf)>>,
}

impl OlderSockets {
    pub(super) fn attach(&mut self, object: &mut Object, types: &KernelTypes) {
        self.can_find = object
            .load_iterator(types, PROGRAM, IteratorKind::NamespaceSockets)
            .is_ok();
    }

    pub(super) fn find(&mut self, object: &Object, enricher: &Enricher) {
        if !self.can_find {
            return;
        }
        let places = || enricher.host().map(|host| host.places().collect());
        let left = self
            .left
            .get_or_insert_with(|| places().unwrap_or_default());
        let start = Instant::now();
        let looked = netns::visit(left, || {
            let in_time = start.elapsed() < PATIENCE;
            if in_time && has_sockets() {
                // A namespace that cannot be read keeps its older sockets to itself.
                let _ = object.run_namespace_iterator(PROGRAM);
            }
            in_time
        });
        let late = |place: &Inode| looked.iter().any(|(inode, done)| inode == place && !done);
        left.retain(|(inode, _)| late(inode));
    }
}

/// Whether the calling thread's namespace has a TCP socket.
fn has_sockets() -> bool {
    ["sockstat", "sockstat6"].iter().any(|file| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        text.is_ok_and(|text| counts_sockets(&text))
    })
}

fn counts_sockets(sockstat: &str) -> bool {
    sockstat
        .lines()
        .filter(|line| line.starts_with("TCP"))
        .any(|line| line.split_ascii_whitespace().nth(2) != Some("0"))
}

#[test]
fn only_namespaces_with_tcp_sockets_are_walked_through() {
    assert!(!counts_sockets(
        "sockets: used 2\nTCP: inuse 0 orphan 0 tw 3 alloc 5 mem 1\nUDP: inuse 1 mem 0\n"
    ));
    assert!(counts_sockets("TCP: inuse 2 orphan 0 tw 0 alloc 5 mem 1\n"));
    assert!(counts_sockets("TCP6: inuse 1\nUDP6: inuse 0\n"));
}
