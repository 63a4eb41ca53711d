//! Which passages an answer shows, and what the moment says of each: whether the signs of what it is about are there, and what
//! the PromQL in it gives.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Question;
use super::blocks::{EvaluatedBlock, Subject, blocks, evaluate};
use super::place::Place;
use super::rank::{self, Hypothesis, Mode};
use super::scope::Scope;
use super::snapshot::{Deadline, Snapshot};
use super::topology::Topology;
use crate::prometheus::Prometheus;
use crate::retrieval::{SearchResult, url};
use crate::runbook::{FailureMode, Library, Runbook, Section};

/// A passage of `POST /search`, with what the moment says of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CitedPassage {
    #[serde(flatten)]
    #[schema(value_type = SearchResult)]
    pub passage: Value,
    /// Of the failure modes that the passage is about: `present`, where the signs of one are there; `absent`, where they were
    /// looked for and are not; `unavailable`. Left out where its page is about none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "absent")]
    pub evidence: Option<String>,
    /// The PromQL blocks in the text with their values, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<EvaluatedBlock>,
}

/// The passages of an answer.
pub struct Cited {
    /// Of each hypothesis that is shown, in their order.
    of_modes: Vec<OfMode>,
    related: Vec<CitedPassage>,
}

struct OfMode {
    /// Where the hypothesis is.
    place: Place,
    passages: Vec<CitedPassage>,
}

impl OfMode {
    /// «It is not the network» is said of the whole scope.
    fn subject<'a>(&'a self, scope: &'a Scope) -> Subject<'a> {
        if self.place == Place::ANYWHERE {
            Subject::Scope(scope)
        } else {
            Subject::Place(&self.place)
        }
    }
}

/// What is known when passages are chosen.
pub struct Choice<'a> {
    pub library: &'a Library,
    pub question: &'a Question,
    pub pages: &'a [(Arc<Runbook>, FailureMode)],
    pub modes: &'a [Mode],
    pub hypotheses: &'a [Hypothesis],
    /// Modes with a hypothesis, shown or not.
    pub found: &'a [usize],
    /// Nothing could be looked for at all.
    pub blind: bool,
}

impl Choice<'_> {
    /// What fits the question's words and the alert, and is not about something that is not there, comes first.
    pub fn choose(&self) -> Cited {
        let of_modes = self
            .hypotheses
            .iter()
            .map(|hypothesis| {
                let (runbook, mode) = &self.pages[hypothesis.mode];
                OfMode {
                    place: hypothesis.places[0].place.clone(),
                    passages: self.of_mode(runbook, mode),
                }
            })
            .collect();
        let shown: BTreeSet<&str> = self
            .hypotheses
            .iter()
            .map(|hypothesis| self.pages[hypothesis.mode].0.id.as_str())
            .collect();
        let hits = &self.question.hits;
        let mut related: Vec<CitedPassage> = self
            .for_alert()
            .filter(|(runbook, _)| !hits.iter().any(|hit| hit.runbook == runbook.id))
            .filter(|(runbook, _)| !shown.contains(runbook.id.as_str()))
            .map(|(runbook, section)| self.cite(runbook, of_section(runbook, section)))
            .collect();
        related.extend(
            hits.iter()
                .filter(|hit| !shown.contains(hit.runbook.as_str()))
                .map(|hit| match self.library.get(&hit.runbook) {
                    Some(runbook) => self.cite(runbook, hit.passage.clone()),
                    // Replaced since it was found.
                    None => CitedPassage {
                        passage: hit.passage.clone(),
                        evidence: None,
                        queries: Vec::new(),
                    },
                }),
        );
        related.sort_by_key(|passage| passage.evidence.as_deref() == Some("absent"));
        Cited { of_modes, related }
    }

    /// What of the mode's page fits the question; without such words, the section that treats the mode.
    fn of_mode(&self, runbook: &Runbook, mode: &FailureMode) -> Vec<CitedPassage> {
        let hits = self.question.hits.iter();
        let of_page: Vec<CitedPassage> = hits
            .filter(|hit| hit.runbook == runbook.id)
            .map(|hit| self.cite(runbook, hit.passage.clone()))
            .collect();
        if !of_page.is_empty() {
            return of_page;
        }
        let section = runbook.section(&mode.anchor).into_iter();
        section
            .map(|section| self.cite(runbook, of_section(runbook, section)))
            .collect()
    }

    /// The sections for the alert that is asked about.
    fn for_alert(&self) -> impl Iterator<Item = (&Runbook, &Section)> {
        let alert = self.question.alert.as_deref();
        self.library.runbooks.iter().filter_map(move |runbook| {
            let alert = alert?;
            let mut names = runbook.alerts.iter();
            if !names.any(|name| name.eq_ignore_ascii_case(alert)) {
                return None;
            }
            let section = runbook.section_for_alert(alert);
            Some((&**runbook, section.or(runbook.sections.first())?))
        })
    }

    fn cite(&self, runbook: &Runbook, passage: Value) -> CitedPassage {
        let text = passage["text"].as_str().unwrap_or_default();
        let queries = blocks(text).into_iter().map(EvaluatedBlock::open).collect();
        CitedPassage {
            evidence: self.evidence(runbook, &passage).map(str::to_owned),
            queries,
            passage,
        }
    }

    /// Of the modes that the passage's section treats; where none is named, of all modes of its page.
    fn evidence(&self, runbook: &Runbook, passage: &Value) -> Option<&'static str> {
        let headings: Vec<&str> = passage["section"]["heading_path"]
            .as_array()
            .map(|path| path.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let treats = |mode: &FailureMode| {
            runbook
                .section(&mode.anchor)
                .is_some_and(|section| headings.starts_with(&as_strs(&section.heading_path)))
        };
        let of_page = || {
            let pages = self.pages.iter().enumerate();
            pages
                .filter(|(_, (page, _))| page.id == runbook.id)
                .filter(|(index, _)| self.blind || !rank::is_left_out(&self.modes[*index]))
        };
        let several = runbook.failure_modes.len() > 1;
        let named: Vec<usize> = of_page()
            .filter(|(_, (_, mode))| several && treats(mode))
            .map(|(index, _)| index)
            .collect();
        let about = match named.is_empty() {
            true => of_page().map(|(index, _)| index).collect(),
            false => named,
        };
        if about.is_empty() {
            None
        } else if self.blind {
            Some("unavailable")
        } else if about.iter().any(|index| self.found.contains(index)) {
            Some("present")
        } else if about
            .iter()
            .all(|index| rank::could_be_checked(&self.modes[*index]))
        {
            Some("absent")
        } else {
            Some("unavailable")
        }
    }
}

