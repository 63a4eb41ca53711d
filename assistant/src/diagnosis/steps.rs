//! What to do next: the list items of a runbook's mitigation and diagnosis sections, each with its citation; pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::runbook::{FailureMode, Runbook, Section};

const MITIGATION: [&str; 5] = ["mitigation", "remedy", "fix", "what to do", "resolution"];
const DIAGNOSIS: [&str; 4] = ["diagnosis", "confirm", "how to confirm", "investigation"];
const MAX_MITIGATIONS: usize = 4;
const MAX_DIAGNOSES: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    pub text: String,
    pub citation: String,
}

/// First what confirms the cause, then what removes it.
pub(super) fn next_steps(runbook: &Runbook, mode: &FailureMode) -> Vec<Step> {
    let mut steps = from_sections(runbook, mode, &DIAGNOSIS, MAX_DIAGNOSES);
    steps.extend(from_sections(runbook, mode, &MITIGATION, MAX_MITIGATIONS));
    steps
}

fn from_sections(
    runbook: &Runbook,
    mode: &FailureMode,
    headings: &[&str],
    limit: usize,
) -> Vec<Step> {
    let named = |section: &&Section| {
        section.heading_path.iter().skip(1).any(|heading| {
            let heading = heading.to_lowercase();
            headings.iter().any(|name| heading.starts_with(name))
        })
    };
    // On a page about several modes, a section below the mode's own heading is about this one.
    let own = runbook.section(&mode.anchor);
    let below = |section: &&Section| {
        own.is_some_and(|own| section.heading_path.starts_with(&own.heading_path))
    };
    let mut sections: Vec<&Section> = Vec::new();
    if runbook.failure_modes.len() > 1 {
        sections.extend(runbook.sections.iter().filter(named).filter(below));
    }
    if sections.is_empty() {
        sections.extend(runbook.sections.iter().filter(named));
    }
    sections
        .into_iter()
        .flat_map(|section| {
            // By id, not by where the folder happens to lie on this machine.
            let citation = format!("runbooks/{}.md#{}", runbook.id, section.anchor);
            items(&section.text).into_iter().map(move |text| Step {
                text,
                citation: citation.clone(),
            })
        })
        .take(limit)
        .collect()
}

/// The outermost list items of a Markdown text, code blocks left out.
fn items(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut fence = false;
    let mut open = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fence = !fence;
            open = false;
            continue;
        }
        if fence {
            continue;
        }
        let indented = line.len() - trimmed.len() >= 2;
        match item_text(trimmed) {
            Some(item) if !indented => {
                items.push(item.trim().to_owned());
                open = true;
            }
            Some(_) => open = false,
            None if trimmed.is_empty() || (!indented && begins_block(trimmed)) => open = false,
            // A long item goes on in the next line, whether that is indented or not.
            None => {
                if let Some(last) = items.last_mut().filter(|_| open) {
                    last.push(' ');
                    last.push_str(trimmed.trim_end());
                }
            }
        }
    }
    items
}

/// What ends an item without a blank line before it.
fn begins_block(line: &str) -> bool {
    line.starts_with(['#', '>', '|', '<']) || line.starts_with("---") || line.starts_with("***")
}

fn item_text(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")) {
        return Some(rest);
    }
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &line[digits..];
    (digits > 0)
        .then(|| rest.strip_prefix(". ").or_else(|| rest.strip_prefix(") ")))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outermost_items_are_steps() {
        let text = "Intro.\n\n1. Look at the queue. For a socket\n   `Recv-Q` is its length:\n\n   ```sh\n   - not this\n   ```\n   and not this\n2. Then stop.\n   - inner\n* Last,\nunless it is Friday\n> no step\n\nEnd.";
        assert_eq!(
            items(text),
            [
                "Look at the queue. For a socket `Recv-Q` is its length:",
                "Then stop.",
                "Last, unless it is Friday"
            ]
        );
    }
}
