//! Random traffic, and every counter against what the kernel and the programs that made it count.
//!
//! Three rounds, or as many as `RUNWIRE_ROUNDS` says; a failed one names the seed that makes the
//! same traffic again: `RUNWIRE_SEED=… RUNWIRE_ROUNDS=1`.

mod plan;
mod play;

use std::collections::BTreeMap;
use std::env;
use std::process::Command;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::plan::{Dice, QTYPES, RCODES, plan};
use self::play::{Done, Player};
use super::lab::Lab;
use super::measure::{Labels, Measurement, is_older_than, say};
use crate::host::exact::Reader;

const SIGNALS: [&str; 9] = [
    "tcp_lifecycle",
    "tcp_connect",
    "tcp_retransmit",
    "tcp_reset",
    "packet_drop",
    "listen_queue",
    "dns",
    "udp",
    "icmp_sent",
];
const PLAYERS: u8 = 4;
const ACTS: usize = 12;
/// The last segments of a round are on their way, and what closed is told at the next look.
const SETTLED: Duration = Duration::from_secs(5);

/// What, as we count it, and as it was.
type Pair = (String, u64, u64);

#[test]
#[ignore = "needs root"]
fn random_traffic_is_counted_as_the_kernel_counts_it() {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect(name))
    };
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_micros() as u64
    };
    let first = number("RUNWIRE_SEED").unwrap_or_else(now);
    let rounds = number("RUNWIRE_ROUNDS").unwrap_or(3);

    let lab = Lab::new();
    let mut players: Vec<Player> = (0..PLAYERS).map(|n| Player::new(&lab, n)).collect();
    let Some(mut measurement) = Measurement::start_all(&SIGNALS) else {
        return;
    };
    let start = [&lab.client, &lab.server].map(|netns| nstat(netns));
    let mut done = Done::default();
    for seed in first..first + rounds {
        let mut dice = Dice::new(seed);
        let plans: Vec<_> = players.iter().map(|_| plan(&mut dice, ACTS)).collect();
        let played = scope(|scope| {
            let threads: Vec<_> = (players.iter_mut().zip(&plans))
                .map(|(player, plan)| scope.spawn(|| player.play(&lab, plan)))
                .collect();
            let ends = threads.into_iter().map(|thread| thread.join());
            ends.collect::<Result<Vec<Done>, _>>()
        });
        let played = played.unwrap_or_else(|_| panic!("round with RUNWIRE_SEED={seed}: {plans:?}"));
        played.into_iter().for_each(|part| done.add(part));
        let since = Instant::now();
        loop {
            measurement.collect();
            let kernel = [&lab.client, &lab.server].map(|netns| nstat(netns));
            let pairs = compare(&lab, &measurement, &start, &kernel, &done);
            let wrong: Vec<&Pair> = pairs
                .iter()
                .filter(|(_, ours, theirs)| ours != theirs)
                .collect();
            if wrong.is_empty() {
                break;
            }
            assert!(
                since.elapsed() < SETTLED,
                "what, ours, theirs: {wrong:#?}\nlost: {} {}\nof round {} with RUNWIRE_SEED={seed}, {plans:?}",
                measurement.show("events_lost"),
                measurement.show("bpf_map_insert_failures"),
                seed - first
            );
            sleep(Duration::from_millis(50));
        }
    }
    say(&format!(
        "{rounds} rounds of random traffic, from RUNWIRE_SEED={first} on: equal"
    ));
}

/// All of `nstat`.
fn nstat(namespace: &str) -> BTreeMap<String, u64> {
    let arguments = ["netns", "exec", namespace, "nstat", "-asz"];
    let output = Command::new("ip").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}

fn value(counters: &BTreeMap<String, u64>, counter: &str) -> u64 {
    counters.get(counter).copied().unwrap_or(0)
}

