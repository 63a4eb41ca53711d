//! Heading text → anchor, as GitHub does it, so that links written for one work on the other; links between files →
//! pages.

use std::collections::HashMap;

/// Anchor of the text before the first heading, unless a heading has it.
pub const TOP: &str = "top";

/// Hands out the anchors of one page.
#[derive(Debug, Default)]
pub struct Anchors {
    used: HashMap<String, usize>,
}

impl Anchors {
    /// The anchor of the page's next heading. A second «Diagnosis» becomes `diagnosis-1`.
    pub fn next(&mut self, heading: &str) -> String {
        self.reserve(slug(heading))
    }

    /// The same for an anchor that the author wrote out as `{#anchor}`. It becomes part of addresses and of headers, which
    /// take no control characters.
    pub fn explicit(&mut self, anchor: &str) -> String {
        self.reserve(anchor.replace(|c: char| c.is_whitespace() || c.is_control(), ""))
    }

    fn reserve(&mut self, base: String) -> String {
        let base = match base.is_empty() {
            true => "section".to_owned(),
            false => base,
        };
        let mut anchor = base.clone();
        while self.used.contains_key(&anchor) {
            let count = self.used.entry(base.clone()).or_default();
            *count += 1;
            anchor = format!("{base}-{count}");
        }
        self.used.insert(anchor.clone(), 0);
        anchor
    }
}

pub(super) fn slug(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter_map(|c| match c {
            ' ' | '-' => Some('-'),
            '_' => Some('_'),
            c if c.is_alphanumeric() => Some(c),
            _ => None,
        })
        .flat_map(char::to_lowercase)
        .collect()
}

/// Letters and digits only, lower case: for comparing names however they are spelt.
pub fn compact(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// `../other.md#part` seen from a page → the other's id, and `#part` or nothing.
pub fn page_of_link(from: &str, target: &str) -> Option<(String, String)> {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, format!("#{anchor}")),
        None => (target, String::new()),
    };
    // A space in a file's name can be written in no other way.
    let path = decoded(path);
    super::Format::of(std::path::Path::new(&path))?;
    let path = path.rsplit_once('.')?.0;
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some((parts.join("/"), anchor))
}

/// `%20` → a space, as in addresses.
pub fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_finds_its_page_however_its_name_is_written() {
        for (target, id, anchor) in [
            ("other.md#part", "ops/other", "#part"),
            ("../disk%20full.md", "disk full", ""),
            ("disk full.md", "ops/disk full", ""),
            ("gr%C3%B6%C3%9Fe.md", "ops/größe", ""),
            ("50%25.md", "ops/50%", ""),
            ("50%.md", "ops/50%", ""),
        ] {
            let found = page_of_link("ops/page", target);
            assert_eq!(found, Some((id.to_owned(), anchor.to_owned())), "{target}");
        }
    }

    #[test]
    fn anchors_are_those_of_github() {
        let mut anchors = Anchors::default();
        let cases = [
            ("Diagnosis", "diagnosis"),
            ("Diagnosis", "diagnosis-1"),
            ("Diagnosis", "diagnosis-2"),
            ("Diagnosis 1", "diagnosis-1-1"),
            ("What `kubectl` says, & why?", "what-kubectl-says--why"),
            ("Größe_der Queue", "größe_der-queue"),
            ("!!!", "section"),
        ];
        for (heading, anchor) in cases {
            assert_eq!(anchors.next(heading), anchor);
        }
    }
}
