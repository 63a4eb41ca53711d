//! reStructuredText: headings by underline, directives, literal blocks, tables.

use super::inline::of_rst;
use super::references::{self, References};
use super::{Line, Sheet};

/// Directives in directives: deeper ones are read as text.
const MAX_DEPTH: usize = 16;

const CODE: &[&str] = &[
    "code-block",
    "code",
    "sourcecode",
    "parsed-literal",
    "prompt",
    "math",
    "graphviz",
    "raw",
    "productionlist",
];
const ADMONITIONS: &[&str] = &[
    "note",
    "warning",
    "tip",
    "important",
    "caution",
    "danger",
    "attention",
    "error",
    "hint",
    "seealso",
    "todo",
];
/// They name other files or say how a page looks, and hold no text.
const SILENT: &[&str] = &[
    "contents",
    "highlight",
    "default-role",
    "meta",
    "index",
    "sectnum",
];

pub(super) fn read(lines: &[Line], sheet: &mut Sheet) {
    let mut reader = Reader {
        sheet,
        references: References::of(lines),
        styles: Vec::new(),
        anchor: None,
    };
    reader.blocks(lines, 0);
}

struct Reader<'a> {
    sheet: &'a mut Sheet,
    references: References,
    /// Mark and whether there is an overline too: the first that a page uses is its first level.
    styles: Vec<(u8, bool)>,
    /// `.. _name:` above a heading.
    anchor: Option<String>,
}

