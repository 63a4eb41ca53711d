//! `GET /`: one box to ask, and the answer below it. The question is the address, so that an answer can be shared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::AppState;
use super::article::snippet;
use super::asked::{Asked, read_time};
use super::diagnose::{DiagnoseRequest, now_millis};
use super::evidence::{self, Row};
use super::html::{self, escape};
use super::links::{Links, with_query};
use super::pasted::Pasted;
use super::resolve::Resolved;
use crate::access::Caller;
use crate::diagnosis::blocks::EvaluatedBlock;
use crate::diagnosis::live::finite;
use crate::diagnosis::response::{Affected, Diagnosis, FoundMode, ShownEvidence, Status};
use crate::error::ApiError;
use crate::prometheus::Range;
use crate::retrieval::url;

/// Longer addresses are refused by some proxies, before they come here.
const MAX_PASTED: usize = 6000;

/// The plots may be missing; the answer is there without them.
const PLOTS: Duration = Duration::from_millis(800);
const PLOTS_EACH: usize = 2;
const HYPOTHESES_WITH_PLOTS: usize = 3;

/// A box to ask in a browser, and the answer to what the query says.
#[utoipa::path(get, path = "/", tag = "pages", responses((status = 200, body = String, content_type = "text/html")))]
pub(super) async fn page(
    State(state): State<AppState>,
    caller: Option<Extension<Caller>>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let (asked, notes) = Asked::read(query);
    let mut body = form(&asked);
    for note in notes {
        let _ = writeln!(body, "<p class=\"degraded\">{}</p>", escape(&note));
    }
    if asked.is_empty() {
        body.push_str(
            "<p class=\"quiet\">Paste an alert (JSON of Alertmanager, or the message in your chat), type what users say, or name a \
             namespace or workload to see how it is.</p>\n",
        );
        return html::page(StatusCode::OK, "Ask", &body);
    }
    let caller = caller.map_or_else(Caller::anonymous, |Extension(caller)| caller);
    match answer(&state, &asked, &caller).await {
        Ok(answer) => {
            body.push_str(&answer);
            html::page(StatusCode::OK, "Answer", &body)
        }
        Err(error) => {
            let (status, reason) = error.describe();
            let _ = writeln!(
                body,
                "<p class=\"degraded\" role=\"alert\">No answer: {}</p>",
                escape(&reason)
            );
            html::page(status, "No answer", &body)
        }
    }
}

fn form(asked: &Asked) -> String {
    let field = |name: &str, label: &str, value: &str, example: &str| {
        format!(
            "<label>{label}<input name=\"{name}\" value=\"{}\" placeholder=\"{example}\" autocomplete=\"off\" autocapitalize=\"off\" spellcheck=\"false\"></label>\n",
            escape(value)
        )
    };
    format!(
        "<h1>What is wrong?</h1>\n<form id=\"ask\" method=\"get\" action=\"/\">\n\
         <label for=\"q\">A symptom, an alert's name, or a pasted alert</label>\n\
         <textarea id=\"q\" name=\"q\" rows=\"3\" maxlength=\"{MAX_PASTED}\" placeholder=\"checkout cannot reach payments since 03:10\">{}</textarea>\n\
         <div class=\"row\">\n{}{}{}{}<button>Diagnose</button>\n</div>\n<p id=\"status\" role=\"status\"></p>\n</form>\n",
        // A line feed right after the tag would be taken for none.
        format_args!("\n{}", escape(&asked.q)),
        field("namespace", "Namespace", &asked.namespace, "all"),
        field("workload", "Workload", &asked.workload, "all"),
        field("time", "Time (UTC)", &asked.time, "now"),
        field("window", "Window", &asked.window, "5m"),
    )
}

