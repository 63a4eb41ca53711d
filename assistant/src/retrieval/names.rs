//! Alert names → the pages and sections that are about them. A name that a page answers to beats any similarity.

use std::collections::HashMap;

use super::words::humps;
use crate::runbook::Runbook;
use crate::runbook::anchor::compact;

/// A page, and the section if only that is about the alert.
pub type Place = (usize, Option<usize>);

#[derive(Debug, Default)]
pub struct Names {
    places: HashMap<String, Vec<Place>>,
    /// Names as written, for suggestions.
    spelt: Vec<(String, Place)>,
    /// Declared names that do not look like one, `Watchdog`: they count only as they are written.
    plain: HashMap<String, Vec<Place>>,
    /// Declared names with spaces or hyphens in them, `High CPU on node`: likewise.
    phrases: Vec<(String, Place)>,
}

impl Names {
    pub fn new<'a>(runbooks: impl Iterator<Item = &'a Runbook>) -> Self {
        let mut names = Self::default();
        for (at, runbook) in runbooks.enumerate() {
            for alert in &runbook.alerts {
                let section = runbook.section_for_alert(alert);
                let section = section.and_then(|wanted| {
                    runbook
                        .sections
                        .iter()
                        .position(|section| section == wanted)
                });
                if !alert.chars().all(is_of_word) {
                    names.phrases.push((alert.clone(), (at, section)));
                } else if humps(alert).len() == 1 {
                    names
                        .plain
                        .entry(alert.clone())
                        .or_default()
                        .push((at, section));
                }
                names.add(alert, (at, section));
            }
            let stem = runbook.id.rsplit('/').next().unwrap_or(&runbook.id);
            if looks_like_alert(stem, 2) {
                names.add(stem, (at, None));
            }
            for (index, section) in runbook.sections.iter().enumerate() {
                let heading = section.heading_path.last().map_or("", String::as_str);
                if section.level > 0
                    && let Some(name) = name_in_heading(heading)
                {
                    let whole_page = section.level == 1;
                    names.add(name, (at, (!whole_page).then_some(index)));
                }
            }
        }
        names
    }

    fn add(&mut self, name: &str, place: Place) {
        let key = key(name);
        let places = self.places.entry(key).or_default();
        if !places
            .iter()
            .any(|(page, section)| *page == place.0 && (section.is_none() || *section == place.1))
        {
            places.push(place);
            self.spelt.push((name.to_owned(), place));
        }
    }

    /// Where an alert of exactly this name is treated.
    pub fn exact(&self, name: &str) -> &[Place] {
        self.places.get(&key(name)).map_or(&[], Vec::as_slice)
    }

    /// Where the alerts are treated that a question names.
    pub fn in_question(&self, question: &str) -> Vec<Place> {
        // A payload says which alert it is; other names in it are bystanders.
        if let Some(name) = labelled(question) {
            let places = self.exact(name);
            if !places.is_empty() {
                return places.to_vec();
            }
        }
        let whole = self.exact(question);
        if !whole.is_empty() && question.len() > 3 {
            return whole.to_vec();
        }
        let mut places = Vec::new();
        let phrases = self
            .phrases
            .iter()
            .filter(|(name, _)| is_in(name, question));
        let phrases: Vec<_> = phrases.collect();
        for (name, place) in &phrases {
            let is_part = |(longer, _): &&(String, Place)| longer != name && longer.contains(name);
            if !phrases.iter().any(is_part) {
                places.push(*place);
            }
        }
        for word in question.split(|c: char| !is_of_word(c)) {
            if looks_like_alert(word, 2) {
                places.extend_from_slice(self.exact(word));
            } else if let Some(of_word) = self.plain.get(word) {
                places.extend_from_slice(of_word);
            }
        }
        places
    }

    /// The names nearest to one that nobody treats, best first, one a page.
    pub fn nearest(&self, name: &str, limit: usize) -> Vec<(&str, Place)> {
        let name: String = name.chars().take(COMPARED).collect();
        let wanted = key(&name);
        let wanted_parts: Vec<String> = humps(&name)
            .iter()
            .map(|part| part.to_lowercase())
            .collect();
        let mut ranked: Vec<_> = self
            .spelt
            .iter()
            .map(|(spelt, place)| {
                let parts: Vec<String> = humps(spelt)
                    .iter()
                    .map(|part| part.to_lowercase())
                    .collect();
                let shared = parts
                    .iter()
                    .filter(|part| wanted_parts.contains(part))
                    .count();
                let distance = crate::config::edit_distance(&wanted, &key(spelt));
                // A shared word outweighs a few letters.
                (distance as i64 - 6 * shared as i64, spelt.as_str(), *place)
            })
            .collect();
        ranked.sort();
        let mut nearest: Vec<(&str, Place)> = Vec::new();
        for (_, spelt, place) in ranked {
            if nearest.len() == limit {
                break;
            }
            if !nearest.iter().any(|(_, known)| known.0 == place.0) {
                nearest.push((spelt, place));
            }
        }
        nearest
    }
}