fn as_strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// The section, or the first one below its heading that says anything: a page about several alerts has a heading for each,
/// and often nothing but more headings right below it.
fn telling<'a>(runbook: &'a Runbook, section: &'a Section) -> &'a Section {
    let is_it = |other: &Section| std::ptr::eq(other, section);
    let at = runbook.sections.iter().position(is_it);
    let within = at.map_or(0..0, |at| runbook.sections_within(at));
    let mut within = runbook.sections[within].iter();
    within
        .find(|below| !below.text.is_empty())
        .unwrap_or(section)
}

/// A section as a passage.
fn of_section(runbook: &Runbook, section: &Section) -> Value {
    let section = telling(runbook, section);
    json!({
        "rank": 1,
        "score": 1.0,
        "runbook": {
            "id": runbook.id,
            "title": runbook.title,
            "path": runbook.path,
            "url": url(&runbook.id),
        },
        "section": {
            "heading_path": section.heading_path,
            "anchor": section.anchor,
            "line_start": section.line_start,
            "line_end": section.line_end,
        },
        "text": section.text,
    })
}

impl Cited {
    /// Fills in what the PromQL of all passages gives: of a hypothesis for where it is, of the others for the scope.
    pub async fn evaluate(
        mut self,
        prometheus: &Prometheus,
        snapshot: &Arc<Snapshot>,
        scope: &Scope,
        topology: &Topology,
        deadline: Deadline,
    ) -> Self {
        let related = self.related.iter();
        let related = related.map(|passage| (passage, Subject::Scope(scope)));
        let of_modes = self.of_modes.iter().flat_map(|of_mode| {
            let passages = of_mode.passages.iter();
            passages.map(|passage| (passage, of_mode.subject(scope)))
        });
        let wanted: Vec<(&str, Subject<'_>)> = of_modes
            .chain(related)
            .flat_map(|(passage, subject)| {
                let queries = passage.queries.iter();
                queries.map(move |query| (query.block.as_str(), subject))
            })
            .collect();
        if wanted.is_empty() {
            return self;
        }
        let said = evaluate(prometheus, snapshot, &wanted, topology, deadline).await;
        let of_modes = self.of_modes.iter_mut();
        let of_modes = of_modes.flat_map(|of_mode| &mut of_mode.passages);
        let all = of_modes.chain(&mut self.related);
        for (query, said) in all.flat_map(|passage| &mut passage.queries).zip(said) {
            *query = said;
        }
        self
    }

    /// Those of a hypothesis, by its place in the list.
    pub fn of_mode(&self, index: usize) -> Vec<Value> {
        as_json(&self.of_modes[index].passages)
    }

    pub fn related(&self) -> Vec<Value> {
        as_json(&self.related)
    }
}

fn as_json(passages: &[CitedPassage]) -> Vec<Value> {
    // Keys are strings and numbers are finite, so nothing here can fail.
    let values = passages.iter().map(serde_json::to_value);
    values.filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::parse;

    #[test]
    fn a_passage_has_text_where_its_heading_has_some_below() {
        let source = "# Page\n\n## LinkLost\n\n### Meaning\n\nNo carrier.\n\n## Empty\n\n## Other\n\nWords.\n";
        let (runbook, _) = parse("page", "page.md", source.into());
        for (anchor, told, text) in [
            ("linklost", "meaning", "No carrier."),
            ("empty", "empty", ""),
            ("other", "other", "Words."),
        ] {
            let passage = of_section(&runbook, runbook.section(anchor).unwrap());
            assert_eq!(passage["section"]["anchor"], told);
            assert_eq!(passage["text"], text);
        }
    }
}
