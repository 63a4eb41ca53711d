//! The interfaces of a namespace.

use std::io;

use crate::rtnetlink::{Rtnetlink, attribute, bytes_at, push_attribute, text};

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
    let mut question = vec![0; MESSAGE];
    push_attribute(
        &mut question,
        libc::IFLA_EXT_MASK,
        &WITHOUT_STATISTICS.to_ne_bytes(),
    );
    let mut interfaces = Vec::new();
    Rtnetlink::open()?.list(libc::RTM_GETLINK, &question, |body| {
        interfaces.extend(read(body));
    })?;
    Ok(interfaces)
}

fn read(body: &[u8]) -> Option<Found> {
    let kind = u16::from_ne_bytes(bytes_at(body, 2)?);
    Some(Found {
        index: u32::from_ne_bytes(bytes_at(body, 4)?),
        name: text(attribute(body.get(MESSAGE..)?, libc::IFLA_IFNAME)?),
        // Loopback has such a header too, of zeros.
        ethernet: matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
    })
}

#[test]
fn every_namespace_has_a_loopback_interface() {
    let interfaces = list().unwrap();
    let loopback = interfaces.iter().find(|found| found.name == "lo").unwrap();
    assert!(loopback.ethernet && loopback.index == 1, "{interfaces:?}");
}