/// `NorthboundStale` and `NorthboundStaleAlert` are one.
fn key(name: &str) -> String {
    let name = compact(name);
    match name.strip_suffix("alert") {
        Some(rest) if rest.len() > 3 => rest.to_owned(),
        _ => name,
    }
}

/// A length is plenty to compare names by, and no request may cost more than that.
const COMPARED: usize = 100;

/// `CamelCase` of so many words and nothing else.
fn looks_like_alert(word: &str, least: usize) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && word.chars().any(|c| c.is_ascii_lowercase())
        && humps(word).len() >= least
}

/// A heading that is an alert's name, or says so: `Alert Name: "KubePodCrashLooping"`.
fn name_in_heading(heading: &str) -> Option<&str> {
    let is_labelled = heading.to_lowercase().starts_with("alert");
    let last = heading.split_whitespace().last()?;
    let name = last.trim_matches(|c: char| !c.is_alphanumeric());
    let alone = last.len() == heading.trim().len();
    let enough = if is_labelled { 2 } else { 3 };
    ((alone || is_labelled) && looks_like_alert(name, enough)).then_some(name)
}

/// The value after `alertname`, however the payload is written. Within quotes it may have spaces.
fn labelled(question: &str) -> Option<&str> {
    let after = &question[question.find("alertname")? + "alertname".len()..];
    let rest = after.trim_start_matches(|c: char| !c.is_alphanumeric());
    let quote = after[..after.len() - rest.len()]
        .chars()
        .next_back()
        .filter(|c| matches!(c, '"' | '\''));
    let end = match quote {
        Some(quote) => rest.find([quote, '\n']),
        None => rest.find(|c: char| !(is_of_word(c) || c == '-')),
    };
    Some(&rest[..end.unwrap_or(rest.len())]).filter(|name| !name.is_empty())
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// As it is written, and not as a part of longer words.
fn is_in(name: &str, text: &str) -> bool {
    !name.trim().is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + name.len()..].chars().next();
            !before.is_some_and(is_of_word) && !after.is_some_and(is_of_word)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::parse;

    fn names() -> Names {
        let pages = [
            (
                "dns",
                "---\nalerts: [CoreDNSErrorsHigh, Watchdog]\n---\n# DNS\n## Diagnosis\n",
            ),
            ("alerts/KubePodCrashLooping", "# Page\n"),
            (
                "mixin",
                "# Mixin\n##### Alert Name: \"KubeNodeNotReady\"\ntext\n## StatefulSet\n## NorthboundStaleAlert\n",
            ),
        ];
        let pages: Vec<_> = pages
            .iter()
            .map(|(id, text)| parse(id, id, (*text).to_owned()).0)
            .collect();
        Names::new(pages.iter())
    }

    #[test]
    fn names_are_recognised_however_they_are_written() {
        let names = names();
        for (question, places) in [
            ("CoreDNSErrorsHigh is firing", &[(0, None)][..]),
            ("coredns errors high", &[(0, None)]),
            ("what about Watchdog?", &[(0, None)]),
            ("our watchdog barks", &[]),
            ("kube pod crash looping", &[(1, None)]),
            (
                r#"{"labels":{"alertname":"KubeNodeNotReady","x":"KubePodCrashLooping"}}"#,
                &[(2, Some(1))],
            ),
            ("NorthboundStale", &[(2, Some(3))]),
            ("a StatefulSet is stuck", &[]),
            ("", &[]),
        ] {
            assert_eq!(names.in_question(question), places, "{question}");
        }
    }

    #[test]
    fn names_with_spaces_and_hyphens_are_recognised_in_sentences_and_payloads() {
        let pages = [
            "---\nalerts: [High CPU on node, instance-down]\n---\n# A\n",
            "---\nalerts: [High CPU]\n---\n# B\n",
        ];
        let pages = pages.map(|text| parse("id", "id", text.to_owned()).0);
        let names = Names::new(pages.iter());
        for (question, places) in [
            ("instance-down fires since ten", &[(0, None)][..]),
            (
                r#"{"alertname": "High CPU on node", "x": "y"}"#,
                &[(0, None)],
            ),
            (r#"{\"alertname\":\"High CPU on node\"}"#, &[(0, None)]),
            (r#"ALERTS{alertname="High CPU"}"#, &[(1, None)]),
            ("[FIRING] High CPU: db-7", &[(1, None)]),
            ("[FIRING] High CPU on node db-7", &[(0, None)]),
            ("a high cpu-bound load", &[]),
            ("instance-downtime", &[]),
        ] {
            assert_eq!(names.in_question(question), places, "{question}");
        }
    }

    #[test]
    fn an_unknown_name_has_neighbours() {
        let names = names();
        let nearest = names.nearest("KubePodCrashloopingg", 3);
        assert_eq!(nearest[0].0, "KubePodCrashLooping");
        assert_eq!(nearest.len(), 3);
        // What stands further behind is not read: an address may be as long as thirty thousand characters.
        let long = format!("CoreDNS{}KubePodCrashLooping", "x".repeat(COMPARED));
        assert_eq!(names.nearest(&long, 1)[0].0, "CoreDNSErrorsHigh");
    }
}
