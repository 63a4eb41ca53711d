//! What the runbooks declare: the failure modes and the family of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The failure modes of a folder of runbooks.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) modes: BTreeMap<String, Mode>,
    /// The words of every front matter: a metric is used if its name is among them.
    pub(crate) words: BTreeSet<String>,
}

#[derive(Debug)]
pub(crate) struct Mode {
    /// The label `area` of the page that declares it.
    pub(crate) family: String,
    /// False of a mode whose verdict is that the network is fine.
    pub(crate) is_fault: bool,
    /// The words of its evidence, among them the metrics.
    pub(crate) words: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    failure_modes: Vec<Declared>,
}

#[derive(Deserialize)]
struct Declared {
    id: String,
    verdict: Option<String>,
    #[serde(default)]
    evidence: Vec<Evidence>,
}

#[derive(Deserialize)]
struct Evidence {
    expr: String,
}

impl Catalogue {
    /// Reads every `*.md` below `folder`; pages without front matter declare nothing.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut catalogue = Self::default();
        catalogue.add_folder(folder)?;
        if catalogue.modes.is_empty() {
            bail!(
                "no page in {} declares a failure mode: pass --runbooks DIR",
                folder.display()
            );
        }
        Ok(catalogue)
    }

    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder)
            .with_context(|| format!("cannot read {}: pass --runbooks DIR", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                self.add_folder(&path)?;
            } else if path.extension().is_some_and(|end| end == "md") {
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                self.add_page(&text)
                    .with_context(|| format!("bad front matter in {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn add_page(&mut self, text: &str) -> Result<()> {
        let Some((front, _)) = text
            .strip_prefix("---\n")
            .and_then(|rest| rest.split_once("\n---\n"))
        else {
            return Ok(());
        };
        self.words.extend(words(front));
        let page: Page = serde_yaml_ng::from_str(front)?;
        let family = page.labels.get("area").map_or("other", String::as_str);
        for mode in page.failure_modes {
            self.modes.insert(
                mode.id,
                Mode {
                    family: family.to_owned(),
                    is_fault: mode.verdict.is_none_or(|verdict| verdict == "fault"),
                    words: mode
                        .evidence
                        .iter()
                        .flat_map(|evidence| words(&evidence.expr))
                        .collect(),
                },
            );
        }
        Ok(())
    }

    pub(crate) fn faults(&self) -> impl Iterator<Item = (&String, &Mode)> {
        self.modes.iter().filter(|(_, mode)| mode.is_fault)
    }

    /// A mode that no runbook knows any more is in a family of its own.
    pub(crate) fn family<'a>(&'a self, mode: &'a str) -> &'a str {
        self.modes
            .get(mode)
            .map_or(mode, |mode| mode.family.as_str())
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_belongs_to_the_area_of_its_page() {
        let mut catalogue = Catalogue::default();
        let page = "---\nlabels: {area: dns}\nfailure_modes:\n  - id: dns-slow\n    evidence:\n      - {id: a, role: requires, expr: 'rate(runwire_x_total[5m]) > 1'}\n---\n# Slow\n";
        catalogue.add_page(page).unwrap();
        catalogue.add_page("# Only words\n").unwrap();
        assert_eq!(catalogue.family("dns-slow"), "dns");
        assert_eq!(catalogue.family("gone"), "gone");
        let mode = &catalogue.modes["dns-slow"];
        assert!(mode.is_fault && mode.words.contains("runwire_x_total"));
    }

    #[test]
    fn the_shipped_runbooks_declare_families() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runbooks");
        let catalogue = Catalogue::read(&folder).unwrap();
        assert_eq!(catalogue.family("dns-servfail"), "dns");
        assert!(!catalogue.modes["not-network"].is_fault);
        assert!(catalogue.modes.values().all(|mode| mode.family != "other"));
    }

    /// Modes that no case here is about, with the reason; README.md tells them.
    const NOT_MADE: [(&str, &str); 2] = [
        (
            "forward-broken",
            "CoreDNS measures it, and there is none in the lab",
        ),
        (
            "grpc-keepalive",
            "what a server says when it closes HTTP/2 is not read",
        ),
    ];

    #[test]
    fn every_failure_mode_has_a_scenario_or_a_reason() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let catalogue = Catalogue::read(&here.join("../runbooks")).unwrap();
        let mut made = BTreeSet::new();
        for folder in ["scenarios", "synthetic"] {
            for entry in fs::read_dir(here.join(folder)).unwrap() {
                let text = fs::read_to_string(entry.unwrap().path()).unwrap();
                made.extend(text.split("failure_mode: ").skip(1).map(|rest| {
                    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
                    rest.split(|c| !is_of_name(c)).next().unwrap().to_owned()
                }));
            }
        }
        let declared: BTreeSet<String> = catalogue.faults().map(|(id, _)| id.clone()).collect();
        let missing: BTreeSet<&str> = declared.difference(&made).map(String::as_str).collect();
        assert_eq!(missing, NOT_MADE.iter().map(|(id, _)| *id).collect());
        let unknown: Vec<&String> = (made.iter())
            .filter(|mode| !catalogue.modes.contains_key(*mode))
            .collect();
        assert!(unknown.is_empty(), "no runbook declares {unknown:?}");
    }
}
