//! HTML → tags and texts, each with its line. Anything is something: a `<` that begins no tag is text.

use super::entity::decode;

/// A page has one, with a handful of entities: a `]>` further away belongs to something else.
const MAX_DECLARATION_BYTES: usize = 16 << 10;

pub(super) enum Piece {
    Text(String),
    Open(Tag),
    /// Its name, lower case.
    Close(String),
}

pub(super) struct Tag {
    /// Lower case.
    pub(super) name: String,
    attributes: String,
}

impl Tag {
    /// Decoded; the first of several.
    pub(super) fn attribute(&self, wanted: &str) -> Option<String> {
        let mut rest = self.attributes.as_str();
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
            if rest.is_empty() {
                return None;
            }
            let end = rest
                .find(|c: char| c.is_whitespace() || c == '=' || c == '/')
                .unwrap_or(rest.len());
            // A stray `=` is a name of its own.
            let end = if end == 0 { 1 } else { end };
            let name = &rest[..end];
            rest = rest[end..].trim_start();
            let mut value = "";
            if let Some(after) = rest.strip_prefix('=') {
                let after = after.trim_start();
                let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
                let inner = quote.map_or(after, |_| &after[1..]);
                let end = match quote {
                    Some(quote) => inner.find(quote),
                    None => inner.find(char::is_whitespace),
                };
                value = &inner[..end.unwrap_or(inner.len())];
                rest = &inner[end.unwrap_or(inner.len())..];
                if quote.is_some() {
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
            if name.eq_ignore_ascii_case(wanted) {
                return Some(decode(value));
            }
        }
    }
}

/// Tags and texts with the line each begins on, without elements named in `silent`.
pub(super) fn pieces<'a>(source: &'a str, first_line: usize, silent: &'a [&'a str]) -> Pieces<'a> {
    Pieces {
        rest: source,
        line: first_line,
        silent,
        left_behind_subset: Some(usize::MAX),
    }
}

pub(super) struct Pieces<'a> {
    rest: &'a str,
    line: usize,
    silent: &'a [&'a str],
    /// How much of the page is left behind the `]>` that was found last; none if there is no more.
    left_behind_subset: Option<usize>,
}

impl Iterator for Pieces<'_> {
    type Item = (usize, Piece);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(first) = self.rest.chars().next() {
            let line = self.line;
            let rest = self.rest;
            if !begins_tag(rest) {
                let from = first.len_utf8();
                let end = rest[from..].find('<').map_or(rest.len(), |at| at + from);
                return Some((line, Piece::Text(decode(self.advance(end)))));
            }
            if let Some(inside) = rest.strip_prefix("<![CDATA[") {
                let end = inside.find("]]>").unwrap_or(inside.len());
                self.advance((9 + end + 3).min(rest.len()));
                return Some((line, Piece::Text(inside[..end].to_owned())));
            }
            if rest.starts_with("<!--") {
                self.advance(rest.find("-->").map_or(rest.len(), |at| at + 3));
                continue;
            }
            if rest.starts_with("<!") || rest.starts_with("<?") {
                let end = self.declaration_end();
                self.advance(end);
                continue;
            }
            let tag = self.advance(tag_end(rest));
            let tag = tag.strip_suffix('>').unwrap_or(tag);
            if let Some(name) = tag.strip_prefix("</") {
                let name = name.split(char::is_whitespace).next().unwrap_or_default();
                return Some((line, Piece::Close(name.to_ascii_lowercase())));
            }
            let inside = &tag[1..];
            let name_end = inside.find(|c: char| c.is_whitespace() || c == '/');
            let (name, attributes) = inside.split_at(name_end.unwrap_or(inside.len()));
            let name = name.to_ascii_lowercase();
            if self.silent.contains(&name.as_str()) && !attributes.ends_with('/') {
                self.advance(element_end(self.rest, &name));
                continue;
            }
            let attributes = attributes.to_owned();
            return Some((line, Piece::Open(Tag { name, attributes })));
        }
        None
    }
}

impl<'a> Pieces<'a> {
    fn advance(&mut self, to: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(to);
        self.line += taken.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
        taken
    }

    /// `<!DOCTYPE … [ … ]>`: what entities it declares is of no interest, and none is ever expanded.
    fn declaration_end(&mut self) -> usize {
        let text = self.rest;
        let close = text.find('>').map_or(text.len(), |at| at + 1);
        let has_subset = text[..close].contains('[');
        if !has_subset {
            return close;
        }
        // Looked for again only behind the last one: of thousands of open ones none reads what the others have read.
        if self
            .left_behind_subset
            .is_some_and(|left| left > text.len() - 2)
        {
            self.left_behind_subset = text.find("]>").map(|at| text.len() - at - 2);
        }
        let end = self.left_behind_subset.map(|left| text.len() - left);
        end.filter(|end| *end <= MAX_DECLARATION_BYTES)
            .unwrap_or(close)
    }
}

/// Behind the end tag; without one, at the end of the page.
fn element_end(text: &str, name: &str) -> usize {
    let mut at = 0;
    while let Some(found) = text[at..].find("</") {
        let start = at + found + 2;
        let is_ours = text
            .as_bytes()
            .get(start..start + name.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()));
        if is_ours {
            return text[start..]
                .find('>')
                .map_or(text.len(), |at| start + at + 1);
        }
        at = start;
    }
    text.len()
}

fn begins_tag(text: &str) -> bool {
    let after = text.strip_prefix('<').unwrap_or_default();
    let after = after.strip_prefix('/').unwrap_or(after);
    after.starts_with(|c: char| c.is_ascii_alphabetic() || c == '!' || c == '?')
}

/// Behind the `>` that is in no quotes.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    let mut after_equals = false;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') if after_equals => quote = Some(byte),
            (None, b'>') => return at + 1,
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            after_equals = byte == b'=';
        }
    }
    // An open quote would swallow the page: then the next `>` ends the tag.
    text.find('>').map_or(text.len(), |at| at + 1)
}
