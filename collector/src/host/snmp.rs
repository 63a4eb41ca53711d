//! The kernel's own counters of every network namespace, as `nstat` shows them.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use super::readings::{Moved, Reading, Visit};
use super::totals::increase;
use crate::enrich::NetnsId;
use crate::export::{Counter, Labels, OWNER, Registry};

/// What is exported, by the names of `nstat`. Those the running kernel lacks are not there.
#[rustfmt::skip]
pub(super) const COUNTERS: &[&str] = &[
    "Icmp6InCsumErrors", "Icmp6InDestUnreachs", "Icmp6InErrors", "Icmp6InParmProblems", "Icmp6InPktTooBigs",
    "Icmp6InRedirects", "Icmp6InTimeExcds", "Icmp6OutDestUnreachs", "Icmp6OutErrors", "Icmp6OutPktTooBigs",
    "Icmp6OutRateLimitHost", "Icmp6OutTimeExcds", "IcmpInCsumErrors", "IcmpInDestUnreachs", "IcmpInErrors",
    "IcmpInParmProbs", "IcmpInRedirects", "IcmpInTimeExcds", "IcmpOutDestUnreachs", "IcmpOutErrors",
    "IcmpOutRateLimitGlobal", "IcmpOutRateLimitHost", "IcmpOutRedirects", "IcmpOutTimeExcds", "Ip6OutForwDatagrams", "TcpExtPAWSTimewait", "Ip6FragCreates",
    "Ip6FragFails", "Ip6FragOKs", "Ip6InAddrErrors", "Ip6InDiscards", "Ip6InHdrErrors", "Ip6InNoRoutes",
    "Ip6InTooBigErrors", "Ip6InTruncatedPkts", "Ip6InUnknownProtos", "Ip6OutDiscards", "Ip6OutNoRoutes",
    "Ip6ReasmFails", "Ip6ReasmOKs", "Ip6ReasmReqds", "Ip6ReasmTimeout", "IpExtInCsumErrors", "IpExtInNoRoutes",
    "IpExtInTruncatedPkts", "IpExtReasmOverlaps", "IpForwDatagrams", "IpFragCreates", "IpFragFails", "IpFragOKs",
    "IpInAddrErrors", "IpInDiscards", "IpInHdrErrors", "IpInUnknownProtos", "IpOutDiscards", "IpOutNoRoutes",
    "IpReasmFails", "IpReasmOKs", "IpReasmReqds", "IpReasmTimeout", "TcpActiveOpens", "TcpAttemptFails",
    "TcpEstabResets", "TcpExtArpFilter", "TcpExtBeyondWindow", "TcpExtDelayedACKLost", "TcpExtEmbryonicRsts",
    "TcpExtIPReversePathFilter", "TcpExtListenDrops", "TcpExtListenOverflows", "TcpExtLockDroppedIcmps",
    "TcpExtOfoPruned", "TcpExtOutOfWindowIcmps", "TcpExtPAWSActive", "TcpExtPAWSEstab", "TcpExtPAWSOldAck",
    "TcpExtPFMemallocDrop", "TcpExtPruneCalled", "TcpExtRcvPruned", "TcpExtSyncookiesFailed",
    "TcpExtSyncookiesRecv", "TcpExtSyncookiesSent", "TcpExtTCPACKSkippedChallenge", "TcpExtTCPACKSkippedFinWait2",
    "TcpExtTCPACKSkippedPAWS", "TcpExtTCPACKSkippedSeq", "TcpExtTCPACKSkippedSynRecv", "TcpExtTCPACKSkippedTimeWait",
    "TcpExtTCPAOBad", "TcpExtTCPAODroppedIcmps", "TcpExtTCPAOKeyNotFound", "TcpExtTCPAORequired",
    "TcpExtTCPAbortFailed", "TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnData", "TcpExtTCPAbortOnLinger",
    "TcpExtTCPAbortOnMemory", "TcpExtTCPAbortOnTimeout", "TcpExtTCPBacklogDrop", "TcpExtTCPChallengeACK",
    "TcpExtTCPDSACKIgnoredDubious", "TcpExtTCPDSACKIgnoredNoUndo", "TcpExtTCPDSACKIgnoredOld",
    "TcpExtTCPDSACKOfoRecv", "TcpExtTCPDSACKOfoSent", "TcpExtTCPDSACKOldSent", "TcpExtTCPDSACKRecv",
    "TcpExtTCPDSACKRecvSegs", "TcpExtTCPDSACKUndo", "TcpExtTCPDeferAcceptDrop", "TcpExtTCPDeliveredCE",
    "TcpExtTCPFastOpenActiveFail", "TcpExtTCPFastOpenBlackhole", "TcpExtTCPFastOpenListenOverflow",
    "TcpExtTCPFastOpenPassiveFail", "TcpExtTCPFastRetrans", "TcpExtTCPFromZeroWindowAdv", "TcpExtTCPFullUndo",
    "TcpExtTCPKeepAlive", "TcpExtTCPLossFailures", "TcpExtTCPLossProbeRecovery", "TcpExtTCPLossProbes",
    "TcpExtTCPLossUndo", "TcpExtTCPLostRetransmit", "TcpExtTCPMD5Failure", "TcpExtTCPMD5NotFound",
    "TcpExtTCPMD5Unexpected", "TcpExtTCPMTUPFail", "TcpExtTCPMTUPSuccess", "TcpExtTCPMemoryPressures",
    "TcpExtTCPMemoryPressuresChrono", "TcpExtTCPMigrateReqFailure", "TcpExtTCPMinTTLDrop", "TcpExtTCPOFODrop",
    "TcpExtTCPOFOQueue", "TcpExtTCPOrigDataSent", "TcpExtTCPPartialUndo", "TcpExtTCPRcvCollapsed",
    "TcpExtTCPRcvQDrop", "TcpExtTCPRenoFailures", "TcpExtTCPRenoRecovery", "TcpExtTCPRenoRecoveryFail",
    "TcpExtTCPRenoReorder", "TcpExtTCPReqQFullDoCookies", "TcpExtTCPReqQFullDrop", "TcpExtTCPRetransFail",
    "TcpExtTCPSACKDiscard", "TcpExtTCPSACKReneging", "TcpExtTCPSACKReorder", "TcpExtTCPSYNChallenge",
    "TcpExtTCPSackFailures", "TcpExtTCPSackRecovery", "TcpExtTCPSackRecoveryFail", "TcpExtTCPSlowStartRetrans",
    "TcpExtTCPSpuriousRTOs", "TcpExtTCPSpuriousRtxHostQueues", "TcpExtTCPSynRetrans", "TcpExtTCPTSReorder",
    "TcpExtTCPTimeWaitOverflow", "TcpExtTCPTimeouts", "TcpExtTCPToZeroWindowAdv", "TcpExtTCPWantZeroWindowAdv",
    "TcpExtTCPWinProbe", "TcpExtTCPWqueueTooBig", "TcpExtTCPZeroWindowDrop", "TcpExtTSEcrRejected", "TcpExtTW",
    "TcpExtTWKilled", "TcpExtTWRecycled", "TcpExtTcpDuplicateDataRehash", "TcpExtTcpTimeoutRehash",
    "TcpInCsumErrors", "TcpInErrs", "TcpInSegs", "TcpOutRsts", "TcpOutSegs", "TcpPassiveOpens", "TcpRetransSegs",
    "Udp6InCsumErrors", "Udp6InDatagrams", "Udp6InErrors", "Udp6MemErrors", "Udp6NoPorts", "Udp6OutDatagrams",
    "Udp6RcvbufErrors", "Udp6SndbufErrors", "UdpInCsumErrors", "UdpInDatagrams", "UdpInErrors",
    "UdpMemErrors", "UdpNoPorts", "UdpOutDatagrams",
    "UdpRcvbufErrors", "UdpSndbufErrors",
];

