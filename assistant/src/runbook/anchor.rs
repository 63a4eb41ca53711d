//! Heading text → anchor, as GitHub does it, so that links written for one work on the other; links between files →
//! pages.

use std::collections::HashMap;

/// Anchor of the text before the first heading.
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
    super::Format::of(std::path::Path::new(path))?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
