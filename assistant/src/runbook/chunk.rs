//! [`Section`](super::Section) → [`Passage`]s, the unit of retrieval. Pure.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use super::Runbook;

/// A passage as long as a paragraph or two: longer ones blur in the embedding.
const TARGET_CHARACTERS: usize = 700;

/// Deep or wordy headings must leave room for the text below them.
const MAX_BREADCRUMB_CHARACTERS: usize = 200;

/// Of a section that is longer, what is cut out further below is shown as it is: looking through it all would take too long.
const MAX_LOOKED_THROUGH: usize = 256 << 10;

/// Lines of one section that are found and shown together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// Index into the runbook's sections.
    pub section: usize,
    /// Lines of the file, counted from 1.
    pub line_start: usize,
    pub line_end: usize,
    /// Bytes of the section's text. Empty: the headings are all there is.
    pub start: usize,
    pub end: usize,
}

impl Passage {
    /// Markdown. The runbook must be the one that was cut.
    pub fn text<'a>(&self, runbook: &'a Runbook) -> Cow<'a, str> {
        let section = &runbook.sections[self.section];
        if self.start == self.end {
            return section.heading_path.join(" > ").into();
        }
        section
            .text
            .get(self.start..self.end)
            .unwrap_or_default()
            .into()
    }

    /// The same so that it can be shown by itself: what was cut out of code that did not fit is code, in which no sign is taken
    /// for Markdown and no `<name>` for a tag.
    pub fn shown<'a>(&self, runbook: &'a Runbook) -> Cow<'a, str> {
        let text = self.text(runbook);
        let above = runbook.sections[self.section].text.get(..self.start);
        let above = above.unwrap_or_default();
        if above.len() > MAX_LOOKED_THROUGH {
            return text;
        }
        let open = |before, text: &'a str| text.lines().map(str::trim).fold(before, fence_behind);
        let before = open(None, above);
        let Cow::Borrowed(inside) = text else {
            return text;
        };
        match (before, open(before, inside)) {
            (None, None) => inside.into(),
            (Some(mark), None) => format!("{mark}\n{inside}").into(),
            (None, Some(mark)) => format!("{inside}\n{mark}").into(),
            (Some(first), Some(last)) => format!("{first}\n{inside}\n{last}").into(),
        }
    }

    /// Title > headings: put before the text wherever it is indexed.
    pub fn breadcrumb(&self, runbook: &Runbook) -> String {
        breadcrumb(&runbook.title, &runbook.sections[self.section].heading_path)
    }

    /// What is embedded.
    pub fn with_breadcrumb(&self, runbook: &Runbook) -> String {
        format!("{}\n{}", self.breadcrumb(runbook), self.text(runbook))
    }
}

/// What the model can take, and how it counts. Tokens never reach over white space, so that each word is counted once
/// and remembered: asking the tokenizer about every piece takes minutes for a few thousand pages.
pub struct Budget<'a> {
    tokens: usize,
    count: &'a dyn Fn(&str) -> usize,
    /// Tokens that mark the two ends of any text.
    marks: usize,
    known: RefCell<HashMap<String, usize>>,
}

/// Longer words are hashes and base64: each is seen once, and keeping it would not pay.
const MAX_KNOWN_BYTES: usize = 40;

impl<'a> Budget<'a> {
    pub fn new(tokens: usize, count: &'a dyn Fn(&str) -> usize) -> Self {
        Self {
            tokens,
            count,
            marks: count(""),
            known: RefCell::default(),
        }
    }

    fn of_word(&self, word: &str) -> usize {
        let count = || (self.count)(word).saturating_sub(self.marks);
        if word.len() > MAX_KNOWN_BYTES {
            return count();
        }
        if let Some(&known) = self.known.borrow().get(word) {
            return known;
        }
        let tokens = count();
        self.known.borrow_mut().insert(word.to_owned(), tokens);
        tokens
    }

    /// Without the marks.
    fn of_text(&self, text: &str) -> usize {
        text.split_whitespace()
            .map(|word| self.of_word(word))
            .fold(0, usize::saturating_add)
    }
}

