//! `replay`: recorded series in a real Prometheus, each case at a time of its own, and the same questions asked again. Seconds
//! instead of minutes a case, and the same answers on every machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::baseline::{Baselines, Moments};
use crate::case::{Case, Kind};
use crate::catalogue::Catalogue;
use crate::process::Program;
use crate::recording::Recording;
use crate::report::{self, Written};
use crate::score::{Answer, Expected, Score, score};
use crate::series::{self, Series};
use crate::stack::{Ports, Programs};
use crate::{command, http, say, stop};

/// Where the first case ends: 1 January 2026, 00:00 UTC.
const FIRST: i64 = 1_767_225_600_000;
/// From case to case, in milliseconds: longer than a window, and no multiple comes near the hour, day or week that evidence
/// looks back for a baseline.
const APART: i64 = 14 * 60_000;
/// An import cannot say that a series has ended, as a scrape does; so a sample counts for two scrapes, not for five minutes.
const LOOKBACK: &str = "2s";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What `run --record` wrote, and cases that are made by rule.
    #[arg(value_name = "DIR", default_values = ["eval/recorded", "eval/synthetic"])]
    recordings: Vec<PathBuf>,
    /// Folder of the rules of other tools.
    #[arg(long, value_name = "DIR", default_value = "eval/baselines")]
    baselines: PathBuf,
    /// Prometheus and assistant go on until Ctrl-C, so that a person can look at the cases, too.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    written: Written,
    #[command(flatten)]
    programs: Programs,
}

