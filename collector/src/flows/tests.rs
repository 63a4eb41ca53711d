//! The table without a kernel: what its tests share.

mod datagram;
mod feed;
mod outbox;
mod query;
mod table;

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::enrich::{FiveTuple, Kind};

const SECOND: u64 = 1_000_000_000;

/// At second 1000 of the monotonic clock it is noon.
fn clock(second: u64) -> Clock {
    let noon: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
    Clock {
        monotonic: second * SECOND,
        wall: noon + jiff::SignedDuration::from_secs(second as i64 - 1000),
    }
}

fn table_of(entries: usize) -> FlowTable {
    FlowTable::new(FlowLimits {
        entries,
        timeout: Duration::from_secs(60),
        persistent_after: Duration::from_secs(2),
    })
}

/// What the client's end of a connection from a port says, opened at a second.
fn client(port: u16, second: u64) -> Sighting {
    Sighting {
        tuple: FiveTuple {
            protocol: 6,
            client: ([10, 0, 0, 1], port).into(),
            server: ([10, 0, 0, 2], 443).into(),
        },
        service: None,
        end: End::Client,
        cookie: u64::from(port) << 32 | second,
        netns: 1,
        phase: Phase::Open,
        started: second * SECOND,
        opened: second * SECOND,
        now: second * SECOND,
        active: second * SECOND,
        bytes_sent: 0,
        bytes_received: 0,
        segments_sent: 2,
        segments_received: 1,
    }
}

/// The other end of the same connection.
fn server(of: &Sighting) -> Sighting {
    Sighting {
        end: End::Server,
        service: None,
        cookie: of.cookie + (1 << 60),
        netns: 2,
        bytes_sent: of.bytes_received,
        bytes_received: of.bytes_sent,
        segments_sent: of.segments_received,
        segments_received: of.segments_sent,
        ..of.clone()
    }
}

/// The same end, later.
fn later(of: &Sighting, second: u64, sent: u64, received: u64) -> Sighting {
    Sighting {
        now: second * SECOND,
        active: second * SECOND,
        bytes_sent: sent,
        bytes_received: received,
        ..of.clone()
    }
}

fn closed(of: &Sighting, second: u64) -> Sighting {
    Sighting {
        phase: Phase::Closed(None),
        now: second * SECOND,
        ..of.clone()
    }
}

fn see(table: &mut FlowTable, sighting: &Sighting) {
    let names = match sighting.end {
        End::Client => ("shop", "db"),
        End::Server => ("db", "shop"),
    };
    let workload = |name| Workload::local(name, Kind::Netns);
    table.update(sighting, || (workload(names.0), workload(names.1)));
}

fn rows(table: &FlowTable, filter: &Filter, second: u64) -> Vec<Row> {
    table.rows(filter, Sort::Started, 1000, clock(second))
}

fn span(from: u64, to: u64) -> Filter {
    Filter {
        span: Some(Span {
            from: from * SECOND,
            to: to * SECOND,
        }),
        ..Filter::default()
    }
}
