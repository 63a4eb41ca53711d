//! `check`: what is wrong with the runbooks, a line each. Exit code 1 if anything is, 2 if it could not be looked for.

mod coverage;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::config::{Config, ConfigError, Settings};
use crate::diagnosis::blocks::blocks;
use crate::diagnosis::lint::{Exported, lint as lint_evidence, lint_any};
use crate::runbook::lint::{line_of, lint};
use crate::runbook::{Library, Runbook, Warning, WarningKind, load};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// What a collector's /metrics gives: then metrics and labels that it does not have are told
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,

    /// A file of Prometheus rules, yours or a mixin's: its alerts that no runbook answers to are told.
    /// May be given several times
    #[arg(long, value_name = "FILE")]
    alert_rules: Vec<PathBuf>,

    #[command(flatten)]
    pub(super) settings: Settings,
}

pub(super) fn run(args: &CheckArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let exported = match &args.metrics {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let path = path.display();
                let reason = format!("names {path}, which cannot be read: {error}; give what a collector's /metrics gives");
                ConfigError::value("metrics", reason)
            })?;
            Some(Exported::read(&text))
        }
        None => None,
    };
    let library = load(&config.runbooks);
    let mut findings = library.warnings.clone();
    findings.extend(lint(&library));
    findings.extend(expressions(&library, exported.as_ref()));
    findings.sort();
    findings.dedup();
    let mut told = String::new();
    for finding in &findings {
        // Writing to a String cannot fail.
        let _ = writeln!(told, "{finding}");
    }
    let mut wrong = findings.len();
    let mut checked = format!("{} runbooks", library.runbooks.len());
    for file in &args.alert_rules {
        let (lines, alerts) = coverage::uncovered(file, &library).map_err(|error| {
            let reason = format!("is of no use: {error:#}");
            ConfigError::value("alert_rules", reason)
        })?;
        for line in &lines {
            let _ = writeln!(told, "{line}");
        }
        wrong += lines.len();
        let _ = write!(checked, ", {alerts} alerts of {}", file.display());
    }
    if wrong == 0 {
        print(&format!("{checked}: nothing wrong\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("{told}{checked}: {wrong} findings\n"))?;
    Ok(ExitCode::FAILURE)
}

/// What is wrong with the PromQL of evidence, symptoms, forecasts and blocks in the text, and with modes that no page defines.
fn expressions(library: &Library, exported: Option<&Exported>) -> Vec<Warning> {
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
                for problem in lint_evidence(&evidence.expr, exported) {
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
            for reason in lint_evidence(expr, exported) {
                findings.push(finding(runbook, id, id, reason));
            }
        }
        for block in blocks(runbook.body()) {
            findings.extend(
                lint_any(&block, exported)
                    .into_iter()
                    .map(|reason| Warning {
                        path: runbook.path.clone(),
                        line: line_of(runbook, block.lines().next().unwrap_or_default()),
                        kind: WarningKind::Block(reason),
                    }),
            );
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
