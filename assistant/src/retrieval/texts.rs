//! What the indexes see of a page: its words, and what of it is embedded. Pure.

use super::words::humps;
use crate::runbook::{Passage, Runbook};

/// Of a page's first sentences, as many characters say what it is about.
const INTRO_CHARACTERS: usize = 400;

/// What BM25 sees of a passage: the text under its headings, and the names it answers to.
pub(super) fn words(runbook: &Runbook, passage: &Passage) -> String {
    let mut text = passage.with_breadcrumb(runbook);
    let anchor = &runbook.sections[passage.section].anchor;
    for mode in runbook
        .failure_modes
        .iter()
        .filter(|mode| mode.anchor == *anchor)
    {
        for part in [&mode.id, &mode.title, &mode.summary] {
            text.push('\n');
            text.push_str(part);
        }
    }
    for alert in &runbook.alerts {
        text.push('\n');
        text.push_str(alert);
    }
    text
}

/// What BM25 sees of a whole page.
pub(super) fn page(runbook: &Runbook) -> String {
    format!("{}\n{}", title(runbook), runbook.visible())
}

/// The page's title, its file's name and what it says it is for.
pub(super) fn title(runbook: &Runbook) -> String {
    let mut text = runbook.title.clone();
    let stem = runbook.id.rsplit('/').next().unwrap_or(&runbook.id);
    let names = std::iter::once(stem)
        .chain(runbook.alerts.iter().map(String::as_str))
        .chain(runbook.failure_modes.iter().map(|mode| mode.title.as_str()));
    for name in names {
        if !text.contains(name) {
            text.push('\n');
            text.push_str(name);
        }
    }
    text
}

/// Title, taken apart, and the first sentences: where a runbook says its symptom.
pub(super) fn intro(runbook: &Runbook) -> String {
    let title: Vec<String> = runbook
        .title
        .split_whitespace()
        .map(|word| humps(word).join(" "))
        .collect();
    let mut intro = format!("{}. ", title.join(" "));
    for mode in &runbook.failure_modes {
        intro.push_str(&mode.summary);
        intro.push(' ');
    }
    let mut room = INTRO_CHARACTERS;
    for section in &runbook.sections {
        let mut in_code = false;
        for line in section.text.lines() {
            let line = line.trim();
            if line.starts_with("```") || line.starts_with("~~~") {
                in_code = !in_code;
                continue;
            }
            if in_code || line.is_empty() || is_markup(line) {
                continue;
            }
            let line: String = line.chars().take(room).collect();
            room -= line.chars().count();
            intro.push_str(&line);
            intro.push(' ');
            if room == 0 {
                return intro;
            }
        }
    }
    intro
}

/// Tables, tags, admonitions' marks, and what MDX imports.
fn is_markup(line: &str) -> bool {
    line.starts_with(['|', '<', '{'])
        || line.starts_with(":::")
        || (line.starts_with("import ") && line.contains(" from "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::parse;

    #[test]
    fn a_page_is_about_its_first_sentences_and_not_its_licence() {
        let source = "---\ntitle: Net tick time\n---\n<!--\nCopyright (c) A. Licensed under B.\n\nNo warranty.\n-->\n\nimport Tabs from '@theme/Tabs';\n\n# Net tick time\n\n:::tip\nNodes tick.\n:::\n\n```\nset\n```\n";
        let (page, _) = parse::parse("a", "a.md", source.to_owned());
        assert_eq!(intro(&page), "Net tick time. Nodes tick. ");
        assert!(!super::page(&page).contains("warranty"));
        assert!(
            page.sections
                .iter()
                .all(|section| !section.text.contains("warranty"))
        );
    }
}
