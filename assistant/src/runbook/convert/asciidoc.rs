//! AsciiDoc: headings, delimited blocks, admonitions, tables, lists.

use std::borrow::Cow;
use std::collections::HashMap;

use super::inline::of_asciidoc;
use super::spans::{Cell, Grid, MAX_COLUMNS};
use super::{Line, Sheet, is_item, without_tags};

const MAX_COPIED_BYTES: usize = 1000;

const ADMONITIONS: &[&str] = &["NOTE", "TIP", "IMPORTANT", "WARNING", "CAUTION"];

/// Names of values are looked for in so many bytes.
const MAX_NAME: usize = 64;
/// Longer values are none of a name, an address or a version.
const MAX_VALUE: usize = 200;
/// Bytes of values that one page takes in: without an end a short one could become a long one.
const MAX_TAKEN_IN: usize = 1 << 20;

pub(super) fn read(lines: &[Line], sheet: &mut Sheet) {
    let mut reader = Reader {
        sheet,
        attributes: Vec::new(),
        anchor: None,
        values: HashMap::new(),
        room: MAX_TAKEN_IN,
    };
    let mut at = 0;
    while at < lines.len() {
        at += reader.block(&lines[at..]);
    }
}

struct Reader<'a> {
    sheet: &'a mut Sheet,
    /// `[source,bash]` above a block.
    attributes: Vec<String>,
    /// `[[name]]` or `[#name]` above a heading.
    anchor: Option<String>,
    /// `:name: value`; in text `{name}` stands for it.
    values: HashMap<String, String>,
    /// Of [`MAX_TAKEN_IN`], what is left.
    room: usize,
}

