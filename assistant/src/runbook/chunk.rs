//! [`Section`](super::Section) → [`Passage`]s, the unit of retrieval. Pure.

use super::Runbook;

/// A passage as long as a paragraph or two: longer ones blur in the embedding.
const TARGET_CHARACTERS: usize = 700;

/// Deep or wordy headings must leave room for the text below them.
const MAX_BREADCRUMB_CHARACTERS: usize = 200;

/// Lines of one section that are found and shown together.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// Index into the runbook's sections.
    pub section: usize,
    /// Lines of the file, counted from 1.
    pub line_start: usize,
    pub line_end: usize,
    /// Title > headings: put before the text wherever it is indexed.
    pub breadcrumb: String,
    /// Markdown.
    pub text: String,
}

impl Passage {
    /// What is embedded.
    pub fn with_breadcrumb(&self) -> String {
        format!("{}\n{}", self.breadcrumb, self.text)
    }
}

/// What the model can take, and how it counts.
pub struct Budget<'a> {
    pub tokens: usize,
    pub count: &'a dyn Fn(&str) -> usize,
}

/// Cuts every section along its blocks. Every line of text ends up in a passage, and every passage fits the budget.
pub fn chunk(runbook: &Runbook, budget: &Budget) -> Vec<Passage> {
    let mut passages = Vec::new();
    for (index, section) in runbook.sections.iter().enumerate() {
        let breadcrumb = breadcrumb(&runbook.title, &section.heading_path);
        let lines: Vec<&str> = section.text.lines().collect();
        let splitter = Splitter {
            lines: &lines,
            breadcrumb: &breadcrumb,
            budget,
        };
        for piece in splitter.pieces() {
            if piece.text.trim().is_empty() {
                continue;
            }
            passages.push(Passage {
                section: index,
                line_start: section.text_line + piece.start,
                line_end: section.text_line + piece.end - 1,
                breadcrumb: breadcrumb.clone(),
                text: piece.text,
            });
        }
    }
    // A page of headings only can still be found by them.
    if passages.is_empty()
        && let Some(section) = runbook.sections.first()
    {
        passages.push(Passage {
            section: 0,
            line_start: section.line_start,
            line_end: section.line_end,
            breadcrumb: breadcrumb(&runbook.title, &section.heading_path),
            text: section.heading_path.join(" > "),
        });
    }
    passages
}

fn breadcrumb(title: &str, heading_path: &[String]) -> String {
    let mut parts = vec![title];
    parts.extend(heading_path.iter().map(String::as_str));
    parts.dedup();
    let whole = parts.join(" > ");
    match whole.char_indices().nth(MAX_BREADCRUMB_CHARACTERS) {
        Some((end, _)) => whole[..end].to_owned(),
        None => whole,
    }
}

struct Piece {
    /// Lines of the section's text, counted from 0; `end` is behind the last.
    start: usize,
    end: usize,
    text: String,
}

struct Splitter<'a> {
    lines: &'a [&'a str],
    breadcrumb: &'a str,
    budget: &'a Budget<'a>,
}

