//! Incidents as pages. Every text comes from outside and is escaped.

use std::fmt::Write;

use super::{ListRequest, NO_CAUSE};
use crate::api::answer::Shown;
use crate::api::clock::{ago, between, time};
use crate::api::html::escape;
use crate::api::links::query_string;
use crate::incidents::{Incident, Page};

pub(super) fn list(
    incidents: &[Incident],
    next: Option<&str>,
    request: &ListRequest,
    now_millis: i64,
) -> String {
    let mut body = String::from("<h1>Incidents</h1>\n");
    body.push_str(&filters(request));
    body.push_str(&rows(incidents, now_millis));
    if let Some(next) = next {
        let address = query_string(&[
            ("after", next),
            ("state", &request.state),
            ("alertname", &request.alertname),
            ("namespace", &request.namespace),
            ("from", &request.from),
            ("to", &request.to),
        ]);
        let _ = writeln!(
            body,
            "<p><a href=\"/incidents{}\">Earlier ones</a></p>",
            escape(&address)
        );
    }
    body
}

fn filters(request: &ListRequest) -> String {
    let field = |name: &str, label: &str, value: &str| {
        format!(
            "<label>{label}<input name=\"{name}\" value=\"{}\" placeholder=\"all\" autocomplete=\"off\" spellcheck=\"false\"></label>\n",
            escape(value)
        )
    };
    let option = |value: &str, name: &str| {
        let chosen = if request.state == value {
            " selected"
        } else {
            ""
        };
        format!("<option value=\"{value}\"{chosen}>{name}</option>")
    };
    format!(
        "<form method=\"get\" action=\"/incidents\" class=\"row filters\">\n\
         <label>State<select name=\"state\">{}{}{}</select></label>\n{}{}<button>Show</button>\n</form>\n",
        option("", "all"),
        option("firing", "firing"),
        option("resolved", "resolved"),
        field("alertname", "Alert", &request.alertname),
        field("namespace", "Namespace", &request.namespace),
    )
}

/// Some incidents, a line each.
pub(in crate::api) fn rows(incidents: &[Incident], now_millis: i64) -> String {
    if incidents.is_empty() {
        return "<p class=\"quiet\">There are none that fit. Alertmanager tells of them at <code>/webhook/alertmanager</code>.</p>\n".into();
    }
    let mut html = String::from("<ul class=\"incidents\">\n");
    for incident in incidents {
        // Writing to a String cannot fail.
        let _ = writeln!(
            html,
            "<li class=\"{}\"><span class=\"outcome\">{0}</span> <a href=\"{}\">{}</a> <small>{} · {}</small>\n<p>{}</p></li>",
            escape(&incident.state),
            escape(&incident.url),
            escape(&name(incident)),
            time(&incident.started_at),
            match &incident.resolved_at {
                Some(end) => format!("lasted {}", between(&incident.started_at, end)),
                None => ago(&incident.started_at, now_millis),
            },
            escape(incident.summary.as_deref().unwrap_or("Not diagnosed yet.")),
        );
    }
    html.push_str("</ul>\n");
    html
}

/// `shown` is the latest diagnosis, where there is one that this version can read.
pub(super) fn one(page: &Page, shown: Option<&Shown<'_>>, now_millis: i64) -> String {
    let incident = &page.incident;
    let (until, lasted) = match &incident.resolved_at {
        Some(end) => (
            format!("until {}", time(end)),
            format!("lasted {}", between(&incident.started_at, end)),
        ),
        None => (
            "goes on".to_owned(),
            format!("began {}", ago(&incident.started_at, now_millis)),
        ),
    };
    let mut body = format!(
        "<p class=\"back\"><a href=\"/incidents\">Incidents</a></p>\n<h1>{}</h1>\n\
         <p class=\"moment {}\"><span class=\"outcome\">{1}</span> <span>Since {}, {until}; {lasted}. {}</span></p>\n",
        escape(&name(incident)),
        escape(&incident.state),
        time(&incident.started_at),
        counted(incident),
    );
    if let Some(by) = incident.closed_by() {
        let _ = writeln!(body, "<p class=\"degraded\">{}.</p>", escape(&by));
    }
    for key in ["summary", "message", "description"] {
        if let Some(text) = incident.annotations.get(key) {
            let _ = writeln!(body, "<p class=\"said\">{}</p>", escape(text));
        }
    }
    match (page.diagnoses.first(), shown) {
        (Some(latest), Some(shown)) => {
            let _ = writeln!(
                body,
                "<section class=\"answer\" aria-label=\"Diagnosis\">\n{}<p class=\"moment\">At {}, over {}; diagnosed at {}.</p>\n{}</section>",
                shown.status(),
                time(&shown.diagnosis.time),
                escape(&shown.diagnosis.window),
                time(&latest.made_at),
                shown.body()
            );
        }
        (Some(latest), None) => {
            let summary = latest.diagnosis["summary"].as_str().unwrap_or_default();
            let _ = writeln!(body, "<p><strong>{}</strong></p>", escape(summary));
        }
        (None, _) => body.push_str("<p class=\"degraded\">It is not diagnosed yet.</p>\n"),
    }
    if !page.diagnoses.is_empty() {
        feedback(&mut body, page);
    }
    earlier(&mut body, page);
    alerts(&mut body, page);
    body
}