/// Adds up what the namespaces counted.
pub(super) struct NetnsCounters {
    counter: Counter,
    index: HashMap<&'static str, usize>,
    namespaces: HashMap<NetnsId, Seen>,
}

struct Seen {
    totals: Totals,
    /// Of each file as it was read last: most have not changed, and need not be parsed.
    hashes: [u64; FILES.len()],
}

/// In the order of [`COUNTERS`].
type Totals = Box<[u64]>;

type Parse = fn(&str, &mut dyn FnMut(&str, &str));

const FILES: [(&str, Parse); 3] = [
    ("/proc/thread-self/net/snmp", parse_columns),
    ("/proc/thread-self/net/netstat", parse_columns),
    ("/proc/thread-self/net/snmp6", parse_lines),
];

/// Their texts.
pub(super) type MibFiles = [Option<String>; FILES.len()];

/// Of the calling thread's namespace.
pub(super) fn read_mib() -> MibFiles {
    FILES.map(|(path, _)| fs::read_to_string(path).ok())
}

impl NetnsCounters {
    pub(super) const NAME: &str = "netns_counters";

    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            counter: registry.for_signal(Self::NAME).counter(
                "netns_mib",
                "The kernel's own counters of a network namespace, by the names of nstat",
                &[OWNER, &["counter"]],
            ),
            index: (COUNTERS.iter().enumerate())
                .map(|(at, &name)| (name, at))
                .collect(),
            namespaces: HashMap::new(),
        }
    }

    fn add(&mut self, netns: NetnsId, owner: &Labels, files: &MibFiles) -> Moved {
        let seen = self.namespaces.entry(netns).or_insert_with(|| Seen {
            totals: vec![0; COUNTERS.len()].into(),
            hashes: [0; FILES.len()],
        });
        let mut moved = Moved::No;
        for (at, ((_, parse), text)) in FILES.iter().zip(files).enumerate() {
            // A kernel without IPv6 has no snmp6.
            let Some(text) = text else { continue };
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            let hash = hasher.finish();
            if std::mem::replace(&mut seen.hashes[at], hash) == hash {
                continue;
            }
            parse(text, &mut |name, value| {
                if let (Some(&at), Ok(now)) = (self.index.get(name), value.parse()) {
                    let before = std::mem::replace(&mut seen.totals[at], now);
                    let added = increase(before, now);
                    if added > 0 {
                        moved = Moved::Yes;
                        self.counter.add(owner.clone().with(&[name]), added);
                    }
                }
            });
        }
        moved
    }
}

