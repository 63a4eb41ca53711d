//! `ebpf`: what a run of every program takes, as the kernel measures it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use serde_json::json;

use super::Bench;
use super::agent::Collector;
use super::load::{Done, Load};
use super::packets::{self, Empty};
use super::pair::Pair;
use super::player::Player;
use super::results::Piece;
use super::spread::Spread;
use super::watch::{self, Moment, Used};

/// A program that ran less often in a round says nothing.
const FEWEST_RUNS: f64 = 100.0;

pub(super) fn run(bench: &Bench) -> Result<Piece> {
    let pair = Pair::build(&bench.state)?;
    let collector = Collector::start(&bench.collector, &[], bench.folder.path())?;
    let _measuring = packets::measure()?;
    let empty = Empty::attach()?;
    let to = SocketAddr::from((pair.address, 8080));
    let datagrams_to = SocketAddr::from((pair.address, 53));
    let bulk_to = SocketAddr::from((pair.address, 8081));
    let seconds = bench.seconds;
    let loads = [
        (
            "short connections",
            Load::Answer { at: to, threads: 2 },
            Load::Connect {
                to,
                threads: 1,
                rate: 0.0,
                seconds,
            },
        ),
        (
            "DNS queries",
            Load::Reply { at: datagrams_to },
            Load::Ask {
                to: datagrams_to,
                seconds,
            },
        ),
        (
            "bulk transfer",
            Load::Sink { at: bulk_to },
            Load::Send {
                to: bulk_to,
                streams: 1,
                seconds,
            },
        ),
    ];
    let mut rows = Vec::new();
    let mut figures = json!({});
    let mut measuring = Vec::new();
    for (name, server, client) in loads {
        let _server = Player::start(&pair.server, &server)?;
        let mut rounds: Vec<(Used, Done)> = Vec::new();
        for _ in 0..bench.repeats {
            let before = Moment::now(&collector, &empty)?;
            let done = Player::start(&pair.client, &client)?.done()?;
            rounds.push((Moment::now(&collector, &empty)?.since(&before), done));
        }
        measuring.extend(rounds.iter().filter_map(|(used, _)| used.measuring));
        let floor = Spread::of(measuring.iter().copied()).map_or(0.0, |spread| spread.median);
        let mut programs: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for (used, done) in &rounds {
            // Of bulk, a megabyte.
            let units = match done.bytes {
                0 => done.connections as f64,
                bytes => bytes as f64 / 1e6,
            };
            for (program, runs) in &used.programs {
                if runs.runs >= FEWEST_RUNS && !watch::is_iterator(program) {
                    programs
                        .entry(program)
                        .or_default()
                        .push((runs.seconds / runs.runs, runs.runs / units));
                }
            }
        }
        for (program, rounds) in programs {
            let Some(time) = Spread::of(
                rounds
                    .iter()
                    .map(|(seconds, _)| (seconds - floor).max(0.0) * 1e9),
            ) else {
                continue;
            };
            let Some(times) = Spread::of(rounds.iter().map(|(_, runs)| *runs)) else {
                continue;
            };
            rows.push(vec![
                name.to_owned(),
                format!("`{program}`"),
                format!("{times:.1}"),
                format!("{time:.0}"),
                format!("{:.2}", times.median * time.median / 1e3),
            ]);
            figures[name][program] = json!({"nanoseconds": time, "runs": times});
        }
    }
    let Some(measuring) = Spread::of(measuring) else {
        anyhow::bail!("the kernel measured no program: does it have BPF_ENABLE_STATS (Linux 5.8)?")
    };
    figures["measuring"] = json!(measuring.times(1e9));
    Ok(Piece {
        name: "ebpf".into(),
        title: "What a run of a program takes".into(),
        method: format!(
            "The kernel's own count (`BPF_ENABLE_STATS`) over {} rounds of {} s for each load, both ends on this host. Runs are per connection \
             (two state machines, {} B asked and {} B answered), per query with its answer, or per megabyte. Nanoseconds are without the {measuring:.0} ns \
             that a program which does nothing is measured at beside them. Programs of iterators are not here: they run in the collector's own time.",
            bench.repeats,
            bench.seconds,
            super::load::REQUEST,
            super::load::ANSWER,
            measuring = measuring.times(1e9),
        ),
        columns: [
            "load",
            "program",
            "runs",
            "ns a run",
            "µs a connection, query or MB",
        ]
        .map(str::to_owned)
        .into(),
        rows,
        notes: Vec::new(),
        figures,
    })
}