async fn answer(state: &AppState, asked: &Asked, caller: &Caller) -> Result<String, ApiError> {
    let now = now_millis();
    let pasted = Pasted::read(&asked.q);
    let request = request(asked, pasted.as_ref(), now)?;
    let diagnosis = state.diagnose(request, caller, "page").await?.diagnosis;
    let time_millis = diagnosis
        .time
        .parse::<jiff::Timestamp>()
        .map_or(now, |time| time.as_millisecond());
    let histories = state
        .engine
        .histories(decisive(&diagnosis), time_millis, PLOTS)
        .await;
    let runbook = match &pasted {
        Some(pasted) => runbook_of(state, pasted).await,
        None => None,
    };
    let shared = Asked {
        time: diagnosis.time.clone(),
        ..asked.clone()
    };
    let shown = Shown {
        diagnosis: &diagnosis,
        histories: &histories,
        links: Links {
            config: &state.config,
            time_millis,
        },
        kept: kept(asked, &diagnosis),
        address: format!(
            "/{}&q={}",
            shared.kept(),
            super::links::encode(asked.q.trim())
        ),
    };
    let mut html = shown.head(pasted.as_ref());
    if let Some((title, address)) = runbook {
        let address = with_query(&address, Some(&shown.kept));
        let _ = writeln!(
            html,
            "<p class=\"runbook-of\">The alert's runbook: <a href=\"{}\">{}</a></p>",
            escape(&address),
            escape(&title)
        );
    }
    html.push_str(&shown.body());
    Ok(html)
}

fn request(asked: &Asked, pasted: Option<&Pasted>, now: i64) -> Result<DiagnoseRequest, ApiError> {
    let mut request = json!({});
    match pasted {
        Some(pasted) => {
            request["alert"] = json!({
                "labels": pasted.labels, "annotations": pasted.annotations, "startsAt": pasted.starts_at
            });
        }
        None if !asked.q.trim().is_empty() => request["query"] = json!(asked.q.trim()),
        None => {}
    }
    let scope = asked.scope();
    if !scope.is_empty() {
        request["scope"] = json!(scope);
    }
    if !asked.time.trim().is_empty() {
        let millis = read_time(&asked.time, now).map_err(ApiError::BadRequest)?;
        request["time"] = json!(millis as f64 / 1000.0);
    }
    if !asked.window.trim().is_empty() {
        request["window"] = json!(asked.window.trim());
    }
    serde_json::from_value(request).map_err(|error| ApiError::BadRequest(error.to_string()))
}

/// The page that the alert's own address or else its name means.
async fn runbook_of(state: &AppState, pasted: &Pasted) -> Option<(String, String)> {
    for reference in [pasted.runbook_url(), pasted.name()].into_iter().flatten() {
        if let Resolved::Known(address) = state.resolve(reference).await {
            let library = state.retriever.library();
            let page = address.split('#').next().unwrap_or_default();
            let runbook = library
                .runbooks
                .iter()
                .find(|runbook| url(&runbook.id) == page)?;
            return Some((runbook.title.clone(), address));
        }
    }
    None
}

