//! What can be wrong between runbooks: names used twice, links that lead nowhere. Pure.

use std::collections::HashMap;

use pulldown_cmark::{Event, Parser, Tag};

use super::anchor::{TOP, decoded, page_of_link};
use super::parse::{heading_anchors, markdown_options};
use super::{Library, Runbook, Warning, WarningKind};

/// Findings of all pages together; those of single files are in [`Library::warnings`].
pub fn lint(library: &Library) -> Vec<Warning> {
    let mut findings = Vec::new();
    let anchors: HashMap<&str, Vec<String>> = library
        .runbooks
        .iter()
        .map(|runbook| (runbook.id.as_str(), heading_anchors(runbook)))
        .collect();
    let mut alerts: HashMap<&str, &str> = HashMap::new();
    for runbook in &library.runbooks {
        for alert in &runbook.alerts {
            if let Some(first) = alerts.insert(alert, &runbook.path) {
                findings.push(Warning {
                    path: runbook.path.clone(),
                    line: line_of(runbook, alert),
                    kind: WarningKind::DuplicateAlert {
                        alert: alert.clone(),
                        first: first.to_owned(),
                    },
                });
            }
        }
        for (offset, target) in links(runbook) {
            if let Some(reason) = problem(runbook, &target, &anchors) {
                findings.push(Warning {
                    path: runbook.path.clone(),
                    line: runbook.line_at(offset),
                    kind: WarningKind::DeadLink { target, reason },
                });
            }
        }
    }
    findings.sort();
    findings
}

fn links(runbook: &Runbook) -> Vec<(usize, String)> {
    Parser::new_ext(runbook.body(), markdown_options())
        .into_offset_iter()
        .filter_map(|(event, range)| match event {
            Event::Start(Tag::Link { dest_url, .. }) => Some((range.start, dest_url.into_string())),
            _ => None,
        })
        .collect()
}

fn problem(
    runbook: &Runbook,
    target: &str,
    anchors: &HashMap<&str, Vec<String>>,
) -> Option<String> {
    let (id, anchor) = match target.strip_prefix('#') {
        Some(anchor) => (runbook.id.clone(), anchor.to_owned()),
        None => {
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if is_elsewhere || target.starts_with('/') {
                return None;
            }
            let (id, anchor) = page_of_link(&runbook.id, target)?;
            (id, anchor.trim_start_matches('#').to_owned())
        }
    };
    let Some(of_page) = anchors.get(id.as_str()) else {
        return Some(format!("there is no runbook `{id}`"));
    };
    let anchor = decoded(&anchor);
    let exists = anchor.is_empty() || anchor == TOP || of_page.contains(&anchor);
    (!exists).then(|| format!("`{id}` has no heading with the anchor `{anchor}`"))
}

/// Where a text stands first; line 1 if nowhere.
pub fn line_of(runbook: &Runbook, text: &str) -> usize {
    let at = runbook.source.find(text).unwrap_or_default();
    1 + runbook.source[..at].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::runbook::parse;

    #[test]
    fn dead_links_and_double_alerts_are_found_with_their_lines() {
        let pages = [
            (
                "a",
                "---\nalerts: [X]\n---\n# A\n\n[ok](b.md#part) [ok](b.md#gr%C3%B6%C3%9Fe) [ok](#a) [out](https://x)\n[no](c.md)\n",
            ),
            (
                "b",
                "---\nalerts:\n  - X\n---\n# B\n## Part\n[no](a.md#nowhere)\n[no](#gone)\n## Größe\n",
            ),
        ];
        let runbooks = pages
            .iter()
            .map(|(id, text)| Arc::new(parse(id, &format!("{id}.md"), (*text).to_owned()).0))
            .collect();
        let library = Library {
            runbooks,
            warnings: Vec::new(),
        };
        let findings: Vec<String> = lint(&library).iter().map(ToString::to_string).collect();
        assert_eq!(
            findings,
            [
                "a.md:7: link to `c.md` leads nowhere: there is no runbook `c`",
                "b.md:3: alert `X` already belongs to a.md",
                "b.md:7: link to `a.md#nowhere` leads nowhere: `a` has no heading with the anchor `nowhere`",
                "b.md:8: link to `#gone` leads nowhere: `b` has no heading with the anchor `gone`",
            ]
        );
    }
}