fn counted(incident: &Incident) -> String {
    match (incident.alerts, incident.alerts_firing) {
        (1, 1) => "One alert, which fires.".into(),
        (1, _) => "One alert.".into(),
        (all, 0) => format!("{all} alerts."),
        (all, firing) => format!("{all} alerts, {firing} of them firing."),
    }
}

fn earlier(body: &mut String, page: &Page) {
    if page.diagnoses.len() < 2 {
        return;
    }
    body.push_str("<h2>Earlier diagnoses</h2>\n<ul>\n");
    for kept in page.diagnoses.iter().skip(1) {
        let _ = writeln!(
            body,
            "<li>{}: {}</li>",
            time(&kept.made_at),
            escape(kept.diagnosis["summary"].as_str().unwrap_or_default())
        );
    }
    body.push_str("</ul>\n");
}

fn alerts(body: &mut String, page: &Page) {
    body.push_str("<h2>Alerts</h2>\n<table>\n<thead><tr><th scope=\"col\">Since</th><th scope=\"col\">Until</th><th scope=\"col\">Labels</th></tr></thead>\n<tbody>\n");
    for member in &page.members {
        let labels: Vec<String> = member
            .labels
            .iter()
            .map(|(name, value)| format!("<code>{}</code>", escape(&format!("{name}={value}"))))
            .collect();
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td class=\"labels\">{}</td></tr>",
            time(&member.starts_at),
            match (member.ended_at.as_deref(), member.ended_by.as_deref()) {
                (None, _) => "fires".to_owned(),
                (Some(end), None | Some("alertmanager")) => time(end),
                (Some(end), Some(by)) => format!("{} (by {})", time(end), escape(by)),
            },
            labels.join(" ")
        );
    }
    body.push_str("</tbody>\n</table>\n");
}

fn feedback(body: &mut String, page: &Page) {
    let cause = match &page.incident.cause {
        Some(cause) => format!("Was it <code>{}</code>?", escape(cause)),
        None => "Was that right?".into(),
    };
    let _ = writeln!(
        body,
        "<section class=\"feedback\"><h2>{cause}</h2>\n<form method=\"post\" action=\"{}/feedback\">\n\
         <input type=\"hidden\" name=\"failure_mode\" value=\"{}\">\n<label>Comment<input name=\"comment\" maxlength=\"4000\" placeholder=\"what it was, if it was something else\" autocomplete=\"off\"></label>\n\
         <button name=\"verdict\" value=\"right\">Right</button> <button name=\"verdict\" value=\"wrong\">Wrong</button>\n</form>",
        escape(&page.incident.url),
        // What is judged is what is shown: by the time of the answer another cause may come first.
        escape(page.incident.cause.as_deref().unwrap_or(NO_CAUSE)),
    );
    if !page.feedback.is_empty() {
        body.push_str("<ul>\n");
    }
    for given in &page.feedback {
        let comment = match given.comment.as_str() {
            "" => String::new(),
            comment => format!(": {}", escape(comment)),
        };
        let _ = writeln!(
            body,
            "<li>{} <strong>{}</strong> for <code>{}</code>{comment}</li>",
            time(&given.given_at),
            escape(&given.verdict),
            escape(&given.failure_mode),
        );
    }
    if !page.feedback.is_empty() {
        body.push_str("</ul>\n");
    }
    body.push_str("</section>\n");
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
