//! `search TEXT`: the passages that answer, for a person in a terminal or as JSON. Exit code 0: found, 1: nothing is about it.

use std::collections::HashSet;
use std::process::ExitCode;

use clap::Args;

use super::{colours, print};
use crate::config::{Config, ConfigError, Settings};
use crate::retrieval::words::words;
use crate::retrieval::{Filters, Retriever, SearchResponse, SearchResult};

#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// A sentence, an alert's name, or a line from a log
    text: String,

    /// Print the answer as `POST /search` gives it
    #[arg(long)]
    json: bool,

    /// How many passages
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,

    #[command(flatten)]
    pub(super) settings: Settings,
}

/// Lines shown of one passage; the reference says where the rest is.
const LINES_SHOWN: usize = 12;

/// Without a terminal that says how wide it is.
const WIDTH: usize = 100;

/// Shorter words are in every line.
const LEAST_HIGHLIGHTED: usize = 4;

pub(super) fn run(args: &SearchArgs, config: &Config) -> anyhow::Result<ExitCode> {
    if args.text.trim().is_empty() {
        return Err(ConfigError::value(
            "TEXT",
            "is empty; give a sentence, an alert's name or an error line",
        )
        .into());
    }
    let retriever = Retriever::open(config)?;
    retriever.refresh()?;
    let response = retriever.search(&args.text, usize::from(args.limit), &Filters::default())?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&response)? + "\n",
        false => readable(&response, &Style::of_stdout()),
    };
    print(&text)?;
    Ok(if response.answerable {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Escape codes, or nothing where they would end up in a file.
struct Style {
    bold: &'static str,
    faint: &'static str,
    found: &'static str,
    plain: &'static str,
    width: usize,
}

impl Style {
    fn of_stdout() -> Self {
        let columns = std::env::var("COLUMNS").ok();
        let width = columns.and_then(|columns| columns.parse().ok());
        Self {
            width: width.unwrap_or(WIDTH).clamp(40, 200),
            ..if colours::wanted() {
                Self::COLOURED
            } else {
                Self::PLAIN
            }
        }
    }

    const COLOURED: Self = Self {
        bold: "\x1b[1m",
        faint: "\x1b[2m",
        found: "\x1b[1;33m",
        plain: "\x1b[0m",
        width: WIDTH,
    };
    const PLAIN: Self = Self {
        bold: "",
        faint: "",
        found: "",
        plain: "",
        width: WIDTH,
    };
}

fn readable(response: &SearchResponse, style: &Style) -> String {
    let mut text = String::new();
    if !response.answerable {
        text.push_str("Nothing in the runbooks is about that.");
        text.push_str(if response.results.is_empty() {
            "\n"
        } else {
            " The nearest passages:\n\n"
        });
    }
    let asked: HashSet<String> = words(&response.query)
        .into_iter()
        .filter(|word| word.chars().count() >= LEAST_HIGHLIGHTED)
        .collect();
    for result in &response.results {
        text.push_str(&one(result, &asked, style));
    }
    text
}

fn one(result: &SearchResult, asked: &HashSet<String>, style: &Style) -> String {
    let Style {
        bold, faint, plain, ..
    } = style;
    let section = &result.section;
    let lines = match section.line_end {
        end if end == section.line_start => end.to_string(),
        end => format!("{}-{end}", section.line_start),
    };
    let mut headings = vec![result.runbook.title.as_str()];
    headings.extend(section.heading_path.iter().map(String::as_str));
    headings.dedup();
    let mut text = format!(
        "{bold}{}. {}{plain}\n   {faint}{}:{lines}  score {:.2}{plain}\n",
        result.rank,
        shown(&headings.join(" > ")),
        shown(&result.runbook.path),
        result.score,
    );
    let mut rows: Vec<String> = Vec::new();
    for line in result.text.lines() {
        rows.extend(wrap(&shown(line), style.width - 3));
    }
    for row in rows.iter().take(LINES_SHOWN) {
        text.push_str(format!("   {}", highlight(row, asked, style)).trim_end());
        text.push('\n');
    }
    if rows.len() > LINES_SHOWN {
        let more = rows.len() - LINES_SHOWN;
        text.push_str(&format!("   {faint}… {more} more lines{plain}\n"));
    }
    text.push('\n');
    text
}

/// A page must not be able to drive the terminal.
fn shown(text: &str) -> String {
    let text = text.replace('\t', "    ");
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Lines of at most so many characters, cut at spaces where there are some; the rest is indented like the first.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let indent_bytes = line.len() - line.trim_start().len();
    let indent = &line[..line.floor_char_boundary(indent_bytes.min(width / 2))];
    let mut rows = Vec::new();
    let mut rest = line.to_owned();
    while let Some((at, _)) = rest.char_indices().nth(width) {
        let space = rest[..at].rfind(' ').filter(|space| *space > indent.len());
        let cut = space.unwrap_or(at);
        rows.push(rest[..cut].to_owned());
        rest = format!("{indent}{}", rest[cut..].trim_start());
    }
    rows.push(rest);
    rows
}

/// The words of the question, also as parts of names.
fn highlight(row: &str, asked: &HashSet<String>, style: &Style) -> String {
    if style.found.is_empty() {
        return row.to_owned();
    }
    let mut text = String::new();
    let mut rest = row;
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric()) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| !c.is_alphanumeric());
        let (word, after) = from.split_at(end.unwrap_or(from.len()));
        text.push_str(before);
        if words(word).iter().any(|part| asked.contains(part)) {
            text.push_str(&format!("{}{word}{}", style.found, style.plain));
        } else {
            text.push_str(word);
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::retrieval::{RunbookReference, SectionReference};

    fn response(query: &str, text: &str) -> SearchResponse {
        let runbook = RunbookReference {
            id: "dns".into(),
            title: "DNS".into(),
            path: "runbooks/dns.md".into(),
            url: "/runbooks/dns".into(),
        };
        let section = SectionReference {
            heading_path: vec!["DNS".into(), "Diagnosis\u{1b}[2J".into()],
            anchor: "diagnosis".into(),
            line_start: 3,
            line_end: 9,
        };
        SearchResponse {
            query: query.into(),
            answerable: true,
            results: vec![SearchResult {
                rank: 1,
                score: 0.5,
                runbook,
                section,
                text: text.into(),
            }],
        }
    }

    fn check(query: &str, text: &str, style: &Style, expected: &Expect) {
        let shown = readable(&response(query, text), style);
        expected.assert_eq(&shown.replace('\u{1b}', "ESC"));
    }

    #[test]
    fn a_result_is_readable_and_cannot_drive_the_terminal() {
        let narrow = Style {
            width: 40,
            ..Style::PLAIN
        };
        let text = "The resolver answers SERVFAIL to every name.\n    dig\tx \u{1b}[31m@10.0.0.10";
        check(
            "resolver",
            text,
            &narrow,
            &expect![[r#"
                1. DNS > Diagnosis[2J
                   runbooks/dns.md:3-9  score 0.50
                   The resolver answers SERVFAIL to
                   every name.
                       dig    x [31m@10.0.0.10

            "#]],
        );
    }

    #[test]
    fn words_of_the_question_stand_out_in_colour_only() {
        let text = "The resolver of CoreDNSErrorsHigh, and the rest";
        check(
            "the resolver errors",
            text,
            &Style::COLOURED,
            &expect![[r#"
                ESC[1m1. DNS > Diagnosis[2JESC[0m
                   ESC[2mrunbooks/dns.md:3-9  score 0.50ESC[0m
                   The ESC[1;33mresolverESC[0m of ESC[1;33mCoreDNSErrorsHighESC[0m, and the rest

            "#]],
        );
    }

    #[test]
    fn long_passages_are_cut_and_long_words_too() {
        let shown = readable(&response("x", &"y".repeat(40 * 120)), &Style::PLAIN);
        assert!(shown.ends_with("… 38 more lines\n\n"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH));
    }
}
