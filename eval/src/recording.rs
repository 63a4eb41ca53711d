//! A case in two files, to be asked about again: what was asked and what is true as JSON, and its series, compressed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalogue::Catalogue;
use crate::score::Expected;
use crate::series::{self, Series};
use crate::synthetic;

/// How many there are of each metric, whether or not it has any series.
const COUNTED: &str = "runwire_series";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recording {
    pub(crate) scenario: String,
    pub(crate) seed: u64,
    pub(crate) family: String,
    /// The body of `POST /diagnose`.
    pub(crate) question: Value,
    pub(crate) expected: Expected,
    /// What the client noticed.
    pub(crate) impact: Option<String>,
    /// The names of the nodes. Series that name others are not recorded: what else ran on the machine is nobody's business.
    pub(crate) workloads: Vec<String>,
    pub(crate) times: Times,
}

/// Moments of a case, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Times {
    /// Nothing was wrong yet.
    pub(crate) healthy: i64,
    /// The fault was made.
    pub(crate) fault: i64,
    /// The question that is scored.
    pub(crate) asked: i64,
}

impl Times {
    pub(crate) fn shifted(self, millis: i64) -> Self {
        Self {
            healthy: self.healthy + millis,
            fault: self.fault + millis,
            asked: self.asked + millis,
        }
    }
}

impl Recording {
    /// Of `series`, keeps those about workloads, and of the others those that runbooks use.
    pub(crate) fn write(
        &self,
        folder: &Path,
        mut series: Vec<Series>,
        catalogue: &Catalogue,
    ) -> Result<()> {
        series.retain(|one| {
            one.names_workloads() || one.name() == COUNTED || catalogue.words.contains(one.name())
        });
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let base = folder.join(format!("{}-{}", self.scenario, self.seed));
        let text = serde_json::to_string_pretty(self)?;
        write(&base.with_extension("json"), &format!("{text}\n"))?;
        let plain = base.with_extension("series");
        write(&plain, &series::write(&series))?;
        // Without name and time, so that the same series give the same bytes.
        let status = Command::new("gzip").arg("-9nf").arg(&plain).status();
        ensure!(
            status.context("cannot run gzip")?.success(),
            "gzip could not compress {}",
            plain.display()
        );
        Ok(())
    }

    /// Every case of the folders, by name: recorded ones (`*.json`) and those made by rule (`*.yaml`).
    pub(crate) fn read_all(folders: &[PathBuf]) -> Result<Vec<(Self, Vec<Series>)>> {
        let mut cases = Vec::new();
        for folder in folders {
            let entries = fs::read_dir(folder).with_context(|| {
                format!(
                    "cannot read {}: pass a folder of recordings",
                    folder.display()
                )
            })?;
            let mut files: Vec<PathBuf> = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()?;
            files.sort();
            let before = cases.len();
            for file in &files {
                let bad = || format!("bad case {}", file.display());
                match file.extension().and_then(|end| end.to_str()) {
                    Some("json") => cases.push(Self::read(file).with_context(bad)?),
                    Some("yaml") => cases.extend(synthetic::read(file).with_context(bad)?),
                    _ => {}
                }
            }
            if cases.len() == before {
                bail!(
                    "{} holds no recording: make some with `run --record DIR`",
                    folder.display()
                );
            }
        }
        Ok(cases)
    }

    pub(crate) fn read(file: &Path) -> Result<(Self, Vec<Series>)> {
        let recording = serde_json::from_slice(&fs::read(file)?)?;
        let output = Command::new("gzip")
            .arg("-dc")
            .arg(file.with_extension("series.gz"))
            .output()
            .context("cannot run gzip")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let text = String::from_utf8(output.stdout)?;
        Ok((recording, series::parse(&text)?))
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