impl Reader<'_> {
    /// Reads what begins here and says of how many lines it was.
    fn block(&mut self, rest: &[Line]) -> usize {
        let line = rest[0];
        let text = line.text.trim_end();
        if text.is_empty() {
            self.sheet.blank(line.number);
            return 1;
        }
        if let Some(level) = heading_level(text) {
            let title = text[level..].trim();
            let title = self.resolved(title.trim_end_matches('=').trim_end());
            let title = of_asciidoc(&title);
            let anchor = self.anchor.take();
            self.sheet
                .heading(line.number, level, &title, anchor.as_deref());
            self.attributes.clear();
            return 1;
        }
        if let Some(inside) = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            && self.attribute_line(inside)
        {
            return 1;
        }
        if let Some(taken) = self.delimited(rest, text) {
            self.attributes.clear();
            return taken;
        }
        if let Some(taken) = self.underlined(rest, text) {
            return taken;
        }
        if let Some((name, value)) = attribute_entry(text) {
            self.define(name, value);
            return 1;
        }
        if is_condition(text) || is_comment(text) {
            return 1;
        }
        if text == "+" {
            self.sheet.blank(line.number);
            return 1;
        }
        // `[source]` may also stand above lines without delimiters, which end at a blank one.
        if self.is_code() {
            let taken = rest.iter().take_while(|line| !line.is_blank()).count();
            self.code(&rest[..taken]);
            self.attributes.clear();
            return taken;
        }
        self.attributes.clear();
        let text = self.resolved(line.text);
        self.text(line.number, &text);
        1
    }

    /// `:name!:` takes a value back.
    fn define(&mut self, name: &str, value: &str) {
        let value = self.resolved(value.trim()).into_owned();
        let plain = name.trim_matches('!').to_lowercase();
        if plain.len() < name.len() {
            self.values.remove(&plain);
        } else if !value.is_empty() && value.len() <= MAX_VALUE {
            self.values.insert(plain, value);
        }
    }

    /// With the values in the place of their names. What nobody defined here stays as it is.
    fn resolved<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        if self.values.is_empty() || !text.contains('{') {
            return text.into();
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let end = from.bytes().take(MAX_NAME).position(|byte| byte == b'}');
            let value = end.and_then(|end| self.values.get(&from[1..end].to_lowercase()));
            match (end, value) {
                (Some(end), Some(value)) if value.len() <= self.room => {
                    self.room -= value.len();
                    out.push_str(value);
                    rest = &from[end + 1..];
                }
                _ => {
                    out.push('{');
                    rest = &from[1..];
                }
            }
        }
        out.push_str(rest);
        out.into()
    }

    fn text(&mut self, number: usize, text: &str) {
        let trimmed = text.trim();
        if let Some((kind, rest)) = trimmed.split_once(": ")
            && ADMONITIONS.contains(&kind)
        {
            let kind = kind.to_lowercase();
            return self.sheet.admonition(number, &kind, &of_asciidoc(rest));
        }
        if let Some((name, target)) = trimmed.split_once("::")
            && let Some((target, attributes)) = target.split_once('[')
            && matches!(name, "image" | "include" | "video" | "link")
        {
            // An include is named, never followed.
            let label = attributes.trim_end_matches(']').split(',').next();
            let label = label.filter(|label| !label.is_empty() && name == "image");
            let text = format!("{name}: {}", label.unwrap_or(target));
            return self.sheet.prose(number, &text);
        }
        if let Some(title) = trimmed.strip_prefix('.')
            && title.starts_with(|c: char| c.is_alphanumeric())
        {
            self.sheet.blank(number);
            self.sheet.raw(
                number,
                &format!("**{}**", without_tags(&of_asciidoc(title))),
            );
            return self.sheet.blank(number);
        }
        if let Some(item) = list_item(trimmed) {
            return self.sheet.prose(number, &of_asciidoc(&item));
        }
        if let Some((term, definition)) = trimmed.split_once("::")
            && !term.is_empty()
            && (definition.is_empty() || definition.starts_with(' '))
        {
            self.sheet.blank(number);
            let text = format!(
                "**{}**: {}",
                without_tags(&of_asciidoc(term)),
                without_tags(&of_asciidoc(definition.trim()))
            );
            return self.sheet.raw(number, text.trim_end());
        }
        let text = of_asciidoc(trimmed.trim_end_matches(" +"));
        self.sheet.prose(number, &text);
    }

    /// True if it was one. Others, such as a check list's `[ ]`, are text.
    fn attribute_line(&mut self, inside: &str) -> bool {
        let anchor = inside
            .strip_prefix('[')
            .and_then(|inside| inside.strip_suffix(']'))
            .map(|anchor| anchor.split(',').next().unwrap_or_default())
            .or_else(|| inside.strip_prefix('#'));
        if let Some(anchor) = anchor {
            self.anchor = Some(anchor.trim().to_owned());
            return true;
        }
        let starts_well = inside.starts_with(|c: char| c.is_alphabetic() || ".%,\"'".contains(c));
        if starts_well && !inside.contains(['[', ']']) {
            self.attributes = inside
                .split(',')
                .map(|part| part.trim().to_owned())
                .collect();
            if let Some(kind) = self.attributes.first()
                && ADMONITIONS.contains(&kind.as_str())
            {
                // The label is written here; what follows is text like any other.
                self.pending_admonition();
            }
        }
        starts_well
    }

    fn pending_admonition(&mut self) {
        let kind = self.attributes[0].to_lowercase();
        let number = self.sheet.lines.last().map_or(1, |line| *line as usize) + 1;
        self.sheet.admonition(number, &kind, "");
        self.attributes.clear();
    }

    fn is_code(&self) -> bool {
        self.attributes
            .first()
            .is_some_and(|kind| matches!(kind.as_str(), "source" | "listing" | "literal" | ""))
    }

    fn code(&mut self, lines: &[Line]) {
        let language = match self.attributes.first().map(String::as_str) {
            Some("source" | "") => self.attributes.get(1).cloned().unwrap_or_default(),
            _ => String::new(),
        };
        // `subs="attributes+"`: in other code braces are what they are.
        let takes_values = self
            .attributes
            .iter()
            .any(|part| part.contains("attributes"));
        if !takes_values {
            return self.sheet.code(&language, lines);
        }
        let texts: Vec<Cow<'_, str>> = lines.iter().map(|line| self.resolved(line.text)).collect();
        let lines = lines.iter().zip(&texts);
        let lines: Vec<Line> = lines
            .map(|(line, text)| Line {
                number: line.number,
                text,
            })
            .collect();
        self.sheet.code(&language, &lines);
    }

    /// A block between two equal lines; without the second one it goes on to the end.
    fn delimited(&mut self, rest: &[Line], text: &str) -> Option<usize> {
        let first = *text.as_bytes().first()?;
        let same = text.bytes().all(|byte| byte == first);
        let is_table = matches!(text, "|===" | ",===" | ":===" | "!===");
        let is_fence = text.starts_with("```");
        let is_delimiter = is_table
            || is_fence
            || text == "--"
            || (text.len() >= 4 && same && b"-.=*_+/".contains(&first));
        if !is_delimiter {
            return None;
        }
        // These hold blocks like any others: the line alone is left out.
        if text == "--" || (same && b"=*_".contains(&first)) {
            self.sheet.blank(rest[0].number);
            return Some(1);
        }
        let end = if is_fence { "```" } else { text };
        let closing = rest[1..]
            .iter()
            .position(|line| line.text.trim_end() == end);
        let content = &rest[1..closing.map_or(rest.len(), |at| at + 1)];
        let taken = content.len() + 1 + usize::from(closing.is_some());
        if is_table {
            let rows = table(content, self.columns(), &text[..1]);
            self.sheet.table(&rows);
        } else if is_fence {
            self.sheet.code(text.trim_start_matches('`'), content);
        } else if first != b'/' {
            self.code(content);
        }
        Some(taken)
    }

    /// From `cols="1,2"`, `cols=3*`.
    fn columns(&self) -> Option<usize> {
        let at = self
            .attributes
            .iter()
            .position(|part| part.starts_with("cols="))?;
        let value = self.attributes[at..].join(",");
        let value = value.trim_start_matches("cols=");
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?,
            None => value.split(',').next()?,
        };
        let count = |part: &str| match part.trim().split_once('*') {
            Some((count, _)) => count.parse().unwrap_or(1),
            None => 1_usize,
        };
        let columns = value
            .split([',', ';'])
            .map(count)
            .fold(0, usize::saturating_add);
        (1..=64).contains(&columns).then_some(columns)
    }

    /// A title of the old kind, with a line of marks below it that is as long.
    fn underlined(&mut self, rest: &[Line], text: &str) -> Option<usize> {
        let marks = rest.get(1)?.text.trim_end();
        let first = marks.chars().next()?;
        let level = "=-~^+".find(first)? + 1;
        let same = marks.bytes().all(|byte| byte == marks.as_bytes()[0]);
        let fits = marks.len() >= 3 && marks.len().abs_diff(text.chars().count()) <= 1;
        if !same || !fits || is_item(text) || !text.starts_with(char::is_alphanumeric) {
            return None;
        }
        let anchor = self.anchor.take();
        let title = self.resolved(text);
        self.sheet.heading(
            rest[0].number,
            level,
            &of_asciidoc(&title),
            anchor.as_deref(),
        );
        Some(2)
    }
}

