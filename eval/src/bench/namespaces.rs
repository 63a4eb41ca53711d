//! `namespaces`: a host with a thousand network namespaces: CPU, memory, how long a scrape takes and how large it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::Bench;
use super::agent::Collector;
use super::cost::{self, Cpu};
use super::load::Load;
use super::player::Player;
use super::results::Piece;
use super::spread::Spread;
use crate::state::State;
use crate::{command, netns, say, stop};

const NAMESPACES: u64 = 1_000;
/// Connections that each made to the server, before anything is measured.
const CONNECTIONS: u64 = 4;
const SECONDS: f64 = 30.0;
const SCRAPES: u32 = 10;

pub(super) fn run(bench: &Bench) -> Result<Piece> {
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    let seconds = bench.window(SECONDS);
    let most = bench.amount(NAMESPACES);
    let collector = Collector::start(&bench.collector, &[], bench.folder.path())?;
    let mut host = Star::new(&bench.state)?;
    for count in [most / 10, most] {
        host.grow(usize::try_from(count)?)?;
        // New ones are found within a second and read with the next collection.
        stop::sleep(Duration::from_secs(8))?;
        let before = Cpu::of_process(collector.id())?;
        stop::sleep(Duration::from_secs_f64(seconds))?;
        let percent = Cpu::of_process(collector.id())?.since(before).total() / seconds * 100.0;
        let mut times = Vec::new();
        let mut last = collector.metrics()?;
        for _ in 0..SCRAPES {
            let begun = Instant::now();
            last = collector.metrics()?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let used = Cpu::of_process(collector.id())?.since(before).total();
        let scraping = (used - percent / 100.0 * seconds) / f64::from(SCRAPES + 1) * 1e3;
        let times = Spread::of(times).unwrap_or(Spread::NOTHING);
        let mebibyte = f64::from(1 << 20);
        let resident = cost::resident_bytes(collector.id())? as f64 / mebibyte;
        let size = last.0.len() as f64 / mebibyte;
        rows.push(vec![
            format!("{count}"),
            format!("{percent:.2}"),
            format!("{resident:.1}"),
            format!("{}", last.samples()),
            format!("{size:.2}"),
            format!("{times:.0}"),
            format!("{scraping:.0}"),
        ]);
        figures.push(json!({
            "namespaces": count, "percent": percent, "resident_mib": resident, "samples": last.samples(), "mebibytes": size,
            "scrape_ms": times, "scrape_cpu_ms": scraping,
        }));
    }
    Ok(Piece {
        name: "namespaces".into(),
        title: "A thousand network namespaces".into(),
        method: format!(
            "Named namespaces on one bridge, each of which has made {CONNECTIONS} connections to a server; then {seconds} s in which nothing happens and nobody scrapes \
             (CPU: the kernel's maps and the counters of every namespace are read every five seconds), then {SCRAPES} scrapes in a row of the text format. CPU of a \
             scrape is what the process used for each."
        ),
        columns: [
            "namespaces",
            "CPU %, nobody scrapes",
            "resident MiB",
            "samples",
            "scrape MiB",
            "scrape ms",
            "CPU ms of a scrape",
        ]
        .map(str::to_owned)
        .into(),
        rows,
        notes: Vec::new(),
        figures: json!(figures),
    })
}

/// Namespaces around one with a bridge and a server.
struct Star {
    hub: String,
    leaves: Vec<String>,
    to: SocketAddr,
    state: State,
    server: Option<Player>,
}

impl Star {
    fn new(state: &State) -> Result<Self> {
        let hub = format!("rwb{:x}hub", std::process::id());
        let address = Self::address(0);
        let mut star = Self {
            hub: hub.clone(),
            leaves: Vec::new(),
            to: SocketAddr::from((address, 8080)),
            state: state.clone(),
            server: None,
        };
        star.state.add_namespace(&hub)?;
        command::run(&format!("ip netns add {hub}"))?;
        command::run_with_input(
            &format!("ip -n {hub} -batch -"),
            &format!(
                "link set lo up\nlink add bridge type bridge\naddress add {address}/16 dev bridge\nlink set bridge up\n"
            ),
        )?;
        let load = Load::Answer {
            at: star.to,
            threads: 2,
        };
        star.server = Some(Player::start(&hub, &load)?);
        Ok(star)
    }

    fn address(number: usize) -> Ipv4Addr {
        let [high, low] = u16::try_from(number + 1).unwrap_or(u16::MAX).to_be_bytes();
        Ipv4Addr::new(10, 77, high, low)
    }

    fn grow(&mut self, count: usize) -> Result<()> {
        while self.leaves.len() < count {
            stop::check()?;
            let number = self.leaves.len() + 1;
            let leaf = format!("rwb{:x}n{number}", std::process::id());
            self.state.add_namespace(&leaf)?;
            self.leaves.push(leaf.clone());
            let hub = &self.hub;
            command::run(&format!("ip netns add {leaf}"))?;
            command::run_with_input(
                &format!("ip -n {hub} -batch -"),
                &format!(
                    "link add leaf{number} type veth peer name eth0 netns {leaf}\nlink set leaf{number} master bridge up\n"
                ),
            )?;
            command::run_with_input(
                &format!("ip -n {leaf} -batch -"),
                &format!(
                    "link set lo up\naddress add {}/16 dev eth0\nlink set eth0 up\n",
                    Self::address(number)
                ),
            )?;
            let load = Load::Open {
                to: self.to,
                threads: 1,
                count: CONNECTIONS,
            };
            let done = Player::start(&leaf, &load)?.done()?;
            anyhow::ensure!(done.errors == 0, "{leaf} does not reach the server");
            if number.is_multiple_of(100) {
                say::progress(format_args!("{number} namespaces"));
            }
        }
        Ok(())
    }
}

impl Drop for Star {
    fn drop(&mut self) {
        self.server = None;
        for name in self.leaves.iter().chain([&self.hub]) {
            if netns::path(name).exists()
                && let Err(error) = command::run(&format!("ip netns delete {name}"))
            {
                say::progress(format_args!("{error:#}"));
                continue;
            }
            if let Err(error) = self.state.remove_namespace(name) {
                say::progress(format_args!("{error:#}"));
            }
        }
    }
}