impl Reading for NetnsCounters {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn read(&mut self, visit: &mut Visit) -> io::Result<Moved> {
        let files = visit.mib();
        Ok(self.add(visit.netns, &visit.owner, &files))
    }

    fn forget(&mut self, netns: NetnsId) {
        self.namespaces.remove(&netns);
    }

    fn publish(&mut self) {}
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
    use crate::enrich::{Kind, Workload};
    use crate::export::{Format, owner};

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
        let mut counters = NetnsCounters::new(&registry);
        let cart = owner(&Workload::local("cart", Kind::Netns));
        for (netns, total) in [(1, 5), (1, 9), (2, 2), (2, 2), (2, 3)] {
            let text = format!("Tcp: OutSegs Unknown\nTcp: {total} 7\n");
            let files = [Some(text), None, None];
            counters.add(NetnsId(netns), &cart, &files);
        }
        let text = registry.encode(Format::Text, None);
        let line = r#"runwire_netns_mib_total{namespace="host",workload="cart",kind="netns",counter="TcpOutSegs"} 12"#;
        assert!(text.contains(line), "{text}");
    }

    /// What the catalogue of failure modes asks for.
    #[test]
    fn the_counters_that_tell_failure_modes_apart_are_exported() {
        for name in [
            "TcpExtTCPSpuriousRtxHostQueues",
            "TcpExtTCPSackRecovery",
            "TcpExtTCPDSACKIgnoredDubious",
            "TcpExtTCPDSACKRecv",
            "TcpExtIPReversePathFilter",
            "IpExtInNoRoutes",
            "IpExtInCsumErrors",
            "IpReasmTimeout",
            "Ip6ReasmTimeout",
            "UdpRcvbufErrors",
            "Udp6RcvbufErrors",
            "TcpExtTCPTimeWaitOverflow",
            "TcpExtTCPReqQFullDoCookies",
            "TcpExtTCPAbortOnTimeout",
            "TcpExtTCPRetransFail",
            "IcmpOutRateLimitHost",
        ] {
            assert!(COUNTERS.contains(&name), "{name}");
        }
    }
}