/// `== Title`; Markdown's `## Title` is allowed too.
fn heading_level(text: &str) -> Option<usize> {
    ["=", "#"].into_iter().find_map(|mark| {
        let level = text.len() - text.trim_start_matches(mark).len();
        ((1..=6).contains(&level) && text[level..].starts_with(' ')).then_some(level)
    })
}

/// `:name: value`
fn attribute_entry(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(':')?
        .split_once(':')
        .filter(|(name, value)| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_!".contains(&b))
                && (value.is_empty() || value.starts_with(' '))
        })
}

fn is_condition(text: &str) -> bool {
    ["ifdef::", "ifndef::", "ifeval::", "endif::", "toc::"]
        .iter()
        .any(|name| text.starts_with(name) && text.ends_with(']'))
}

fn is_comment(text: &str) -> bool {
    text.starts_with("//") && !text.starts_with("///")
}

/// `** text` and `.. text` → items of Markdown, which nest by what they are indented by.
fn list_item(text: &str) -> Option<String> {
    let (marks, content) = text.split_once(' ')?;
    let first = marks.chars().next()?;
    let same = marks.chars().all(|c| c == first);
    let item = match first {
        '*' | '-' => "- ",
        '.' => "1. ",
        _ => return None,
    };
    let indent = if marks.len() > 1 { " " } else { "" };
    (same && marks.len() <= 5).then(|| format!("{indent}{item}{}", content.trim_start()))
}

