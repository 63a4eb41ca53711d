//! Where and with what it was measured.

use std::path::Path;
use std::process::Command;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Machine {
    date: String,
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    collector: String,
    /// The source that the programs were made from; empty where there is no git.
    commit: String,
    /// Programs that wanted a CPU, on average over the minute before.
    load_before: f64,
}

impl Machine {
    pub(super) fn look(collector: &Path) -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let field = |file: &str, name: &str| {
            let text = read(file);
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let output = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            let text =
                output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            text.unwrap_or_default()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kibibytes = memory
            .split(' ')
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        Self {
            date: jiff::Timestamp::now()
                .strftime("%Y-%m-%d %H:%M UTC")
                .to_string(),
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_gib: (kibibytes.unwrap_or_default() >> 20) + 1,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            collector: output(collector, &["--version"]),
            commit: output(Path::new("git"), &["describe", "--always", "--dirty"]),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|it| it.parse().ok())
                .unwrap_or_default(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} × {}, {} GiB, Linux {}; {} at {}; {}; load before {:.1}",
            self.cores,
            self.processor,
            self.memory_gib,
            self.kernel,
            self.collector,
            self.commit,
            self.date,
            self.load_before
        )
    }
}
