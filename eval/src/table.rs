//! Results as text.

use std::fmt::Write;

use crate::case::Report;
use crate::scenario::Status;
use crate::score::{Place, Score, Totals};

const HEADER: [&str; 9] = [
    "scenario",
    "seed",
    "family",
    "expected",
    "got",
    "confidence",
    "rank",
    "seconds",
    "result",
];

pub(crate) fn verdict(report: &Report) -> String {
    if !report.counts() {
        return "no impact on the client: not scored".to_owned();
    }
    if report.is_right() {
        return "right".to_owned();
    }
    let mut wrong = Vec::new();
    if !report.before.right {
        wrong.push(format!(
            "before the fault: {}{}",
            report.before.got,
            elsewhere(&report.before)
        ));
    }
    if !report.after.right {
        wrong.push(match report.after.place {
            Place::Wrong => format!("{} at the wrong place", report.after.got),
            Place::Exact | Place::Partial | Place::NotJudged => {
                format!("{}{}", report.after.got, elsewhere(&report.after))
            }
        });
    }
    if report.false_alarms > 0 && report.after.right {
        wrong.push(format!(
            "{} of {} answers a false alarm",
            report.false_alarms, report.questions
        ));
    }
    if !report.repeatable {
        wrong.push("the same question gave other bytes".to_owned());
    }
    format!("WRONG: {}", wrong.join("; "))
}

/// On a machine that others use, what they break is seen as well.
fn elsewhere(score: &Score) -> String {
    if score.elsewhere.is_empty() {
        return String::new();
    }
    format!(" (outside this lab: {})", score.elsewhere.join(", "))
}

pub(crate) fn render(reports: &[Report]) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    for report in reports {
        let expected = match (report.expected.status, &report.expected.failure_mode) {
            (Status::Fault, Some(mode)) => mode.clone(),
            (status, _) => status.to_string(),
        };
        rows.push([
            report.scenario.clone(),
            report.seed.to_string(),
            report.family.clone(),
            expected,
            report.after.got.clone(),
            report
                .after
                .confidence
                .map_or("-".to_owned(), |value| format!("{value:.2}")),
            report
                .after
                .rank
                .map_or("-".to_owned(), |rank| rank.to_string()),
            report
                .seconds_to_answer
                .map_or("-".to_owned(), |seconds| format!("{seconds:.1}")),
            verdict(report),
        ]);
    }
    let mut widths = [0; HEADER.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(crate) fn totals(reports: &[Report], totals: &Totals, failures: usize) -> String {
    let mut times: Vec<f64> = reports
        .iter()
        .filter(|report| report.expected.status == Status::Fault)
        .filter_map(|report| report.seconds_to_answer)
        .collect();
    times.sort_by(f64::total_cmp);
    let percent = |part: usize, whole: usize| (100 * part).checked_div(whole).unwrap_or(0);
    let Totals {
        faults,
        top_1,
        top_3,
        healthy,
        false_alarms,
    } = *totals;
    let mut text = format!(
        "faults: {faults}; first {top_1} ({} %), among the first three {top_3} ({} %)\n\
         healthy: {healthy}; false alarms {false_alarms} ({} %)\n",
        percent(top_1, faults),
        percent(top_3, faults),
        percent(false_alarms, healthy)
    );
    if let (Some(median), Some(last)) = (times.get(times.len() / 2), times.last()) {
        let _ = writeln!(
            text,
            "seconds from fault to right answer: median {median:.1}, longest {last:.1}"
        );
    }
    let silent = reports.iter().filter(|report| !report.counts()).count();
    if silent > 0 {
        let _ = writeln!(
            text,
            "not scored, because the client noticed nothing: {silent}"
        );
    }
    if failures > 0 {
        let _ = writeln!(text, "could not run: {failures}");
    }
    text
}
