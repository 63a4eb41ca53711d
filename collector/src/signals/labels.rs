//! Keys of kernel maps → label sets: both ends of an edge, named.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::enrich::{CgroupId, Enricher, NetnsId, Workload};
use crate::export::{Labels, edge, edge_by};

/// Where a full kernel map, or a family over its budget, puts what it has no room for.
pub(super) const OTHER: &str = "~other";

pub(super) fn address(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

/// The family of an address; none of that of an overflow entry.
pub(super) fn family_of(bytes: &[u8; 16]) -> &'static str {
    match address(*bytes) {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(it) if it.is_unspecified() => "",
        IpAddr::V6(_) => "ipv6",
    }
}

/// A socket's owner and its peer.
pub(super) struct Ends {
    pub(super) local: Workload,
    pub(super) peer: Workload,
    /// Whose address the peer's is, if a Service's.
    pub(super) service: Option<Arc<str>>,
}

impl Ends {
    /// `None` for the overflow entry of a full map: real sockets have a namespace.
    pub(super) fn of(enricher: &Enricher, netns: u32, cgroup: u64, peer: [u8; 16]) -> Option<Self> {
        (netns != 0).then(|| Self {
            local: enricher.owner(NetnsId(netns), CgroupId(cgroup)),
            peer: enricher.peer(NetnsId(netns), address(peer)),
            service: enricher.service(address(peer)),
        })
    }
}

/// From the socket to its peer.
pub(super) fn outward(ends: Option<&Ends>) -> Labels {
    ends.map_or_else(other_edge, |ends| {
        let service = ends.service.as_deref().unwrap_or_default();
        edge_by(&ends.local, &ends.peer, service)
    })
}

/// From the peer to the socket.
pub(super) fn inward(ends: Option<&Ends>) -> Labels {
    ends.map_or_else(other_edge, |ends| edge(&ends.peer, &ends.local))
}

pub(super) fn other_edge() -> Labels {
    Labels::new(&[OTHER; 7])
}

pub(super) fn other_owner() -> Labels {
    Labels::new(&[OTHER; 3])
}
