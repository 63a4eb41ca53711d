//! HTML: headings, paragraphs, lists, `pre`, tables. Scripts and styles are left out. One pass over the tags with no
//! tree, so that nothing can nest too deep.

use std::path::Path;

use super::spans::{Cell, Grid};
use super::{Line, Sheet};
use crate::runbook::Format;

mod entity;
mod tag;

use tag::{Piece, Tag, pieces};

/// What they hold is no text of the page.
const SILENT: &[&str] = &[
    "script", "style", "template", "svg", "iframe", "object", "select",
];
/// They end what was written before them.
const BLOCKS: &[&str] = &[
    "p",
    "div",
    "section",
    "article",
    "header",
    "footer",
    "main",
    "nav",
    "aside",
    "ul",
    "ol",
    "dl",
    "dd",
    "blockquote",
    "figure",
    "figcaption",
    "form",
    "fieldset",
    "address",
    "details",
    "summary",
    "body",
    "hr",
    "center",
];

/// A new line that is none in the file.
const BREAK: char = '\u{b}';

pub(super) fn read(source: &str, first_line: usize, sheet: &mut Sheet) {
    let mut reader = Reader {
        sheet,
        text: String::new(),
        number: first_line,
        start: first_line,
        lead: "",
        mode: Mode::Text,
        lists: Vec::new(),
        table: None,
        links: Vec::new(),
    };
    for (number, piece) in pieces(source, first_line, SILENT) {
        reader.number = number;
        match piece {
            Piece::Text(text) => reader.text(&text),
            Piece::Open(tag) => reader.open(&tag),
            Piece::Close(name) => reader.close(&name),
        }
    }
    reader.leave_table();
    reader.end();
}

enum Mode {
    Text,
    Title,
    Heading {
        level: usize,
        anchor: Option<String>,
    },
    Code {
        language: String,
    },
}

struct Table {
    rows: Vec<(usize, Vec<Cell>)>,
    /// Tables inside this one, whose rows become rows of it.
    inner: usize,
    /// A cell has begun: it is one, even if nothing is in it.
    open: Option<Cell>,
}

struct Reader<'a> {
    sheet: &'a mut Sheet,
    /// Read and not yet written.
    text: String,
    number: usize,
    /// Line on which `text` begins.
    start: usize,
    /// In front of the next line: an item's mark.
    lead: &'static str,
    mode: Mode,
    /// Whether each open list is a numbered one.
    lists: Vec<bool>,
    table: Option<Table>,
    links: Vec<String>,
}

