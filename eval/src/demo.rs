//! `demo`: break something and see it diagnosed. `up`: only the three programs.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::case::Running;
use crate::scenario::{self, Status, Template};
use crate::score::Expected;
use crate::stack::{Ports, Programs, Scraping, Stack};
use crate::state::State;
use crate::{say, sli, stop};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to break: the name of a scenario.
    #[arg(long, value_name = "NAME", default_value = "accept-queue-overflow")]
    fault: String,
    #[arg(long, value_name = "DIR", default_value = "eval/scenarios")]
    scenarios: PathBuf,
    /// Other seed, other names, addresses and intensities.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    programs: Programs,
}

#[derive(Debug, Args)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    programs: Programs,
}

/// True when the healthy phase was called healthy and the injected cause is ranked first.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let folder = logs()?;
    let outcome = show_fault(options, &folder);
    if matches!(outcome, Ok(true)) || stop::requested() {
        let _ = fs::remove_dir_all(&folder);
    } else {
        say::progress(format_args!("Logs of the programs: {}", folder.display()));
    }
    outcome
}

fn show_fault(options: &Options, folder: &Path) -> Result<bool> {
    let state = State::open()?;
    let files = scenario::files(&options.scenarios, std::slice::from_ref(&options.fault))?;
    let template = Template::read(&files[0])?;
    say::progress(
        "Building a lab of network namespaces and starting collector, Prometheus and assistant …",
    );
    let mut running = Running::start(
        &template,
        options.seed,
        &options.programs,
        Ports::usual()?,
        folder,
        &state,
    )?;
    if running.scenario.expect.status != Status::Fault {
        bail!("the scenario {} has no fault to show", options.fault);
    }
    let names: Vec<&str> = running.lab.plan.namespaces().collect();
    say::progress(format_args!("  namespaces: {}", names.join(", ")));

    let mark = running.traffic.mark();
    let warmup = running.scenario.warmup;
    wait(&mut running, warmup, "healthy traffic")?;
    let before = running.traffic.windows(&mark, 2);
    let answer = running.ask(None)?;
    let was_healthy = running.judge(&Expected::healthy(), &answer)?.right;
    say::result("\n── Before anything is broken ──");
    tell(options, &running, &answer)?;

    say::result(format_args!(
        "── Broken now: {} ──",
        running.scenario.summary
    ));
    let mark = running.traffic.mark();
    let started = Instant::now();
    running.inject()?;
    let expected = running.expected();
    let mut first_right = None;
    let hold = running.scenario.hold;
    while started.elapsed() < Duration::from_secs(hold) {
        wait(&mut running, 1, "")?;
        let bytes = running.ask(None)?;
        let right = running.judge(&expected, &bytes)?.right;
        if right && first_right.is_none() {
            first_right = Some(started.elapsed());
            say::progress(format_args!(
                "  {:.1} s: the cause is ranked first",
                started.elapsed().as_secs_f64()
            ));
        } else if started.elapsed().as_secs().is_multiple_of(5) {
            say::progress(format_args!(
                "  {} of {hold} s",
                started.elapsed().as_secs()
            ));
        }
        // A few more seconds give the numbers time to settle.
        if first_right.is_some_and(|at| started.elapsed() > at + Duration::from_secs(5)) {
            break;
        }
    }
    let after = running.traffic.windows(&mark, 2);
    if let Some((id, early, late)) = running.scenario.impact.first().and_then(|id| {
        let late = after.get(id).cloned().unwrap_or_default();
        Some((id, before.get(id)?, late))
    }) {
        let change = sli::impact(early, &late).unwrap_or_else(|| "nothing yet".to_owned());
        say::result(format_args!("What the client `{id}` sees: {change}\n"));
    }

    let bytes = running.ask(None)?;
    let verdict = running.judge(&expected, &bytes)?;
    say::result(format_args!(
        "── Asked: {} ──",
        running.scenario.ask["query"]
            .as_str()
            .unwrap_or("what is wrong?")
    ));
    tell(options, &running, &bytes)?;
    addresses(&running.stack);
    let right = was_healthy && verdict.right;
    if !right {
        running.stack.save_metrics();
        say::progress(format_args!(
            "Expected `{}` first, got `{}`.",
            running
                .scenario
                .expect
                .failure_mode
                .as_deref()
                .unwrap_or_default(),
            verdict.got
        ));
    }
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        say::progress("The fault stays until Ctrl-C, which removes everything.");
        keep(&mut running.stack);
    }
    Ok(right)
}

pub(crate) fn up(options: &UpOptions) -> Result<bool> {
    let state = State::open()?;
    let folder = logs()?;
    say::progress("Starting collector, Prometheus and assistant …");
    let mut stack = Stack::start(
        &options.programs,
        Ports::usual()?,
        &folder,
        &state,
        None,
        &Scraping::default(),
    )
    .with_context(|| format!("logs are in {}", folder.display()))?;
    addresses(&stack);
    say::progress(format_args!(
        "Logs are in {}. Ctrl-C ends all three.",
        folder.display()
    ));
    let whole = keep(&mut stack);
    drop(stack);
    let _ = fs::remove_dir_all(&folder);
    Ok(whole)
}

/// Waits for Ctrl-C. A program that ends by itself is told of, and the others go on. True if none did.
fn keep(stack: &mut Stack) -> bool {
    let mut whole = true;
    while !stop::requested() && !stack.is_empty() {
        for program in stack.ended() {
            say::progress(format_args!("{program}\nThe others go on."));
            whole = false;
        }
        thread::sleep(Duration::from_millis(200));
    }
    whole
}

/// The same question about the same moment, by the command that a person would type.
fn tell(options: &Options, running: &Running, answer: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    let ask = &running.scenario.ask;
    let mut command = Command::new(options.programs.assistant()?);
    command.arg("diagnose").args(ask["query"].as_str());
    for (flag, value) in [
        ("--namespace", &ask["scope"]["namespace"]),
        ("--workload", &ask["scope"]["workload"]),
        ("--at", &answer["time"]),
    ] {
        if let Some(value) = value.as_str() {
            command.args([flag, value]);
        }
    }
    // Its exit code says whether there is a fault, which is not the question here.
    command
        .args(["--url", &running.stack.assistant_url()])
        .status()
        .context("cannot run runwire-assistant diagnose")?;
    Ok(())
}

fn logs() -> Result<PathBuf> {
    Ok(tempfile::Builder::new()
        .prefix("runwire-eval-")
        .tempdir()
        .context("cannot create a folder for logs")?
        .keep())
}

fn wait(running: &mut Running, seconds: u64, what: &str) -> Result<()> {
    for second in 0..seconds {
        if !what.is_empty() && second % 5 == 0 {
            say::progress(format_args!("  {what}: {second} of {seconds} s"));
        }
        stop::sleep(Duration::from_secs(1))?;
        running.check()?;
    }
    Ok(())
}

fn addresses(stack: &Stack) {
    say::result(format_args!(
        "assistant  {}/            (web page; POST {0}/diagnose)\nPrometheus {}/\ncollector  {}/metrics\n",
        stack.assistant_url(),
        stack.prometheus_url(),
        stack.collector_url()
    ));
}
