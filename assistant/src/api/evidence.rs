//! Evidence as a browser shows it: outcome, value, limit, the last hour, where, and the query in other programs.

use std::fmt::Write;

use super::html::escape;
use super::links::Links;
use super::plot::plot;
use crate::diagnosis::blocks::EvaluatedBlock;
use crate::diagnosis::live::{HISTORY, History, Live, LiveEvidence};
use crate::diagnosis::quantity;
use crate::diagnosis::response::{Part, ShownEvidence};

const MAX_SERIES: usize = 3;

/// One piece of evidence, from wherever it comes.
pub(super) struct Row<'a> {
    pub(super) title: &'a str,
    pub(super) role: &'a str,
    pub(super) outcome: &'a str,
    pub(super) active: bool,
    pub(super) value: Option<f64>,
    pub(super) unit: Option<&'a str>,
    /// `> 0.01`
    pub(super) threshold: &'a str,
    pub(super) baseline: Option<(f64, &'a str)>,
    pub(super) places: &'a [String],
    pub(super) reason: Option<&'a str>,
    pub(super) query: &'a str,
    /// `None`: no plot is wanted here.
    pub(super) history: Option<&'a History>,
}

impl<'a> Row<'a> {
    fn of_live(evidence: &'a LiveEvidence, role: &'a str) -> Self {
        Self {
            title: &evidence.title,
            role,
            outcome: evidence.outcome,
            active: evidence.active,
            value: evidence.value,
            unit: evidence.unit.as_deref(),
            threshold: &evidence.threshold,
            baseline: None,
            places: &evidence.places,
            reason: evidence.reason.as_deref(),
            query: &evidence.query,
            history: evidence.history.as_ref(),
        }
    }

    pub(super) fn of_shown(evidence: &'a ShownEvidence, history: Option<&'a History>) -> Self {
        Self {
            title: match evidence.title.as_str() {
                "" => &evidence.id,
                title => title,
            },
            role: &evidence.role,
            outcome: &evidence.outcome,
            active: evidence.active.unwrap_or(true),
            value: evidence.value,
            unit: evidence.unit.as_deref(),
            threshold: &evidence.threshold,
            baseline: evidence.baseline.zip(evidence.baseline_offset.as_deref()),
            places: &[],
            reason: evidence.reason.as_deref(),
            query: &evidence.query,
            history,
        }
    }

    pub(super) fn html(&self, links: &Links<'_>) -> String {
        let limit = self.threshold.split_once(' ');
        let number = limit.and_then(|(_, number)| number.parse::<f64>().ok());
        let word = match self.outcome {
            "present" if !self.active => "was present",
            outcome => outcome,
        };
        let mut html = format!(
            "<li class=\"evidence {}\"><div class=\"what\"><span class=\"outcome\">{word}</span> {} <small>{}</small></div>\n",
            escape(self.outcome),
            escape(self.title),
            escape(role_in_words(self.role))
        );
        let value = match self.value {
            Some(value) => quantity(value, self.unit),
            None if self.outcome == "absent" => "no series".into(),
            None => "no value".into(),
        };
        let _ = write!(
            html,
            "<div class=\"value\"><strong>{}</strong>",
            escape(&value)
        );
        if let Some((sign, number)) = limit.zip(number).map(|(limit, number)| (limit.0, number)) {
            let _ = write!(
                html,
                " <span class=\"quiet\">a sign if {} {}</span>",
                escape(sign),
                escape(&quantity(number, self.unit))
            );
        } else if !self.threshold.is_empty() {
            // Of a change, which is no quantity of that unit.
            let threshold = escape(self.threshold);
            let _ = write!(html, " <span class=\"quiet\">a sign if {threshold}</span>");
        }
        if let Some((baseline, offset)) = self.baseline {
            let _ = write!(
                html,
                " <span class=\"quiet\">{} {} ago</span>",
                escape(&quantity(baseline, self.unit)),
                escape(offset)
            );
        }
        html.push_str("</div>\n");
        if let Some(reason) = self.reason {
            let _ = writeln!(html, "<p class=\"reason\">{}</p>", escape(reason));
        }
        if !self.places.is_empty() {
            let places: Vec<String> = self.places.iter().map(|place| escape(place)).collect();
            let _ = writeln!(html, "<p class=\"places\">{}</p>", places.join("<br>"));
        }
        if let Some(history) = self.history {
            html.push_str(&self.course(history, number, links));
        }
        html.push_str(&query(self.query, links));
        html.push_str("</li>\n");
        html
    }

    fn course(&self, history: &History, limit: Option<f64>, links: &Links<'_>) -> String {
        let lacking = lacking(history).unwrap_or_default();
        if history.points.is_empty() && !lacking.is_empty() {
            return lacking;
        }
        let end = links.time_millis as f64 / 1000.0;
        let span = HISTORY.as_secs_f64();
        plot(&history.points, end, span, limit, self.unit) + &lacking
    }
}

