//! Incidents as pages. Every text comes from outside and is escaped.

use std::fmt::Write;

use serde_json::Value;

use super::ListRequest;
use crate::api::html::escape;
use crate::incidents::{Incident, Page};

pub(super) fn list(incidents: &[Incident], next: Option<&str>, request: &ListRequest) -> String {
    let mut body = String::from("<h1>Incidents</h1>\n");
    if incidents.is_empty() {
        body.push_str("<p>There are none that fit. Alertmanager tells of them at <code>/webhook/alertmanager</code>.</p>\n");
        return body;
    }
    body.push_str(
        "<table>\n<thead><tr><th>Since</th><th>State</th><th>Alert</th><th>Found</th></tr></thead>\n<tbody>\n",
    );
    for incident in incidents {
        // Writing to a String cannot fail.
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td><a href=\"{}\">{}</a></td><td>{}</td></tr>",
            time(&incident.started_at),
            escape(&incident.state),
            escape(&incident.url),
            escape(&name(incident)),
            escape(incident.summary.as_deref().unwrap_or("not diagnosed yet")),
        );
    }
    body.push_str("</tbody>\n</table>\n");
    if let Some(next) = next {
        let mut pairs = vec![("after", next)];
        for (key, value) in [
            ("state", &request.state),
            ("alertname", &request.alertname),
            ("namespace", &request.namespace),
            ("from", &request.from),
            ("to", &request.to),
        ] {
            if !value.is_empty() {
                pairs.push((key, value));
            }
        }
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={}", encode(value)))
            .collect();
        let address = format!("/incidents?{}", pairs.join("&"));
        let _ = writeln!(
            body,
            "<p><a href=\"{}\">Earlier ones</a></p>",
            escape(&address)
        );
    }
    body
}

pub(super) fn one(page: &Page) -> String {
    let incident = &page.incident;
    let mut body = format!("<h1>{}</h1>\n", escape(&name(incident)));
    let until = incident.resolved_at.as_ref().map_or_else(
        || "goes on".to_owned(),
        |end| format!("resolved at {}", time(end)),
    );
    let _ = writeln!(
        body,
        "<p>Since {}, {until}. {} alerts, {} of them firing.</p>",
        time(&incident.started_at),
        incident.alerts,
        incident.alerts_firing
    );
    for key in ["summary", "message", "description"] {
        if let Some(text) = incident.annotations.get(key) {
            let _ = writeln!(body, "<p>{}</p>", escape(text));
        }
    }
    match page.diagnoses.first() {
        Some(latest) => {
            body.push_str("<h2>Diagnosis</h2>\n");
            diagnosis(&mut body, &latest.diagnosis);
            feedback(&mut body, page);
        }
        None => body.push_str("<p>It is not diagnosed yet.</p>\n"),
    }
    if page.diagnoses.len() > 1 {
        body.push_str("<h2>Earlier diagnoses</h2>\n<ul>\n");
        for kept in page.diagnoses.iter().skip(1) {
            let _ = writeln!(
                body,
                "<li>{}: {}</li>",
                time(&kept.made_at),
                escape(text(&kept.diagnosis["summary"]))
            );
        }
        body.push_str("</ul>\n");
    }
    body.push_str("<h2>Alerts</h2>\n<table>\n<thead><tr><th>Since</th><th>Until</th><th>Labels</th></tr></thead>\n<tbody>\n");
    for member in &page.members {
        let labels: Vec<String> = member
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td><code>{}</code></td></tr>",
            time(&member.starts_at),
            member
                .ended_at
                .as_deref()
                .map_or_else(|| "fires".to_owned(), time),
            escape(&labels.join(", "))
        );
    }
    body.push_str("</tbody>\n</table>\n");
    body
}

fn diagnosis(body: &mut String, diagnosis: &Value) {
    let _ = writeln!(
        body,
        "<p><strong>{}</strong></p>",
        escape(text(&diagnosis["summary"]))
    );
    let none = Vec::new();
    body.push_str("<ol>\n");
    for mode in diagnosis["hypotheses"].as_array().unwrap_or(&none) {
        let confidence = mode["confidence"].as_f64().unwrap_or_default();
        let _ = write!(
            body,
            "<li><a href=\"{}\">{}</a>, confidence {confidence:.2}",
            escape(&own_address(text(&mode["runbook"]["url"]))),
            escape(text(&mode["title"]))
        );
        if let Some(step) = mode["next_steps"][0]["text"].as_str() {
            let _ = write!(body, "<br>{}", escape(step));
        }
        body.push_str("\n<ul>\n");
        for evidence in mode["evidence"].as_array().unwrap_or(&none) {
            let value = evidence["value"]
                .as_f64()
                .map_or_else(String::new, |value| format!(", {value}"));
            let _ = writeln!(
                body,
                "<li>{}: {}{value} ({} {})</li>",
                escape(text(&evidence["title"])),
                escape(text(&evidence["outcome"])),
                escape(text(&evidence["role"])),
                escape(text(&evidence["threshold"])),
            );
        }
        body.push_str("</ul></li>\n");
    }
    body.push_str("</ol>\n");
    for part in diagnosis["degraded"].as_array().unwrap_or(&none) {
        let _ = writeln!(
            body,
            "<p>{}: {}</p>",
            escape(text(&part["part"])),
            escape(text(&part["reason"]))
        );
    }
}

fn feedback(body: &mut String, page: &Page) {
    body.push_str("<h2>Was the cause right?</h2>\n");
    for given in &page.feedback {
        let _ = writeln!(
            body,
            "<p>{}: {} {} {}</p>",
            time(&given.given_at),
            escape(&given.failure_mode),
            escape(&given.verdict),
            escape(&given.comment)
        );
    }
    let _ = writeln!(
        body,
        "<form method=\"post\" action=\"{}/feedback\">\n<label>Comment <input name=\"comment\" maxlength=\"4000\"></label>\n\
         <button name=\"verdict\" value=\"right\">Right</button>\n<button name=\"verdict\" value=\"wrong\">Wrong</button>\n</form>",
        escape(&page.incident.url)
    );
}

fn name(incident: &Incident) -> String {
    let name = match incident.alertname.as_str() {
        "" => &incident.group_key,
        name => name,
    };
    match incident.labels.get("namespace") {
        Some(namespace) => format!("{name} in {namespace}"),
        None => name.to_owned(),
    }
}

fn time(text: &str) -> String {
    let text = escape(text);
    format!("<time datetime=\"{text}\">{text}</time>")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Links here lead to pages of ours only.
fn own_address(address: &str) -> String {
    if address.starts_with('/') && !address.starts_with("//") {
        address.to_owned()
    } else {
        "#".into()
    }
}

/// As it stands in a query.
fn encode(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                encoded.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            other => {
                let _ = write!(encoded, "%{other:02X}");
            }
        }
    }
    encoded
}