/// The scope that was found and the moment, without a question mark, for links to runbooks.
fn kept(asked: &Asked, diagnosis: &Diagnosis) -> String {
    let scope = &diagnosis.scope;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let kept = Asked {
        q: String::new(),
        namespace: text(&scope.namespace),
        workload: text(&scope.workload),
        pod: text(&scope.pod),
        time: diagnosis.time.clone(),
        window: asked.window.clone(),
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

struct Shown<'a> {
    diagnosis: &'a Diagnosis,
    histories: &'a BTreeMap<String, Vec<Range>>,
    links: Links<'a>,
    kept: String,
    address: String,
}

impl Shown<'_> {
    fn head(&self, pasted: Option<&Pasted>) -> String {
        let diagnosis = self.diagnosis;
        let (class, word) = match diagnosis.status {
            Status::Fault => ("fault", "Fault"),
            Status::NoNetworkFault => ("calm", "No network fault"),
            Status::Unknown => ("unknown", "Unknown"),
        };
        let mut html = format!(
            "<section class=\"answer\" aria-label=\"Answer\">\n<div class=\"status {class}\"><span class=\"outcome\">{word}</span><p>{}</p></div>\n\
             <p class=\"moment\"><span>{}<strong>{}</strong> at <time>{}</time>, over {}.</span> <a href=\"{}\">Link to this answer</a></p>\n",
            escape(&diagnosis.summary),
            pasted
                .and_then(Pasted::name)
                .map_or_else(String::new, |name| format!(
                    "Alert <strong>{}</strong>, ",
                    escape(name)
                )),
            escape(&diagnosis.scope.describe()),
            escape(&diagnosis.time),
            escape(&diagnosis.window),
            escape(&self.address),
        );
        html.push_str(&evidence::degraded(&diagnosis.degraded));
        html
    }

    fn body(&self) -> String {
        let diagnosis = self.diagnosis;
        let mut html = String::new();
        for found in &diagnosis.hypotheses {
            html.push_str(&self.hypothesis(found));
        }
        html.push_str(&self.passages("Related passages", &diagnosis.passages));
        html.push_str(&self.checked());
        html.push_str("</section>\n");
        html
    }

    fn hypothesis(&self, found: &FoundMode) -> String {
        let percent = (found.confidence * 100.0).round();
        let runbook = with_query(&found.runbook.url, Some(&self.kept));
        let mut html = format!(
            "<article class=\"hypothesis\"><h2><span class=\"rank\">{}.</span> <a href=\"{}\">{}</a></h2>\n\
             <p class=\"confidence\"><meter min=\"0\" max=\"100\" value=\"{percent}\" aria-label=\"Confidence\"></meter> <strong>{percent} %</strong>{}</p>\n",
            found.rank,
            escape(&runbook),
            escape(&found.title),
            if found.active {
                ""
            } else {
                " <span class=\"outcome\">over by now</span>"
            },
        );
        if !found.affected.is_empty() {
            let places: Vec<String> = found.affected.iter().map(place).collect();
            let _ = writeln!(html, "<p class=\"places\">{}</p>", places.join("<br>"));
        }
        let plots: BTreeSet<&str> = match found.rank <= HYPOTHESES_WITH_PLOTS {
            true => plotted(found)
                .map(|evidence| evidence.id.as_str())
                .collect(),
            false => BTreeSet::new(),
        };
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
                    Row::of_shown(evidence, history.as_deref()).html(&self.links)
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
        if !found.explains.is_empty() {
            let _ = writeln!(
                html,
                "<p class=\"quiet\">It explains {} too.</p>",
                escape(&found.explains.join(", "))
            );
        }
        if !found.next_steps.is_empty() {
            html.push_str("<h3>What to do</h3>\n<ol class=\"steps\">\n");
            for step in &found.next_steps {
                let (text, cited) = (&step.text, &step.citation);
                let address = citation(cited);
                let _ = writeln!(
                    html,
                    "<li>{}<a class=\"cite\" href=\"{}\">{}</a></li>",
                    snippet(text, &found.runbook.id),
                    escape(&with_query(&address, Some(&self.kept))),
                    escape(cited)
                );
            }
            html.push_str("</ol>\n");
        }
        html.push_str(&self.passages("From the runbook", &found.passages));
        html.push_str("</article>\n");
        html
    }

    /// The series that the first sample is of.
    fn history(&self, evidence: &ShownEvidence) -> Vec<(f64, f64)> {
        let ranges = self.histories.get(&evidence.query);
        let sample = evidence.samples.first();
        let same = |range: &&Range| sample.is_some_and(|sample| sample.labels == range.labels);
        let range = ranges.and_then(|ranges| ranges.iter().find(same));
        range.map(finite).unwrap_or_default()
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
            let address = format!("{}#{}", text("/runbook/url"), text("/section/anchor"));
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
        let list = |modes: &[&str]| escape(&modes.join(", "));
        let mut html = format!(
            "<details class=\"checked\"><summary>Also checked: {} not there, {} could not be looked for</summary>\n",
            absent.len(),
            unavailable.len()
        );
        if !absent.is_empty() {
            let _ = writeln!(html, "<p><strong>Not there:</strong> {}</p>", list(&absent));
        }
        if !unavailable.is_empty() {
            let _ = writeln!(
                html,
                "<p><strong>Could not be looked for:</strong> {}</p>",
                list(&unavailable)
            );
        }
        html.push_str("</details>\n");
        html
    }
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

/// `shop/cart → shop/payments`
fn place(affected: &Affected) -> String {
    let end = |namespace: &Option<String>, workload: &Option<String>| {
        let parts = [namespace.as_deref(), workload.as_deref()];
        let parts: Vec<&str> = parts
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty())
            .collect();
        escape(&parts.join("/"))
    };
    let one = end(&affected.namespace, &affected.workload);
    let peer = end(&affected.peer_namespace, &affected.peer_workload);
    if peer.is_empty() {
        one
    } else {
        format!("{one} → {peer}")
    }
}

/// `runbooks/dns-servfail.md#diagnosis` → its address here.
fn citation(cited: &str) -> String {
    let (file, anchor) = cited.split_once('#').unwrap_or((cited, ""));
    let id = file.strip_prefix("runbooks/").unwrap_or(file);
    let id = id.strip_suffix(".md").unwrap_or(id);
    format!("{}#{anchor}", url(id))
}