impl Reader<'_> {
    fn text(&mut self, text: &str) {
        if self.text.is_empty() {
            let blank = text.len() - text.trim_start().len();
            // The line end behind `<pre>` is not part of what it shows; elsewhere none counts.
            let skipped = match self.mode {
                Mode::Code { .. } => usize::from(text.starts_with('\n')),
                _ => blank,
            };
            self.start = self.number + text[..skipped].matches('\n').count();
            self.text.push_str(&text[skipped..]);
        } else {
            self.text.push_str(text);
        }
    }

    fn open(&mut self, tag: &Tag) {
        if matches!(self.mode, Mode::Code { .. }) {
            if tag.name == "code"
                && let Mode::Code { language } = &mut self.mode
            {
                *language = language_of(tag);
            } else if tag.name == "br" {
                self.text.push(BREAK);
            }
            return;
        }
        match tag.name.as_str() {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.leave_table();
                self.end();
                let level = usize::from(tag.name.as_bytes()[1] - b'0');
                let anchor = tag.attribute("id");
                self.mode = Mode::Heading { level, anchor };
            }
            "title" => {
                self.end();
                self.mode = Mode::Title;
            }
            "pre" => {
                self.leave_table();
                self.end();
                self.mode = Mode::Code {
                    language: language_of(tag),
                };
            }
            "code" | "kbd" | "tt" | "samp" => self.text("`"),
            "b" | "strong" => self.text("**"),
            "br" => self.text.push(BREAK),
            "img" => {
                if let Some(text) = tag.attribute("alt") {
                    self.text(&text);
                }
            }
            "a" => {
                let address = tag.attribute("href").unwrap_or_default();
                let leads = address.starts_with("http") || is_page(&address);
                let is_link = leads && !address.contains([' ', '(', ')', '\n']);
                self.links
                    .push(if is_link { address } else { String::new() });
                if is_link {
                    self.text("[");
                }
            }
            "table" => {
                if let Some(table) = &mut self.table {
                    table.inner += 1;
                } else {
                    self.end();
                    self.table = Some(Table {
                        rows: Vec::new(),
                        inner: 0,
                        open: None,
                    });
                }
            }
            "tr" => {
                self.end_cell();
                if let Some(table) = &mut self.table {
                    table.rows.push((self.number, Vec::new()));
                }
            }
            "td" | "th" => {
                self.end_cell();
                if let Some(table) = &mut self.table {
                    table.open = Some(Cell {
                        line: self.number,
                        columns: span(tag, "colspan"),
                        rows: span(tag, "rowspan"),
                        ..Cell::default()
                    });
                }
            }
            "li" if self.table.is_none() => {
                self.end();
                // What is indented stays an item of an item.
                self.lead = match (self.lists.last(), self.lists.len() > 1) {
                    (Some(true), false) => "1. ",
                    (Some(true), true) => " 1. ",
                    (_, false) => "- ",
                    (_, true) => " - ",
                };
            }
            "ul" | "ol" => {
                self.end();
                self.lists.push(tag.name == "ol");
            }
            "dt" => self.end(),
            name if BLOCKS.contains(&name) => self.end(),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "pre" | "title" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "dt" => self.end(),
            "li" => self.end_item(),
            _ if matches!(self.mode, Mode::Code { .. }) => {}
            "ul" | "ol" => {
                self.end_item();
                self.lists.pop();
            }
            "code" | "kbd" | "tt" | "samp" => self.text("`"),
            "b" | "strong" => self.text("**"),
            "a" => {
                if let Some(address) = self.links.pop().filter(|address| !address.is_empty()) {
                    self.text(&format!("]({address})"));
                }
            }
            "td" | "th" => self.end_cell(),
            "table" => self.end_table(),
            name if BLOCKS.contains(&name) => self.end(),
            _ => {}
        }
    }

    /// Writes what was read, as what it is.
    fn end(&mut self) {
        if let Some(table) = &self.table {
            // A block in a cell: its text goes on.
            if !table.rows.is_empty() && matches!(self.mode, Mode::Text) {
                self.text.push(' ');
                return;
            }
        }
        let text = std::mem::take(&mut self.text);
        let lines: Vec<Line> = (self.start..)
            .zip(text.split('\n'))
            .flat_map(|(number, text)| text.split(BREAK).map(move |text| Line { number, text }))
            .collect();
        match std::mem::replace(&mut self.mode, Mode::Text) {
            Mode::Text => {
                let mut lead = std::mem::take(&mut self.lead);
                if lead.is_empty() || !text.trim().is_empty() {
                    // Items of one list stay together.
                    if lead.is_empty() {
                        self.sheet.blank(self.start);
                    }
                    for line in lines.iter().filter(|line| !line.is_blank()) {
                        let words: Vec<&str> = line.text.split_whitespace().collect();
                        self.sheet
                            .prose(line.number, &format!("{lead}{}", words.join(" ")));
                        lead = "";
                    }
                } else {
                    // `<li><p>`: the item's text is still to come.
                    self.lead = lead;
                }
            }
            Mode::Title => {
                let words: Vec<&str> = text.split_whitespace().collect();
                self.sheet.title = Some(words.join(" ")).filter(|title| !title.is_empty());
            }
            Mode::Heading { level, anchor } => {
                // The sign that links to itself, as Sphinx writes it.
                let text = text.trim().trim_end_matches('¶');
                self.sheet
                    .heading(self.start, level, text, anchor.as_deref());
            }
            Mode::Code { language } => self.sheet.code(&language, &lines),
        }
    }

    fn end_item(&mut self) {
        self.end();
        self.lead = "";
    }

    fn end_cell(&mut self) {
        let Some(table) = &mut self.table else {
            return self.end();
        };
        let text = std::mem::take(&mut self.text);
        self.mode = Mode::Text;
        let open = table.open.take();
        let Some((_, cells)) = table.rows.last_mut() else {
            return;
        };
        // Without it what stands to its right would stand below another head.
        if open.is_some() || !text.trim().is_empty() {
            cells.push(Cell {
                text: text.trim().to_owned(),
                ..open.unwrap_or_default()
            });
        }
    }

    fn end_table(&mut self) {
        self.end_cell();
        match &mut self.table {
            Some(table) if table.inner > 0 => table.inner -= 1,
            _ => self.leave_table(),
        }
    }

    /// Tables that only lay out a page have headings and code in them: what follows is no cell any more.
    fn leave_table(&mut self) {
        if self.table.is_some() {
            self.end_cell();
        }
        if let Some(table) = self.table.take() {
            let mut grid = Grid::default();
            let rows = table.rows.into_iter().map(|(number, cells)| {
                let row = grid.row(&mut cells.into_iter().peekable(), None);
                (number, row)
            });
            let rows: Vec<_> = rows
                .filter(|(_, row)| row.iter().any(|text| !text.is_empty()))
                .collect();
            self.sheet.table(&rows);
        }
    }
}

/// Another runbook, as `../dns.html#cause`.
fn is_page(address: &str) -> bool {
    let path = address.split('#').next().unwrap_or_default();
    !path.contains(':') && Format::of(Path::new(path)).is_some()
}

/// `rowspan="0"` goes on to the end of the table.
fn span(tag: &Tag, name: &str) -> usize {
    let value = tag.attribute(name);
    match value.map(|value| value.trim().parse()) {
        Some(Ok(0)) if name == "rowspan" => usize::MAX,
        Some(Ok(count)) => count,
        _ => 1,
    }
}

/// `class="language-sh"`, as most highlighters have it.
fn language_of(tag: &Tag) -> String {
    let class = tag.attribute("class").unwrap_or_default();
    class
        .split_whitespace()
        .find_map(|class| {
            class
                .strip_prefix("language-")
                .or(class.strip_prefix("lang-"))
        })
        .unwrap_or_default()
        .to_owned()
}
