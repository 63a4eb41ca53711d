//! Other formats → Markdown, so that sections, passages, anchors and pages are made in one way for all. Total and
//! linear: any text gives a page. Nothing is fetched or included from elsewhere.

use super::anchor::slug;
use super::format::Format;

mod asciidoc;
mod html;
mod inline;
mod mdx;
mod references;
mod rst;
mod spans;
mod text;

/// A page as Markdown, and where each of its lines stands in the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sheet {
    pub text: String,
    /// Counted from 1.
    pub lines: Vec<u32>,
    /// What the page calls itself outside of its text.
    pub title: Option<String>,
}

/// `None` for what is Markdown already. `first_line` is the number of the source's first line in its file.
pub(super) fn convert(format: Format, source: &str, first_line: usize) -> Option<Sheet> {
    let numbered: Vec<Line> = (first_line..)
        .zip(source.lines())
        .map(|(number, text)| Line { number, text })
        .collect();
    let mut sheet = Sheet::default();
    match format {
        Format::Markdown => return None,
        Format::ReStructuredText => rst::read(&numbered, &mut sheet),
        Format::AsciiDoc => asciidoc::read(&numbered, &mut sheet),
        Format::Html => html::read(source, first_line, &mut sheet),
        Format::Text => text::read(&numbered, &mut sheet),
        Format::Mdx => mdx::read(&numbered, &mut sheet),
    }
    Some(sheet)
}

#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl Line<'_> {
    fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }
}

impl Sheet {
    fn raw(&mut self, number: usize, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
        self.lines.push(u32::try_from(number).unwrap_or(u32::MAX));
    }

    /// At most one in a row.
    fn blank(&mut self, number: usize) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.raw(number, "");
        }
    }

    fn heading(&mut self, number: usize, level: usize, text: &str, anchor: Option<&str>) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            return;
        }
        self.blank(number);
        let marks = "#".repeat(level.clamp(1, 6));
        let is_plain = |anchor: &&str| {
            !anchor.is_empty()
                && anchor
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        let own = slug(&text);
        let anchor = match anchor.filter(is_plain) {
            Some(anchor) => format!(" {{#{anchor}}}"),
            // What stands in braces at the end would be taken for attributes; so would a closing mark for none.
            None if text.ends_with(['}', '#']) && !own.is_empty() => format!(" {{#{own}}}"),
            None => String::new(),
        };
        let text = without_tags(&text);
        self.raw(number, &format!("{marks} {text}{anchor}"));
        self.blank(number);
    }

    /// A line of text, in which nothing that begins a block in Markdown shall do so. List items stay what they are.
    fn prose(&mut self, number: usize, text: &str) {
        let text = text.trim_end();
        let trimmed = text.trim_start();
        if trimmed.is_empty() {
            return self.blank(number);
        }
        let indent = if is_item(trimmed) && trimmed.len() < text.len() {
            "  "
        } else {
            ""
        };
        let is_rule = trimmed.len() > 1 && trimmed.chars().all(|c| "=-_*".contains(c));
        let begins_block = is_rule
            || trimmed.starts_with(['#', '>', '|'])
            || trimmed.starts_with("```")
            || trimmed.starts_with("~~~")
            || (trimmed.starts_with('[') && trimmed.contains("]:"));
        let escape = if begins_block { "\\" } else { "" };
        let text = without_tags(trimmed);
        self.raw(number, &format!("{indent}{escape}{text}"));
    }

    /// Lines as they are, without what they are indented by.
    fn code(&mut self, language: &str, lines: &[Line]) {
        let is_text = |line: &Line| !line.is_blank();
        let (Some(first), Some(last)) = (
            lines.iter().position(is_text),
            lines.iter().rposition(is_text),
        ) else {
            return;
        };
        let lines = &lines[first..=last];
        let indent = lines
            .iter()
            .filter(|line| !line.is_blank())
            .map(Line::indent);
        let indent = indent.min().unwrap_or_default();
        let longest_run = lines
            .iter()
            .map(|line| longest_run_of_backticks(line.text))
            .max()
            .unwrap_or_default();
        let fence = "`".repeat((longest_run + 1).max(3));
        let language: String = language
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "+-_".contains(*c))
            .collect();
        self.blank(lines[0].number);
        self.raw(lines[0].number, &format!("{fence}{language}"));
        for line in lines {
            // White space of several bytes may end elsewhere.
            let text = match line.is_blank() {
                true => "",
                false => line.text.get(indent..).unwrap_or(line.text.trim_start()),
            };
            self.raw(line.number, text.trim_end());
        }
        self.raw(lines[lines.len() - 1].number, &fence);
        self.blank(lines[lines.len() - 1].number);
    }

    /// The first row is the head, which has as many cells as the longest; Markdown fills up the others.
    fn table(&mut self, rows: &[(usize, Vec<String>)]) {
        let columns = rows.iter().map(|(_, cells)| cells.len()).max();
        let Some(columns) = columns.filter(|columns| *columns > 0) else {
            return;
        };
        self.blank(rows[0].0);
        for (at, (number, cells)) in rows.iter().enumerate() {
            let mut row = String::from("|");
            let filled = cells.iter().rposition(|cell| !cell.is_empty());
            let width = match at {
                0 => columns,
                _ => filled.map_or(1, |last| last + 1),
            };
            let empty = std::iter::repeat("");
            for cell in cells.iter().map(String::as_str).chain(empty).take(width) {
                let words: Vec<&str> = cell.split_whitespace().collect();
                let words = without_tags(&words.join(" "));
                row.push_str(&format!(" {} |", words.replace('|', "\\|")));
            }
            self.raw(*number, &row);
            if at == 0 {
                self.raw(*number, &format!("|{}", " --- |".repeat(columns)));
            }
        }
        self.blank(rows[rows.len() - 1].0);
    }

    /// «Note», «Warning» in front of what follows.
    fn admonition(&mut self, number: usize, kind: &str, text: &str) {
        self.blank(number);
        let mut letters = kind.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        let label: String = first.into_iter().chain(letters).collect();
        let text = without_tags(text);
        self.raw(number, format!("**{label}:** {text}").trim_end());
    }
}

