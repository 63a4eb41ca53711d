//! The synthetic worlds of `runbooks/tests`, one after the other in time, as OpenMetrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use serde::Deserialize;

/// Longer than a world and a lookback of Prometheus; a day and a week before a world there is no other one.
const SLOT: i64 = 5 * 3600;
const START: i64 = 1_700_000_400;
const LENGTH: i64 = 600;
/// The buckets of `runbooks/tests/run`.
const BOUNDS: [f64; 12] = [
    0.0001, 0.0002, 0.0004, 0.001, 0.0016, 0.0064, 0.0128, 0.032, 0.064, 0.128, 0.256, 1.6,
];

/// Worlds in which something ends within the window; here it matters when.
const CHANGING: &str = r#"
- name: "nothing listened until 200 s ago, and all is well since"
  series:
    - 'tcp_connect_attempts_total{client>server} 5'
    - 'tcp_connect_failures_total{client>server,reason="refused"} 0 from 400 was 5'
    - 'tcp_segments_sent_total{client>server} 30 from 400 was 5'
    - 'dropped_packets_total{client>server,@server,reason="no_socket",site="tcp_v4_rcv",class="no_socket",protocol="tcp",syn="true"} 0 from 400 was 5'
    - 'tcp_resets_total{server>client,direction="sent",reason="no_socket"} 0 from 400 was 5'
- name: "nothing listened until 200 s ago, and since then a rule rejects"
  series:
    - 'tcp_connect_attempts_total{client>server} 5'
    - 'tcp_connect_failures_total{client>server,reason="refused"} 5'
    - 'tcp_segments_sent_total{client>server} 5'
    - 'dropped_packets_total{client>server,@server,reason="no_socket",site="tcp_v4_rcv",class="no_socket",protocol="tcp",syn="true"} 0 from 400 was 5'
    - 'dropped_packets_total{client>server,@server,reason="netfilter_drop",site="nft_do_chain",class="policy",protocol="tcp",syn="true"} 5 from 400'
- name: "a rule dropped until 60 s ago, and since then nothing listens"
  fast: true
  series:
    - 'tcp_connect_attempts_total{client>server} 5'
    - 'tcp_connect_failures_total{client>server,reason="timeout"} 0 from 270 was 5'
    - 'tcp_connect_failures_total{client>server,reason="refused"} 5 from 270'
    - 'tcp_segments_sent_total{client>server} 5 from 270 was 10'
    - 'tcp_retransmitted_segments_total{client>server,kind="syn"} 0 from 270 was 5'
    - 'dropped_packets_total{client>server,@router,reason="netfilter_drop",site="nft_do_chain",class="policy",protocol="tcp",syn="true"} 0 from 270 was 10'
    - 'dropped_packets_total{client>server,@server,reason="no_socket",site="tcp_v4_rcv",class="no_socket",protocol="tcp",syn="true"} 5 from 270'
- name: "nothing listened until 60 s ago, and the client keeps the connections that it has since"
  fast: true
  series:
    - 'tcp_connect_attempts_total{client>server} 0 from 270 was 5'
    - 'tcp_connect_failures_total{client>server,reason="refused"} 0 from 270 was 5'
    - 'tcp_segments_sent_total{client>server} 8'
    - 'tcp_data_segments_sent_total{client>server} 4 from 270'
    - 'tcp_data_segments_received_total{client>server} 4 from 270'
    - 'dropped_packets_total{client>server,@server,reason="no_socket",site="tcp_v4_rcv",class="no_socket",protocol="tcp",syn="true"} 0 from 270 was 5'
    - 'tcp_resets_total{server>client,direction="sent",reason="no_socket"} 0 from 270 was 5'
- name: "connections were reset until 60 s ago, and those of since then stay open"
  fast: true
  series:
    - 'tcp_connect_attempts_total{client>server} 0 from 270 was 2'
    - 'tcp_connections_closed_total{client>server,role="client",error="reset"} 0 from 270 was 2'
    - 'tcp_segments_sent_total{client>server} 20'
    - 'tcp_data_segments_sent_total{client>server} 10'
    - 'tcp_data_segments_received_total{client>server} 10'
    - 'tcp_resets_total{server>client,direction="sent",reason="tcp_abort_on_linger"} 0 from 270 was 2'
