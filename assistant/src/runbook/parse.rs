//! A file → [`Runbook`]: front matter, title, sections. Total: any text gives a runbook and perhaps warnings.

use std::collections::HashSet;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::anchor::{Anchors, TOP};
use super::convert::{Sheet, convert};
use super::{Format, Runbook, Section, Warning, WarningKind};

mod comments;
mod front_matter;

pub(super) use comments::blanked;
use front_matter::{FrontMatter, Syntax};

/// The Markdown we read: here and where pages are rendered it must be the same, or anchors would differ.
pub fn markdown_options() -> Options {
    Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_GFM
        | Options::ENABLE_HEADING_ATTRIBUTES
}

/// Reads one file of Markdown.
pub fn parse(id: &str, path: &str, source: String) -> (Runbook, Vec<Warning>) {
    parse_as(Format::Markdown, id, path, source)
}

/// Reads one file. `id` is its path below the runbook folder without the extension, `path` what messages call it.
pub fn parse_as(format: Format, id: &str, path: &str, source: String) -> (Runbook, Vec<Warning>) {
    let mut warnings = Vec::new();
    let mut warn = |line, kind| {
        warnings.push(Warning {
            path: path.to_owned(),
            line,
            kind,
        });
    };

    let (front_matter, body_start) = split_front_matter(&source, &mut warn);
    let front_matter = front_matter
        .map(|(syntax, text)| FrontMatter::read(syntax, text, &mut warn))
        .unwrap_or_default();

    let first_line = 1 + source[..body_start].matches('\n').count();
    let sheet = convert(format, &source[body_start..], first_line);
    let body = match &sheet {
        Some(sheet) => sheet.text.as_str(),
        None => &source[body_start..],
    };
    let lines = Lines::new(body, first_line, sheet.as_ref());
    let headings = headings(body);
    let title = front_matter
        .title
        .or_else(|| {
            headings
                .iter()
                .find(|h| h.level == 1)
                .map(|h| h.text.clone())
        })
        .or_else(|| sheet.as_ref().and_then(|sheet| sheet.title.clone()))
        .or_else(|| headings.first().map(|h| h.text.clone()))
        .filter(|title| !title.is_empty())
        .unwrap_or_else(|| id.rsplit('/').next().unwrap_or(id).to_owned());
    let sections = sections(&blanked(body), &title, &headings, &lines);

    let mut failure_modes = Vec::new();
    for (line, mut mode) in front_matter.failure_modes {
        if mode.anchor.is_empty() {
            let first = sections
                .iter()
                .find(|section| section.level == 2)
                .or(sections.first());
            mode.anchor = first.map_or_else(String::new, |section| section.anchor.clone());
        } else if !headings.iter().any(|heading| heading.anchor == mode.anchor) {
            warn(
                line,
                WarningKind::FailureMode {
                    mode: mode.id.clone(),
                    reason: format!("no heading on this page has the anchor `{}`", mode.anchor),
                },
            );
        }
        failure_modes.push(mode);
    }

    let runbook = Runbook {
        id: id.to_owned(),
        title,
        path: path.to_owned(),
        alerts: front_matter.alerts,
        labels: front_matter.labels,
        sections,
        failure_modes,
        symptoms: front_matter.symptoms,
        forecasts: front_matter.forecasts,
        digest: digest(id, format, &source),
        format,
        source,
        body_start,
        sheet,
    };
    (runbook, warnings)
}