/// Cells begin with `|`, perhaps after a word on how they look: `2+|`, `a|`. Without a number of columns, those of the
/// first line count.
fn table(lines: &[Line], columns: Option<usize>, mark: &str) -> Vec<(usize, Vec<String>)> {
    let mark = if mark == "," || mark == ":" {
        mark
    } else {
        "|"
    };
    if mark != "|" {
        let cells = |line: &Line| cells_of(line.text, mark);
        let lines = lines.iter().filter(|line| !line.is_blank());
        return lines.map(|line| (line.number, cells(line))).collect();
    }
    let mut cells: Vec<Cell> = Vec::new();
    let mut first_line = 0;
    for line in lines {
        let mut parts = cells_of_row(line.text).peekable();
        let before = parts.next().unwrap_or_default();
        let mut specification = "";
        if line.text.contains('|') && is_specification(before) {
            specification = before;
        } else if !before.trim().is_empty()
            && let Some(cell) = cells.last_mut()
        {
            cell.text.push(' ');
            cell.text.push_str(&of_asciidoc(before.trim()));
        }
        while let Some(part) = parts.next() {
            // The end of this part may say how the next cell looks; where no cell follows, it is text: «5 s».
            let (text, next) = match part.rsplit_once(' ') {
                Some((text, last))
                    if !last.is_empty() && is_specification(last) && parts.peek().is_some() =>
                {
                    (text, last)
                }
                _ => (part, ""),
            };
            let text = text.trim().replace("\\|", "|");
            cells.extend(cells_from(specification, line.number, of_asciidoc(&text)));
            specification = next;
        }
        if first_line == 0 {
            first_line = cells.iter().map(|cell| cell.columns).sum();
        }
    }
    let columns = columns.unwrap_or(first_line).max(1);
    let mut cells = cells.into_iter().peekable();
    let mut grid = Grid::default();
    let mut rows = Vec::new();
    while let Some(first) = cells.peek() {
        let number = first.line;
        rows.push((number, grid.row(&mut cells, Some(columns))));
    }
    rows
}

/// `2+` covers two columns, `.3+` three rows, `2.3+` both; `3*` is the same cell three times.
fn cells_from(specification: &str, line: usize, text: String) -> impl Iterator<Item = Cell> {
    let number = |text: &str| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let count = text[..digits].parse().unwrap_or(1_usize);
        (count.clamp(1, MAX_COLUMNS), digits)
    };
    let specification = specification.trim();
    let (mut columns, digits) = number(specification);
    let rest = &specification[digits..];
    let (mut rows, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (rows, digits) = number(rest);
            (rows, &rest[digits..])
        }
        None => (1, rest),
    };
    let mut copies = 1;
    if rest.starts_with('*') {
        // A text that is long is there once.
        copies = columns.min(1 + MAX_COPIED_BYTES / (1 + text.len()));
    }
    if !rest.starts_with('+') {
        (columns, rows) = (1, 1);
    }
    let cell = Cell {
        line,
        text,
        columns,
        rows,
    };
    std::iter::repeat_n(cell, copies)
}

/// At each `|` that has no backslash before it.
fn cells_of_row(line: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    line.split(move |c: char| {
        let ends = c == '|' && !escaped;
        escaped = c == '\\';
        ends
    })
}

fn cells_of(line: &str, mark: &str) -> Vec<String> {
    let cells = line.split(mark);
    cells.map(|cell| cell.trim().to_owned()).collect()
}

fn is_specification(text: &str) -> bool {
    let text = text.trim();
    let spans = text.contains(['+', '^', '<', '>', '*']);
    let all = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b".+*<>^adehlmsv".contains(&b));
    text.is_empty() || (all && (spans || (text.len() == 1 && !text.as_bytes()[0].is_ascii_digit())))
}