- name: "a name server was silent until 60 s ago, and its client asks another one since"
  fast: true
  series:
    - 'dns_queries_total{client>dns,qtype="a",protocol="udp"} 0 from 270 was 1'
    - 'dns_responses_total{client>dns,qtype="a",rcode="noerror",protocol="udp"} 0'
    - 'dns_timeouts_total{client>dns,qtype="a"} 0 from 270 was 1'
    - 'dns_queries_total{client>other,qtype="a",protocol="udp"} 2'
    - 'dns_responses_total{client>other,qtype="a",rcode="noerror",protocol="udp"} 2'
    - 'dns_query_duration_seconds{client>other} 2 of 0.0008'
- name: "a name server answered late until 60 s ago, and in time since"
  fast: true
  series:
    - 'dns_queries_total{client>dns,qtype="a",protocol="udp"} 1'
    - 'dns_responses_total{client>dns,qtype="a",rcode="noerror",protocol="udp"} 1 from 270 was 0.8'
    - 'dns_timeouts_total{client>dns,qtype="a"} 0 from 270 was 0.2'
    - 'dropped_packets_total{dns>client,@client,reason="no_socket",site="__udp4_lib_rcv",class="no_socket",protocol="udp",syn="false"} 0 from 270 was 0.2'
    - 'dns_query_duration_seconds{client>dns} 1 of 0.0008'
- name: "two pairs, two faults"
  series:
    - 'tcp_connect_attempts_total{client>server} 5'
    - 'tcp_connect_failures_total{client>server,reason="refused"} 5'
    - 'tcp_segments_sent_total{client>server} 5'
    - 'dropped_packets_total{client>server,@server,reason="no_socket",site="tcp_v4_rcv",class="no_socket",protocol="tcp",syn="true"} 5'
    - 'dns_queries_total{other>dns,qtype="a",protocol="udp"} 2'
    - 'dns_responses_total{other>dns,qtype="a",rcode="servfail",protocol="udp"} 2'
    - 'dns_query_duration_seconds{other>dns} 2 of 0.0008'
- name: "one client is served badly, the others are fine"
  series:
    - 'tcp_connect_attempts_total{client>server} 5'
    - 'tcp_connect_failures_total{client>server,reason="timeout"} 5'
    - 'tcp_segments_sent_total{client>server} 10'
    - 'tcp_retransmitted_segments_total{client>server,kind="syn"} 5'
    - 'dropped_packets_total{client>server,@router,reason="netfilter_drop",site="nft_do_chain",class="policy",protocol="tcp",syn="true"} 10'
    - 'tcp_connect_attempts_total{other>server} 50'
    - 'tcp_connections_opened_total{other>server,role="client"} 50'
    - 'tcp_segments_sent_total{other>server} 500'
    - 'tcp_segments_sent_total{server>other} 500'
"#;

#[derive(Debug, Deserialize)]
pub(crate) struct World {
    pub(crate) name: String,
    series: Vec<String>,
    #[serde(default)]
    fast: bool,
    #[serde(skip)]
    index: i64,
}

impl World {
    fn begins(&self) -> i64 {
        START + self.index * SLOT
    }

    fn interval(&self) -> i64 {
        if self.fast { 1 } else { 15 }
    }

    /// The Unix time at which this world is asked about.
    pub(crate) fn time(&self) -> i64 {
        self.begins() + if self.fast { 330 } else { 600 }
    }
}

pub(crate) fn runbooks() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks"))
}

pub(crate) fn all() -> Vec<World> {
    let mut worlds = Vec::new();
    for file in ["connect", "dns", "established", "cluster", "healthy"] {
        let path = runbooks().join("tests").join(file).with_extension("yaml");
        let text = std::fs::read_to_string(path).unwrap();
        worlds.extend(serde_yaml_ng::from_str::<Vec<World>>(&text).unwrap());
    }
    worlds.extend(serde_yaml_ng::from_str::<Vec<World>>(CHANGING).unwrap());
    for (index, world) in (0..).zip(&mut worlds) {
        world.index = index;
    }
    worlds
}