impl Reader<'_> {
    fn blocks(&mut self, lines: &[Line], depth: usize) {
        let mut at = 0;
        while at < lines.len() {
            let rest = &lines[at..];
            at += if rest[0].is_blank() {
                self.sheet.blank(rest[0].number);
                1
            } else if let Some(taken) = self.heading(rest, depth) {
                taken
            } else if let Some(explicit) = rest[0].text.trim_start().strip_prefix("..")
                && (explicit.is_empty() || explicit.starts_with(' '))
            {
                self.explicit(explicit.trim(), rest, depth)
            } else if is_table(rest) {
                let taken = rest.iter().take_while(|line| !line.is_blank()).count();
                let taken = match is_rule(rest[0].text, b'=') {
                    true => simple_table_length(rest).max(taken),
                    false => taken,
                };
                self.sheet.code("", &rest[..taken]);
                taken
            } else if rest[0].text.trim_start().starts_with(">>> ") {
                let taken = rest.iter().take_while(|line| !line.is_blank()).count();
                self.sheet.code("python", &rest[..taken]);
                taken
            } else {
                self.paragraph(rest)
            };
        }
    }

    fn heading(&mut self, rest: &[Line], depth: usize) -> Option<usize> {
        if depth > 0 {
            return None;
        }
        let mark = rule(rest[0].text);
        let (title, style, taken) = match (mark, rest.get(1), rest.get(2)) {
            (Some(over), Some(title), Some(under))
                if !title.is_blank() && rule(under.text) == Some(over) =>
            {
                (title, (over, true), 3)
            }
            (Some(_), next, _) if next.is_none_or(Line::is_blank) => {
                // A transition: the page goes on, nothing is said.
                self.sheet.blank(rest[0].number);
                return Some(1);
            }
            (None, Some(under), _) if rest[0].indent() == 0 => {
                let mark = rule(under.text)?;
                let width = rest[0].text.trim_end().chars().count();
                let length = under.text.trim_end().len();
                if length < width.min(4) || is_item_mark(rest[0].text) {
                    return None;
                }
                (&rest[0], (mark, false), 2)
            }
            _ => return None,
        };
        let level = match self.styles.iter().position(|known| *known == style) {
            Some(at) => at,
            None => {
                self.styles.push(style);
                self.styles.len() - 1
            }
        };
        let anchor = self.anchor.take();
        let text = of_rst(title.text, &self.references);
        self.sheet
            .heading(title.number, level + 1, &text, anchor.as_deref());
        Some(taken)
    }

    /// What begins with two dots: a directive, a target, a footnote or a comment.
    fn explicit(&mut self, text: &str, rest: &[Line], depth: usize) -> usize {
        let first = &rest[0];
        let body = &rest[1..1 + block_length(&rest[1..], first.indent() + 1)];
        let taken = 1 + body.len();
        if let Some(target) = text.strip_prefix('_') {
            if let Some(name) = target.strip_suffix(':') {
                self.anchor = Some(references::anchor(name));
            } else if let Some((name, address)) = address(target) {
                self.sheet.blank(first.number);
                self.sheet
                    .prose(first.number, &format!("[{name}]({address})"));
                self.sheet.blank(first.number);
            }
        } else if references::substitution(first.text.trim_start()).is_some() {
            // It is shown where its name stands.
        } else if let Some((name, argument)) = directive(text) {
            self.directive(name, argument, first, body, depth);
        } else if text.starts_with('[') {
            self.sheet.blank(first.number);
            self.sheet
                .prose(first.number, &of_rst(text, &self.references));
            self.inner(body, depth);
        }
        taken
    }

    fn directive(&mut self, name: &str, argument: &str, first: &Line, body: &[Line], depth: usize) {
        let options = body
            .iter()
            .take_while(|line| is_option(line.text.trim()))
            .count();
        let content = &body[options..];
        if SILENT.contains(&name) {
            return;
        }
        if CODE.contains(&name) {
            for option in &body[..options] {
                if let Some(caption) = option.text.trim().strip_prefix(":caption:") {
                    self.title(option.number, caption.trim());
                }
            }
            return self.sheet.code(argument, content);
        }
        match name {
            "list-table" | "csv-table" => {
                self.title(first.number, argument);
                let rows = match name {
                    "list-table" => list_table(content, &self.references),
                    _ => {
                        let header = body[..options].iter().filter_map(csv_header);
                        let lines: Vec<Line> = header.chain(content.iter().copied()).collect();
                        csv_table(&lines)
                    }
                };
                return self.sheet.table(&rows);
            }
            "admonition" => {
                self.sheet
                    .admonition(first.number, &of_rst(argument, &self.references), "");
            }
            _ if ADMONITIONS.contains(&name) => {
                self.sheet
                    .admonition(first.number, name, &of_rst(argument, &self.references));
            }
            _ => {
                self.sheet.blank(first.number);
                // An include is named, never followed.
                if !argument.is_empty() {
                    let text = format!("{name}: {}", of_rst(argument, &self.references));
                    self.sheet.prose(first.number, &text);
                    self.sheet.blank(first.number);
                }
            }
        }
        self.inner(content, depth);
        if let Some(last) = body.last() {
            self.sheet.blank(last.number);
        }
    }

    fn title(&mut self, number: usize, title: &str) {
        if !title.is_empty() {
            self.sheet.blank(number);
            self.sheet.prose(number, &of_rst(title, &self.references));
        }
    }

    fn inner(&mut self, lines: &[Line], depth: usize) {
        if depth < MAX_DEPTH {
            return self.blocks(lines, depth + 1);
        }
        for line in lines {
            self.sheet.prose(line.number, line.text);
        }
    }

    /// Lines up to a blank one, and the literal block behind them if they end in `::`.
    fn paragraph(&mut self, rest: &[Line]) -> usize {
        let mut taken = 0;
        while let Some(line) = rest.get(taken).filter(|line| !line.is_blank()) {
            // A heading or directive needs no blank line above it to be seen.
            if taken > 0 && line.indent() == 0 {
                let next = rest.get(taken + 1);
                let is_heading = next.is_some_and(|next| {
                    rule(line.text).is_none()
                        && rule(next.text).is_some()
                        && next.text.trim_end().len() >= line.text.trim_end().chars().count()
                });
                if is_heading || line.text.starts_with(".. ") {
                    break;
                }
            }
            taken += 1;
            let text = of_rst(
                line.text.trim_start().trim_start_matches("| "),
                &self.references,
            );
            let text = text
                .strip_prefix("#. ")
                .map_or(text.clone(), |item| format!("1. {item}"));
            let is_literal =
                text.trim_end().ends_with("::") && rest.get(taken).is_none_or(Line::is_blank);
            let lead = if line.indent() > 0 { " " } else { "" };
            if !is_literal {
                self.sheet.prose(line.number, &format!("{lead}{text}"));
                continue;
            }
            let text = text.trim_end().trim_end_matches(':');
            if !text.trim().is_empty() {
                self.sheet.prose(line.number, &format!("{lead}{text}:"));
            }
            let length = block_length(&rest[taken..], line.indent() + 1);
            self.sheet.code("", &rest[taken..taken + length]);
            taken += length;
            return taken;
        }
        taken.max(1)
    }
}

