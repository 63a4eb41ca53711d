//! The collector's cost over a stretch of time: its own CPU time, and that of its programs in everybody else's.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use super::agent::Collector;
use super::cost::Cpu;
use super::exposition::Exposition;
use super::packets::Empty;

/// Programs that run when the collector reads them: their time is in the collector's own.
const ITERATORS: [&str; 6] = [
    "listen_existing",
    "listen_in_namespace",
    "listeners",
    "tcp_existing",
    "tcp_in_namespace",
    "tcp_live",
];

/// A moment. What the kernel measures of programs is in it while somebody has it measure.
pub(super) struct Moment {
    at: Instant,
    collector: Cpu,
    empty: (f64, f64),
    pub(super) metrics: Exposition,
}

/// What was used from one moment to another.
pub(super) struct Used {
    pub(super) seconds: f64,
    pub(super) collector: Cpu,
    pub(super) programs: BTreeMap<String, Runs>,
    /// What a run of nothing is measured at, in seconds. `None` if nothing ran.
    pub(super) measuring: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Runs {
    pub(super) runs: f64,
    pub(super) seconds: f64,
}

pub(super) fn is_iterator(program: &str) -> bool {
    ITERATORS.contains(&program)
}

impl Moment {
    /// Takes a scrape, which belongs to what comes before.
    pub(super) fn now(collector: &Collector, empty: &Empty) -> Result<Self> {
        let metrics = collector.metrics()?;
        Ok(Self {
            at: Instant::now(),
            collector: Cpu::of_process(collector.id())?,
            empty: empty.measured()?,
            metrics,
        })
    }

    pub(super) fn since(&self, before: &Self) -> Used {
        let totals = |metrics: &Exposition, name| -> BTreeMap<String, f64> {
            metrics
                .by(name, "program")
                .map(|(program, value)| (program.to_owned(), value))
                .collect()
        };
        let delta = |name| {
            let earlier = totals(&before.metrics, name);
            let mut now = totals(&self.metrics, name);
            for (program, value) in &mut now {
                *value -= earlier.get(program).copied().unwrap_or_default();
            }
            now
        };
        let seconds = delta("bpf_program_run_seconds_total");
        let programs = delta("bpf_program_runs_total")
            .into_iter()
            .map(|(program, runs)| {
                let seconds = seconds.get(&program).copied().unwrap_or_default();
                (program, Runs { runs, seconds })
            })
            .collect();
        let runs = self.empty.0 - before.empty.0;
        Used {
            seconds: (self.at - before.at).as_secs_f64(),
            collector: self.collector.since(before.collector),
            programs,
            measuring: (runs > 0.0).then(|| (self.empty.1 - before.empty.1) / runs),
        }
    }
}

impl Used {
    /// CPU seconds of the programs that run in everybody's time, without what measuring takes.
    pub(super) fn programs_seconds(&self, measuring: f64) -> f64 {
        self.programs
            .iter()
            .filter(|(program, _)| !is_iterator(program))
            .map(|(_, runs)| (runs.seconds - runs.runs * measuring).max(0.0))
            .sum()
    }
}

#[test]
fn every_iterator_is_known() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../bpf");
    let mut found = Vec::new();
    for file in std::fs::read_dir(sources).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "c") {
            continue;
        }
        let text = std::fs::read_to_string(file).unwrap();
        for part in text.split("SEC(\"iter/").skip(1) {
            let (_, function) = part.split_once("int ").unwrap();
            found.push(function.split('(').next().unwrap().to_owned());
        }
    }
    found.sort();
    assert_eq!(found, ITERATORS);
}
