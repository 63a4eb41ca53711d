//! The kernel's own counters of every network namespace, as `nstat` shows them.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use crate::enrich::{CgroupId, Enricher, NetnsId};
use crate::export::{Counter, OWNER, Registry, owner};

use super::netns::{self, Inode};

/// Namespaces read at one collection. Where there are more, each has its turn.
const BATCH: usize = 256;

/// What is exported, by the names of `nstat`. Those the running kernel lacks are not there.
#[rustfmt::skip]
pub const COUNTERS: &[&str] = &[
    "Icmp6InDestUnreachs", "Icmp6InErrors", "Icmp6InPktTooBigs", "Icmp6InTimeExcds", "Icmp6OutDestUnreachs",
    "Icmp6OutErrors", "Icmp6OutPktTooBigs", "Icmp6OutRateLimitHost", "Icmp6OutTimeExcds",
    "IcmpInDestUnreachs", "IcmpInErrors", "IcmpInTimeExcds", "IcmpOutDestUnreachs", "IcmpOutErrors",
    "IcmpOutRateLimitGlobal", "IcmpOutRateLimitHost", "IcmpOutTimeExcds",
    "Ip6FragCreates", "Ip6FragFails", "Ip6InAddrErrors", "Ip6InDiscards", "Ip6InHdrErrors", "Ip6InNoRoutes",
    "Ip6InTooBigErrors", "Ip6OutDiscards", "Ip6OutNoRoutes", "Ip6ReasmFails", "Ip6ReasmOKs", "Ip6ReasmReqds",
    "Ip6ReasmTimeout",
    "IpExtInCsumErrors", "IpExtInNoRoutes", "IpExtInTruncatedPkts", "IpExtReasmOverlaps",
    "IpForwDatagrams", "IpFragCreates", "IpFragFails", "IpInAddrErrors", "IpInDiscards", "IpInHdrErrors",
    "IpOutDiscards", "IpOutNoRoutes", "IpReasmFails", "IpReasmOKs", "IpReasmReqds", "IpReasmTimeout",
    "TcpActiveOpens", "TcpAttemptFails", "TcpEstabResets", "TcpInCsumErrors", "TcpInErrs", "TcpInSegs",
    "TcpOutRsts", "TcpOutSegs", "TcpPassiveOpens", "TcpRetransSegs",
    "TcpExtEmbryonicRsts", "TcpExtIPReversePathFilter", "TcpExtListenDrops", "TcpExtListenOverflows",
    "TcpExtLockDroppedIcmps", "TcpExtOfoPruned", "TcpExtOutOfWindowIcmps", "TcpExtPAWSEstab",
    "TcpExtPFMemallocDrop", "TcpExtPruneCalled", "TcpExtRcvPruned",
    "TcpExtSyncookiesFailed", "TcpExtSyncookiesRecv", "TcpExtSyncookiesSent",
    "TcpExtTCPAbortFailed", "TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnData", "TcpExtTCPAbortOnLinger",
    "TcpExtTCPAbortOnMemory", "TcpExtTCPAbortOnTimeout", "TcpExtTCPBacklogDrop", "TcpExtTCPChallengeACK",
    "TcpExtTCPDSACKOfoRecv", "TcpExtTCPDSACKRecv", "TcpExtTCPDSACKRecvSegs", "TcpExtTCPDeferAcceptDrop",
    "TcpExtTCPFastRetrans", "TcpExtTCPFromZeroWindowAdv", "TcpExtTCPKeepAlive", "TcpExtTCPLossProbeRecovery",
    "TcpExtTCPLossProbes", "TcpExtTCPLostRetransmit", "TcpExtTCPMTUPFail", "TcpExtTCPMTUPSuccess",
    "TcpExtTCPMemoryPressures", "TcpExtTCPMemoryPressuresChrono", "TcpExtTCPMinTTLDrop", "TcpExtTCPOFODrop",
    "TcpExtTCPOFOQueue", "TcpExtTCPOrigDataSent", "TcpExtTCPRcvCollapsed", "TcpExtTCPRcvQDrop",
    "TcpExtTCPRenoReorder", "TcpExtTCPReqQFullDoCookies", "TcpExtTCPReqQFullDrop", "TcpExtTCPRetransFail",
    "TcpExtTCPSACKReneging", "TcpExtTCPSACKReorder", "TcpExtTCPSlowStartRetrans", "TcpExtTCPSpuriousRTOs",
    "TcpExtTCPSynRetrans", "TcpExtTCPTSReorder", "TcpExtTCPTimeWaitOverflow", "TcpExtTCPTimeouts",
    "TcpExtTCPToZeroWindowAdv", "TcpExtTCPWantZeroWindowAdv", "TcpExtTCPWinProbe", "TcpExtTCPWqueueTooBig",
    "TcpExtTCPZeroWindowDrop", "TcpExtTW", "TcpExtTWKilled", "TcpExtTWRecycled",
    "Udp6InCsumErrors", "Udp6InDatagrams", "Udp6InErrors", "Udp6MemErrors", "Udp6NoPorts", "Udp6OutDatagrams",
    "Udp6RcvbufErrors", "Udp6SndbufErrors",
    "UdpInCsumErrors", "UdpInDatagrams", "UdpInErrors", "UdpMemErrors", "UdpNoPorts", "UdpOutDatagrams",
    "UdpRcvbufErrors", "UdpSndbufErrors",
];

