//! An incident and a diagnosis → what is told: JSON, Slack's text, plain text. Pure.

use serde_json::{Value, json};

use crate::incidents::read::Page;

/// Longer texts are cut: Slack shows some thousand characters.
const MAX_TEXT: usize = 1500;

/// All of it, for programs.
pub(super) fn json(page: &Page, diagnosis: &Value, external_url: &str, event: &str) -> Value {
    let mut incident = serde_json::to_value(&page.incident).unwrap_or_default();
    incident["url"] = format!("{external_url}{}", page.incident.url).into();
    json!({"version": "1", "event": event, "incident": incident, "diagnosis": diagnosis})
}

/// For a channel, with links.
pub(super) fn slack(page: &Page, diagnosis: &Value, external_url: &str, event: &str) -> Value {
    let Lines { head, found, next } = lines(page, diagnosis);
    let head = match (event, page.incident.state.as_str()) {
        ("resolved", _) if page.incident.closed_by().is_some() => format!("Closed: {head}"),
        ("resolved", _) => format!("Resolved: {head}"),
        // Nothing else may follow that says so.
        (_, "resolved") => format!("Over by now: {head}"),
        _ => head,
    };
    let mut text = format!("*{}*", slack_escape(&head));
    for line in found.iter().chain(&next) {
        text.push('\n');
        text.push_str(&slack_escape(line));
    }
    let incident = format!("{external_url}{}", page.incident.url);
    text.push_str(&format!("\n<{}|Incident>", slack_escape(&incident)));
    if let Some(runbook) = first(diagnosis)["runbook"]["url"].as_str() {
        text.push_str(&format!(
            " · <{}|Runbook>",
            slack_escape(&format!("{external_url}{runbook}"))
        ));
    }
    json!({"text": text})
}

/// For an annotation.
pub(super) fn plain(page: &Page, diagnosis: &Value, external_url: &str) -> String {
    let Lines { head, found, .. } = lines(page, diagnosis);
    let mut text = head;
    for line in &found {
        text.push('\n');
        text.push_str(line);
    }
    format!("{text}\n{external_url}{}", page.incident.url)
}

struct Lines {
    head: String,
    found: Vec<String>,
    next: Option<String>,
}

fn lines(page: &Page, diagnosis: &Value) -> Lines {
    let incident = &page.incident;
    let name = match incident.alertname.as_str() {
        "" => "Incident",
        name => name,
    };
    let mut head = cut(name);
    if let Some(namespace) = incident.labels.get("namespace") {
        head.push_str(&format!(" in {}", cut(namespace)));
    }
    let mut found: Vec<String> = incident.closed_by().into_iter().collect();
    if let Some(summary) = diagnosis["summary"].as_str() {
        found.push(cut(summary));
    }
    let cause = first(diagnosis);
    if let (Some(title), Some(confidence)) = (cause["title"].as_str(), cause["confidence"].as_f64())
    {
        found.push(format!(
            "Cause: {} (confidence {confidence:.2})",
            cut(title)
        ));
    }
    let next = cause["next_steps"][0]["text"].as_str();
    Lines {
        head,
        found,
        next: next.map(|step| format!("Next: {}", cut(step))),
    }
}

fn first(diagnosis: &Value) -> &Value {
    &diagnosis["hypotheses"][0]
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Slack's three characters with a meaning: no text can make a link or call a channel.
fn slack_escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