/// All worlds in one text. `metrics` are those that a collector would say it measures.
pub(crate) fn openmetrics(worlds: &[World], metrics: &BTreeSet<String>) -> String {
    let mut series: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    for world in worlds {
        let mut add = |name: String, value: &dyn Fn(i64) -> f64| {
            let samples = series.entry(name).or_default();
            for step in 0..=LENGTH / world.interval() {
                samples.push((world.begins() + step * world.interval(), value(step)));
            }
        };
        let mut workloads = BTreeSet::new();
        for line in &world.series {
            one_line(line, world.interval(), &mut workloads, &mut add);
        }
        for workload in workloads {
            add(
                format!("runwire_workload_info{{{}}}", end("", &workload)),
                &|_| 1.0,
            );
        }
        for metric in metrics {
            add(format!("runwire_series{{metric=\"{metric}\"}}"), &|_| 1.0);
        }
    }
    let mut text = String::new();
    for (name, samples) in series {
        for (time, value) in samples {
            writeln!(text, "{name} {value} {time}").unwrap();
        }
    }
    text + "# EOF\n"
}

fn end(prefix: &str, name: &str) -> String {
    let namespace = if name.starts_with('~') { name } else { "host" };
    format!("{prefix}namespace=\"{namespace}\",{prefix}workload=\"{name}\"")
}

/// Takes a series with its value at each step.
type Add<'a> = dyn FnMut(String, &dyn Fn(i64) -> f64) + 'a;

/// `tcp_rtt_seconds{client>server} 5 of 0.04 from 320 was 1`
fn one_line(line: &str, interval: i64, workloads: &mut BTreeSet<String>, add: &mut Add) {
    let (metric, rest) = line.split_once('{').unwrap();
    let (inside, values) = rest.rsplit_once("} ").unwrap();
    let labels: Vec<String> = inside
        .split(',')
        .map(
            |part| match (part.strip_prefix('@'), part.split_once('>')) {
                (Some(owner), _) => {
                    workloads.insert(owner.to_owned());
                    end("", owner)
                }
                (None, Some((src, dst))) => {
                    workloads.extend([src.to_owned(), dst.to_owned()]);
                    format!("{},{}", end("src_", src), end("dst_", dst))
                }
                (None, None) => part.to_owned(),
            },
        )
        .collect();
    let labels = labels.join(",");
    let metric = match metric.strip_prefix('!') {
        Some(of_others) => of_others.to_owned(),
        None => format!("runwire_{metric}"),
    };
    let words: Vec<&str> = values.split(' ').collect();
    if words[0] == "=" {
        let value: f64 = words[1].parse().unwrap();
        add(format!("{metric}{{{labels}}}"), &|_| value);
        return;
    }
    let after = |word: &str| {
        let at = words.iter().position(|other| *other == word)?;
        Some(words[at + 1].parse::<f64>().unwrap())
    };
    let step = words[0].parse::<f64>().unwrap() * interval as f64;
    let quiet = after("was").unwrap_or(0.0) * interval as f64;
    let first = after("from").map_or(0, |from| from as i64 / interval);
    let counter = |at: i64| quiet * first.min(at) as f64 + step * (at - first).max(0) as f64;
    let Some(sample) = after("of") else {
        add(format!("{metric}{{{labels}}}"), &counter);
        return;
    };
    for bound in BOUNDS {
        let below = if sample <= bound { 1.0 } else { 0.0 };
        add(
            format!("{metric}_bucket{{{labels},le=\"{bound}\"}}"),
            &|at| below * counter(at),
        );
    }
    add(format!("{metric}_bucket{{{labels},le=\"+Inf\"}}"), &counter);
    add(format!("{metric}_count{{{labels}}}"), &counter);
    add(format!("{metric}_sum{{{labels}}}"), &|at| {
        sample * counter(at)
    });
}