/// Adds up what the namespaces counted.
pub struct NetnsCounters {
    counter: Counter,
    index: HashMap<&'static str, usize>,
    namespaces: HashMap<NetnsId, Seen>,
    round: u64,
    /// Where the last turn ended.
    last: Option<Inode>,
}

struct Seen {
    totals: Totals,
    /// The collection at which it was read last.
    round: u64,
}

/// In the order of [`COUNTERS`].
type Totals = Box<[u64]>;

impl NetnsCounters {
    pub const NAME: &str = "netns_counters";

    pub fn new(registry: &Registry) -> Self {
        Self {
            counter: registry.for_signal(Self::NAME).counter(
                "netns_mib",
                "The kernel's own counters of a network namespace, by the names of nstat",
                &[OWNER, &["counter"]],
            ),
            index: COUNTERS
                .iter()
                .enumerate()
                .map(|(i, &name)| (name, i))
                .collect(),
            namespaces: HashMap::new(),
            round: 0,
            last: None,
        }
    }

    pub fn collect(&mut self, enricher: &Enricher) {
        self.round += 1;
        let Some(places) = enricher
            .host()
            .map(|host| host.places().collect::<Vec<_>>())
        else {
            return;
        };
        let places = self.next_in_turn(places);
        let index = &self.index;
        for (_, (netns, totals)) in netns::visit(&places, || (netns::id(), read(index))) {
            if let Ok(netns) = netns {
                self.add(netns, totals, enricher);
            }
        }
        // Ones that were not there for several turns are gone.
        let turns = (self.namespaces.len() / BATCH + 2) as u64;
        let round = self.round;
        self.namespaces
            .retain(|_, seen| round - seen.round <= turns);
    }

    fn next_in_turn(&mut self, mut places: Vec<(Inode, PathBuf)>) -> Vec<(Inode, PathBuf)> {
        if places.len() > BATCH {
            places.sort_unstable_by_key(|&(inode, _)| inode);
            let next = places.partition_point(|&(inode, _)| Some(inode) <= self.last);
            places.rotate_left(next);
            places.truncate(BATCH);
            self.last = places.last().map(|&(inode, _)| inode);
        }
        places
    }