/// True when every case is right.
pub(crate) fn run(options: &Options) -> Result<bool> {
    stop::listen()?;
    let catalogue = Catalogue::read(options.programs.runbooks())?;
    let baselines = Baselines::read(&options.programs, &catalogue, &options.baselines)?;
    let recorded: Vec<(Recording, Vec<Series>)> = Recording::read_all(&options.recordings)?
        .into_iter()
        .zip(0..)
        .map(|((mut recording, mut series), number)| {
            let shift = FIRST + number * APART - recording.times.asked;
            recording.times = recording.times.shifted(shift);
            for (millis, _) in series.iter_mut().flat_map(|one| &mut one.samples) {
                *millis += shift;
            }
            (recording, series)
        })
        .collect();
    let folder = tempfile::Builder::new()
        .prefix("runwire-replay-")
        .tempdir()
        .context("cannot create a folder for the data")?;
    let stack = Stack::start(&options.programs, folder.path(), &recorded)?;
    let mut cases = Vec::new();
    for (recording, series) in &recorded {
        stop::check()?;
        let mut case = ask(&stack, recording)
            .with_context(|| format!("{} seed {}", recording.scenario, recording.seed))?;
        let moments = Moments {
            prometheus: &stack.prometheus,
            times: recording.times,
            workloads: &recording.workloads,
        };
        case.baselines = baselines.judge(&moments, series, &catalogue)?;
        cases.push(case);
    }
    let is_right = report::finish(&cases, &catalogue, &options.written)?;
    if options.keep {
        stack.show(&recorded);
        while !stop::requested() {
            thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(is_right)
}

/// Prometheus with the series, and the assistant.
struct Stack {
    prometheus: String,
    assistant: String,
    // Dropped in this order.
    _assistant: Program,
    _prometheus: Program,
}

impl Stack {
    fn start(
        programs: &Programs,
        folder: &Path,
        recorded: &[(Recording, Vec<Series>)],
    ) -> Result<Self> {
        const PATIENCE: Duration = Duration::from_secs(120);
        let data = folder.join("data");
        import(folder, &data, recorded)?;
        let ports = Ports::free()?;
        let prometheus = format!("http://127.0.0.1:{}", ports.prometheus());
        let assistant = format!("http://127.0.0.1:{}", ports.assistant());
        let config = folder.join("prometheus.yml");
        fs::write(&config, "scrape_configs: []\n")?;
        let start = |name: &str, file: &Path, arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let log = folder.join(format!("{name}.log"));
            Program::start(name, file, &arguments, &log)
        };
        let mut one = start(
            "prometheus",
            &programs.prometheus()?,
            &[
                &format!("--config.file={}", config.display()),
                &format!("--storage.tsdb.path={}", data.display()),
                // The samples are as old as FIRST says.
                "--storage.tsdb.retention.time=100y",
                &format!("--query.lookback-delta={LOOKBACK}"),
                &format!("--web.listen-address=127.0.0.1:{}", ports.prometheus()),
                "--log.level=warn",
            ],
        )?;
        let mut other = start(
            "assistant",
            &programs.assistant()?,
            &[
                "serve",
                "--listen",
                &format!("127.0.0.1:{}", ports.assistant()),
                "--runbooks",
                &programs.runbooks().display().to_string(),
                "--prometheus",
                &prometheus,
                // What is compared is the answer, not how busy this machine is.
                "--diagnosis-deadline",
                "20s",
            ],
        )?;
        one.wait_for(&format!("{prometheus}/-/ready"), PATIENCE)?;
        other.wait_for(&format!("{assistant}/readyz"), PATIENCE)?;
        Ok(Self {
            prometheus,
            assistant,
            _assistant: other,
            _prometheus: one,
        })
    }

    /// Where to look, and at which times.
    fn show(&self, recorded: &[(Recording, Vec<Series>)]) {
        for (recording, _) in recorded {
            let time = Timestamp::from_millisecond(recording.times.asked).unwrap_or_default();
            say::result(format_args!(
                "{} seed {} asked at {time}: {}",
                recording.scenario, recording.seed, recording.question
            ));
        }
        say::result(format_args!(
            "assistant  {}/\nPrometheus {}/",
            self.assistant, self.prometheus
        ));
    }

    fn diagnose(&self, question: &Value, millis: i64) -> Result<Vec<u8>> {
        let mut body = question.clone();
        body["time"] = json!(Timestamp::from_millisecond(millis)?.to_string());
        http::post(&format!("{}/diagnose", self.assistant), &body)
    }
}

/// Makes blocks of Prometheus. One import for each case, since one of them all would be read again for every block.
fn import(folder: &Path, data: &Path, recorded: &[(Recording, Vec<Series>)]) -> Result<()> {
    let promtool = command::find("promtool")
        .context("there is no promtool in the path: apt-get install prometheus")?;
    let file = folder.join("series.om");
    for (recording, series) in recorded {
        fs::write(&file, series::open_metrics(series) + "# EOF\n")?;
        let output = Command::new(&promtool)
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .arg(&file)
            .arg(data)
            .output()
            .context("cannot run promtool")?;
        ensure!(
            output.status.success(),
            "promtool refuses {}: {}",
            recording.scenario,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// The questions of a live case, at the same moments.
fn ask(stack: &Stack, recording: &Recording) -> Result<Case> {
    let Recording {
        question,
        expected,
        times,
        ..
    } = recording;
    let judge = |expected: &Expected, millis| -> Result<(Score, Vec<u8>)> {
        let bytes = stack.diagnose(question, millis)?;
        let answer: Answer = serde_json::from_slice(&bytes).context("not an answer")?;
        let lab: Vec<&str> = recording.workloads.iter().map(String::as_str).collect();
        Ok((score(expected, &answer, &lab), bytes))
    };
    let (before, _) = judge(&Expected::healthy(), times.healthy)?;
    let (after, bytes) = judge(expected, times.asked)?;
    let mut case = Case {
        scenario: recording.scenario.clone(),
        seed: recording.seed,
        family: recording.family.clone(),
        expected: expected.clone(),
        before,
        after,
        false_alarms: 0,
        questions: 0,
        seconds_to_answer: None,
        seconds_asked: Vec::new(),
        mended: None,
        impact: recording.impact.clone(),
        repeatable: judge(expected, times.asked)?.1 == bytes,
        workloads: recording.workloads.clone(),
        clients: std::collections::BTreeMap::new(),
        answer: serde_json::from_slice(&bytes)?,
        baselines: std::collections::BTreeMap::new(),
    };
    // Where nothing breaks there is no first right answer to be found, only alarms that would last.
    let step = match case.kind() {
        Kind::Fault => 1,
        Kind::Foreign | Kind::Healthy => 5,
    };
    for second in (1..=(times.asked - times.fault) / 1000).step_by(step) {
        let (score, _) = judge(expected, times.fault + 1000 * second)?;
        case.questions += 1;
        case.false_alarms += usize::from(score.false_alarm);
        if score.right && case.seconds_to_answer.is_none() {
            case.seconds_to_answer = Some(second as f64);
        }
        if case.kind() == Kind::Fault && case.seconds_to_answer.is_some() {
            break;
        }
    }
    say::progress(format_args!(
        "{} seed {}: {}",
        case.scenario,
        case.seed,
        crate::table::verdict(&case)
    ));
    Ok(case)
}
