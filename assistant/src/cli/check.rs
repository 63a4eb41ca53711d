//! `check`: what is wrong with the runbooks, a line each. Exit code 1 if anything is.

mod coverage;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::config::{Config, Settings};
use crate::diagnosis;
use crate::runbook::lint::{line_of, lint};
use crate::runbook::{Library, Runbook, Warning, WarningKind, load};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Names of the metrics there are, as a collector's /metrics gives them: then unknown ones are told
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,

    /// A file of Prometheus rules, yours or a mixin's: its alerts that no runbook answers to are told.
    /// May be given several times
    #[arg(long, value_name = "FILE")]
    alert_rules: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) settings: Settings,
}

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(args: &CheckArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let known = match &args.metrics {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Some(diagnosis::catalogue(&text))
        }
        None => None,
    };
    let library = load(&config.runbooks);
    let mut findings = library.warnings.clone();
    findings.extend(lint(&library));
    findings.extend(expressions(&library, known.as_ref()));
    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    let mut wrong = findings.len();
    let mut checked = format!("{} runbooks", library.runbooks.len());
    for file in &args.alert_rules {
        let (lines, alerts) = coverage::uncovered(file, &library)?;
        for line in &lines {
            println!("{line}");
        }
        wrong += lines.len();
        let _ = write!(checked, ", {alerts} alerts of {}", file.display());
    }
    if wrong == 0 {
        println!("{checked}: nothing wrong");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{checked}: {wrong} findings");
    Ok(ExitCode::FAILURE)
}

/// What is wrong with the PromQL of evidence, symptoms and forecasts, and with modes that no page defines.
fn expressions(library: &Library, known: Option<&BTreeSet<String>>) -> Vec<Warning> {
    let modes: BTreeSet<&str> = library
        .runbooks
        .iter()
        .flat_map(|runbook| &runbook.failure_modes)
        .map(|mode| mode.id.as_str())
        .collect();
    let mut findings = Vec::new();
    for runbook in &library.runbooks {
        for mode in &runbook.failure_modes {
            for explained in &mode.explains {
                if !modes.contains(explained.as_str()) {
                    let reason =
                        format!("`explains` names `{explained}`, which no runbook defines");
                    findings.push(finding(runbook, &mode.id, &mode.id, reason));
                }
            }
            for separation in &mode.separates_from {
                if !modes.contains(separation.mode.as_str()) {
                    let reason = format!(
                        "`separates_from` names `{}`, which no runbook defines",
                        separation.mode
                    );
                    findings.push(finding(runbook, &mode.id, &mode.id, reason));
                }
            }
            for evidence in &mode.evidence {
                for problem in diagnosis::lint(&evidence.expr, known) {
                    let reason = format!("evidence `{}`: {problem}", evidence.id);
                    findings.push(finding(runbook, &evidence.id, &mode.id, reason));
                }
            }
        }
        let symptoms = runbook.symptoms.iter();
        let forecasts = runbook.forecasts.iter();
        let others = (symptoms.map(|symptom| (&symptom.id, &symptom.expr)))
            .chain(forecasts.map(|forecast| (&forecast.id, &forecast.expr)));
        for (id, expr) in others {
            for reason in diagnosis::lint(expr, known) {
                findings.push(finding(runbook, id, id, reason));
            }
        }
    }
    findings
}

fn finding(runbook: &Runbook, id: &str, mode: &str, reason: String) -> Warning {
    Warning {
        path: runbook.path.clone(),
        line: line_of(runbook, &format!("id: {id}")),
        kind: WarningKind::FailureMode {
            mode: mode.to_owned(),
            reason,
        },
    }
}
