//! A page in any format, with front matter or without: sections, passages, and that every place is in the text.
#![no_main]

use runwire_fuzz::runbook::chunk::{Budget, chunk};
use runwire_fuzz::runbook::parse::{heading_anchors, parse_as};
use runwire_fuzz::runbook::{Format, anchor};

const FORMATS: [Format; 6] = [
    Format::Markdown,
    Format::ReStructuredText,
    Format::AsciiDoc,
    Format::Html,
    Format::Text,
    Format::Mdx,
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&format, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text).into_owned();
    let format = FORMATS[usize::from(format) % FORMATS.len()];
    let (runbook, _) = parse_as(format, "team/page", "team/page.md", text);
    let count = |text: &str| text.len();
    for passage in chunk(&runbook, &Budget::new(256, &count)) {
        let _ = (passage.text(&runbook), passage.breadcrumb(&runbook));
        assert!(passage.section < runbook.sections.len());
        assert!(passage.line_start <= passage.line_end);
    }
    for anchor in heading_anchors(&runbook) {
        let _ = anchor::page_of_link("team/page", &anchor);
    }
    let _ = runbook.body();
});
