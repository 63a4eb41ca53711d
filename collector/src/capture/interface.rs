//! The interfaces of a namespace.

use std::collections::BTreeSet;
use std::io;

use crate::enrich::Enricher;
use crate::host::netlink::{Netlink, attribute, attributes, text, u16_at, u32_at};
use crate::host::netns;

/// `struct ifinfomsg`
const MESSAGE: usize = 16;
/// RTEXT_FILTER_SKIP_STATS: nobody here reads them.
const WITHOUT_STATISTICS: u32 = 1 << 3;

/// An interface as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) name: String,
    /// Its frames begin with an Ethernet header.
    pub(super) ethernet: bool,
}

/// Those of the calling thread's namespace.
pub(super) fn list() -> io::Result<Vec<Found>> {
    let option = attribute(libc::IFLA_EXT_MASK, &WITHOUT_STATISTICS.to_ne_bytes());
    let question = [&[0; MESSAGE], option.as_slice()].concat();
    Netlink::route()?.list(libc::RTM_GETLINK, &question, read)
}

/// How interfaces are called, in all namespaces that the host knows.
pub fn names(enricher: &Enricher) -> BTreeSet<String> {
    let places: Vec<_> = enricher
        .host()
        .map(|host| host.places().collect())
        .unwrap_or_default();
    let insides = netns::visit(&places, list);
    let found = (insides.into_iter()).flat_map(|(_, found)| found.unwrap_or_default());
    found.map(|found| found.name).collect()
}

fn read(body: &[u8]) -> Option<Found> {
    let mut attributes = attributes(body.get(MESSAGE..)?);
    let (_, name) = attributes.find(|&(kind, _)| kind == libc::IFLA_IFNAME)?;
    Some(Found {
        index: u32_at(body, 4)?,
        name: text(name),
        // Loopback has such a header too, of zeros.
        ethernet: matches!(u16_at(body, 2)?, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
    })
}

#[test]
fn every_namespace_has_a_loopback_interface() {
    let interfaces = list().unwrap();
    let loopback = interfaces.iter().find(|found| found.name == "lo").unwrap();
    assert!(loopback.ethernet && loopback.index == 1, "{interfaces:?}");
}
