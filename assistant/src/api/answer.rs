//! A diagnosis as a browser shows it: what is the matter, the causes in order, what to do, and what was looked at.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::AppState;
use super::article::snippet;
use super::asked::Asked;
use super::evidence::{self, Row};
use super::html::escape;
use super::links::{Links, with_query};
use crate::diagnosis::blocks::EvaluatedBlock;
use crate::diagnosis::live::{Histories, History};
use crate::diagnosis::response::{Affected, Diagnosis, FoundMode, ShownEvidence, Status};
use crate::retrieval::url;

/// The plots may be missing; the answer is there without them.
const PLOTS: Duration = Duration::from_millis(800);
const PLOTS_EACH: usize = 2;
const HYPOTHESES_WITH_PLOTS: usize = 3;

pub(super) struct Shown<'a> {
    pub(super) diagnosis: &'a Diagnosis,
    histories: Histories,
    links: Links<'a>,
    /// Scope and moment, without a question mark, for links to runbooks.
    pub(super) kept: String,
}

impl<'a> Shown<'a> {
    /// Asks Prometheus for the last hour of what is decisive.
    pub(super) async fn of(
        state: &'a AppState,
        diagnosis: &'a Diagnosis,
        otherwise_millis: i64,
    ) -> Self {
        let time_millis = diagnosis
            .time
            .parse::<jiff::Timestamp>()
            .map_or(otherwise_millis, |time| time.as_millisecond());
        let queries = decisive(diagnosis);
        let histories = state.engine.histories(queries, time_millis, PLOTS).await;
        let links = Links {
            config: &state.config,
            time_millis,
        };
        Self {
            diagnosis,
            histories,
            links,
            kept: kept(diagnosis),
        }
    }

    /// The status and the summary.
    pub(super) fn status(&self) -> String {
        let (class, word) = match self.diagnosis.status {
            Status::Fault => ("fault", "Fault"),
            Status::NoNetworkFault => ("calm", "No network fault"),
            Status::Unknown => ("unknown", "Unknown"),
        };
        format!(
            "<div class=\"status {class}\"><span class=\"outcome\">{word}</span><p>{}</p></div>\n",
            escape(&self.diagnosis.summary)
        )
    }

    /// What follows the status.
    pub(super) fn body(&self) -> String {
        let diagnosis = self.diagnosis;
        let mut html = evidence::degraded(&diagnosis.degraded);
        for found in &diagnosis.hypotheses {
            html.push_str(&self.hypothesis(found));
        }
        html.push_str(&self.passages("Related passages", &diagnosis.passages));
        html.push_str(&self.checked());
        html
    }

    /// The first is open: the ranking is seen at a glance, and what it rests on is one touch away.
    fn hypothesis(&self, found: &FoundMode) -> String {
        let percent = (found.confidence * 100.0).round();
        let mut html = format!(
            "<details class=\"hypothesis\"{}><summary><span class=\"rank\">{}</span><h2>{}</h2>{}\
             <span class=\"confidence\"><meter min=\"0\" max=\"100\" value=\"{percent}\" aria-hidden=\"true\"></meter> \
             <strong>{percent} %</strong> <small>confidence</small></span></summary>\n<div class=\"inside\">\n",
            if found.rank == 1 { " open" } else { "" },
            found.rank,
            escape(&found.title),
            if found.active {
                ""
            } else {
                "<span class=\"outcome\">over by now</span>"
            },
        );
        html.push_str("<div class=\"why\">\n");
        if !found.affected.is_empty() {
            let places: Vec<String> = found.affected.iter().map(place).collect();
            let _ = writeln!(
                html,
                "<h3>Where</h3>\n<p class=\"places\">{}</p>",
                places.join("<br>")
            );
        }
        html.push_str(&self.sides(found));
        if !found.explains.is_empty() {
            let _ = writeln!(
                html,
                "<p class=\"quiet\">It explains {} too.</p>",
                escape(&found.explains.join(", "))
            );
        }
        html.push_str("</div>\n<div class=\"what-to-do\">\n<h3>What to do</h3>\n");
        html.push_str(&self.steps(found));
        html.push_str(&self.passages("From the runbook", &found.passages));
        html.push_str("</div>\n</div></details>\n");
        html
    }

