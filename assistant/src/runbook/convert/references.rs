//! What a reStructuredText page names to be put in elsewhere: substitutions, and sections that have a label.

use std::cell::Cell;
use std::collections::HashMap;

use super::Line;
use super::inline::of_rst;

/// A longer name is none: a line may have a million bars.
const MAX_NAME: usize = 100;
/// Lines that one substitution has at most.
const MAX_LINES: usize = 20;
/// Bytes that substitutions put into a page at most: a short name may stand for a long text, any number of times.
const MAX_PUT_IN: usize = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct References {
    substitutions: HashMap<String, String>,
    /// By label: the title, and the anchor where it can be one.
    sections: HashMap<String, (String, String)>,
    put_in: Cell<usize>,
}

impl References {
    pub(super) fn of(lines: &[Line]) -> Self {
        let mut references = Self::default();
        let mut labels: Vec<String> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let text = line.text.trim_end();
            if let Some(label) = label(text) {
                labels.push(label);
            } else if let Some((name, directive)) = substitution(text.trim_start()) {
                let body = lines[at + 1..].iter();
                let is_body = |next: &&Line| !next.is_blank() && next.indent() > line.indent();
                let body = body.take(MAX_LINES).take_while(is_body);
                if let Some(text) = put_in(directive, body) {
                    references.substitutions.insert(key(name), text);
                }
            } else if !labels.is_empty() && is_title(text, lines.get(at + 1)) {
                let title = of_rst(text.trim(), &Self::default());
                // Of several labels the heading has the last.
                let anchor = labels.last().cloned().unwrap_or_default();
                for label in labels.drain(..) {
                    let section = (title.clone(), anchor.clone());
                    references.sections.entry(label).or_insert(section);
                }
            }
        }
        references
    }

    /// The text with what its `|names|` stand for. Those that nobody defines stay.
    pub(super) fn put_into(&self, text: &str, out: &mut String) {
        let mut rest = text;
        while let Some(at) = rest.find('|') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let window = &from[1..from.floor_char_boundary(MAX_NAME + 2)];
            let known = window.find('|').and_then(|end| {
                let text = self.substitutions.get(&key(&window[..end]))?;
                let is_word = !window.starts_with(' ') && !window[..end].ends_with(' ');
                is_word.then_some((end, text))
            });
            let room = MAX_PUT_IN.saturating_sub(self.put_in.get());
            match known {
                Some((end, text)) if text.len() <= room => {
                    self.put_in.set(self.put_in.get() + text.len());
                    out.push_str(text);
                    // `|name|_` is a link too, whose address stands elsewhere.
                    rest = from[end + 2..].trim_start_matches('_');
                }
                _ => {
                    out.push('|');
                    rest = &from[1..];
                }
            }
        }
        out.push_str(rest);
    }

    /// `` :doc:`other` `` and `` :ref:`label` ``, also as `` `text <target>` ``, as links of Markdown. `None` for other roles.
    pub(super) fn link(&self, role: &str, text: Option<&str>, target: &str) -> Option<String> {
        let text = text.map(str::trim);
        let (own, address) = match role {
            "doc" => {
                let name = target.rsplit('/').next().unwrap_or(target);
                // What is seen from the root of all pages has no address from here.
                let is_seen = !target.is_empty() && !target.starts_with('/');
                (name, is_seen.then(|| format!("{target}.rst")))
            }
            "ref" => match self.sections.get(&key(target)) {
                Some((title, anchor)) => (title.as_str(), Some(format!("#{anchor}"))),
                None => (target, None),
            },
            _ => return None,
        };
        let text = text.unwrap_or(own);
        let is_plain = |address: &String| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./#".contains(&b);
            address.bytes().all(plain) && !text.contains(['[', ']'])
        };
        Some(match address.filter(is_plain) {
            Some(address) => format!("[{text}]({address})"),
            None => text.to_owned(),
        })
    }
}

/// `.. _label:` as a heading gets it.
fn label(text: &str) -> Option<String> {
    let label = text.strip_prefix(".. _")?.strip_suffix(':')?;
    (!label.is_empty()).then(|| anchor(label))
}

pub(super) fn anchor(label: &str) -> String {
    label.trim_matches('`').replace(' ', "-").to_lowercase()
}

/// `.. |name| directive:: argument` → the name, and what follows it.
pub(super) fn substitution(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix("..")?.trim_start().strip_prefix('|')?;
    let (name, directive) = text.split_once('|')?;
    let is_name = !name.is_empty() && name.len() <= MAX_NAME;
    (is_name && directive.contains("::")).then_some((name, directive.trim_start()))
}

fn put_in<'a>(directive: &str, body: impl Iterator<Item = &'a Line<'a>>) -> Option<String> {
    let (kind, argument) = directive.split_once("::")?;
    let argument = argument.trim();
    let lines = body.map(|line| line.text.trim());
    match kind {
        "replace" => {
            let lines: Vec<&str> = std::iter::once(argument).chain(lines).collect();
            Some(of_rst(lines.join(" ").trim(), &References::default()))
        }
        "unicode" => {
            let codes = argument.split(" ..").next().unwrap_or_default();
            let letters = codes.split_whitespace().map(|code| {
                let hex = ["U+", "0x", "x", "\\x", "u", "\\u"]
                    .iter()
                    .find_map(|mark| code.strip_prefix(mark));
                let letter = hex.and_then(|hex| char::from_u32(u32::from_str_radix(hex, 16).ok()?));
                letter.map_or_else(|| code.to_owned(), String::from)
            });
            Some(letters.collect())
        }
        "image" => {
            let mut lines = lines;
            let alternative = lines.find_map(|line| line.strip_prefix(":alt:").map(str::trim));
            Some(alternative.map_or_else(|| format!("image: {argument}"), str::to_owned))
        }
        _ => None,
    }
}

/// Names that differ in case or in spaces are the same.
fn key(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().collect();
    words.join("-").to_lowercase()
}

fn is_title(text: &str, next: Option<&Line>) -> bool {
    let rule = |text: &str| {
        let text = text.trim_end();
        let first = text.bytes().next();
        first.is_some_and(|first| first.is_ascii_punctuation() && text.bytes().all(|b| b == first))
    };
    !text.trim().is_empty()
        && !rule(text)
        && next.is_some_and(|next| {
            let width = text.trim().chars().count();
            rule(next.text) && next.text.trim_end().len() >= width.min(4)
        })
}
