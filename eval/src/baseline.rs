//! What simpler methods say of the same data: our own rules as plain alerts, the rules that other tools publish, and the largest
//! z-score. `eval/baselines/*.yaml` says for each rule which failure modes somebody who reads it may conclude.

mod zscore;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::catalogue::Catalogue;
use crate::http;
use crate::recording::Times;
use crate::report::opinion::{Opinion, Opinions};
use crate::series::{Labels, Series};
use crate::stack::Programs;

/// Milliseconds in which connections open and queues fill for the first time, which is no change of anything.
const SETTLING: i64 = 6000;

/// Methods made of rules, by name.
pub(crate) struct Baselines {
    methods: BTreeMap<String, Vec<Rule>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    expr: String,
    /// What it may mean; the score of one is the smaller, the more there are.
    modes: Vec<String>,
}

/// When a case was asked about, and where its data is.
pub(crate) struct Moments<'a> {
    pub(crate) prometheus: &'a str,
    pub(crate) times: Times,
    /// All that is not of these workloads is left out, for every method.
    pub(crate) workloads: &'a [String],
}

impl Baselines {
    /// `folder` holds a file per tool; our alerts come from the assistant.
    pub(crate) fn read(programs: &Programs, catalogue: &Catalogue, folder: &Path) -> Result<Self> {
        let mut methods = published(folder)?;
        methods.insert("alert count".to_owned(), alerts(programs, catalogue)?);
        Ok(Self { methods })
    }

    /// Every method's opinion of the healthy moment and of the last one.
    pub(crate) fn judge(
        &self,
        moments: &Moments<'_>,
        series: &[Series],
        catalogue: &Catalogue,
    ) -> Result<BTreeMap<String, Opinions>> {
        let mut opinions = BTreeMap::new();
        for (name, rules) in &self.methods {
            let at = |millis| opinion(rules, moments, millis);
            opinions.insert(
                name.clone(),
                Opinions {
                    before: at(moments.times.healthy)?,
                    after: at(moments.times.asked)?,
                },
            );
        }
        // There is nothing to compare the healthy phase with but itself.
        let start = first(series) + SETTLING;
        let middle = i64::midpoint(moments.times.healthy, start);
        let of = |from, until| zscore::opinion(series, [start, from, until], catalogue);
        opinions.insert(
            "largest z-score".to_owned(),
            Opinions {
                before: of(middle, moments.times.healthy),
                after: of(moments.times.fault, moments.times.asked),
            },
        );
        Ok(opinions)
    }
}

fn first(series: &[Series]) -> i64 {
    let times = series.iter().filter_map(|one| one.samples.first());
    times.map(|(millis, _)| *millis).min().unwrap_or_default()
}

/// A score for each mode: every series of a rule that fires speaks for what the rule may mean.
fn opinion(rules: &[Rule], moments: &Moments<'_>, millis: i64) -> Result<Opinion> {
    let mut opinion = Opinion::default();
    for rule in rules {
        let firing =
            firing(moments, &rule.expr, millis).with_context(|| format!("rule {}", rule.name))?;
        if firing == 0 {
            continue;
        }
        opinion.alarm = true;
        for mode in &rule.modes {
            *opinion.scores.entry(mode.clone()).or_default() +=
                firing as f64 / rule.modes.len() as f64;
        }
    }
    Ok(opinion)
}

fn firing(moments: &Moments<'_>, expr: &str, millis: i64) -> Result<usize> {
    let (status, body) = http::get(&format!(
        "{}/api/v1/query?query={}&time={}",
        moments.prometheus,
        http::encoded(expr),
        millis as f64 / 1000.0
    ))?;
    ensure!(status == 200, "Prometheus answered {status}: {body}");
    let answer: Value = serde_json::from_str(&body)?;
    let found = answer["data"]["result"].as_array().into_iter().flatten();
    let ours = found.filter(|series| {
        serde_json::from_value::<Labels>(series["metric"].clone()).is_ok_and(|labels| {
            let samples = Vec::new();
            Series { labels, samples }.is_about(moments.workloads)
        })
    });
    Ok(ours.count())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    method: String,
    rules: Vec<Rule>,
}

fn published(folder: &Path) -> Result<BTreeMap<String, Vec<Rule>>> {
    let mut methods = BTreeMap::new();
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}: pass --baselines DIR", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    for file in files {
        let text = fs::read_to_string(&file)?;
        let Published { method, rules } = serde_yaml_ng::from_str(&text)
            .with_context(|| format!("bad rules in {}", file.display()))?;
        methods.insert(method, rules);
    }
    Ok(methods)
}

#[derive(Deserialize)]
struct Alerts {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    alert: String,
    expr: String,
    labels: BTreeMap<String, String>,
}

/// What the assistant would have Prometheus alert on, without the waiting time.
/// The alerts on symptoms name no failure mode.
fn alerts(programs: &Programs, catalogue: &Catalogue) -> Result<Vec<Rule>> {
    let output = Command::new(programs.assistant()?)
        // Scenarios are scraped once a second: `[15s]` stays what it is, as the figures were measured.
        .args(["rules", "--scrape-interval", "5s"])
        .arg("--runbooks")
        .arg(programs.runbooks())
        .output()
        .context("cannot run runwire-assistant rules")?;
    ensure!(
        output.status.success(),
        "runwire-assistant rules failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let alerts: Alerts = serde_yaml_ng::from_slice(&output.stdout)?;
    let rules = alerts.groups.into_iter().flat_map(|group| group.rules);
    Ok(rules
        .filter_map(|rule| {
            let mode = rule.labels.get("failure_mode")?;
            catalogue.modes.contains_key(mode).then(|| Rule {
                name: rule.alert,
                expr: rule.expr,
                modes: vec![mode.clone()],
            })
        })
        .collect())
}

#[test]
fn published_rules_speak_of_modes_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let catalogue = Catalogue::read(&root.join("../runbooks")).unwrap();
    let methods = published(&root.join("baselines")).unwrap();
    assert_eq!(methods.len(), 2);
    for rule in methods.values().flatten() {
        assert!(!rule.modes.is_empty(), "{}", rule.name);
        for mode in &rule.modes {
            assert!(catalogue.modes.contains_key(mode), "{}: {mode}", rule.name);
        }
    }
}