    fn sides(&self, found: &FoundMode) -> String {
        let plots: BTreeSet<&str> = match found.rank <= HYPOTHESES_WITH_PLOTS {
            true => plotted(found)
                .map(|evidence| evidence.id.as_str())
                .collect(),
            false => BTreeSet::new(),
        };
        let mut html = String::new();
        for (heading, side) in [
            ("Evidence for it", Side::For),
            ("Against it", Side::Against),
            ("Not known", Side::Unknown),
        ] {
            let rows: Vec<String> = found
                .evidence
                .iter()
                .filter(|evidence| side_of(evidence) == side)
                .map(|evidence| {
                    let history = plots
                        .contains(evidence.id.as_str())
                        .then(|| self.history(evidence));
                    Row::of_shown(evidence, history.as_ref()).html(&self.links)
                })
                .collect();
            if !rows.is_empty() {
                let _ = writeln!(
                    html,
                    "<h3>{heading}</h3>\n<ul class=\"rows\">{}</ul>",
                    rows.concat()
                );
            }
        }
        html
    }

    fn steps(&self, found: &FoundMode) -> String {
        let mut html = String::new();
        if !found.next_steps.is_empty() {
            html.push_str("<ol class=\"steps\">\n");
        }
        for step in &found.next_steps {
            let address = with_query(&citation(&step.citation), Some(&self.kept));
            let _ = writeln!(
                html,
                "<li>{}<a class=\"cite\" href=\"{}\">{}</a></li>",
                snippet(&step.text, &found.runbook.id),
                escape(&address),
                escape(&step.citation)
            );
        }
        if !found.next_steps.is_empty() {
            html.push_str("</ol>\n");
        }
        let runbook = with_query(&found.runbook.url, Some(&self.kept));
        let _ = writeln!(
            html,
            "<p class=\"to-runbook\"><a href=\"{}\">Runbook: {}</a></p>",
            escape(&runbook),
            escape(&found.runbook.title)
        );
        html
    }

    /// The series that the first sample is of.
    fn history(&self, evidence: &ShownEvidence) -> History {
        let sample = evidence.samples.first();
        History::of(&self.histories, &evidence.query, |ranges| {
            let labels = &sample?.labels;
            ranges.iter().find(|range| range.labels == *labels)
        })
    }

