//! `bench`: what the collector costs, measured with the real program on this kernel, beside what else could watch.
//!
//! ```text
//! piece ─► namespaces, players (load), agents ─► numbers of /proc, of the kernel's programs, of the collector ─► Piece
//!                                                                         JSON, a section of a Markdown file ◄─ Results
//! ```
//!
//! Every piece starts a collector of its own and leaves nothing. Who wants honest figures runs it where nothing else runs.

mod agent;
mod beside;
mod cost;
mod ebpf;
mod exposition;
mod flows;
mod idle;
mod load;
mod losses;
mod machine;
mod namespaces;
mod packets;
mod pair;
mod player;
mod rates;
mod results;
mod spread;
mod watch;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

pub(crate) use self::load::run as load;
use self::machine::Machine;
pub(crate) use self::packets::run as packets;
use self::results::{Piece, Results};
use crate::state::State;
use crate::{say, stop};

type Run = fn(&Bench) -> Result<Piece>;

/// In the order of the report.
const PIECES: [(&str, Run); 7] = [
    ("rates", rates::run),
    ("beside", beside::short),
    ("bulk", beside::bulk),
    ("ebpf", ebpf::run),
    ("idle", idle::run),
    ("flows", flows::run),
    ("namespaces", namespaces::run),
];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these pieces: rates, beside, bulk, ebpf, idle, flows, namespaces.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// How long load is made for one figure. Below 5, windows and amounts of `idle`, `flows` and `namespaces` shrink as well: a try.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    seconds: f64,
    /// How often everything is measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Puts the figures into this file, in the place of older ones of the same pieces.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes all that is in `--json` into the section «Collector» of this file.
    #[arg(long, value_name = "FILE", requires = "json")]
    markdown: Option<PathBuf>,
    /// Folder with runwire-collector [default: beside this program].
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// What every piece needs.
struct Bench {
    collector: PathBuf,
    state: State,
    /// Of logs, gone at the end.
    folder: tempfile::TempDir,
    seconds: f64,
    repeats: u32,
}

impl Bench {
    /// A try does with less.
    fn share(&self) -> f64 {
        (self.seconds / 5.0).min(1.0)
    }

    fn window(&self, seconds: f64) -> f64 {
        (seconds * self.share()).max(1.0)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of it"
    )]
    fn amount(&self, amount: u64) -> u64 {
        (amount as f64 * self.share()) as u64
    }
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    let order = PIECES.map(|(name, _)| name);
    if let Some(wrong) = options
        .only
        .iter()
        .find(|name| !order.contains(&name.as_str()))
    {
        bail!(
            "there is no piece `{wrong}`: pass some of {}",
            order.join(", ")
        );
    }
    if options.seconds.is_nan() || options.seconds < 0.2 {
        bail!(
            "--seconds is {}: at least 0.2 are needed to see anything",
            options.seconds
        );
    }
    let bench = Bench {
        collector: collector(options)?,
        state: State::open()?,
        folder: tempfile::tempdir().context("cannot create a folder for logs")?,
        seconds: options.seconds,
        repeats: options.repeats,
    };
    let mut results = match &options.json {
        Some(file) => Results::read(file)?,
        None => Results::default(),
    };
    for (name, run) in PIECES {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        stop::check()?;
        let machine = Machine::look(&bench.collector);
        let begun = Instant::now();
        let piece = run(&bench).with_context(|| format!("cannot measure `{name}`"))?;
        say::progress(format_args!(
            "{name}: {:.0} s",
            begun.elapsed().as_secs_f64()
        ));
        say::result(format_args!(
            "{}\n{}",
            piece.title,
            results::table(&piece.columns, &piece.rows)
        ));
        let command = format!(
            "runwire-eval bench --only {name} --seconds {} --repeats {}",
            options.seconds, options.repeats
        );
        results.put(piece, machine, command, &order);
        if let Some(file) = &options.json {
            results.write(file)?;
        }
        if let Some(file) = &options.markdown {
            results.write_section(file)?;
        }
    }
    Ok(true)
}

fn collector(options: &Options) -> Result<PathBuf> {
    let folder = match &options.bin_dir {
        Some(folder) => folder.clone(),
        None => {
            let ourselves = std::env::current_exe().context("cannot tell where this program is")?;
            ourselves
                .parent()
                .context("this program lies nowhere")?
                .to_owned()
        }
    };
    let file = folder.join("runwire-collector");
    if !file.is_file() {
        bail!(
            "there is no {}: build it (`cargo build --release`) or pass --bin-dir DIR",
            file.display()
        );
    }
    Ok(file)
}
