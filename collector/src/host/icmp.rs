//! ICMP messages that come into a namespace, by type. The kernel counts no codes, and no program of
//! ours sees these packets without seeing all packets of the host: `code` is empty.

use std::collections::HashMap;
use std::io;

use super::readings::{Moved, Reading, Visit};
use super::totals::increase;
use crate::enrich::NetnsId;
use crate::export::{Counter, OWNER, Registry};
use crate::icmp::{Family, type_name};

/// Shared with what counts those that are sent.
pub(crate) fn icmp_messages(registry: &Registry) -> Counter {
    registry.counter(
        "icmp_messages",
        "ICMP messages of a network namespace; the code of received ones is not known and empty",
        &[OWNER, &["direction", "family", "type", "code"]],
    )
}

pub(super) struct IcmpReceived {
    messages: Counter,
    /// By type of each family.
    namespaces: HashMap<NetnsId, HashMap<(Family, u8), u64>>,
}

impl IcmpReceived {
    pub(super) const NAME: &str = "icmp_received";

    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            messages: icmp_messages(&registry.for_signal(Self::NAME)),
            namespaces: HashMap::new(),
        }
    }
}

impl Reading for IcmpReceived {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn read(&mut self, visit: &mut Visit) -> io::Result<Moved> {
        let files = visit.mib();
        let totals = self.namespaces.entry(visit.netns).or_default();
        let mut moved = Moved::No;
        let found = files.iter().flatten().flat_map(|text| received(text));
        for (family, kind, now) in found {
            let before = totals.insert((family, kind), now).unwrap_or(0);
            let added = increase(before, now);
            if added > 0 {
                moved = Moved::Yes;
                let labels = (visit.owner.clone()).with(&[
                    "received",
                    family.as_str(),
                    type_name(family, kind),
                    "",
                ]);
                self.messages.add(labels, added);
            }
        }
        Ok(moved)
    }

    fn forget(&mut self, netns: NetnsId) {
        self.namespaces.remove(&netns);
    }

    fn publish(&mut self) {}
}

/// From snmp, where the names are a line above the numbers, or snmp6, where they are beside them.
/// Only types that occurred are there.
fn received(text: &str) -> Vec<(Family, u8, u64)> {
    let mut found = Vec::new();
    let mut columns = text
        .lines()
        .filter_map(|line| line.strip_prefix("IcmpMsg:"));
    if let (Some(names), Some(values)) = (columns.next(), columns.next()) {
        let values = values.split_ascii_whitespace();
        for (name, value) in names.split_ascii_whitespace().zip(values) {
            found.extend(one(Family::V4, name.strip_prefix("InType"), value));
        }
    }
    for line in text.lines() {
        if let Some((kind, value)) =
            (line.strip_prefix("Icmp6InType")).and_then(|rest| rest.split_once(char::is_whitespace))
        {
            found.extend(one(Family::V6, Some(kind), value.trim()));
        }
    }
    found
}

fn one(family: Family, kind: Option<&str>, value: &str) -> Option<(Family, u8, u64)> {
    Some((family, kind?.parse().ok()?, value.parse().ok()?))
}

#[test]
fn types_are_read_from_both_notations() {
    let snmp = "Icmp: InMsgs\nIcmp: 9\nIcmpMsg: InType3 InType8 OutType0\nIcmpMsg: 4 5 6\nTcp: x\nTcp: 1\n";
    assert_eq!(received(snmp), [(Family::V4, 3, 4), (Family::V4, 8, 5)]);
    let snmp6 = "Icmp6InMsgs  \t3\nIcmp6InType135                   \t2\nIcmp6OutType1 \t9\n";
    assert_eq!(received(snmp6), [(Family::V6, 135, 2)]);
    assert_eq!(received(""), []);
}