/// What stands between two `---` (YAML) or `+++` (TOML, as Hugo has it), if there is any, and where the Markdown begins.
fn split_front_matter<'a>(
    source: &'a str,
    warn: &mut impl FnMut(usize, WarningKind),
) -> (Option<(Syntax, &'a str)>, usize) {
    let start = source.strip_prefix('\u{feff}').map_or(0, |_| 3);
    let mut lines = source[start..].split_inclusive('\n');
    let first = lines.next().unwrap_or_default();
    let (syntax, ends, sign): (_, &[&str], _) = match first.trim_end() {
        "---" => (Syntax::Yaml, &["---", "..."], ':'),
        "+++" => (Syntax::Toml, &["+++"], '='),
        _ => return (None, start),
    };
    let text_start = start + first.len();
    let mut offset = text_start;
    for line in lines {
        let end = offset + line.len();
        if ends.contains(&line.trim_end()) {
            let text = &source[text_start..offset];
            return match text.trim().is_empty() || has_key(text, sign) {
                true => (Some((syntax, text)), end),
                // Text between two rules, which is as good as any other.
                false => (None, start),
            };
        }
        offset = end;
    }
    // A page may simply begin with a rule; only something that looks like a key is worth a word.
    let next = source[text_start..].lines().next();
    if next.is_some_and(|line| line.contains(sign)) {
        warn(1, WarningKind::FrontMatterOpen { end: ends[0] });
    }
    (None, start)
}

/// Whether any line looks like `key: value` or `key = value`, or it all like `{key: value}`.
fn has_key(text: &str, sign: char) -> bool {
    let is_key = |key: &str| !key.is_empty() && !key.contains(char::is_whitespace);
    text.trim_start().starts_with('{')
        || text.lines().any(|line| {
            line.split_once(sign).is_some_and(|(key, value)| {
                let ends =
                    sign == '=' || value.is_empty() || value.starts_with(char::is_whitespace);
                is_key(key.trim()) && ends
            })
        })
}

/// A heading wherever it stands; only those at the top level of the page begin a section.
struct Heading {
    level: u8,
    text: String,
    anchor: String,
    start: usize,
    end: usize,
    top_level: bool,
}

fn headings(body: &str) -> Vec<Heading> {
    let mut anchors = Anchors::default();
    let mut headings: Vec<Heading> = Vec::new();
    let mut open: Option<(Option<String>, String)> = None;
    let mut depth = 0_usize;
    for (event, range) in Parser::new_ext(body, markdown_options()).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { id, .. }) => {
                open = Some((id.map(|id| id.to_string()), String::new()));
            }
            Event::End(TagEnd::Heading(level)) => {
                let Some((id, text)) = open.take() else {
                    continue;
                };
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                headings.push(Heading {
                    level: level_number(level),
                    anchor: match id {
                        Some(id) if !id.trim().is_empty() => anchors.explicit(&id),
                        _ => anchors.next(&text),
                    },
                    text,
                    start: range.start,
                    end: range.end,
                    top_level: depth == 0,
                });
            }
            Event::Start(Tag::BlockQuote(_) | Tag::List(_) | Tag::FootnoteDefinition(_)) => {
                depth += 1;
            }
            Event::End(TagEnd::BlockQuote(_) | TagEnd::List(_) | TagEnd::FootnoteDefinition) => {
                depth = depth.saturating_sub(1);
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some((_, heading)) = &mut open {
                    heading.push_str(&text);
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some((_, heading)) = &mut open {
                    heading.push(' ');
                }
            }
            _ => {}
        }
    }
    headings
}

fn level_number(level: HeadingLevel) -> u8 {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 4,
        HeadingLevel::H5 => 5,
        HeadingLevel::H6 => 6,
    }
}

/// Anchors of all headings of the page in their order, for whoever renders it.
pub fn heading_anchors(runbook: &Runbook) -> Vec<String> {
    headings(runbook.body())
        .into_iter()
        .map(|heading| heading.anchor)
        .collect()
}

