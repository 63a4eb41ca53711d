//! `cluster`: many nodes, each a copy of a real one, and what their series cost a database and a diagnosis.
//!
//! A small lab runs twice with the real collector and with pods for namespaces: healthy, and with a fault. What the collector
//! exported at two moments is a [`template::Template`]; every node of the cluster is such a template under names of its own, whose
//! counters go on as fast as they went. One node, in the middle, has the fault. The database and the assistant are the real ones.

mod database;
mod nodes;
mod template;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::database::{Database, Own};
use self::nodes::Nodes;
use self::template::Template as NodeTemplate;
use crate::case::Running;
use crate::process::Program;
use crate::scenario::{self, Template};
use crate::stack::{Ports, Programs};
use crate::state::State;
use crate::{http, say, stop};

/// A first scrape of everything, and the first block of a write-ahead log, take a while.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 500)]
    nodes: usize,
    /// How often each is scraped, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    interval: u64,
    /// How long series are gathered before anything is asked, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    warmup: u64,
    /// Questions, each about another moment, so that none shares the evidence of another.
    #[arg(long, value_name = "K", default_value_t = 20)]
    questions: u32,
    /// Asks about the workload that suffers, as an alert would. Without it: about the whole cluster.
    #[arg(long)]
    scoped: bool,
    /// When an answer is wanted, as the assistant's `diagnosis_deadline` says it.
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    deadline: String,
    /// What a healthy node is a copy of: the name of a scenario.
    #[arg(long, value_name = "NAME", default_value = "healthy-busy")]
    healthy: String,
    /// What the one other node is a copy of.
    #[arg(long, value_name = "NAME", default_value = "policy-drop-input")]
    fault: String,
    #[arg(long, value_name = "DIR", default_value = "eval/scenarios")]
    scenarios: PathBuf,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What the series go to, and the assistant asks.
    #[arg(long, value_enum, default_value_t = Database::Prometheus)]
    database: Database,
    /// VictoriaMetrics' program [default: the one in the path].
    #[arg(long, value_name = "FILE")]
    victoria_metrics: Option<PathBuf>,
    /// One more flag for the database, as its own program takes it; may be repeated.
    #[arg(
        long = "database-flag",
        value_name = "FLAG",
        allow_hyphen_values = true
    )]
    database_flags: Vec<String>,
    /// Where Prometheus writes down every query with its cost, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    query_log: Option<PathBuf>,
    /// What the two nodes exported: written there, or read where it is there already, so that two builds are asked about the
    /// same.
    #[arg(long, value_name = "DIR")]
    recording: Option<PathBuf>,
    #[command(flatten)]
    programs: Programs,
}

/// True when the fault of the one node is what every answer names first.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let work = tempfile::Builder::new()
        .prefix("runwire-cluster-")
        .tempdir()
        .context("cannot create a folder for logs and data")?;
    let healthy = recorded(options, &options.healthy, work.path())?;
    let broken = recorded(options, &options.fault, work.path())?;
    let expected = broken.failure_mode.clone();
    let sufferer = match (options.scoped, &broken.sufferer) {
        (false, _) => None,
        (true, Some(name)) => Some(format!("{name}-{}", options.nodes / 2)),
        (true, None) => bail!(
            "{} asks about no workload, so that `--scoped` cannot be had",
            options.fault
        ),
    };
    let (healthy, broken) = (healthy.template(), broken.template());
    let series = healthy.len();
    let middle = options.nodes / 2;
    let nodes = Nodes::serve(healthy, broken, middle)?;
    let ports = Ports::free()?;
    say::progress(format_args!(
        "{} nodes with {series} series each",
        options.nodes
    ));
    let database = options.database;
    let mut server = database.start(options, &nodes, ports, work.path())?;
    let mut assistant = assistant(options, ports, work.path())?;
    // What scrapes alone cost is taken from the last two, when every series is known.
    let alone = Duration::from_secs((2 * options.interval).min(options.warmup));
    stop::sleep(Duration::from_secs(options.warmup) - alone)?;
    let unasked = database.own(ports)?;
    stop::sleep(alone)?;
    server.check()?;
    assistant.check()?;

    let before = database.own(ports)?;
    let started = Instant::now();
    let mut seconds = Vec::new();
    let (mut right, mut incomplete) = (0, 0);
    for number in 0..options.questions {
        stop::check()?;
        let age = SignedDuration::from_secs(i64::from(5 + options.questions - number));
        let time = Timestamp::now().checked_sub(age)?;
        let mut body = json!({"query": "requests time out", "time": time.to_string()});
        if let Some(workload) = &sufferer {
            body["scope"] = json!({"workload": workload});
        }
        let asked = Instant::now();
        let answer = http::post(
            &format!("http://127.0.0.1:{}/diagnose", ports.assistant()),
            &body,
        )?;
        seconds.push(asked.elapsed().as_secs_f64());
        let answer: Value = serde_json::from_slice(&answer)?;
        let named = &answer["hypotheses"][0]["failure_mode"];
        if *named == expected.as_str() {
            right += 1;
        } else {
            say::progress(format_args!("  named instead of {expected}: {named}"));
        }
        let degraded = answer["degraded"].as_array();
        incomplete += usize::from(degraded.is_some_and(|parts| !parts.is_empty()));
        for part in degraded.into_iter().flatten() {
            say::progress(format_args!("  degraded: {part}"));
        }
    }
    let asking = started.elapsed().as_secs_f64();
    let after = database.own(ports)?;
    let mut figures = figures(options, series, [&unasked, &before, &after], &mut seconds);
    figures["asking_seconds"] = json!(asking);
    figures["database_peak_resident_bytes"] = json!(peak_resident(&server)?);
    figures["answers_that_name_the_fault_first"] = json!(right);
    figures["incomplete_answers"] = json!(incomplete);
    say::result(text(&figures));
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_vec_pretty(&figures)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(right == seconds.len())
}