/// What this is about, in order: the kernel's counters of both namespaces, then what the programs
/// know that made the traffic.
fn compare(
    lab: &Lab,
    measurement: &Measurement,
    start: &[BTreeMap<String, u64>; 2],
    kernel: &[BTreeMap<String, u64>; 2],
    done: &Done,
) -> Vec<Pair> {
    let names = [lab.client.as_str(), lab.server.as_str()];
    let ends = ["client", "server"];
    let ours = |metric: &str, labels: Labels<'_>| measurement.count(metric, labels);
    let mut pairs = Vec::new();
    for end in 0..2 {
        let from = ("src_workload", names[end]);
        let to = ("dst_workload", names[end]);
        let owner = ("workload", names[end]);
        let mut pair = |what: &str, ours, theirs| {
            // Before that, no event tells of a reset that no socket sends.
            if what == "resets sent" && is_older_than(6, 10) {
                return;
            }
            pairs.push((format!("{what} ({})", ends[end]), ours, theirs));
        };
        // Some are there only once they have counted something.
        let since_start = |counters: &[&str]| -> u64 {
            let of = |counter: &&str| value(&kernel[end], counter) - value(&start[end], counter);
            counters.iter().map(of).sum()
        };
        for (metric, labels, counters) in [
            (
                "tcp_connect_attempts_total",
                vec![from],
                vec!["TcpActiveOpens"],
            ),
            (
                "tcp_connect_failures_total",
                vec![from],
                vec!["TcpAttemptFails"],
            ),
            (
                "tcp_connections_opened_total",
                vec![to, ("role", "server")],
                vec!["TcpPassiveOpens"],
            ),
            (
                "tcp_retransmitted_segments_total",
                vec![from],
                vec!["TcpRetransSegs"],
            ),
            (
                "udp_datagrams_sent_total",
                vec![from],
                vec!["UdpOutDatagrams", "Udp6OutDatagrams"],
            ),
            (
                "udp_datagrams_received_total",
                vec![to],
                vec!["UdpInDatagrams", "Udp6InDatagrams"],
            ),
            (
                "udp_receive_buffer_drops_total",
                vec![owner],
                vec!["UdpRcvbufErrors", "Udp6RcvbufErrors"],
            ),
            (
                "dropped_packets_total",
                vec![owner, ("class", "no_socket"), ("protocol", "udp")],
                vec!["UdpNoPorts", "Udp6NoPorts"],
            ),
            (
                "icmp_messages_total",
                vec![owner, ("direction", "sent"), ("type", "dest_unreachable")],
                vec!["IcmpMsgOutType3", "Icmp6OutType1"],
            ),
            (
                "tcp_listener_drops_total",
                vec![owner],
                vec!["TcpExtListenDrops"],
            ),
        ] {
            pair(metric, ours(metric, &labels), since_start(&counters));
        }
        let sent = ours("tcp_resets_total", &[from, ("direction", "sent")]);
        pair("resets sent", sent, since_start(&["TcpOutRsts"]));
        let open = ["established", "close_wait"]
            .map(|state| ours("tcp_connections", &[owner, ("state", state)]));
        pair("open", open.iter().sum(), done.open.len() as u64);
        let resets = [to, ("direction", "received")];
        let refused = if end == 0 { done.refused } else { 0 };
        pair(
            "resets received",
            ours("tcp_resets_total", &resets),
            done.resets[end] + refused,
        );
        // The end that a reset came to; metrics of connections have the client as their src.
        let closed = [
            ("src_workload", names[0]),
            ("dst_workload", names[1]),
            ("role", ends[end]),
        ];
        let with = |error| {
            let labels = [closed.as_slice(), &[("error", error)]].concat();
            ours("tcp_connections_closed_total", &labels)
        };
        let ended = done.opened - done.open.len() as u64;
        pair("closed by a reset", with("reset"), done.resets[end]);
        pair("closed", with("none"), ended - done.resets[end]);
        pair(
            "opened",
            ours("tcp_connections_opened_total", &closed),
            done.opened,
        );
        let edge = [from, ("dst_workload", names[1 - end])];
        pair(
            "bytes sent",
            ours("tcp_bytes_sent_total", &edge),
            done.bytes[end],
        );
        pair(
            "bytes received",
            ours("tcp_bytes_received_total", &edge),
            done.bytes[end],
        );
        pair(
            "datagrams sent",
            ours("udp_datagrams_sent_total", &edge),
            done.sent[end].0,
        );
        pair(
            "payload sent",
            ours("udp_bytes_sent_total", &edge),
            done.sent[end].1,
        );
        pair(
            "datagrams read",
            ours("udp_datagrams_received_total", &edge),
            done.read[end].0,
        );
        pair(
            "payload read",
            ours("udp_bytes_received_total", &edge),
            done.read[end].1,
        );
    }
    let edge = [("src_workload", names[0]), ("dst_workload", names[1])];
    let on_edge = |metric, extra: Labels<'_>| ours(metric, &[edge.as_slice(), extra].concat());
    let mut pair = |what: String, ours, theirs| pairs.push((what, ours, theirs));
    let refused = on_edge("tcp_connect_failures_total", &[("reason", "refused")]);
    pair("refused".into(), refused, done.refused);
    let nobody = [
        ("workload", names[1]),
        ("class", "no_socket"),
        ("protocol", "udp"),
    ];
    pair(
        "datagrams to nobody".into(),
        ours("dropped_packets_total", &nobody),
        done.to_nobody,
    );
    for (qtype, name) in QTYPES {
        for (protocol, over_tcp) in [("udp", false), ("tcp", true)] {
            let labels = [("qtype", name), ("protocol", protocol)];
            let asked = done.queries.get(&(qtype, over_tcp)).copied();
            pair(
                format!("queries {labels:?}"),
                on_edge("dns_queries_total", &labels),
                asked.unwrap_or(0),
            );
        }
    }
    for (rcode, name) in RCODES {
        let answered = done.answers.get(&rcode).copied();
        pair(
            format!("answers {name}"),
            on_edge("dns_responses_total", &[("rcode", name)]),
            answered.unwrap_or(0),
        );
    }
    pair("timed out".into(), on_edge("dns_timeouts_total", &[]), 0);
    mib(lab, kernel, &mut pairs);
    pairs
}

/// What is read from /proc, of both namespaces.
fn mib(lab: &Lab, kernel: &[BTreeMap<String, u64>; 2], pairs: &mut Vec<Pair>) {
    let mut reader = Reader::new();
    reader.collect();
    for (netns, kernel) in [&lab.client, &lab.server].into_iter().zip(kernel) {
        for (labels, ours) in reader.series("netns_mib_total", netns) {
            let (_, counter) = labels.rsplit_once("counter=\"").unwrap();
            let counter = counter.trim_end_matches('"');
            pairs.push((
                format!("{counter} of {netns}"),
                ours,
                value(kernel, counter),
            ));
        }
    }
}
