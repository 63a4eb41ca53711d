//! `cluster`: many nodes, each a copy of a real one, and what their series cost Prometheus and a diagnosis.
//!
//! A small lab runs twice with the real collector and with pods for namespaces: healthy, and with a fault. What the collector
//! exported at two moments is a [`template::Template`]; every node of the cluster is such a template under names of its own, whose
//! counters go on as fast as they went. One node, in the middle, has the fault. Prometheus and the assistant are the real ones.

mod nodes;
mod template;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
    let mut prometheus = prometheus(options, &nodes, ports, work.path())?;
    let mut assistant = assistant(options, ports, work.path())?;
    stop::sleep(Duration::from_secs(options.warmup))?;
    prometheus.check()?;
    assistant.check()?;

    let before = own_metrics(ports)?;
    let started = Instant::now();
    let mut seconds = Vec::new();
    let mut right = 0;
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
        for part in answer["degraded"].as_array().into_iter().flatten() {
            say::progress(format_args!("  degraded: {part}"));
        }
    }
    let asking = started.elapsed().as_secs_f64();
    let after = own_metrics(ports)?;
    let figures = figures(options, series, &before, &after, &mut seconds, asking);
    say::result(text(&figures, right));
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

fn prometheus(options: &Options, nodes: &Nodes, ports: Ports, work: &Path) -> Result<Program> {
    let targets: Vec<Value> = (0..options.nodes)
        .map(|number| {
            json!({"targets": [nodes.address.to_string()],
                "labels": {"__metrics_path__": format!("/{number}"), "instance": format!("node-{number}"), "node": format!("node-{number}")}})
        })
        .collect();
    let list = work.join("targets.json");
    fs::write(&list, serde_json::to_vec(&targets)?)?;
    let config = work.join("prometheus.yml");
    let query_log = match &options.query_log {
        Some(file) => format!(
            ", query_log_file: '{}'",
            std::path::absolute(file)?.display()
        ),
        None => String::new(),
    };
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: {0}s, scrape_timeout: {0}s{query_log}}}\nscrape_configs:\n  - job_name: runwire-collector\n    file_sd_configs: [{{files: ['{1}']}}]\n",
            options.interval,
            list.display()
        ),
    )?;
    let flags = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", work.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{}", ports.prometheus()),
        "--log.level=warn".to_owned(),
    ];
    let file = options.programs.prometheus()?;
    let mut program = Program::start("prometheus", &file, &flags, &work.join("prometheus.log"))?;
    let ready = format!("http://127.0.0.1:{}/-/ready", ports.prometheus());
    program.wait_for(&ready, PATIENCE)?;
    Ok(program)
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

/// What Prometheus says about itself.
struct Own {
    series: f64,
    resident: f64,
    cpu: f64,
    samples: f64,
    queries: f64,
    at: Instant,
}

fn own_metrics(ports: Ports) -> Result<Own> {
    // A scrape that is going on is not what is asked about.
    thread::sleep(Duration::from_millis(200));
    let (_, text) = http::get(&format!("http://127.0.0.1:{}/metrics", ports.prometheus()))?;
    let sum = |name: &str, label: &str| {
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(label)
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    Ok(Own {
        series: sum("prometheus_tsdb_head_series", ""),
        resident: sum("process_resident_memory_bytes", ""),
        cpu: sum("process_cpu_seconds_total", ""),
        samples: sum("prometheus_tsdb_head_samples_appended_total", ""),
        queries: sum(
            "prometheus_http_requests_total",
            "handler=\"/api/v1/query\"",
        ),
        at: Instant::now(),
    })
}

fn figures(
    options: &Options,
    series: usize,
    before: &Own,
    after: &Own,
    seconds: &mut [f64],
    asking: f64,
) -> Value {
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
    json!({
        "nodes": options.nodes,
        "series_per_node": series,
        "scrape_interval_seconds": options.interval,
        "prometheus_series": after.series,
        "prometheus_resident_bytes": after.resident,
        "prometheus_resident_bytes_per_series": after.resident / after.series,
        "samples_per_second": (after.samples - before.samples) / (after.at - before.at).as_secs_f64(),
        "queries_per_diagnosis": (after.queries - before.queries) / questions,
        "prometheus_cpu_seconds_per_diagnosis": (after.cpu - before.cpu) / questions,
        "asking_seconds": asking,
        "diagnose_seconds": {"median": quantile(0.5), "p95": quantile(0.95), "longest": quantile(1.0)},
    })
}

fn text(figures: &Value, right: usize) -> String {
    let mut lines: Vec<String> = (figures.as_object().into_iter().flatten())
        .map(|(name, value)| format!("{name:40} {value}"))
        .collect();
    lines.push(format!(
        "{:40} {right}",
        "answers that name the fault first"
    ));
    lines.join("\n")
}
