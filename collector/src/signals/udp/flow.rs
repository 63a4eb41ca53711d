//! UDP flows, for who keeps a table of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::abi::{udp_flow, udp_flow_key};
use crate::enrich::{CgroupId, NetnsId};
use crate::signals::labels::address;

/// Flows that wait to be taken. Each has some 150 bytes.
const WAITING: usize = 65_536;

/// What one socket and one peer exchanged between two collections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpFlow {
    pub netns: NetnsId,
    pub cgroup: CgroupId,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub datagrams_sent: u64,
    pub datagrams_received: u64,
    /// Payload.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Whether the first of these datagrams went out.
    pub sent_first: bool,
    /// By the monotonic clock, to some milliseconds.
    pub first_ns: u64,
    pub last_ns: u64,
}

impl UdpFlow {
    pub(super) fn of((key, flow): &(udp_flow_key, udp_flow)) -> Self {
        Self {
            netns: NetnsId(flow.netns),
            cgroup: CgroupId(flow.cgroup),
            local: SocketAddr::new(address(key.local), key.local_port),
            peer: SocketAddr::new(address(key.peer), key.peer_port),
            datagrams_sent: flow.datagrams_sent,
            datagrams_received: flow.datagrams_received,
            bytes_sent: flow.bytes_sent,
            bytes_received: flow.bytes_received,
            sent_first: flow.sent_first != 0,
            first_ns: flow.first_ns,
            last_ns: flow.last_ns,
        }
    }
}

/// Hands flows from the signal to a table: give a clone to the settings, and take after each
/// collection. A flow that goes on comes again.
#[derive(Clone, Debug, Default)]
pub struct UdpFlows(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    flows: Vec<UdpFlow>,
    lost: u64,
}

impl UdpFlows {
    /// What was collected since the last call, and how many flows there was no room for.
    pub fn take(&self) -> (Vec<UdpFlow>, u64) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { flows, lost } = std::mem::take(&mut *waiting);
        (flows, lost)
    }

    pub(super) fn add(&self, flows: impl Iterator<Item = UdpFlow>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for flow in flows {
            if waiting.flows.len() < WAITING {
                waiting.flows.push(flow);
            } else {
                waiting.lost += 1;
            }
        }
    }
}

#[test]
fn flows_are_handed_over_once_and_bounded() {
    let flow = |port| UdpFlow {
        netns: NetnsId(1),
        cgroup: CgroupId(1),
        local: SocketAddr::from(([10, 0, 0, 1], port)),
        peer: SocketAddr::from(([10, 0, 0, 2], 53)),
        datagrams_sent: 1,
        datagrams_received: 0,
        bytes_sent: 9,
        bytes_received: 0,
        sent_first: true,
        first_ns: 1,
        last_ns: 1,
    };
    let flows = UdpFlows::default();
    flows.add((0..3).map(flow));
    assert_eq!(flows.take(), ((0..3).map(flow).collect(), 0));
    flows.add((0..u16::MAX).chain(0..9).map(flow));
    let (taken, lost) = flows.take();
    assert_eq!((taken.len(), lost), (WAITING, 8));
}
