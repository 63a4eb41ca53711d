//! Walks through the kernel's table of TCP sockets, one namespace at a time and some milliseconds
//! each. Only a walk finds sockets that are older than the collector and in no program's hands (once
//! is enough for those), and tells what the sockets that count as TIME_WAIT wait for.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::enrich::{Enricher, NetnsId};
use crate::host::netns::{self, Inode, Place};
use crate::kernel::{IteratorKind, KernelTypes, Object};

const PROGRAM: &str = "tcp_in_namespace";
/// A collection is not kept waiting for longer; the next one goes on where this one ended.
pub(in crate::signals) const PATIENCE_AT_START: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_millis(10);
/// A walk takes a third of a microsecond for each of them.
const MANY_SOCKETS: u64 = 20_000;

#[derive(Default)]
pub(super) struct Walk {
    can_walk: bool,
    /// Namespaces in which older sockets are still to be found. `None` before the first walk.
    left: Option<Vec<Inode>>,
    /// Sockets that count as TIME_WAIT and wait for a FIN, as of the last walk there.
    shrunk: HashMap<NetnsId, Shrunk>,
}

struct Shrunk {
    sockets: u64,
    walked: Instant,
}

impl Walk {
    pub(super) fn attach(&mut self, object: &mut Object, types: &KernelTypes) {
        self.can_walk = object
            .load_iterator(types, PROGRAM, IteratorKind::NamespaceSockets)
            .is_ok();
    }

    /// Goes where it is worth while. `time_wait` is how many sockets count as TIME_WAIT where.
    pub(super) fn walk(
        &mut self,
        object: &Object,
        enricher: &Enricher,
        time_wait: &HashMap<NetnsId, u64>,
    ) {
        let places = (self.can_walk.then(|| enricher.host()).flatten())
            .map(|host| host.owned_places())
            .unwrap_or_default();
        let left = self
            .left
            .get_or_insert_with(|| places.iter().map(|place| place.inode).collect());
        self.shrunk
            .retain(|netns, _| time_wait.get(netns).is_some_and(|&sockets| sockets > 0));
        let patience = match left.is_empty() {
            true => PATIENCE,
            false => PATIENCE_AT_START,
        };
        let walked_at = |place: &Place| {
            let shrunk = self.shrunk.get(place.id.as_ref()?)?;
            Some(shrunk.walked)
        };
        let waits = |place: &Place| {
            let sockets = place.id.and_then(|netns| time_wait.get(&netns));
            sockets.is_some_and(|sockets| (1..MANY_SOCKETS).contains(sockets))
        };
        let mut due: Vec<&Place> = places
            .iter()
            .filter(|place| left.contains(&place.inode) || waits(place))
            .collect();
        // First where nobody has been, then where it was longest ago.
        due.sort_by_key(|place| walked_at(place));
        let due: Vec<(Inode, PathBuf)> = due
            .into_iter()
            .map(|place| (place.inode, place.path.clone()))
            .collect();

        for (inode, netns) in walk_through(object, PROGRAM, &due, patience) {
            let Some(netns) = netns else { continue };
            left.retain(|other| *other != inode);
            let walked = Instant::now();
            self.shrunk.insert(netns, Shrunk { sockets: 0, walked });
        }
    }

    /// Takes what the last walk found of sockets that wait for a FIN.
    pub(super) fn found(&mut self, netns: NetnsId, sockets: u64) {
        if let Some(shrunk) = self.shrunk.get_mut(&netns) {
            shrunk.sockets = sockets;
        }
    }

    /// How many of these sockets that count as TIME_WAIT wait for a FIN.
    pub(super) fn waiting_for_fin(&self, netns: NetnsId, time_wait: u64) -> u64 {
        (self.shrunk.get(&netns)).map_or(0, |shrunk| shrunk.sockets.min(time_wait))
    }
}

/// Runs an iterator over the TCP sockets of each of these namespaces. `None` of those for which
/// patience did not last; what cannot be entered is left out.
pub(in crate::signals) fn walk_through(
    object: &Object,
    program: &str,
    places: &[(Inode, PathBuf)],
    patience: Duration,
) -> Vec<(Inode, Option<NetnsId>)> {
    let start = Instant::now();
    netns::visit(places, || {
        if start.elapsed() > patience {
            return None;
        }
        if has_sockets() {
            // What cannot be walked through keeps its older sockets to itself.
            let _ = object.run_namespace_iterator(program);
        }
        netns::id().ok()
    })
}

/// Whether the calling thread's namespace has a TCP socket, or what is left of one.
fn has_sockets() -> bool {
    ["sockstat", "sockstat6"].iter().any(|file| {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        text.is_ok_and(|text| counts_sockets(&text))
    })
}

fn counts_sockets(sockstat: &str) -> bool {
    let counts = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        (words.windows(2)).any(|pair| matches!(pair[0], "inuse" | "tw") && pair[1] != "0")
    };
    sockstat
        .lines()
        .any(|line| line.starts_with("TCP") && counts(line))
}

#[test]
fn only_namespaces_with_tcp_sockets_are_walked_through() {
    assert!(!counts_sockets(
        "sockets: used 9\nTCP: inuse 0 orphan 0 tw 0 alloc 5 mem 1\nUDP: inuse 1 mem 0\n"
    ));
    assert!(counts_sockets("TCP: inuse 2 orphan 0 tw 0 alloc 5 mem 1\n"));
    assert!(counts_sockets("TCP: inuse 0 orphan 0 tw 1 alloc 5 mem 1\n"));
    assert!(counts_sockets("TCP6: inuse 1\nUDP6: inuse 0\n"));
}