/// What the collector of one node exported at two moments.
#[derive(Serialize, Deserialize)]
struct Recorded {
    first: String,
    second: String,
    seconds: f64,
    /// What the pods of the node are called.
    workloads: Vec<String>,
    failure_mode: String,
    /// The workload that its question is about.
    #[serde(default)]
    sufferer: Option<String>,
}

impl Recorded {
    fn template(&self) -> NodeTemplate {
        NodeTemplate::new(&self.first, &self.second, self.seconds, &self.workloads)
    }
}

fn recorded(options: &Options, name: &str, work: &Path) -> Result<Recorded> {
    let Some(folder) = &options.recording else {
        return record(options, name, work);
    };
    let file = folder.join(format!("{name}.json"));
    if let Ok(text) = fs::read(&file) {
        return serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a recorded node; remove it", file.display()));
    }
    let recorded = record(options, name, work)?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&file, serde_json::to_vec(&recorded)?))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(recorded)
}

/// Runs a scenario and takes what the collector exports, twice.
fn record(options: &Options, name: &str, work: &Path) -> Result<Recorded> {
    say::progress(format_args!("recording a node: {name}"));
    let files = scenario::files(&options.scenarios, &[name.to_owned()])?;
    let template = Template::read(&files[0])?;
    let mut programs = options.programs.clone();
    programs.kubernetes = true;
    let folder = work.join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let state = State::open()?;
    let mut running = Running::start(&template, 1, &programs, Ports::free()?, &folder, &state)?;
    stop::sleep(Duration::from_secs(10))?;
    running.inject()?;
    stop::sleep(Duration::from_secs(10))?;
    let url = format!("{}/metrics", running.stack.collector_url());
    let (_, first) = http::get(&url)?;
    let apart = Duration::from_secs(10);
    stop::sleep(apart)?;
    running.check()?;
    let (_, second) = http::get(&url)?;
    Ok(Recorded {
        first,
        second,
        seconds: apart.as_secs_f64(),
        workloads: running.workloads(),
        failure_mode: running.expected().failure_mode.unwrap_or_default(),
        sufferer: running.question()["scope"]["workload"]
            .as_str()
            .map(str::to_owned),
    })
}

fn assistant(options: &Options, ports: Ports, work: &Path) -> Result<Program> {
    let flags = format!(
        "serve --diagnosis-deadline {} --listen 127.0.0.1:{} --runbooks {} --prometheus http://127.0.0.1:{}",
        options.deadline,
        ports.assistant(),
        options.programs.runbooks().display(),
        ports.prometheus()
    );
    let flags: Vec<String> = flags.split(' ').map(str::to_owned).collect();
    let file = options.programs.assistant()?;
    let mut program = Program::start("assistant", &file, &flags, &work.join("assistant.log"))?;
    let ready = format!("http://127.0.0.1:{}/readyz", ports.assistant());
    program.wait_for(&ready, PATIENCE)?;
    Ok(program)
}

/// The most that it ever had.
fn peak_resident(program: &Program) -> Result<u64> {
    let file = format!("/proc/{}/status", program.id());
    let status = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .with_context(|| format!("{file} has no VmHWM"))?;
    Ok(kibibytes.parse::<u64>()? * 1024)
}

/// `owns` are when scrapes were let alone, when the first question was asked, and when the last was answered.
fn figures(options: &Options, series: usize, owns: [&Own; 3], seconds: &mut [f64]) -> Value {
    let [unasked, before, after] = owns;
    seconds.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a short list"
        )]
        let index = ((seconds.len() as f64 - 1.0) * share).round() as usize;
        seconds.get(index).copied()
    };
    let questions = f64::from(options.questions);
    let between = |one: &Own, other: &Own| (other.at - one.at).as_secs_f64();
    let scraping = (before.cpu - unasked.cpu) / between(unasked, before);
    let asking = after.cpu - before.cpu;
    let interval = u32::try_from(options.interval).map_or(f64::MAX, f64::from);
    json!({
        "database": format!("{:?} {}", options.database, after.version).trim(),
        "nodes": options.nodes,
        "series_per_node": series,
        "scrape_interval_seconds": options.interval,
        "series": after.series,
        "database_resident_bytes": after.resident,
        "database_resident_bytes_per_series": after.resident / after.series,
        "samples_per_second": (before.samples - unasked.samples) / between(unasked, before),
        "database_cpu_seconds_per_scrape_of_all": scraping * interval,
        "queries_per_diagnosis": (after.queries - before.queries) / questions,
        "database_cpu_seconds_per_diagnosis": asking / questions,
        "database_cpu_seconds_per_diagnosis_without_scrapes": (asking - scraping * between(before, after)) / questions,
        "diagnose_seconds": {"median": quantile(0.5), "p95": quantile(0.95), "longest": quantile(1.0)},
    })
}

fn text(figures: &Value) -> String {
    let lines = figures.as_object().into_iter().flatten();
    let lines: Vec<String> = lines
        .map(|(name, value)| format!("{name:50} {value}"))
        .collect();
    lines.join("\n")
}
