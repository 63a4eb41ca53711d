//! `report`: saved cases of one or more runs → how well the diagnosis is. `run` and `replay` print the same.

pub(crate) mod calibration;
pub(crate) mod figures;
pub(crate) mod opinion;
pub(crate) mod share;
pub(crate) mod sheet;
mod sheets;
pub(crate) mod times;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::case::Case;
use crate::catalogue::Catalogue;
use crate::{say, table};
use figures::Figures;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What `run --json` or `replay --json` wrote.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folder of the runbooks that declare the failure modes.
    #[arg(long, value_name = "DIR", default_value = "runbooks")]
    runbooks: PathBuf,
    #[command(flatten)]
    written: Written,
}

/// Where a report goes besides the terminal.
#[derive(Debug, Args)]
pub(crate) struct Written {
    /// Writes the figures and every case with its answer as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the tables as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Saved {
    cases: Vec<Case>,
}

/// True when every case that counts is right.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let catalogue = Catalogue::read(&options.runbooks)?;
    let mut cases = Vec::new();
    for file in &options.files {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let saved: Saved = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is not what `run --json` writes: pass such a file",
                file.display()
            )
        })?;
        cases.extend(saved.cases);
    }
    finish(&cases, &catalogue, &options.written)
}

/// Prints and writes what there is to say about `cases`. True when every one is right.
pub(crate) fn finish(cases: &[Case], catalogue: &Catalogue, written: &Written) -> Result<bool> {
    let figures = Figures::of(cases, catalogue);
    let sheets = sheets::sheets(&figures);
    say::result(table::render(cases));
    for sheet in &sheets {
        say::result(sheet.text());
    }
    if let Some(file) = &written.markdown {
        let parts: Vec<String> = sheets.iter().map(sheet::Sheet::markdown).collect();
        write(file, parts.join("\n").as_bytes())?;
    }
    if let Some(file) = &written.json {
        let text = serde_json::to_vec_pretty(&json!({"figures": figures, "cases": cases}))?;
        write(file, &text)?;
    }
    Ok(cases.iter().all(|case| case.counts() && case.is_right()))
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}