    fn passages(&self, heading: &str, passages: &[Value]) -> String {
        if passages.is_empty() {
            return String::new();
        }
        let mut html = format!(
            "<details class=\"passages\"><summary>{heading} ({})</summary>\n",
            passages.len()
        );
        for passage in passages {
            let text = |pointer: &str| {
                passage
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let headings: Vec<&str> = passage
                .pointer("/section/heading_path")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            // Of an address that is not ours the page would be a signpost.
            let address = format!("{}#{}", url(text("/runbook/id")), text("/section/anchor"));
            let absent = match text("/evidence") {
                "absent" => {
                    "<p class=\"quiet\">What this is about was looked for and is not there.</p>\n"
                }
                _ => "",
            };
            let said = passage.get("queries").cloned().unwrap_or_default();
            let said: Vec<EvaluatedBlock> = serde_json::from_value(said).unwrap_or_default();
            let said = said.iter().map(|block| evidence::block(block, &self.links));
            let _ = writeln!(
                html,
                "<section><h4><a href=\"{}\">{}</a></h4>\n{absent}{}{}</section>",
                escape(&with_query(&address, Some(&self.kept))),
                escape(&headings.join(" › ")),
                snippet(text("/text"), text("/runbook/id")),
                said.collect::<String>(),
            );
        }
        html.push_str("</details>\n");
        html
    }

    fn checked(&self) -> String {
        let of = |outcome: &str| -> Vec<&str> {
            let checked = self.diagnosis.checked.iter();
            checked
                .filter(|checked| checked.outcome == outcome)
                .map(|checked| checked.failure_mode.as_str())
                .collect()
        };
        let (absent, unavailable) = (of("absent"), of("unavailable"));
        let mut html = format!(
            "<details class=\"checked\"><summary>Also checked: {} not there, {} could not be looked for</summary>\n",
            absent.len(),
            unavailable.len()
        );
        for (heading, modes) in [
            ("Not there", absent),
            ("Could not be looked for", unavailable),
        ] {
            if modes.is_empty() {
                continue;
            }
            let modes: Vec<String> = modes
                .iter()
                .map(|mode| format!("<li>{}</li>", escape(mode)))
                .collect();
            let _ = writeln!(
                html,
                "<h3>{heading}</h3>\n<ul class=\"names\">{}</ul>",
                modes.concat()
            );
        }
        html.push_str("</details>\n");
        html
    }
}

fn kept(diagnosis: &Diagnosis) -> String {
    let scope = &diagnosis.scope;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let kept = Asked {
        q: String::new(),
        namespace: text(&scope.namespace),
        workload: text(&scope.workload),
        pod: text(&scope.pod),
        time: diagnosis.time.clone(),
        window: diagnosis.window.clone(),
    };
    kept.kept().trim_start_matches('?').to_owned()
}

/// What is present and most telling of the first hypotheses: required before supporting.
fn plotted(found: &FoundMode) -> impl Iterator<Item = &ShownEvidence> {
    let is_present = |evidence: &&ShownEvidence| evidence.outcome == "present";
    let of = move |role: &'static str| {
        let evidence = found.evidence.iter().filter(is_present);
        evidence.filter(move |evidence| evidence.role == role)
    };
    of("requires").chain(of("supports")).take(PLOTS_EACH)
}

fn decisive(diagnosis: &Diagnosis) -> BTreeSet<String> {
    let first = diagnosis.hypotheses.iter().take(HYPOTHESES_WITH_PLOTS);
    first
        .flat_map(plotted)
        .map(|evidence| evidence.query.clone())
        .collect()
}

#[derive(PartialEq)]
enum Side {
    For,
    Against,
    Unknown,
}

fn side_of(evidence: &ShownEvidence) -> Side {
    match (evidence.outcome.as_str(), evidence.role.as_str()) {
        ("present", "contradicts") | ("absent", "requires" | "supports") => Side::Against,
        ("present", _) | ("absent", _) => Side::For,
        _ => Side::Unknown,
    }
}

/// `shop/cart → shop/payments`, `node-3 eth0`
fn place(affected: &Affected) -> String {
    let joined = |parts: [&Option<String>; 2], between: &str| {
        let parts: Vec<&str> = parts
            .into_iter()
            .filter_map(|part| part.as_deref().filter(|part| !part.is_empty()))
            .collect();
        escape(&parts.join(between))
    };
    let one = joined([&affected.namespace, &affected.workload], "/");
    let peer = joined([&affected.peer_namespace, &affected.peer_workload], "/");
    let machine = joined([&affected.node, &affected.device], " ");
    let ends: Vec<String> = [one, peer]
        .into_iter()
        .filter(|end| !end.is_empty())
        .collect();
    match (ends.is_empty(), machine.is_empty()) {
        (_, true) => ends.join(" → "),
        (true, false) => machine,
        (false, false) => format!("{} ({machine})", ends.join(" → ")),
    }
}

/// `runbooks/dns-servfail.md#diagnosis` → its address here.
fn citation(cited: &str) -> String {
    let (file, anchor) = cited.split_once('#').unwrap_or((cited, ""));
    let id = file.strip_prefix("runbooks/").unwrap_or(file);
    let id = id.strip_suffix(".md").unwrap_or(id);
    format!("{}#{anchor}", url(id))
}
