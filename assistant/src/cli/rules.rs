//! `rules`: Prometheus alerting rules from the runbooks, one for each failure mode and symptom, each with its `runbook_url`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use crate::config::{Config, Settings};
use crate::diagnosis::expression::Expression;
use crate::runbook::{End, EvidenceQuery, FailureMode, Library, Role, Runbook, Verdict, load};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How long a condition must hold before its alert fires
    #[arg(long = "for", value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    hold: std::time::Duration,

    #[command(flatten)]
    settings: Settings,
}

#[expect(clippy::print_stdout, reason = "the rules are what the command is for")]
pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(arguments.settings, "error")?;
    let library = load(&config.runbooks);
    let hold = promql_parser::util::duration::display_duration(&arguments.hold);
    let rules = rules(&library, &config.external_url, &hold);
    let yaml = serde_yaml_ng::to_string(&rules).context("cannot write the rules as YAML")?;
    print!("{yaml}");
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
pub struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
struct Group {
    name: &'static str,
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
struct Rule {
    alert: String,
    expr: String,
    r#for: String,
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
}

/// The rules of all pages. `base` is where the assistant is reached, without a slash at the end.
pub fn rules(library: &Library, base: &str, hold: &str) -> Rules {
    let mut modes = Vec::new();
    let mut symptoms = Vec::new();
    for runbook in &library.runbooks {
        let url = |anchor: &str| match anchor {
            "" => format!("{base}/runbooks/{}", runbook.id),
            anchor => format!("{base}/runbooks/{}#{anchor}", runbook.id),
        };
        for mode in &runbook.failure_modes {
            let Some(expr) = of_mode(mode).filter(|_| mode.verdict == Verdict::Fault) else {
                continue;
            };
            modes.push(Rule {
                alert: alert_name(&mode.id),
                expr,
                r#for: hold.to_owned(),
                labels: labels(runbook, "warning", &mode.id),
                annotations: annotations(&mode.title, &mode.summary, url(&mode.anchor)),
            });
        }
        for symptom in &runbook.symptoms {
            if Expression::parse(&symptom.expr).is_err() {
                continue;
            }
            symptoms.push(Rule {
                alert: alert_name(&format!("symptom-{}", symptom.id)),
                expr: symptom.expr.trim().to_owned(),
                r#for: hold.to_owned(),
                labels: labels(runbook, "info", &symptom.id),
                annotations: annotations(&symptom.title, "", url("")),
            });
        }
    }
    Rules {
        groups: vec![
            Group {
                name: "runwire-failure-modes",
                rules: modes,
            },
            Group {
                name: "runwire-symptoms",
                rules: symptoms,
            },
        ],
    }
}

/// `dns-servfail` → `RunwireDnsServfail`
pub fn alert_name(id: &str) -> String {
    let words = id.split(|c: char| !c.is_ascii_alphanumeric());
    let capitalised = words.filter(|word| !word.is_empty()).map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    std::iter::once("Runwire".to_owned())
        .chain(capitalised)
        .collect()
}

fn labels(runbook: &Runbook, severity: &str, id: &str) -> BTreeMap<&'static str, String> {
    let severity = runbook
        .labels
        .get("severity")
        .map_or(severity, String::as_str);
    BTreeMap::from([
        ("severity", severity.to_owned()),
        ("failure_mode", id.to_owned()),
    ])
}

fn annotations(title: &str, description: &str, url: String) -> BTreeMap<&'static str, String> {
    const WHERE: &str = "{{ with $labels.src_workload }}{{ . }} → {{ end }}{{ $labels.dst_workload }}{{ $labels.workload }}";
    let mut annotations = BTreeMap::from([
        ("summary", format!("{} ({WHERE})", literal(title))),
        ("runbook_url", url),
    ]);
    if !description.is_empty() {
        annotations.insert("description", literal(description));
    }
    annotations
}

