//! MDX: Markdown with components of JSX in it. What only a program reads is left out; what a component holds stays.

use super::{Line, Sheet};

/// Longer ones are text.
const MAX_TAG_LINES: usize = 50;

pub(super) fn read(lines: &[Line], sheet: &mut Sheet) {
    let mut reader = Reader {
        sheet,
        fence: None,
        depth: 0,
        starts: true,
        open_comment: false,
    };
    let mut at = 0;
    while at < lines.len() {
        at += reader.block(&lines[at..]);
    }
}

struct Reader<'a> {
    sheet: &'a mut Sheet,
    /// The marks that the open block of code began with.
    fence: Option<String>,
    /// Components that are open: what they hold is indented, and no code for it.
    depth: usize,
    /// Nothing stands above the next line that it could go on with.
    starts: bool,
    /// A comment never ends: no further one does.
    open_comment: bool,
}

impl Reader<'_> {
    /// Reads what begins here and says of how many lines it was.
    fn block(&mut self, rest: &[Line]) -> usize {
        let line = rest[0];
        let text = line.text.trim();
        if let Some(fence) = &self.fence {
            if text.starts_with(fence.as_str()) && text.trim_start_matches(['`', '~']).is_empty() {
                self.fence = None;
            }
            self.keep(line);
            return 1;
        }
        let marks = text.len() - text.trim_start_matches(['`', '~']).len();
        if marks >= 3 {
            self.fence = Some(text[..marks].to_owned());
            self.keep(line);
            return 1;
        }
        let starts = std::mem::replace(&mut self.starts, text.is_empty());
        let is_module = ["import ", "import{", "export "];
        if starts && is_module.iter().any(|word| line.text.starts_with(word)) {
            return rest.iter().take_while(|line| !line.is_blank()).count();
        }
        if text.starts_with("{/*") && !self.open_comment {
            if let Some(end) = rest.iter().position(|line| line.text.contains("*/}")) {
                self.starts = true;
                return end + 1;
            }
            self.open_comment = true;
        }
        if let Some(lines) = tag_alone(rest) {
            let tag: Vec<&str> = rest[..lines].iter().map(|line| line.text.trim()).collect();
            self.tag(line.number, &tag.join(" "));
            self.starts = true;
            return lines;
        }
        self.keep(line);
        1
    }

    fn keep(&mut self, line: Line) {
        let indent = line.text.len() - line.text.trim_start_matches(' ').len();
        let text = &line.text[indent.min(2 * self.depth)..];
        self.sheet.raw(line.number, text);
    }

    /// Of a component what it is called, as a tab or a box is shown with it.
    fn tag(&mut self, number: usize, tag: &str) {
        if tag.starts_with("</") {
            self.depth = self.depth.saturating_sub(1);
        } else if !tag.ends_with("/>") {
            self.depth += 1;
        }
        self.sheet.blank(number);
        let title = ["title", "label"].iter().find_map(|name| value(tag, name));
        if let Some(title) = title {
            self.sheet.raw(number, &format!("**{title}**"));
            self.sheet.blank(number);
        }
    }
}

/// How many lines a component's tag takes that stands alone on them.
fn tag_alone(rest: &[Line]) -> Option<usize> {
    let text = rest[0].text.trim();
    let name = text.strip_prefix("</").or(text.strip_prefix('<'))?;
    // Others are HTML, which Markdown may hold as well. A fragment has no name.
    if !name.starts_with(|c: char| c.is_ascii_uppercase() || c == '>') {
        return None;
    }
    let mut lines = rest.iter().take(MAX_TAG_LINES);
    let end = lines.position(|line| line.text.contains('>') || line.is_blank())?;
    let last = rest[end].text.trim();
    // With text behind it, it is part of a line.
    let is_closing = end == 0 && text.starts_with("</");
    let is_alone = last.ends_with('>') && (is_closing || !last.contains("</"));
    is_alone.then_some(end + 1)
}

/// `title="…"`
fn value<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let at = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    let end = tag[at..].find('"')?;
    Some(tag[at..at + end].trim()).filter(|value| !value.is_empty())
}
