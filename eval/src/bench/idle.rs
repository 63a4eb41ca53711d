//! `idle`: what the collector takes beside many connections that do nothing, before and after it is started again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::Bench;
use super::agent::Collector;
use super::cost::{self, Cpu};
use super::load::Load;
use super::pair::Pair;
use super::player::Player;
use super::results::Piece;
use crate::{say, stop};

/// Both ends of all connections.
const SOCKETS: u64 = 100_000;
/// Of one process, below the usual limit of open files.
const OF_A_PROCESS: u64 = 12_500;
/// A hundredth of a second, which is what CPU time is counted in, is then a thirtieth of a per cent.
const SECONDS: f64 = 30.0;

pub(super) fn run(bench: &Bench) -> Result<Piece> {
    let pair = Pair::build(&bench.state)?;
    let collector = Collector::start(&bench.collector, &[], bench.folder.path())?;
    let mut rows = Vec::new();
    let mut figures = json!({});
    let seconds = bench.window(SECONDS);
    observe(
        "no sockets of ours",
        &collector,
        seconds,
        &mut rows,
        &mut figures,
    )?;

    let mut players = Vec::new();
    let sockets = bench.amount(SOCKETS);
    let connections = sockets / 2;
    let processes = connections.div_ceil(OF_A_PROCESS);
    for number in 0..processes {
        let port = 9_000 + u16::try_from(number)?;
        let at = SocketAddr::from((pair.address, port));
        players.push(Player::start(&pair.server, &Load::Hold { at })?);
        let count = connections / processes;
        let mut client = Player::start(&pair.client, &Load::Keep { to: at, count })?;
        client.done()?;
        players.push(client);
        say::progress(format_args!("{} sockets", (number + 1) * count * 2));
    }
    // The connections' own records are looked at first.
    stop::sleep(Duration::from_secs(6))?;
    let name = format!("{sockets} idle sockets");
    observe(&name, &collector, seconds, &mut rows, &mut figures)?;

    drop(collector);
    let begun = Instant::now();
    let collector = Collector::start(&bench.collector, &[], bench.folder.path())?;
    let ready = begun.elapsed().as_secs_f64();
    let starting = Cpu::of_process(collector.id())?.total();
    stop::sleep(Duration::from_secs(6))?;
    observe(
        "the same, after a restart of the collector",
        &collector,
        seconds,
        &mut rows,
        &mut figures,
    )?;
    figures["restart"] = json!({"ready_seconds": ready, "cpu_seconds": starting});
    Ok(Piece {
        name: "idle".into(),
        title: "Idle connections".into(),
        method: format!(
            "{seconds} s each, with one scrape in them, after {sockets} sockets (both ends of {connections} connections, in {} processes) are open and quiet. \
             CPU is the collector's process; no program runs for a connection that does nothing. Maps are what the kernel says of the collector's maps; the \
             notes in the sockets' own storage are not in it.",
            processes * 2
        ),
        columns: [
            "beside",
            "user %",
            "system %",
            "together % of a core",
            "resident MiB",
            "maps MiB",
            "scrape ms",
            "connections shown",
        ]
        .map(str::to_owned)
        .into(),
        rows,
        notes: vec![format!(
            "Started beside {sockets} sockets, the collector is ready after {ready:.2} s, of which it computes for {starting:.2} s."
        )],
        figures,
    })
}

fn observe(
    name: &str,
    collector: &Collector,
    seconds: f64,
    rows: &mut Vec<Vec<String>>,
    figures: &mut serde_json::Value,
) -> Result<()> {
    let before = Cpu::of_process(collector.id())?;
    let begun = Instant::now();
    stop::sleep(Duration::from_secs_f64(seconds))?;
    let asked = Instant::now();
    let metrics = collector.metrics()?;
    let scrape = asked.elapsed().as_secs_f64() * 1e3;
    let used = Cpu::of_process(collector.id())?.since(before);
    let elapsed = begun.elapsed().as_secs_f64();
    let percent = |seconds: f64| seconds / elapsed * 100.0;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let resident = mebibytes(cost::resident_bytes(collector.id())?);
    let maps = mebibytes(cost::map_bytes(collector.id())?);
    let shown = metrics.sum("tcp_connections", &[("state", "established")]);
    rows.push(vec![
        name.to_owned(),
        format!("{:.2}", percent(used.user)),
        format!("{:.2}", percent(used.system)),
        format!("{:.2}", percent(used.total())),
        format!("{resident:.1}"),
        format!("{maps:.1}"),
        format!("{scrape:.0}"),
        format!("{shown}"),
    ]);
    figures[name] = json!({
        "user_percent": percent(used.user), "system_percent": percent(used.system), "resident_mib": resident, "maps_mib": maps,
        "scrape_ms": scrape, "established": shown,
    });
    Ok(())
}
