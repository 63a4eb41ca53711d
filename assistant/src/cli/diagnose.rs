//! `diagnose`: asks the running assistant and prints the answer as a tired person wants to read it.
//! Exit code 0: no fault, 1: a fault, 2: it could not be told.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::{colours, print};
use crate::diagnosis::Diagnosis;
use crate::diagnosis::quantity;
use crate::diagnosis::response::{Affected, FoundMode, ShownEvidence, Status};
use crate::prometheus::client_builder;

/// Longer than the assistant's own deadline.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What is wrong, in your own words
    text: Option<String>,
    /// Only places with an end in this namespace
    #[arg(long, value_name = "N")]
    namespace: Option<String>,
    /// Only places with this workload at an end
    #[arg(long, value_name = "W")]
    workload: Option<String>,
    /// Time to ask about, RFC 3339 [default: now]
    #[arg(long, value_name = "RFC3339")]
    at: Option<String>,
    /// How far to look back, 15s to 24h
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    window: String,
    /// Print the answer as the API gives it
    #[arg(long)]
    json: bool,
    /// Where the assistant is
    #[arg(long, env = "RUNWIRE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// File with the token that the assistant asks for
    #[arg(long, env = "RUNWIRE_TOKEN_FILE", value_name = "FILE")]
    token: Option<PathBuf>,
    /// Certificates in PEM of authorities that the assistant's certificate may come from
    #[arg(long, env = "RUNWIRE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Ask again every so many seconds, until Ctrl-C; the exit code is that of the last answer
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
}

/// What could not be asked could not be told either: every failure is exit code 2, because 1 means a fault.
#[expect(clippy::print_stderr, reason = "tells the user why there is no answer")]
pub(super) async fn run(arguments: Arguments) -> ExitCode {
    answer(arguments).await.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

#[expect(clippy::print_stderr, reason = "tells the user why there is no answer")]
async fn answer(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = client(&arguments)?;
    let Some(seconds) = arguments.watch else {
        let (shown, code) = once(&client, &arguments).await?;
        print(&shown)?;
        return Ok(code);
    };
    // A program that reads one answer after the other gets nothing else.
    let is_read_by_program = arguments.json && !std::io::stdout().is_terminal();
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    let mut last = ExitCode::from(2);
    loop {
        let (shown, code) = tokio::select! {
            _ = &mut stop => return Ok(last),
            answer = once(&client, &arguments) => match answer {
                Ok(answer) => answer,
                // An assistant that restarts is back soon.
                Err(error) if is_read_by_program => {
                    eprintln!("error: {error:#}");
                    (String::new(), ExitCode::from(2))
                }
                Err(error) => (format!("error: {error:#}\n"), ExitCode::from(2)),
            },
        };
        last = code;
        print(&if std::io::stdout().is_terminal() {
            format!("\x1b[H\x1b[2J\x1b[3J{shown}")
        } else if arguments.json {
            shown
        } else {
            shown + "\n"
        })?;
        tokio::select! {
            _ = &mut stop => return Ok(last),
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        }
    }
}

/// One answer as it is printed, and the exit code that tells it.
async fn once(
    client: &reqwest::Client,
    arguments: &Arguments,
) -> anyhow::Result<(String, ExitCode)> {
    let base = arguments.url.trim_end_matches('/');
    let body = ask(client, base, arguments).await?;
    let mut answer: Value = serde_json::from_str(&body)
        .with_context(|| format!("{base} did not answer with a diagnosis"))?;
    without_controls(&mut answer);
    let diagnosis: Diagnosis = serde_json::from_value(answer)
        .with_context(|| format!("{base} did not answer with a diagnosis"))?;
    let shown = if arguments.json {
        body + "\n"
    } else {
        let colours = colours::wanted();
        text(&diagnosis, base, Paint { colours })
    };
    let code = match diagnosis.status {
        Status::NoNetworkFault => ExitCode::SUCCESS,
        Status::Fault => ExitCode::from(1),
        Status::Unknown => ExitCode::from(2),
    };
    Ok((shown, code))
}

/// Runbooks and labels come from others, and must not be able to drive the terminal.
fn without_controls(value: &mut Value) {
    match value {
        Value::String(text) => text.retain(|c| !c.is_control() || c == '\n'),
        Value::Array(items) => items.iter_mut().for_each(without_controls),
        Value::Object(fields) => fields.values_mut().for_each(without_controls),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn client(arguments: &Arguments) -> anyhow::Result<reqwest::Client> {
    let mut authorities = Vec::new();
    if let Some(path) = &arguments.ca {
        let shown = path.display();
        let pem = std::fs::read(path)
            .with_context(|| format!("cannot read {shown}, which --ca names"))?;
        authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("{shown}, which --ca names, holds no certificates in PEM"))?;
    }
    let mut builder = client_builder(PATIENCE, authorities);
    if let Some(path) = &arguments.token {
        let shown = path.display();
        let token = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {shown}, which --token names"))?;
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
                anyhow::anyhow!(
                    "{shown}, which --token names, must hold one token and nothing else"
                )
            })?;
        value.set_sensitive(true);
        builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
    }
    builder.build().context("cannot set up the HTTP client")
}