/// Annotations are templates; a runbook's text is not.
fn literal(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

/// What a mode requires, as written, each joined to the others by the workloads it is about.
fn of_mode(mode: &FailureMode) -> Option<String> {
    let mut slots: Vec<Vec<&EvidenceQuery>> = Vec::new();
    for evidence in mode
        .evidence
        .iter()
        .filter(|evidence| evidence.role == Role::Requires)
    {
        match slots
            .iter_mut()
            .find(|slot| evidence.group.is_some() && slot[0].group == evidence.group)
        {
            Some(slot) => slot.push(evidence),
            None => slots.push(vec![evidence]),
        }
    }
    let mut parts = slots
        .iter()
        .map(|slot| Part::of(slot))
        .collect::<Option<Vec<_>>>()?;
    // A pair can be narrowed by what is known of one end, but not the other way round.
    parts.sort_by_key(|part| part.ends != Ends::Pair);
    let mut parts = parts.into_iter();
    let first = parts.next()?;
    let mut expr = first.expr.clone();
    let mut joined = false;
    for part in parts {
        let Some((on, right)) = first.join(&part) else {
            continue;
        };
        let left = if joined { expr } else { format!("({expr})") };
        expr = format!("{left}\nand on ({on})\n{right}");
        joined = true;
    }
    Some(expr)
}

/// Requirements of one slot as one expression.
struct Part {
    expr: String,
    ends: Ends,
    at: End,
    labels: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Pair,
    Owner,
    None,
}

impl Part {
    fn of(slot: &[&EvidenceQuery]) -> Option<Self> {
        let parsed = slot
            .iter()
            .map(|evidence| Expression::parse(&evidence.expr).ok())
            .collect::<Option<Vec<_>>>()?;
        let labels: BTreeSet<String> = parsed[0]
            .labels()
            .unwrap_or_default()
            .into_iter()
            .filter(|label| label.ends_with("namespace") || label.ends_with("workload"))
            .collect();
        let ends = if labels
            .iter()
            .any(|label| label.starts_with("src_") || label.starts_with("dst_"))
        {
            Ends::Pair
        } else if labels.contains("workload") {
            Ends::Owner
        } else {
            Ends::None
        };
        let alternatives: Vec<&str> = slot.iter().map(|evidence| evidence.expr.trim()).collect();
        let expr = match alternatives.as_slice() {
            [one] => (*one).to_owned(),
            several => {
                let on = list(&labels);
                several
                    .iter()
                    .map(|one| format!("({one})"))
                    .collect::<Vec<_>>()
                    .join(&format!("\nor on ({on})\n"))
            }
        };
        Some(Self {
            expr,
            ends,
            at: slot[0].at,
            labels,
        })
    }

    /// The labels to join on, and the right side with those labels.
    fn join(&self, other: &Self) -> Option<(String, String)> {
        let common: BTreeSet<String> = self.labels.intersection(&other.labels).cloned().collect();
        if !common.is_empty() && self.ends == other.ends {
            return Some((list(&common), format!("({})", other.expr)));
        }
        if self.ends != Ends::Pair || other.ends != Ends::Owner {
            return None;
        }
        let end = match other.at {
            End::Src => "src",
            End::Dst | End::Pair => "dst",
        };
        let renamed =
            ["namespace", "workload"]
                .iter()
                .fold(format!("({})", other.expr), |inner, label| {
                    format!(
                        "label_replace({inner}, \"{end}_{label}\", \"$1\", \"{label}\", \"(.*)\")"
                    )
                });
        Some((format!("{end}_namespace, {end}_workload"), renamed))
    }
}

fn list(labels: &BTreeSet<String>) -> String {
    labels.iter().cloned().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_called_after_their_modes() {
        assert_eq!(alert_name("dns-servfail"), "RunwireDnsServfail");
        assert_eq!(alert_name("l2-mtu-mismatch"), "RunwireL2MtuMismatch");
    }

    #[test]
    fn text_of_a_runbook_is_no_template() {
        assert_eq!(literal("a {{ b }}"), "a {{ \"{{\" }} b }}");
    }
}