/// A line of one punctuation mark only.
fn rule(text: &str) -> Option<u8> {
    let text = text.trim_end();
    let first = *text.as_bytes().first()?;
    let same = text.bytes().all(|byte| byte == first);
    (text.len() >= 2 && first.is_ascii_punctuation() && same)
        .then_some(first)
        // Two dots or colons begin something else.
        .filter(|_| !matches!(text, ".." | "::"))
}

fn is_rule(text: &str, mark: u8) -> bool {
    text.trim().len() > 2 && text.trim().bytes().all(|byte| byte == mark || byte == b' ')
}

fn is_item_mark(text: &str) -> bool {
    matches!(text.trim(), "-" | "*" | "+")
}

/// Lines that are blank or indented at least so far, without blank ones at the end.
fn block_length(lines: &[Line], indent: usize) -> usize {
    let inside = |line: &&Line| line.is_blank() || line.indent() >= indent;
    let length = lines.iter().take_while(inside).count();
    lines[..length]
        .iter()
        .rposition(|line| !line.is_blank())
        .map_or(0, |last| last + 1)
}

/// `Name: https://…`, where a link leads that the text names only.
fn address(target: &str) -> Option<(&str, &str)> {
    let at = target.find(": http")?;
    let address = target[at + 2..].trim();
    let is_plain = !address.contains([' ', '(', ')', '<', '>']);
    is_plain.then_some((target[..at].trim_matches('`'), address))
}

fn directive(text: &str) -> Option<(&str, &str)> {
    let (name, argument) = text.split_once("::")?;
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_:+.".contains(&b));
    is_name.then_some((name, argument.trim()))
}

/// `:name: value`, and not the begin of a text with a role: ``:program:`rm` deletes``.
fn is_option(text: &str) -> bool {
    text.strip_prefix(':')
        .and_then(|text| text.split_once(':'))
        .is_some_and(|(name, value)| {
            !name.is_empty() && (value.is_empty() || value.starts_with(' '))
        })
}

fn is_table(rest: &[Line]) -> bool {
    let first = rest[0].text.trim();
    let is_grid = first.starts_with("+-") && first.ends_with('+');
    let is_simple = first.contains(' ') && is_rule(first, b'=');
    is_grid || is_simple
}

/// Up to the third line of `===`, over blank lines between rows.
fn simple_table_length(rest: &[Line]) -> usize {
    let rules = rest
        .iter()
        .enumerate()
        .filter(|(_, line)| is_rule(line.text, b'='))
        .map(|(at, _)| at)
        .take(3)
        .collect::<Vec<_>>();
    match rules[..] {
        [_, second, third] if rest[second + 1..third].iter().all(|line| line.indent() < 2) => {
            third + 1
        }
        [_, second, ..] => second + 1,
        _ => 1,
    }
}

/// `* - a` begins a row, `- b` goes on with it.
fn list_table(lines: &[Line], references: &References) -> Vec<(usize, Vec<String>)> {
    let mut rows: Vec<(usize, Vec<String>)> = Vec::new();
    for line in lines {
        let text = line.text.trim();
        let row = text
            .strip_prefix("* -")
            .or_else(|| text.strip_prefix("*  -"));
        if let Some(cell) = row {
            rows.push((line.number, vec![of_rst(cell.trim(), references)]));
            continue;
        }
        let Some((_, cells)) = rows.last_mut() else {
            continue;
        };
        match (text.strip_prefix('-'), cells.last_mut()) {
            (Some(cell), _) if cell.is_empty() || cell.starts_with(' ') => {
                cells.push(of_rst(cell.trim(), references));
            }
            (_, Some(cell)) => {
                cell.push(' ');
                cell.push_str(&of_rst(text, references));
            }
            (_, None) => {}
        }
    }
    rows
}

/// `:header: "Name", "Use"` is the first row, and most tables have theirs there.
fn csv_header<'a>(option: &Line<'a>) -> Option<Line<'a>> {
    let text = option.text.trim().strip_prefix(":header:")?;
    Some(Line { text, ..*option })
}

fn csv_table(lines: &[Line]) -> Vec<(usize, Vec<String>)> {
    let cells = |text: &str| {
        let mut cells = vec![String::new()];
        let mut quoted = false;
        for c in text.trim().chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                c => {
                    if let Some(cell) = cells.last_mut() {
                        cell.push(c);
                    }
                }
            }
        }
        cells
    };
    lines
        .iter()
        .filter(|line| !line.is_blank())
        .map(|line| (line.number, cells(line.text)))
        .collect()
}