async fn ask(
    client: &reqwest::Client,
    base: &str,
    arguments: &Arguments,
) -> anyhow::Result<String> {
    let mut request = json!({
        "window": arguments.window,
        "scope": scope(arguments),
    });
    if let Some(text) = &arguments.text {
        request["query"] = json!(text);
    }
    if let Some(at) = &arguments.at {
        request["time"] = json!(at);
    }
    let response = client
        .post(format!("{base}/diagnose"))
        .json(&request)
        .send()
        .await
        .with_context(|| format!("cannot reach the assistant at {base}: is `runwire-assistant serve` running, and is --url right?"))?;
    let status = response.status();
    let body = response.text().await.context("the answer ended early")?;
    if status.is_success() {
        return Ok(body);
    }
    let problem: Value = serde_json::from_str(&body).unwrap_or_default();
    match problem["detail"].as_str() {
        Some(detail) => bail!("{detail}"),
        None => bail!("the assistant answers status {status}"),
    }
}

fn scope(arguments: &Arguments) -> Value {
    let mut scope = serde_json::Map::new();
    let fields = [
        ("namespace", &arguments.namespace),
        ("workload", &arguments.workload),
    ];
    for (key, value) in fields {
        if let Some(value) = value {
            scope.insert(key.into(), json!(value));
        }
    }
    Value::Object(scope)
}

#[derive(Clone, Copy)]
struct Paint {
    colours: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn faint(self, text: &str) -> String {
        self.with("2", text)
    }
}

