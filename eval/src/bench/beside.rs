//! `beside` and `bulk`: what a workload notices of the collector, and of what else could watch it, in turns in one run.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::json;

use super::Bench;
use super::agent::{Agent, Kind};
use super::cost::{self, Cpu};
use super::load::{Done, Load};
use super::pair::Pair;
use super::player::Player;
use super::results::Piece;
use super::spread::Spread;

/// What one agent did to the load, in one round.
struct Turn {
    done: Done,
    /// CPU seconds of the machine, and of the agent's process.
    busy: f64,
    agent: f64,
    unseen: Option<f64>,
}

pub(super) fn short(bench: &Bench) -> Result<Piece> {
    let turns = turns(bench, |pair, seconds| {
        let to = SocketAddr::from((pair.address, 8080));
        let client = Load::Connect {
            to,
            threads: 2,
            rate: 0.0,
            seconds,
        };
        (Load::Answer { at: to, threads: 2 }, client)
    })?;
    piece(
        bench,
        &turns,
        "beside",
        "Short connections, with and without",
        "connections/s",
        |done| done.connections as f64,
    )
}

pub(super) fn bulk(bench: &Bench) -> Result<Piece> {
    let turns = turns(bench, |pair, seconds| {
        let to = SocketAddr::from((pair.address, 8081));
        (
            Load::Sink { at: to },
            Load::Send {
                to,
                streams: 4,
                seconds,
            },
        )
    })?;
    piece(
        bench,
        &turns,
        "bulk",
        "Four fat connections, with and without",
        "GB/s",
        |done| done.bytes as f64 / 1e9,
    )
}

/// Every agent in every round, each time with another one first.
fn turns(
    bench: &Bench,
    loads: impl Fn(&Pair, f64) -> (Load, Load),
) -> Result<Vec<(Kind, Vec<Turn>)>> {
    let mut all: Vec<(Kind, Vec<Turn>)> = Kind::available()
        .into_iter()
        .map(|kind| (kind, Vec::new()))
        .collect();
    let pair = Pair::build(&bench.state)?;
    let (server, client) = loads(&pair, bench.seconds);
    let _server = Player::start(&pair.server, &server)?;
    // What is slow only the first time.
    let (_, warm_up) = loads(&pair, bench.seconds.min(1.0));
    Player::start(&pair.client, &warm_up)?.done()?;
    for round in 0..bench.repeats as usize {
        all.rotate_left(round.min(1));
        for (kind, turns) in &mut all {
            let agent = Agent::start(*kind, &bench.collector, &pair, bench.folder.path())?;
            let used = || agent.id().map_or(Ok(Cpu::default()), Cpu::of_process);
            let (before, busy) = (used()?, cost::busy_seconds()?);
            let done = Player::start(&pair.client, &client)?.done()?;
            let busy = cost::busy_seconds()? - busy;
            let agent_seconds = used()?.since(before).total();
            turns.push(Turn {
                done,
                busy,
                agent: agent_seconds,
                unseen: agent.end()?,
            });
        }
    }
    all.sort_by_key(|(kind, _)| Kind::available().iter().position(|other| other == kind));
    Ok(all)
}

fn piece(
    bench: &Bench,
    turns: &[(Kind, Vec<Turn>)],
    name: &str,
    title: &str,
    unit: &str,
    amount: fn(&Done) -> f64,
) -> Result<Piece> {
    let rate = |turn: &Turn| amount(&turn.done) / turn.done.seconds;
    // Rounds are in the same order for all, though turns within one are not.
    let (_, alone) = turns.first().context("no agent was tried")?;
    let mut rows = Vec::new();
    let mut figures = json!({});
    for (kind, turns) in turns {
        let spread = |value: &dyn Fn(&Turn) -> f64| {
            Spread::of(turns.iter().map(value)).unwrap_or(Spread::NOTHING)
        };
        let against = |value: &dyn Fn(&Turn) -> f64| {
            let ratios = turns
                .iter()
                .zip(alone)
                .map(|(turn, alone)| value(turn) / value(alone));
            Spread::of(ratios).unwrap_or(Spread::NOTHING)
        };
        let reached = spread(&rate);
        let ratio = against(&rate);
        let work = against(&|turn| turn.busy / amount(&turn.done));
        let agent = spread(&|turn| turn.agent / turn.done.seconds * 100.0);
        let unseen = Spread::of(turns.iter().filter_map(|turn| turn.unseen));
        let mut row = vec![
            kind.name().to_owned(),
            format!("{reached:.*}", if reached.median > 100.0 { 0 } else { 2 }),
            format!("{ratio:.3}"),
            format!("{work:.3}"),
            format!("{agent:.1}"),
        ];
        figures[kind.name()] = json!({
            "rate": reached, "against_none": ratio, "cpu_against_none": work, "agent_percent": agent, "unseen": unseen,
        });
        if name == "beside" {
            let (p50, p99) = (
                spread(&|turn| turn.done.p50_us),
                spread(&|turn| turn.done.p99_us),
            );
            row.extend([format!("{p50:.0}"), format!("{p99:.0}")]);
            figures[kind.name()]["p50_us"] = json!(p50);
            figures[kind.name()]["p99_us"] = json!(p99);
        }
        row.push(unseen.map_or("–".to_owned(), |share| {
            format!("{:.1} %", share.times(100.0))
        }));
        rows.push(row);
    }
    let mut columns = vec![
        "agent",
        unit,
        "of no agent's",
        "CPU for the same work",
        "agent's process, % of a core",
    ];
    if name == "beside" {
        columns.extend(["p50 µs", "p99 µs"]);
    }
    columns.push("packets not seen");
    let mut notes = vec![
        "«A record per packet» is a small agent of ours (`eval/bpf/packets.bpf.c`): 64 bytes of every packet of every socket into a ring of 4 MiB, with the ring \
         buffer's own wake-ups, read at once. `tcpdump` captures one of the two ends into `/dev/null`. The load uses all cores, so an agent's own time is taken \
         from the load's."
            .to_owned(),
    ];
    if !turns.iter().any(|(kind, _)| *kind == Kind::Tcpdump) {
        notes.push(
            "tcpdump was not measured: it is not installed (`apt-get install tcpdump`).".to_owned(),
        );
    }
    Ok(Piece {
        name: name.into(),
        title: title.into(),
        method: format!(
            "As much as goes between two namespaces of this host, {} rounds of {} s for each agent, in turns. Ratios are within a round, to no agent; «CPU for the \
             same work» is the busy time of all cores for each unit of work.",
            bench.repeats, bench.seconds
        ),
        columns: columns.into_iter().map(str::to_owned).collect(),
        rows,
        notes,
        figures,
    })
}