    fn add(&mut self, netns: NetnsId, totals: Totals, enricher: &Enricher) {
        let round = self.round;
        let seen = self.namespaces.entry(netns).or_insert_with(|| Seen {
            totals: vec![0; COUNTERS.len()].into(),
            round,
        });
        let labels = owner(&enricher.owner(netns, CgroupId(0)));
        for ((name, now), before) in COUNTERS.iter().zip(&totals).zip(&seen.totals) {
            if now > before {
                self.counter.add(labels.clone().with(&[name]), now - before);
            }
        }
        *seen = Seen { totals, round };
    }
}

/// Reads the counters of the calling thread's namespace.
fn read(index: &HashMap<&'static str, usize>) -> Totals {
    let mut totals: Totals = vec![0; COUNTERS.len()].into();
    let mut set = |name: &str, value: &str| {
        if let (Some(&at), Ok(value)) = (index.get(name), value.parse()) {
            totals[at] = value;
        }
    };
    for (file, parse) in [
        (
            "snmp",
            parse_columns as fn(&str, &mut dyn FnMut(&str, &str)),
        ),
        ("netstat", parse_columns),
        ("snmp6", parse_lines),
    ] {
        // A kernel without IPv6 has no snmp6.
        if let Ok(text) = fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            parse(&text, &mut set);
        }
    }
    totals
}

/// `Tcp: A B` above `Tcp: 1 2` is TcpA 1, TcpB 2.
fn parse_columns(text: &str, set: &mut dyn FnMut(&str, &str)) {
    let mut lines = text.lines();
    let mut full = String::new();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((_, values))) =
            (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        for (name, value) in names
            .split_ascii_whitespace()
            .zip(values.split_ascii_whitespace())
        {
            full.clear();
            full.push_str(group);
            full.push_str(name);
            set(&full, value);
        }
    }
}

fn parse_lines(text: &str, set: &mut dyn FnMut(&str, &str)) {
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(char::is_whitespace) {
            set(name, value.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::{Identities, Kind, NamespaceIdentity, Workload};
    use crate::export::Format;

    #[test]
    fn the_kernels_two_notations_give_the_names_of_nstat() {
        let mut found = Vec::new();
        let mut set = |name: &str, value: &str| found.push(format!("{name}={value}"));
        parse_columns(
            "Tcp: MaxConn InSegs\nTcp: -1 12\nIcmpMsg: InType3\nIcmpMsg: 4\n",
            &mut set,
        );
        parse_lines(
            "Ip6InReceives                   \t7\nUdp6NoPorts 1\n",
            &mut set,
        );
        let expected = [
            "TcpMaxConn=-1",
            "TcpInSegs=12",
            "IcmpMsgInType3=4",
            "Ip6InReceives=7",
            "Udp6NoPorts=1",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_name_is_listed_once() {
        let unique: std::collections::HashSet<_> = COUNTERS.iter().collect();
        assert_eq!(unique.len(), COUNTERS.len());
    }

    #[test]
    fn a_namespace_that_is_replaced_goes_on_where_the_old_one_was() {
        let registry = Registry::new(100);
        let mut identities = Identities::default();
        let identity = NamespaceIdentity {
            owner: Workload::local("cart", Kind::Netns),
            shared: false,
            addresses: Vec::new(),
        };
        identities.set_namespace(NetnsId(1), identity.clone());
        identities.set_namespace(NetnsId(2), identity);
        let enricher = Enricher::of(identities, &registry);
        let mut counters = NetnsCounters::new(&registry);
        let out_segs = counters.index["TcpOutSegs"];
        for (netns, total) in [(1, 5), (1, 9), (2, 2), (2, 3)] {
            let mut totals = vec![0; COUNTERS.len()];
            totals[out_segs] = total;
            counters.add(NetnsId(netns), totals.into(), &enricher);
        }
        let text = registry.encode(Format::Text, None);
        let line = r#"runwire_netns_mib_total{namespace="host",workload="cart",kind="netns",counter="TcpOutSegs"} 12"#;
        assert!(text.contains(line), "{text}");
    }
}