/// Cuts every section along its blocks. Every line of text ends up in a passage, and every passage fits the budget.
pub fn chunk(runbook: &Runbook, budget: &Budget) -> Vec<Passage> {
    let mut passages = Vec::new();
    for (index, section) in runbook.sections.iter().enumerate() {
        let breadcrumb = breadcrumb(&runbook.title, &section.heading_path);
        let above = budget.marks + budget.of_text(&breadcrumb);
        let splitter = Splitter {
            text: &section.text,
            lines: lines(&section.text, budget),
            room: budget.tokens.saturating_sub(above),
            budget,
        };
        for piece in splitter.pieces() {
            passages.push(Passage {
                section: index,
                line_start: section.line_of(piece.first),
                line_end: section.line_of(piece.last),
                start: piece.start,
                end: piece.end,
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
            start: 0,
            end: 0,
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

struct Line {
    /// Bytes of the section's text, without the line's end.
    start: usize,
    end: usize,
    /// Of all lines before this one.
    tokens_before: usize,
    tokens: usize,
}

fn lines(text: &str, budget: &Budget) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut tokens_before = 0_usize;
    for line in text.split('\n') {
        let end = start + line.len();
        let tokens = budget.of_text(line);
        lines.push(Line {
            start,
            end,
            tokens_before,
            tokens,
        });
        tokens_before = tokens_before.saturating_add(tokens);
        start = end + 1;
    }
    lines
}

struct Piece {
    /// Lines of the section's text, counted from 0.
    first: usize,
    last: usize,
    /// Bytes of the section's text.
    start: usize,
    end: usize,
}

struct Splitter<'a> {
    text: &'a str,
    lines: Vec<Line>,
    /// Tokens that the breadcrumb leaves.
    room: usize,
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

    /// Paragraphs, lists, tables and fenced code: what blank lines separate, code whole. As numbers of lines, `end`
    /// behind the last.
    fn blocks(&self) -> Vec<(usize, usize)> {
        let mut blocks = Vec::new();
        let mut start = None;
        let mut fence: Option<&str> = None;
        for at in 0..self.lines.len() {
            let text = self.line(at).trim();
            let before = fence;
            fence = fence_behind(before, text);
            // What stands right above code or right below it is a block of its own: with it the code might not fit.
            let end = match (before.is_some(), fence.is_some()) {
                (false, false) if !text.is_empty() => {
                    start.get_or_insert(at);
                    continue;
                }
                (false, _) => at,
                (true, false) => at + 1,
                (true, true) => continue,
            };
            if let Some(start) = start.take() {
                blocks.push((start, end));
            }
            start = fence.map(|_| at);
        }
        if let Some(start) = start {
            blocks.push((start, self.lines.len()));
        }
        blocks
    }

    fn line(&self, at: usize) -> &str {
        &self.text[self.lines[at].start..self.lines[at].end]
    }

    fn length(&self, first: usize, end: usize) -> usize {
        self.lines[end - 1].end - self.lines[first].start
    }

    fn fits(&self, first: usize, end: usize) -> bool {
        let last = &self.lines[end - 1];
        last.tokens_before.saturating_add(last.tokens) - self.lines[first].tokens_before
            <= self.room
    }

    fn is_short(&self, first: usize, end: usize) -> bool {
        self.length(first, end) <= TARGET_CHARACTERS && self.fits(first, end)
    }

    fn push(&self, first: usize, end: usize, pieces: &mut Vec<Piece>) {
        // Blank lines at the ends say nothing.
        let is_blank = |line: &Line| self.text[line.start..line.end].trim().is_empty();
        let mut last = end - 1;
        let mut first = first;
        while first < last && is_blank(&self.lines[first]) {
            first += 1;
        }
        while last > first && is_blank(&self.lines[last]) {
            last -= 1;
        }
        if is_blank(&self.lines[first]) {
            return;
        }
        pieces.push(Piece {
            first,
            last,
            start: self.lines[first].start,
            end: self.lines[last].end,
        });
    }

    /// Emits the lines as one piece where they fit, and else cuts them.
    fn close(&self, start: usize, end: usize, pieces: &mut Vec<Piece>) {
        let is_whole = {
            let first = self.text[self.lines[start].start..].trim_start();
            first.starts_with("```")
                || first.starts_with("~~~")
                || first.starts_with('|')
                || (start + 1 < end && is_below_table_head(self.line(start + 1)))
        };
        if (is_whole || self.length(start, end) <= TARGET_CHARACTERS) && self.fits(start, end) {
            self.push(start, end, pieces);
            return;
        }
        let mut from = start;
        while from < end {
            if !self.is_short(from, from + 1) {
                self.cut_line(from, pieces);
                from += 1;
                continue;
            }
            let mut to = from + 1;
            while to < end && self.is_short(from, to + 1) {
                to += 1;
            }
            self.push(from, to, pieces);
            from = to;
        }
    }

    /// One line that is too long by itself: at spaces, and a word without end anywhere.
    fn cut_line(&self, at: usize, pieces: &mut Vec<Piece>) {
        let line = &self.lines[at];
        let mut start = line.start;
        loop {
            let whole = &self.text[start..line.end];
            let rest = whole.trim_start();
            start += whole.len() - rest.len();
            let rest = rest.trim_end();
            if rest.is_empty() {
                return;
            }
            let mut end = floor_char_boundary(rest, TARGET_CHARACTERS);
            while end > 1 && self.budget.of_text(&rest[..end]) > self.room {
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
                first: at,
                last: at,
                start,
                end: start + end,
            });
            start += end;
        }
    }
}

/// The mark of the fenced code that is open behind a line, which is trimmed; `open` is the one above it.
fn fence_behind<'a>(open: Option<&'a str>, line: &'a str) -> Option<&'a str> {
    if let Some(mark) = open {
        // A line of the mark and nothing else closes; text after it would be the start of another.
        let closes = line.starts_with(mark) && line.trim_start_matches(&mark[..1]).is_empty();
        return open.filter(|_| !closes);
    }
    let mark = ["```", "~~~"]
        .into_iter()
        .find(|mark| line.starts_with(mark))?;
    let (mark, behind) = line.split_at(line.len() - line.trim_start_matches(&mark[..1]).len());
    // With the mark again in the same line it is code within text.
    (mark.starts_with('~') || !behind.contains('`')).then_some(mark)
}

/// `--- | :---:`, by which a table is known that has no bars at its sides.
fn is_below_table_head(line: &str) -> bool {
    let line = line.trim();
    line.contains('|') && line.contains("--") && line.bytes().all(|byte| b"|-: \t".contains(&byte))
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

    struct Shown {
        breadcrumb: String,
        text: String,
        line_start: usize,
        line_end: usize,
    }

    /// A token a word.
    fn chunks(source: &str, tokens: usize) -> Vec<Shown> {
        let (runbook, _) = parse("id", "id.md", source.to_owned());
        let count = |text: &str| text.split_whitespace().count();
        chunk(&runbook, &Budget::new(tokens, &count))
            .into_iter()
            .map(|passage| Shown {
                breadcrumb: passage.breadcrumb(&runbook),
                text: passage.text(&runbook).into_owned(),
                line_start: passage.line_start,
                line_end: passage.line_end,
            })
            .collect()
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
    fn code_right_below_a_sentence_and_tables_without_bars_stay_whole_too() {
        let code = format!("```sh\n{}```", "some command --with=flags\n".repeat(27));
        let table = format!("name | use\n--- | ---\n{}", "one | two\n".repeat(80));
        let passages = chunks(
            &format!(
                "# T\n\n1. Take ```this``` first and\n```that```.\n2. Run it:\n{code}\nMore.\n\n{table}"
            ),
            256,
        );
        let texts: Vec<_> = passages.iter().map(|p| p.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "1. Take ```this``` first and\n```that```.\n2. Run it:",
                code.as_str(),
                "More.",
                table.trim_end()
            ]
        );
    }

    #[test]
    fn a_part_of_code_is_shown_as_code() {
        let line = "rm -rf <mount>/tmp # and no other\n";
        let source = format!("# T\n\n```sh\n{}```\n\nEnd.\n", line.repeat(60));
        let (runbook, _) = parse("id", "id.md", source);
        let count = |text: &str| text.split_whitespace().count();
        let passages = chunk(&runbook, &Budget::new(100, &count));
        let mut shown: Vec<_> = passages.iter().map(|p| p.shown(&runbook)).collect();
        assert_eq!(shown.pop().as_deref(), Some("End."));
        assert!(shown.len() > 3);
        assert!(shown[0].starts_with("```sh\nrm") && shown[0].ends_with("other\n```"));
        assert!(shown[1].starts_with("```\nrm") && shown[1].ends_with("other\n```"));
        for part in shown {
            assert_eq!(
                part.lines().filter(|line| line.starts_with("```")).count(),
                2
            );
        }
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
                let words = format!("{} {}", passage.breadcrumb, passage.text);
                prop_assert!(words.split_whitespace().count() <= tokens);
            }
        }
    }
}