fn text(diagnosis: &Diagnosis, base: &str, paint: Paint) -> String {
    let mut out = String::new();
    let verdict = match diagnosis.status {
        Status::Fault => paint.with("1;31", "FAULT"),
        Status::NoNetworkFault => paint.with("1;32", "NO NETWORK FAULT"),
        Status::Unknown => paint.with("1;33", "UNKNOWN"),
    };
    let when = format!("at {}, looking back {}", diagnosis.time, diagnosis.window);
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{verdict}  {}\n{}",
        paint.faint(&when),
        diagnosis.summary
    );
    for part in &diagnosis.degraded {
        let _ = writeln!(
            out,
            "{} {}: {}",
            paint.with("33", "!"),
            part.part,
            part.reason
        );
    }
    for mode in &diagnosis.hypotheses {
        hypothesis(&mut out, mode, base, paint);
    }
    let of = |outcome: &str| {
        diagnosis
            .checked
            .iter()
            .filter(|checked| checked.outcome == outcome)
            .map(|checked| checked.failure_mode.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (outcome, label) in [
        ("absent", "Checked and not there"),
        ("unavailable", "Could not be checked"),
    ] {
        let modes = of(outcome);
        if !modes.is_empty() {
            let _ = writeln!(out, "\n{} {modes}", paint.bold(&format!("{label}:")));
        }
    }
    passages(&mut out, diagnosis, base, paint);
    out
}

fn hypothesis(out: &mut String, mode: &FoundMode, base: &str, paint: Paint) {
    let confidence = format!("{:.0} %", mode.confidence * 100.0);
    let over = if mode.active { "" } else { ", over by now" };
    let _ = writeln!(
        out,
        "\n{}  {}",
        paint.bold(&format!("{}. {}", mode.rank, mode.title)),
        paint.bold(&format!("{confidence}{over}"))
    );
    for (index, affected) in mode.affected.iter().enumerate() {
        let label = if index == 0 { "where" } else { "" };
        let _ = writeln!(out, "   {label:8}{}", place(affected));
    }
    // What would speak against and left no trace is told in one line.
    let quiet = |evidence: &&ShownEvidence| {
        evidence.role == "contradicts" && evidence.outcome == "absent" && evidence.value.is_none()
    };
    for evidence in mode.evidence.iter().filter(|evidence| !quiet(evidence)) {
        let _ = writeln!(out, "   {}", evidence_line(evidence, paint));
    }
    let silent: Vec<&str> = mode
        .evidence
        .iter()
        .filter(quiet)
        .map(|evidence| evidence.id.as_str())
        .collect();
    if !silent.is_empty() {
        let _ = writeln!(
            out,
            "   {}",
            paint.faint(&format!(
                "no sign of what would speak against: {}",
                silent.join(", ")
            ))
        );
    }
    if !mode.explains.is_empty() {
        let _ = writeln!(
            out,
            "   {:8}{}",
            "explains",
            format_args!(" {}", mode.explains.join(", "))
        );
    }
    for block in values(&mode.passages) {
        let _ = writeln!(out, "   value   {}", paint.faint(&block));
    }
    if !mode.next_steps.is_empty() {
        let _ = writeln!(out, "   next");
    }
    for (index, step) in mode.next_steps.iter().enumerate() {
        let _ = writeln!(out, "     {}. {}", index + 1, step.text);
        let _ = writeln!(out, "        {}", paint.faint(&step.citation));
    }
    let _ = writeln!(out, "   {:8}{base}{}", "runbook", mode.runbook.url);
}

/// What the PromQL in the passages gives, a line each.
fn values(passages: &[Value]) -> Vec<String> {
    let queries = passages
        .iter()
        .filter_map(|passage| passage["queries"].as_array())
        .flatten();
    queries
        .map(|query| {
            let block = query["block"].as_str().unwrap_or_default();
            let block = block.split_whitespace().collect::<Vec<_>>().join(" ");
            let said = match (query["value"].as_f64(), query["reason"].as_str()) {
                (Some(value), _) => quantity(value, None),
                (None, Some(reason)) => reason.to_owned(),
                (None, None) => "no value".into(),
            };
            // What has a reason says there whose it is.
            let about = query["about"]
                .as_str()
                .filter(|_| query["reason"].is_null());
            let about = about.map_or(String::new(), |about| format!(" ({about})"));
            format!("{said}{about}  {block}")
        })
        .collect()
}

fn place(affected: &Affected) -> String {
    let end = |namespace: &Option<String>, name: &Option<String>| match (namespace, name) {
        (Some(namespace), Some(name)) if !namespace.is_empty() && !name.starts_with('~') => {
            format!("{namespace}/{name}")
        }
        (_, Some(name)) => name.clone(),
        (_, None) => String::new(),
    };
    let one = end(&affected.namespace, &affected.workload);
    let other = end(&affected.peer_namespace, &affected.peer_workload);
    let ends = match other.is_empty() {
        true => one,
        false => format!("{one} → {other}"),
    };
    let machine = match (&affected.device, &affected.node) {
        (Some(device), Some(node)) => format!("{device} of node {node}"),
        (None, Some(node)) => format!("node {node}"),
        (Some(device), None) => device.clone(),
        (None, None) => return ends,
    };
    match ends.is_empty() {
        true => machine,
        false => format!("{ends} ({machine})"),
    }
}

fn evidence_line(evidence: &ShownEvidence, paint: Paint) -> String {
    let unit = evidence.unit.as_deref();
    let against = evidence.role == "contradicts";
    let label = match (evidence.outcome.as_str(), against) {
        ("present", _) if evidence.active == Some(false) => paint.faint("earlier "),
        ("present", false) => paint.with("31", "for     "),
        ("present", true) => paint.with("33", "against "),
        ("absent", _) => paint.faint("not so  "),
        _ => paint.with("33", "unknown "),
    };
    let value = evidence
        .value
        .map_or("no such series".into(), |value| quantity(value, unit));
    let usual = evidence
        .baseline
        .zip(evidence.baseline_offset.as_deref())
        .map_or(String::new(), |(value, back)| {
            format!(", {} before: {}", back, quantity(value, unit))
        });
    let role = match (evidence.role.as_str(), evidence.outcome.as_str()) {
        ("contradicts", "absent") => ", would speak against",
        ("supports", "absent") => ", would support",
        _ => "",
    };
    if evidence.outcome == "unavailable" {
        let reason = evidence.reason.as_deref().unwrap_or("no data");
        return format!("{label}{}: {reason}", evidence.title);
    }
    let threshold = &evidence.threshold;
    format!(
        "{label}{}: {value} (threshold {threshold}{usual}{role})",
        evidence.title
    )
}

fn passages(out: &mut String, diagnosis: &Diagnosis, base: &str, paint: Paint) {
    if diagnosis.passages.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", paint.bold("Related pages:"));
    let mut told = Vec::new();
    for passage in &diagnosis.passages {
        let heading: Vec<&str> = passage["section"]["heading_path"]
            .as_array()
            .map(|path| path.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let url = passage["runbook"]["url"].as_str().unwrap_or_default();
        let anchor = passage["section"]["anchor"].as_str().unwrap_or_default();
        let absent = match passage["evidence"].as_str() {
            Some("absent") => paint.faint("  (looked for, and not there)"),
            _ => String::new(),
        };
        let line = format!("  {}  {base}{url}#{anchor}{absent}", heading.join(" › "));
        if !told.contains(&line) {
            let _ = writeln!(out, "{line}");
            told.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_with_both_ends_where_known() {
        let affected = |peer: Option<&str>| Affected {
            namespace: Some("host".into()),
            workload: Some("a".into()),
            peer_namespace: peer.map(|_| "~external".into()),
            peer_workload: peer.map(str::to_owned),
            node: None,
            device: None,
        };
        assert_eq!(place(&affected(Some("~external"))), "host/a → ~external");
        assert_eq!(place(&affected(None)), "host/a");
        let on = |workload: Option<&str>, device: Option<&str>| Affected {
            workload: workload.map(str::to_owned),
            node: Some("n1".into()),
            device: device.map(str::to_owned),
            ..affected(None)
        };
        assert_eq!(place(&on(None, None)), "node n1");
        assert_eq!(place(&on(None, Some("eth0"))), "eth0 of node n1");
        assert_eq!(
            place(&on(Some("a"), Some("eth0"))),
            "host/a (eth0 of node n1)"
        );
    }

    #[test]
    fn an_answer_cannot_drive_the_terminal() {
        let mut answer = json!({"a": ["x\u{1b}[2Jy\nz\u{9b}"], "n": 1});
        without_controls(&mut answer);
        assert_eq!(answer, json!({"a": ["x[2Jy\nz"], "n": 1}));
    }
}
