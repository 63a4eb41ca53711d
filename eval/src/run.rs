//! `run`: all scenarios, one after the other; a table, totals, an exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::baseline::Baselines;
use crate::case::{self, Case, Means};
use crate::catalogue::Catalogue;
use crate::report::{self, Written};
use crate::scenario::{self, Template};
use crate::stack::Programs;
use crate::state::State;
use crate::{say, stop, table};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder of scenario files (*.yaml).
    #[arg(long, value_name = "DIR", default_value = "eval/scenarios")]
    scenarios: PathBuf,
    /// Only the scenarios of these names.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Only the scenarios with this tag, such as smoke.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// First seed: names, addresses, ports, intensities and, where the file leaves it open, the family.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many seeds, counted up from the first.
    #[arg(long, value_name = "K", default_value_t = 1)]
    seeds: u64,
    /// Keeps logs and answers of right cases too.
    #[arg(long)]
    keep: bool,
    /// Then undoes the fault, where the scenario says how (`mend`), and asks until it is told no more.
    #[arg(long)]
    mend: bool,
    /// Keeps the series of every case, its question and what is true in this folder, for `replay`.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Folder of the rules of other tools.
    #[arg(long, value_name = "DIR", default_value = "eval/baselines")]
    baselines: PathBuf,
    #[command(flatten)]
    written: Written,
    #[command(flatten)]
    programs: Programs,
}

/// True when every case that counts is right.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let state = State::open()?;
    let catalogue = Catalogue::read(options.programs.runbooks())?;
    let means = Means {
        baselines: Baselines::read(&options.programs, &catalogue, &options.baselines)?,
        catalogue,
        programs: options.programs.clone(),
        record: options.record.clone(),
        mend: options.mend,
    };
    let files = scenario::files(&options.scenarios, &options.only)?;
    // Every file is read before the first one runs: a typo in the last must not cost half an hour.
    let mut templates: Vec<Template> = files
        .iter()
        .map(|file| Template::read(file))
        .collect::<Result<_>>()?;
    if let Some(tag) = &options.tag {
        templates.retain(|template| template.has_tag(tag));
        anyhow::ensure!(!templates.is_empty(), "no scenario has the tag `{tag}`");
    }
    let logs = tempfile::Builder::new()
        .prefix("runwire-eval-")
        .tempdir()
        .context("cannot create a folder for logs")?
        .keep();
    let total = templates.len() as u64 * options.seeds;
    let mut number = 0;
    let mut cases = Vec::new();
    let mut failures = 0;
    for template in &templates {
        for seed in options.seed..options.seed + options.seeds {
            number += 1;
            say::progress(format_args!(
                "[{number}/{total}] {} seed {seed}",
                template.name
            ));
            let folder = logs.join(format!("{}-{seed}", template.name));
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            let started = Instant::now();
            let outcome = case::run(template, seed, &means, &folder, &state);
            stop::check()?;
            match outcome {
                Ok(case) => {
                    say::progress(format_args!(
                        "  {}{}; the case took {} s",
                        table::verdict(&case),
                        table::mended(&case),
                        started.elapsed().as_secs()
                    ));
                    finish(&case, &folder, options.keep)?;
                    cases.push(case);
                }
                Err(error) => {
                    failures += 1;
                    say::progress(format_args!(
                        "  could not run: {error:#}\n  logs: {}",
                        folder.display()
                    ));
                }
            }
        }
    }
    let all_right = report::finish(&cases, &means.catalogue, &options.written)?;
    if failures > 0 {
        say::result(format_args!("could not run: {failures}"));
    }
    // Empty when every case was right.
    let _ = fs::remove_dir(&logs);
    Ok(failures == 0 && all_right)
}

fn finish(case: &Case, folder: &Path, keep: bool) -> Result<()> {
    if case.is_right() && case.counts() && !keep {
        return fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()));
    }
    fs::write(folder.join("case.json"), serde_json::to_vec_pretty(case)?)?;
    say::progress(format_args!("  logs and answers: {}", folder.display()));
    Ok(())
}
