//! What watches while load is made: nobody, the collector, or what it is compared with.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::exposition::Exposition;
use super::pair::Pair;
use crate::process::Program;
use crate::{command, http, netns, stop};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nobody,
    Collector,
    Tcpdump,
    Packets,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "no agent",
            Self::Collector => "runwire-collector",
            Self::Tcpdump => "tcpdump",
            Self::Packets => "a record per packet",
        }
    }

    /// All that this machine has.
    pub(super) fn available() -> Vec<Self> {
        [Self::Nobody, Self::Collector, Self::Tcpdump, Self::Packets]
            .into_iter()
            .filter(|kind| *kind != Self::Tcpdump || command::exists("tcpdump"))
            .collect()
    }
}

/// A watcher at work.
pub(super) struct Agent {
    program: Option<Program>,
    log: PathBuf,
}

impl Agent {
    pub(super) fn start(kind: Kind, collector: &Path, pair: &Pair, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{}.log", kind.name()));
        let start = |file: &Path, arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&it| it.to_owned()).collect();
            Program::start(kind.name(), file, &arguments, &log)
        };
        let program = match kind {
            Kind::Nobody => None,
            Kind::Collector => Some(Collector::start(collector, &[], folder)?.program),
            Kind::Tcpdump => {
                // At one end, so that it sees each packet once.
                let namespace = format!("--net={}", netns::path(&pair.server).display());
                let nsenter = command::find("nsenter")
                    .context("there is no nsenter: apt-get install util-linux")?;
                let capture = [
                    "tcpdump",
                    "-Z",
                    "root",
                    "-n",
                    "-i",
                    "eth0",
                    "-s",
                    "128",
                    "-w",
                    "/dev/null",
                ];
                let program = start(
                    &nsenter,
                    &[&[namespace.as_str()], capture.as_slice()].concat(),
                )?;
                wait_for(&log, "listening on")?;
                Some(program)
            }
            Kind::Packets => {
                let program = start(&std::env::current_exe()?, &["packets"])?;
                wait_for(&log, "ready")?;
                Some(program)
            }
        };
        Ok(Self { program, log })
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.program.as_ref().map(Program::id)
    }

    /// Ends it. What it says of packets that it did not see, as a share of all.
    pub(super) fn end(mut self) -> Result<Option<f64>> {
        self.program = None;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.starts_with('{')) {
            let said: serde_json::Value = serde_json::from_str(line)?;
            let number = |name: &str| said[name].as_f64().unwrap_or_default();
            return Ok(share(number("lost"), number("seen") + number("lost")));
        }
        let number = |what: &str| {
            let line = text.lines().find(|line| line.contains(what))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let (Some(lost), Some(all)) = (number("dropped by kernel"), number("received by filter"))
        else {
            return Ok(None);
        };
        Ok(share(lost, all))
    }
}

fn share(part: f64, all: f64) -> Option<f64> {
    (all > 0.0).then(|| part / all)
}

fn wait_for(log: &Path, word: &str) -> Result<()> {
    let limit = Instant::now() + PATIENCE;
    while !fs::read_to_string(log).is_ok_and(|text| text.contains(word)) {
        if Instant::now() > limit {
            bail!(
                "`{word}` did not come up in {} within {PATIENCE:?}",
                log.display()
            );
        }
        stop::sleep(Duration::from_millis(20))?;
    }
    Ok(())
}

/// The collector, on a port of its own.
pub(super) struct Collector {
    program: Program,
    port: u16,
}

impl Collector {
    pub(super) fn start(file: &Path, arguments: &[&str], folder: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listen = format!("127.0.0.1:{port}");
        let mut all = vec!["run".to_owned(), "--listen".to_owned(), listen];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let program = Program::start("the collector", file, &all, &folder.join("collector.log"))?;
        let mut collector = Self { program, port };
        let url = collector.url("readyz");
        collector.program.wait_for(&url, PATIENCE)?;
        Ok(collector)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub(super) fn id(&self) -> u32 {
        self.program.id()
    }

    pub(super) fn metrics(&self) -> Result<Exposition> {
        let url = self.url("metrics");
        match http::get(&url)? {
            (200, text) => Ok(Exposition(text)),
            (status, text) => bail!("{url} answered {status}: {text}"),
        }
    }
}