impl Splitter<'_> {
    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut open: Option<(usize, usize)> = None;
        for (start, end) in self.blocks() {
            if let Some((first, _)) = open
                && self.is_short(first, end)
            {
                open = Some((first, end));
                continue;
            }
            if let Some((first, last)) = open.take() {
                self.close(first, last, &mut pieces);
            }
            open = Some((start, end));
        }
        if let Some((first, last)) = open {
            self.close(first, last, &mut pieces);
        }
        pieces
    }

    /// Paragraphs, lists, tables and fenced code: what blank lines separate, code whole.
    fn blocks(&self) -> Vec<(usize, usize)> {
        let mut blocks = Vec::new();
        let mut start = None;
        let mut fence: Option<&str> = None;
        for (at, line) in self.lines.iter().enumerate() {
            let text = line.trim_start();
            if let Some(mark) = fence {
                if text.starts_with(mark) {
                    fence = None;
                }
                continue;
            }
            if text.is_empty() {
                if let Some(start) = start.take() {
                    blocks.push((start, at));
                }
                continue;
            }
            start.get_or_insert(at);
            fence = ["```", "~~~"]
                .into_iter()
                .find(|mark| text.starts_with(mark));
        }
        if let Some(start) = start {
            blocks.push((start, self.lines.len()));
        }
        blocks
    }

    fn text(&self, start: usize, end: usize) -> String {
        self.lines[start..end].join("\n")
    }

    fn is_short(&self, start: usize, end: usize) -> bool {
        let text = self.text(start, end);
        text.len() <= TARGET_CHARACTERS && self.fits(&text)
    }

    fn fits(&self, text: &str) -> bool {
        let whole = format!("{}\n{text}", self.breadcrumb);
        // No token is shorter than a byte, and two mark the ends: short texts need no counting.
        whole.len() + 2 <= self.budget.tokens || (self.budget.count)(&whole) <= self.budget.tokens
    }

    /// Emits the lines as one piece where they fit, and else cuts them.
    fn close(&self, start: usize, end: usize, pieces: &mut Vec<Piece>) {
        let text = self.text(start, end);
        let is_whole = {
            let first = self.lines[start].trim_start();
            first.starts_with("```") || first.starts_with("~~~") || first.starts_with('|')
        };
        if (is_whole || text.len() <= TARGET_CHARACTERS) && self.fits(&text) {
            pieces.push(Piece { start, end, text });
            return;
        }
        let mut from = start;
        while from < end {
            let mut to = from + 1;
            while to < end && self.is_short(from, to + 1) {
                to += 1;
            }
            let text = self.text(from, to);
            if to == from + 1 && !self.is_short(from, to) {
                self.cut_line(from, &text, pieces);
            } else {
                pieces.push(Piece {
                    start: from,
                    end: to,
                    text,
                });
            }
            from = to;
        }
    }

    /// One line that is too long by itself: at spaces, and a word without end anywhere.
    fn cut_line(&self, at: usize, line: &str, pieces: &mut Vec<Piece>) {
        let mut rest = line.trim();
        while !rest.is_empty() {
            let mut end = floor_char_boundary(rest, TARGET_CHARACTERS);
            while !self.fits(&rest[..end]) && end > 1 {
                end = floor_char_boundary(rest, end / 2);
            }
            if end < rest.len()
                && let Some(space) = rest[..end].rfind(char::is_whitespace)
                && space > 0
            {
                end = space;
            }
            let end = end.max(rest.chars().next().map_or(1, char::len_utf8));
            pieces.push(Piece {
                start: at,
                end: at + 1,
                text: rest[..end].to_owned(),
            });
            rest = rest[end..].trim_start();
        }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runbook::parse;

    /// A token a word.
    fn chunks(source: &str, tokens: usize) -> Vec<Passage> {
        let (runbook, _) = parse("id", "id.md", source.to_owned());
        let count = |text: &str| text.split_whitespace().count();
        chunk(
            &runbook,
            &Budget {
                tokens,
                count: &count,
            },
        )
    }

    #[test]
    fn passages_follow_headings_and_carry_them() {
        let passages = chunks("# Title\n\nIntro.\n\n## Part\n\nOne.\n\nTwo.\n", 256);
        let shown: Vec<_> = passages
            .iter()
            .map(|p| {
                (
                    p.breadcrumb.as_str(),
                    p.text.as_str(),
                    p.line_start,
                    p.line_end,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("Title", "Intro.", 3, 3),
                ("Title > Part", "One.\n\nTwo.", 7, 9)
            ]
        );
    }

    #[test]
    fn code_and_tables_stay_whole_where_they_fit() {
        let code = format!("```\n{}```", "some command --with=flags\n\n".repeat(40));
        let passages = chunks(&format!("# T\n\nWords.\n\n{code}\n\nMore.\n"), 256);
        let texts: Vec<_> = passages.iter().map(|p| p.text.as_str()).collect();
        assert_eq!(texts, ["Words.", code.as_str(), "More."]);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_nothing_is_lost() {
        let word = "x".repeat(3000);
        let prose = "plain words ".repeat(400);
        let passages = chunks(&format!("# T\n\n{word}\n{prose}\n"), 50);
        let all: String = passages
            .iter()
            .flat_map(|p| p.text.split_whitespace())
            .collect();
        let expected: String = format!("{word}{prose}").split_whitespace().collect();
        assert_eq!(all, expected);
        assert!(
            passages
                .iter()
                .all(|p| p.text.split_whitespace().count() <= 50)
        );
        assert!(passages.iter().all(|p| p.text.len() <= TARGET_CHARACTERS));
    }

    #[test]
    fn a_page_of_headings_is_still_found() {
        let passages = chunks("# Only\n## Headings\n", 256);
        assert_eq!(passages.len(), 1);
        assert_eq!(passages[0].text, "Only");
    }

    proptest! {
        #[test]
        fn every_word_is_in_a_passage_and_every_passage_fits(
            body in "([a-zé`|~]{1,8}[ \n]{1,3}|```\n|\n\n){0,200}", tokens in 20_usize..200
        ) {
            let source = format!("# T\n\n{body}");
            let (runbook, _) = parse("id", "id.md", source.clone());
            let passages = chunks(&source, tokens);
            let words: usize = runbook.sections.iter().map(|s| s.text.split_whitespace().count()).sum();
            let kept: usize = passages.iter().map(|p| p.text.split_whitespace().count()).sum();
            prop_assert!(kept >= words);
            for passage in passages {
                prop_assert!(passage.with_breadcrumb().split_whitespace().count() <= tokens);
            }
        }
    }
}
