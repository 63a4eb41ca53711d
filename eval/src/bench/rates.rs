//! `rates`: what the collector takes at so many short connections a second, and whether it counts every one.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::json;

use super::Bench;
use super::agent::Collector;
use super::exposition::Exposition;
use super::load::{Done, Load};
use super::losses::Losses;
use super::packets::{self, Empty};
use super::pair::Pair;
use super::player::Player;
use super::results::Piece;
use super::spread::Spread;
use super::watch::{Moment, Used};
use crate::stop;

/// Connections a second; the last is as many as go.
const RATES: [Option<f64>; 4] = [Some(0.0), Some(1_000.0), Some(10_000.0), None];

struct Round {
    used: Used,
    done: Done,
    /// Connections that the collector counted, at both ends.
    counted: f64,
    lost: Losses,
}

pub(super) fn run(bench: &Bench) -> Result<Piece> {
    let pair = Pair::build(&bench.state)?;
    let collector = Collector::start(&bench.collector, &[], bench.folder.path())?;
    let _measuring = packets::measure()?;
    let empty = Empty::attach()?;
    let to = SocketAddr::from((pair.address, 8080));
    let _server = Player::start(&pair.server, &Load::Answer { at: to, threads: 2 })?;
    let mut rounds: Vec<(Option<f64>, Vec<Round>)> = RATES.map(|rate| (rate, Vec::new())).into();
    // Every rate once, then all again: what the machine does meanwhile is spread over all.
    for _ in 0..bench.repeats {
        for (rate, rounds) in &mut rounds {
            rounds.push(round(bench, &pair, &collector, &empty, to, *rate)?);
        }
    }
    let floors = rounds
        .iter()
        .flat_map(|(_, rounds)| rounds.iter().filter_map(|round| round.used.measuring));
    let floor = Spread::of(floors).map_or(0.0, |spread| spread.median);
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    for (rate, rounds) in &rounds {
        let share = |value: fn(&Round, f64) -> f64| {
            let shares = rounds
                .iter()
                .map(|round| value(round, floor) / round.used.seconds * 100.0);
            Spread::of(shares).unwrap_or(Spread::NOTHING)
        };
        let plain = |value: fn(&Round) -> f64| {
            Spread::of(rounds.iter().map(value)).unwrap_or(Spread::NOTHING)
        };
        let reached = plain(|round| round.done.connections as f64 / round.used.seconds);
        let programs = share(|round, floor| round.used.programs_seconds(floor));
        let user = share(|round, _| round.used.collector.user);
        let system = share(|round, _| round.used.collector.system);
        let together =
            share(|round, floor| round.used.programs_seconds(floor) + round.used.collector.total());
        let (made, counted): (f64, f64) =
            rounds.iter().fold((0.0, 0.0), |(made, counted), round| {
                (
                    made + round.done.connections as f64 * 2.0,
                    counted + round.counted,
                )
            });
        let lost: Losses = (rounds.iter())
            .flat_map(|round| round.lost.clone().parts())
            .collect();
        let errors: u64 = rounds.iter().map(|round| round.done.errors).sum();
        let (p50, p99) = (
            plain(|round| round.done.p50_us),
            plain(|round| round.done.p99_us),
        );
        rows.push(vec![
            rate.map_or("as many as go".to_owned(), |rate| format!("{rate}")),
            format!("{reached:.0}"),
            format!("{programs:.2}"),
            format!("{system:.2}"),
            format!("{user:.2}"),
            format!("{together:.2}"),
            format!("{counted} of {made}"),
            format!("{lost}"),
        ]);
        figures.push(json!({
            "rate": rate, "reached": reached, "programs_percent": programs, "system_percent": system, "user_percent": user,
            "together_percent": together, "ends_made": made, "ends_counted": counted, "lost": lost.total(), "errors": errors,
            "p50_us": p50, "p99_us": p99,
        }));
    }
    Ok(Piece {
        name: "rates".into(),
        title: "Short connections".into(),
        method: format!(
            "Client and server in two namespaces of this host, so the collector sees every connection twice; {} rounds of {} s at each rate, all rates in turn, \
             one scrape a round. Columns are per cent of one core: the programs in the kernel (as measured by `BPF_ENABLE_STATS`, less the {:.0} ns that a \
             program which does nothing is measured at), the collector's system and user time, and all of it. Counted are ends of connections in \
             `runwire_tcp_connections_opened_total`; lost is what `runwire_events_lost_total` and `runwire_bpf_map_insert_failures_total` say.",
            bench.repeats,
            bench.seconds,
            floor * 1e9
        ),
        columns: ["connections/s wanted", "made", "programs %", "system %", "user %", "together %", "ends counted", "lost"]
            .map(str::to_owned)
            .into(),
        rows,
        notes: vec![
            "Load and collector share the cores. A connection between two hosts costs each of them half of what the programs take here.".into(),
        ],
        figures: json!(figures),
    })
}

fn round(
    bench: &Bench,
    pair: &Pair,
    collector: &Collector,
    empty: &Empty,
    to: SocketAddr,
    rate: Option<f64>,
) -> Result<Round> {
    let before = Moment::now(collector, empty)?;
    let done = if rate == Some(0.0) {
        stop::sleep(std::time::Duration::from_secs_f64(bench.seconds))?;
        Done::default()
    } else {
        let load = Load::Connect {
            to,
            threads: 2,
            rate: rate.unwrap_or(0.0),
            seconds: bench.seconds,
        };
        Player::start(&pair.client, &load)?.done()?
    };
    // The server's last socket closes after the client's.
    stop::sleep(std::time::Duration::from_millis(20))?;
    let after = Moment::now(collector, empty)?;
    let difference =
        |value: &dyn Fn(&Exposition) -> f64| value(&after.metrics) - value(&before.metrics);
    Ok(Round {
        counted: difference(&|metrics| {
            metrics.sum(
                "tcp_connections_opened_total",
                &[
                    ("src_workload", &pair.client),
                    ("dst_workload", &pair.server),
                ],
            )
        }),
        lost: Losses::of(&after.metrics).since(&Losses::of(&before.metrics)),
        used: after.since(&before),
        done,
    })
}
