//! Cases made by rule: a recorded healthy system, and series written over it as the collector would give them in a fault that is
//! not made for real, since it would hit every namespace of the machine. What they show comes from the kernel's sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::recording::Recording;
use crate::score::Expected;
use crate::series::{Labels, Series};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Synthetic {
    #[serde(rename = "summary")]
    _summary: String,
    /// Why it is not made for real.
    #[serde(rename = "why")]
    _why: String,
    /// A recording of a healthy system, as a path from this file without its ending.
    base: PathBuf,
    /// The rates of the series are multiplied by each: a case for each.
    intensities: Vec<f64>,
    question: Value,
    expected: Expected,
    series: Vec<Change>,
}

/// One series from the moment of the fault on. Where the base holds it, it changes; else it is new.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    of: String,
    #[serde(default)]
    labels: Labels,
    /// Of a counter: so much is added.
    per_second: Option<f64>,
    /// Of a gauge: its value from then on, whatever the intensity.
    becomes: Option<f64>,
}

/// The cases of one file.
pub(crate) fn read(file: &Path) -> Result<Vec<(Recording, Vec<Series>)>> {
    let text = fs::read_to_string(file)?;
    let synthetic: Synthetic = serde_yaml_ng::from_str(&text)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let base = folder.join(&synthetic.base).with_extension("json");
    let (recording, series) =
        Recording::read(&base).with_context(|| format!("bad base {}", base.display()))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    synthetic
        .intensities
        .iter()
        .zip(1..)
        .map(|(intensity, number)| {
            let recording = Recording {
                scenario: format!("synthetic-{name}"),
                seed: number,
                question: synthetic.question.clone(),
                expected: synthetic.expected.clone(),
                impact: Some("written by rule".to_owned()),
                ..recording.clone()
            };
            let mut series = series.clone();
            for change in &synthetic.series {
                change
                    .apply(&mut series, recording.times.fault, *intensity)
                    .with_context(|| format!("`{}`", change.of))?;
            }
            Ok((recording, series))
        })
        .collect()
}

impl Change {
    fn apply(&self, series: &mut Vec<Series>, fault: i64, intensity: f64) -> Result<()> {
        ensure!(
            self.per_second.is_some() != self.becomes.is_some(),
            "give either `per_second` or `becomes`"
        );
        let is_meant = |one: &Series| {
            let rest = |name: &str| !matches!(name, "__name__" | "job" | "instance");
            one.name() == self.of
                && one
                    .labels
                    .iter()
                    .filter(|(name, _)| rest(name))
                    .eq(&self.labels)
        };
        let place = match series.iter().position(is_meant) {
            Some(place) => place,
            None => {
                series.push(self.new_series(series)?);
                series.len() - 1
            }
        };
        for (millis, value) in &mut series[place].samples {
            let seconds = (*millis - fault) as f64 / 1000.0;
            if seconds > 0.0 {
                match (self.per_second, self.becomes) {
                    (Some(rate), _) => *value += (rate * intensity * seconds).floor(),
                    (_, Some(level)) => *value = level,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Zero at every scrape of the collector.
    fn new_series(&self, series: &[Series]) -> Result<Series> {
        let longest = series.iter().filter(|one| one.name() == "runwire_series");
        let clock = longest
            .max_by_key(|one| one.samples.len())
            .context("the base holds no `runwire_series`")?;
        let mut labels = self.labels.clone();
        labels.insert("__name__".to_owned(), self.of.clone());
        for name in ["job", "instance"] {
            if let Some(value) = clock.labels.get(name) {
                labels.entry(name.to_owned()).or_insert(value.clone());
            }
        }
        let samples = clock.samples.iter().map(|(millis, _)| (*millis, 0.0));
        Ok(Series {
            labels,
            samples: samples.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> Vec<(Recording, Vec<Series>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("synthetic");
        Recording::read_all(&[folder]).unwrap()
    }

    #[test]
    fn every_shipped_case_can_be_made_and_differs_from_its_base_after_the_fault_only() {
        for (recording, series) in cases() {
            let base =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded/healthy-restart-3.json");
            let (_, healthy) = Recording::read(&base).unwrap();
            let mut changed = 0;
            for one in &series {
                let old = healthy.iter().find(|old| old.labels == one.labels);
                for (place, (millis, value)) in one.samples.iter().enumerate() {
                    let before = old.map_or(0.0, |old| old.samples[place].1);
                    if (before - value).abs() > f64::EPSILON {
                        assert!(*millis > recording.times.fault, "{}", one.name());
                        changed += 1;
                    }
                }
            }
            assert!(changed > 20, "{} changes nothing", recording.scenario);
        }
    }
}