/// A `<` that Markdown would take for the begin of a tag is text in every other format, and a tag is not shown: of
/// `rm -rf <mount>/tmp` the rest would be another command. In code it is text already.
fn without_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Where code is open that may never end, and how many backticks end it.
    let mut code: Option<(usize, usize)> = None;
    while let Some(at) = rest.find(['`', '<']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let run = rest.len() - rest.trim_start_matches('`').len();
        if run > 0 {
            code = match code {
                None => Some((out.len(), run)),
                Some((_, open)) if open == run => None,
                still => still,
            };
            out.push_str(&rest[..run]);
            rest = &rest[run..];
            continue;
        }
        if code.is_none() {
            escape_tag(rest, &mut out);
        }
        out.push('<');
        rest = &rest[1..];
    }
    out.push_str(rest);
    let Some((start, _)) = code else { return out };
    // It never ended, and is no code.
    let tail = out.split_off(start);
    let mut rest = tail.as_str();
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        escape_tag(&rest[at..], &mut out);
        out.push('<');
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out
}

/// A backslash, and one more where the text has one itself.
fn escape_tag(from: &str, out: &mut String) {
    let begins = |c: char| c.is_ascii_alphabetic() || "/!?".contains(c);
    if from[1..].starts_with(begins) {
        let before = out.len() - out.trim_end_matches('\\').len();
        out.push_str(if before % 2 == 1 { "\\\\" } else { "\\" });
    }
}

fn is_item(text: &str) -> bool {
    let bullet = ["- ", "* ", "+ "].iter().any(|mark| text.starts_with(mark));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &text[digits..];
    bullet || ((1..=9).contains(&digits) && (rest.starts_with(". ") || rest.starts_with(") ")))
}

fn longest_run_of_backticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
