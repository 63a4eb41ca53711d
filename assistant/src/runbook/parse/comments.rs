//! Comments in HTML, such as a licence at the head of a page: no reader sees them, so nobody should find a page by them. Pure.

use std::borrow::Cow;
use std::ops::Range;

use pulldown_cmark::{Event, Parser, Tag};

use super::markdown_options;

const OPEN: &str = "<!--";
const CLOSE: &str = "-->";

/// The Markdown with spaces in their place: all else stays where it is. What code shows, and what nobody closes, is text.
pub(in super::super) fn blanked(markdown: &str) -> Cow<'_, str> {
    if !markdown.contains(OPEN) {
        return markdown.into();
    }
    let mut bytes = markdown.as_bytes().to_vec();
    for (event, range) in Parser::new_ext(markdown, markdown_options()).into_offset_iter() {
        if let Event::Start(Tag::HtmlBlock) | Event::InlineHtml(_) = event {
            for comment in comments(markdown, range) {
                let seen = |byte: &&mut u8| !byte.is_ascii_whitespace();
                bytes[comment]
                    .iter_mut()
                    .filter(seen)
                    .for_each(|byte| *byte = b' ');
            }
        }
    }
    // Whole characters became spaces.
    String::from_utf8(bytes).map_or_else(|_| markdown.into(), Cow::from)
}

fn comments(markdown: &str, within: Range<usize>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = within.start;
    while let Some(start) = markdown[at..within.end].find(OPEN).map(|start| at + start) {
        let inside = start + OPEN.len();
        let Some(length) = markdown[inside..within.end].find(CLOSE) else {
            break;
        };
        at = inside + length + CLOSE.len();
        found.push(start..at);
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_no_reader_sees_is_blank_and_all_else_stays() {
        for (markdown, expected) in [
            (
                "<!-- Copyright é\n\n(c) X -->\n\n# A\n",
                "                 \n\n         \n\n# A\n",
            ),
            ("a <!-- b --> c", "a            c"),
            (
                "<div>\n<!-- b -->\nc\n</div>\n",
                "<div>\n          \nc\n</div>\n",
            ),
            ("```\n<!-- b -->\n```\n", "```\n<!-- b -->\n```\n"),
            ("    <!-- b -->\n", "    <!-- b -->\n"),
            ("`<!-- b -->`", "`<!-- b -->`"),
            ("<!-- never closed\n\n# A\n", "<!-- never closed\n\n# A\n"),
            ("plain", "plain"),
        ] {
            assert_eq!(blanked(markdown), expected, "{markdown:?}");
        }
    }

    proptest! {
        #[test]
        fn lines_and_places_stay(markdown in "([ -~\né]{0,6}|<!--|-->|```\n|> |- |`){0,30}") {
            let blanked = blanked(&markdown);
            prop_assert_eq!(blanked.len(), markdown.len());
            for (was, is) in markdown.bytes().zip(blanked.bytes()) {
                prop_assert!(was == is || is == b' ');
                prop_assert_eq!(was == b'\n', is == b'\n');
            }
        }
    }
}
