//! Every case of a run, a line each.

use std::fmt::Write;

use crate::case::Case;
use crate::scenario::Status;
use crate::score::{Place, Score};

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

pub(crate) fn verdict(case: &Case) -> String {
    if !case.counts() {
        return "no impact on the client: not scored".to_owned();
    }
    if case.is_right() {
        return "right".to_owned();
    }
    let mut wrong = Vec::new();
    if !case.before.right {
        wrong.push(format!(
            "before the fault: {}{}",
            case.before.got,
            elsewhere(&case.before)
        ));
    }
    if !case.after.right {
        let missing = missing(case);
        wrong.push(match case.after.place {
            _ if !missing.is_empty() => format!(
                "no {} in its place among the first {}",
                missing.join(", no "),
                case.expected.top
            ),
            Place::Wrong => format!("{} at the wrong place", case.after.got),
            Place::Exact | Place::Partial | Place::NotJudged => {
                format!("{}{}", case.after.got, elsewhere(&case.after))
            }
        });
    }
    if case.false_alarms > 0 && case.after.right {
        wrong.push(format!(
            "{} of {} answers a false alarm",
            case.false_alarms, case.questions
        ));
    }
    if !case.repeatable {
        wrong.push("the same question gave other bytes".to_owned());
    }
    format!("WRONG: {}", wrong.join("; "))
}

/// How long a fault that was undone was told.
pub(crate) fn mended(case: &Case) -> String {
    match case.mended.as_ref().map(|mended| mended.seconds_told) {
        None => String::new(),
        Some(Some(seconds)) => format!("; told for {seconds:.1} s after it was mended"),
        Some(None) => "; told to the last after it was mended".to_owned(),
    }
}

/// Of several faults, those that the answer lacks.
fn missing(case: &Case) -> Vec<&str> {
    let found = case.expected.also.iter().zip(&case.after.also);
    found
        .filter(|(_, found)| !found.is_within(case.expected.top))
        .map(|(fault, _)| fault.failure_mode.as_str())
        .collect()
}

/// On a machine that others use, what they break is seen as well.
fn elsewhere(score: &Score) -> String {
    if score.elsewhere.is_empty() {
        return String::new();
    }
    format!(" (outside this lab: {})", score.elsewhere.join(", "))
}

pub(crate) fn render(cases: &[Case]) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    for case in cases {
        let expected = match (case.expected.status, &case.expected.failure_mode) {
            (Status::Fault, Some(mode)) => {
                case.expected.also.iter().fold(mode.clone(), |text, fault| {
                    format!("{text} + {}", fault.failure_mode)
                })
            }
            (status, _) => status.to_string(),
        };
        rows.push([
            case.scenario.clone(),
            case.seed.to_string(),
            case.family.clone(),
            expected,
            case.after.got.clone(),
            case.after
                .confidence
                .map_or("-".to_owned(), |value| format!("{value:.2}")),
            case.after
                .rank
                .map_or("-".to_owned(), |rank| rank.to_string()),
            case.seconds_to_answer
                .map_or("-".to_owned(), |seconds| format!("{seconds:.1}")),
            verdict(case),
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
