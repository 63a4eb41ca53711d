//! `flows`: memory against the flows that are remembered.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::agent::Collector;
use super::load::Load;
use super::losses::Losses;
use super::pair::Pair;
use super::player::Player;
use super::results::Piece;
use super::{Bench, cost};
use crate::{say, stop};

const FLOWS: [u64; 3] = [10_000, 100_000, 1_000_000];

pub(super) fn run(bench: &Bench) -> Result<Piece> {
    let pair = Pair::build(&bench.state)?;
    // Room for those of others on this host, too.
    let limit = ["--flow-limit", "1100000", "--flow-timeout", "1h"];
    let collector = Collector::start(&bench.collector, &limit, bench.folder.path())?;
    let to = SocketAddr::from((pair.address, 8080));
    let _server = Player::start(&pair.server, &Load::Answer { at: to, threads: 2 })?;
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    let mut made = 0;
    let mut first = None;
    for flows in [0].into_iter().chain(FLOWS) {
        let wanted = bench.amount(flows);
        if wanted > made {
            let open = Load::Open {
                to,
                threads: 2,
                count: wanted - made,
            };
            made += Player::start(&pair.client, &open)?.done()?.connections;
            say::progress(format_args!("{made} connections made"));
        }
        // Records are taken out of the ring twice a second, and looked at with the next collection.
        stop::sleep(Duration::from_secs(2))?;
        let metrics = collector.metrics()?;
        let lost = Losses::of(&metrics);
        let entries = metrics.sum("flow_table_entries", &[]);
        let resident = cost::resident_bytes(collector.id())? as f64;
        let maps = cost::map_bytes(collector.id())? as f64;
        let (first_entries, first_resident) = *first.get_or_insert((entries, resident));
        let more = entries - first_entries;
        let each = (more > 0.0).then(|| (resident - first_resident) / more);
        let mebibyte = f64::from(1 << 20);
        rows.push(vec![
            format!("{made}"),
            format!("{entries}"),
            format!("{:.1}", resident / mebibyte),
            each.map_or("–".to_owned(), |bytes| format!("{bytes:.0}")),
            format!("{:.1}", maps / mebibyte),
            format!("{lost}"),
        ]);
        figures.push(json!({
            "made": made, "entries": entries, "resident_bytes": resident, "bytes_a_flow": each, "map_bytes": maps, "lost": lost.total(),
        }));
    }
    Ok(Piece {
        name: "flows".into(),
        title: "Memory and flows".into(),
        method: "Short connections one after the other, two at a time, as fast as they go, with `flow_limit` at 1,100,000 (65,536 by default) so that every one is \
                 remembered. Both ends are here, so a flow is two sockets. Bytes a flow are what the process has grown since before the first, for each flow more; \
                 maps are the kernel's, and do not grow."
            .into(),
        columns: ["connections made", "flows remembered", "resident MiB", "bytes a flow", "maps MiB", "lost"].map(str::to_owned).into(),
        rows,
        notes: Vec::new(),
        figures: json!(figures),
    })
}