fn sections(source: &str, title: &str, headings: &[Heading], lines: &Lines) -> Vec<Section> {
    let top: Vec<&Heading> = headings.iter().filter(|h| h.top_level).collect();
    let mut sections = Vec::with_capacity(top.len() + 1);

    let preamble_end = top.first().map_or(source.len(), |heading| heading.start);
    let preamble = &source[..preamble_end];
    if !preamble.trim().is_empty() {
        let start = first_line_of_text(preamble);
        sections.push(Section {
            heading_path: vec![title.to_owned()],
            level: 0,
            anchor: own_anchor(headings),
            line_start: lines.of(start),
            line_end: lines.last(start, preamble_end, source),
            text_line: lines.of(start),
            lines: lines.between(start, preamble_end),
            text: unix_lines(preamble[start..].trim_end()),
        });
    }

    let mut path: Vec<(u8, String)> = Vec::new();
    for (index, heading) in top.iter().enumerate() {
        let end = top.get(index + 1).map_or(source.len(), |next| next.start);
        path.retain(|(level, _)| *level < heading.level);
        path.push((heading.level, heading.text.clone()));
        let text = &source[heading.end.min(end)..end];
        let first_line = first_line_of_text(text);
        let text_start = end - text.len() + first_line;
        sections.push(Section {
            heading_path: path.iter().map(|(_, text)| text.clone()).collect(),
            level: heading.level,
            anchor: heading.anchor.clone(),
            line_start: lines.of(heading.start),
            line_end: lines.last(heading.start, end, source),
            text_line: lines.of(text_start.min(source.len())),
            lines: lines.between(text_start, end),
            text: unix_lines(text[first_line..].trim_end()),
        });
    }
    sections
}

/// The anchor of the text before the first heading: it is ours, so it gives way to a heading's.
fn own_anchor(headings: &[Heading]) -> String {
    let taken: HashSet<&str> = headings
        .iter()
        .map(|heading| heading.anchor.as_str())
        .collect();
    let mut anchor = TOP.to_owned();
    let mut count = 0;
    while taken.contains(anchor.as_str()) {
        count += 1;
        anchor = format!("{TOP}-{count}");
    }
    anchor
}

/// Where the first line begins that is not blank. What it is indented by says whether it is code.
fn first_line_of_text(text: &str) -> usize {
    let blank = &text[..text.len() - text.trim_start().len()];
    blank.rfind('\n').map_or(0, |newline| newline + 1)
}

fn unix_lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// 128 bits of FNV-1a over all: enough that no two pages ever meet, and the same on every machine.
fn digest(id: &str, format: Format, source: &str) -> u128 {
    crate::hash::fnv(&[id.as_bytes(), &[0, format as u8], source.as_bytes()])
}

/// Byte offset of the body → line of the file.
struct Lines<'a> {
    starts: Vec<usize>,
    first: usize,
    /// Where the body's lines are not those of the file.
    sheet: Option<&'a Sheet>,
}

impl<'a> Lines<'a> {
    fn new(body: &str, first: usize, sheet: Option<&'a Sheet>) -> Self {
        let after_newlines = body.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            starts: std::iter::once(0).chain(after_newlines).collect(),
            first,
            sheet,
        }
    }

    /// Counted from 0.
    fn in_body(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset) - 1
    }

    fn of(&self, offset: usize) -> usize {
        let line = self.in_body(offset);
        match self.sheet.map(|sheet| sheet.lines.as_slice()) {
            None => self.first + line,
            Some([]) => self.first,
            Some(lines) => lines[line.min(lines.len() - 1)] as usize,
        }
    }

    /// The last line of `start..end` that is not blank.
    fn last(&self, start: usize, end: usize, source: &str) -> usize {
        let text = source[start..end].trim_end();
        self.of(start + text.len().saturating_sub(1))
    }

    fn between(&self, start: usize, end: usize) -> Vec<u32> {
        let Some(sheet) = self.sheet else {
            return Vec::new();
        };
        let lines = sheet.lines.get(self.in_body(start)..);
        let count = self.in_body(end.max(start)) + 1 - self.in_body(start);
        lines.map_or_else(Vec::new, |lines| lines[..count.min(lines.len())].to_vec())
    }
}

#[cfg(test)]
mod tests;