/// A part must not look like the whole, nor what is not known like nothing.
fn lacking(history: &History) -> Option<String> {
    let reason = escape(history.lack.as_ref()?);
    Some(match history.points.is_empty() {
        true => format!("<p class=\"reason\">The last hour is not known: {reason}</p>\n"),
        false => format!("<p class=\"reason\">The plot may lack values: {reason}</p>\n"),
    })
}

/// The query, and where a person may go on with it.
fn query(query: &str, links: &Links<'_>) -> String {
    let mut html = format!(
        "<div class=\"further\"><details class=\"query\"><summary>Query</summary><pre><code>{}</code></pre></details>\n\
         <a href=\"{}\" rel=\"noopener noreferrer\">Prometheus</a>",
        escape(query),
        escape(&links.prometheus(query))
    );
    if let Some(grafana) = links.grafana(query) {
        let _ = write!(
            html,
            " <a href=\"{}\" rel=\"noopener noreferrer\">Grafana</a>",
            escape(&grafana)
        );
    }
    html.push_str("</div>\n");
    html
}

/// What a role means to a reader.
fn role_in_words(role: &str) -> &str {
    match role {
        "requires" => "has to be there",
        "supports" => "speaks for it",
        "contradicts" => "would speak against it",
        other => other,
    }
}

/// The evidence of all failure modes of a page.
pub(super) fn panel(live: &Live, links: &Links<'_>) -> String {
    let mut html = String::new();
    for mode in &live.modes {
        let verdict = match mode.outcome {
            "present" => "its signs are there",
            "absent" => "its signs are not there",
            _ => "could not be looked for",
        };
        let _ = writeln!(
            html,
            "<section class=\"mode {}\"><h3><a href=\"#{}\">{}</a></h3>\n<p class=\"verdict\">{verdict}</p>\n<ul>",
            mode.outcome,
            escape(&mode.anchor),
            escape(&mode.title)
        );
        for evidence in &mode.evidence {
            let role = evidence.role.to_string();
            html.push_str(&Row::of_live(evidence, &role).html(links));
        }
        html.push_str("</ul></section>\n");
    }
    html
}

/// What could not be had.
pub(super) fn degraded(parts: &[Part]) -> String {
    if parts.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<div class=\"degraded\" role=\"status\"><strong>Not everything could be had</strong><ul>\n",
    );
    for part in parts {
        let _ = writeln!(
            html,
            "<li>{}: {}</li>",
            escape(&part.part),
            escape(&part.reason)
        );
    }
    html.push_str("</ul></div>\n");
    html
}

/// Below a PromQL block in a page's text.
pub(super) fn block(block: &EvaluatedBlock, links: &Links<'_>) -> String {
    let outcome = block.outcome.as_str();
    let mut text = match (&block.reason, block.samples.is_empty()) {
        (Some(reason), true) => format!("<p>{}</p>\n", escape(reason)),
        (Some(reason), false) => {
            format!(
                "{}<p class=\"reason\">{}</p>\n",
                table(block),
                escape(reason)
            )
        }
        (None, true) => "<p>no series</p>\n".into(),
        (None, false) => table(block),
    };
    let has_values = block.reason.is_none() || !block.samples.is_empty();
    if let Some(about) = block.about.as_ref().filter(|_| has_values) {
        let _ = writeln!(text, "<p class=\"quiet\">of {}</p>", escape(about));
    }
    if let Some(threshold) = &block.threshold {
        let _ = writeln!(
            text,
            "<p class=\"quiet\">a sign if {}</p>",
            escape(threshold)
        );
    }
    let word = match (&block.threshold, outcome) {
        (None, "present") => "value",
        (_, outcome) => outcome,
    };
    let go_on = match block.query.as_str() {
        "" => String::new(),
        asked => query(asked, links),
    };
    format!(
        "<div class=\"live {}\"><span class=\"outcome\">{}</span>\n{text}{go_on}</div>\n",
        escape(outcome),
        escape(word)
    )
}

fn table(block: &EvaluatedBlock) -> String {
    let mut html = String::from("<ul class=\"series\">\n");
    for sample in block.samples.iter().take(MAX_SERIES) {
        let labels: Vec<String> = sample
            .labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let _ = writeln!(
            html,
            "<li><strong>{}</strong> <code>{}</code></li>",
            escape(&quantity(sample.value, None)),
            escape(&labels.join(", "))
        );
    }
    html.push_str("</ul>\n");
    if block.series > MAX_SERIES {
        let _ = writeln!(
            html,
            "<p class=\"quiet\">and {} more series</p>",
            block.series - MAX_SERIES
        );
    }
    html
}
