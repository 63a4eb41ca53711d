//! Markdown → HTML that is safe to show, whoever wrote it: nothing runs, nothing is loaded, nothing is styled.

use std::collections::HashSet;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use ammonia::{Builder, UrlRelative};
use pulldown_cmark::{CodeBlockKind, CowStr, Event, Parser, Tag, TagEnd, html};

use super::html::escape;
use crate::diagnosis::blocks::is_promql;
use crate::retrieval::url;
use crate::runbook::Runbook;
use crate::runbook::anchor::page_of_link;
use crate::runbook::parse::{heading_anchors, markdown_options};

/// Text, tables, code. No pictures, frames, forms or vectors.
const TAGS: [&str; 44] = [
    "a",
    "abbr",
    "b",
    "blockquote",
    "br",
    "caption",
    "cite",
    "code",
    "dd",
    "del",
    "details",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "ins",
    "kbd",
    "li",
    "mark",
    "ol",
    "p",
    "pre",
    "q",
    "s",
    "samp",
    "small",
    "span",
    "strong",
    "sub",
    "summary",
    "sup",
    "table",
    "tbody",
    "td",
    "th",
];
const MORE_TAGS: [&str; 4] = ["thead", "tr", "tt", "ul"];

/// Stands where live values go. No page can hold it, because nobody knows it before the process runs.
static MARK: LazyLock<String> =
    LazyLock::new(|| format!("live-{:016x}-", RandomState::new().hash_one(0)));

/// A page's text, with places for the values of its PromQL blocks.
pub(super) struct Article {
    title: String,
    html: String,
    /// Of the text before the first heading.
    top: Option<String>,
    /// The PromQL blocks, in order.
    pub(super) blocks: Vec<String>,
}

impl Article {
    pub(super) fn of(runbook: &Runbook) -> Self {
        let anchors = heading_anchors(runbook);
        let mut allowed: HashSet<String> = anchors.iter().cloned().collect();
        let mut anchors = anchors.into_iter();
        let mut blocks: Vec<String> = Vec::new();
        let mut open: Option<String> = None;
        let mut events = Vec::new();
        for event in Parser::new_ext(runbook.body(), markdown_options()) {
            match event {
                Event::Start(Tag::Heading { level, .. }) => {
                    let anchor = escape(&anchors.next().unwrap_or_default());
                    let tag = format!(
                        "<{level} id=\"{anchor}\"><a class=\"anchor\" href=\"#{anchor}\" title=\"Link to this section\">#</a> "
                    );
                    events.push(Event::Html(tag.into()));
                }
                Event::End(TagEnd::Heading(level)) => {
                    events.push(Event::Html(format!("</{level}>\n").into()));
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    open = is_promql(&language).then(String::new);
                    events.push(Event::Start(Tag::CodeBlock(CodeBlockKind::Indented)));
                }
                Event::End(TagEnd::CodeBlock) => {
                    events.push(Event::End(TagEnd::CodeBlock));
                    if let Some(block) = open.take() {
                        let place = format!("<p>{}{}.</p>\n", *MARK, blocks.len());
                        events.push(Event::Html(place.into()));
                        blocks.push(block);
                    }
                }
                Event::Text(text) => {
                    if let Some(block) = &mut open {
                        block.push_str(&text);
                    }
                    events.push(Event::Text(text));
                }
                Event::Start(Tag::FootnoteDefinition(name)) => {
                    allowed.insert(name.to_string());
                    events.push(Event::Start(Tag::FootnoteDefinition(name)));
                }
                other => events.push(harmless(other, |target| link(runbook, target))),
            }
        }
        let first = runbook.sections.first();
        let top = first.filter(|section| section.level == 0);
        Self {
            title: runbook.title.clone(),
            html: clean(&events_to_html(events), allowed),
            top: top.map(|section| section.anchor.clone()),
            blocks,
        }
    }

    /// The heading that the page begins with, or else its title; and the rest, each block followed by what is said about it.
    pub(super) fn with(self, said: &[String]) -> (String, String) {
        let mut body = String::with_capacity(self.html.len());
        let mark = format!("<p>{}", *MARK);
        let mut pieces = self.html.split(&mark);
        body.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let (index, rest) = piece.split_once(".</p>").unwrap_or((piece, ""));
            let index: Option<usize> = index.parse().ok();
            body.push_str(
                index
                    .and_then(|index| said.get(index))
                    .map_or("", String::as_str),
            );
            body.push_str(rest);
        }
        let heading = match body.split_once("</h1>") {
            Some((heading, rest)) if heading.starts_with("<h1") => {
                let heading = format!("{heading}</h1>");
                body = rest.trim_start().to_owned();
                heading
            }
            _ if body.contains("<h1") => String::new(),
            _ => format!("<h1>{}</h1>", escape(&self.title)),
        };
        let id = self
            .top
            .map_or_else(String::new, |top| format!(" id=\"{}\"", escape(&top)));
        (
            heading,
            format!("<article class=\"runbook\"{id}>\n{body}</article>\n"),
        )
    }
}

/// A part of a page, such as a passage or a step, for another page: without anchors.
pub(super) fn snippet(markdown: &str, runbook: &str) -> String {
    let events = Parser::new_ext(markdown, markdown_options()).map(|event| match event {
        Event::Start(Tag::Heading { .. }) => Event::Start(Tag::Paragraph),
        Event::End(TagEnd::Heading(_)) => Event::End(TagEnd::Paragraph),
        other => harmless(other, |target| link_from(runbook, target)),
    });
    clean(&events_to_html(events.collect()), HashSet::new())
}

fn events_to_html(events: Vec<Event<'_>>) -> String {
    let mut body = String::new();
    html::push_html(&mut body, events.into_iter());
    body
}

/// Links go where they lead on this service; what would be a picture or a form's field is text.
fn harmless<'a>(event: Event<'a>, link: impl Fn(&CowStr<'a>) -> CowStr<'a>) -> Event<'a> {
    match event {
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Link {
            link_type,
            dest_url: link(&dest_url),
            title,
            id,
        }),
        // Pictures from elsewhere would tell others who reads what; the text beside them stays.
        Event::Start(Tag::Image { dest_url, .. }) => {
            let target = link(&dest_url);
            let mut tag = String::new();
            // Writing to a String cannot fail.
            let _ = write!(tag, "<a href=\"{}\">picture: ", escape(&target));
            Event::Html(tag.into())
        }
        Event::End(TagEnd::Image) => Event::Html("</a>".into()),
        Event::TaskListMarker(done) => Event::Text(if done { "☑ " } else { "☐ " }.into()),
        other => other,
    }
}

fn clean(html: &str, ids: HashSet<String>) -> String {
    let mut builder = Builder::empty();
    builder
        .tags(TAGS.into_iter().chain(MORE_TAGS).collect())
        .add_clean_content_tags(["script", "style"])
        .add_generic_attributes(["id", "lang", "title", "dir"])
        .add_tag_attributes("a", ["href"])
        .add_tag_attributes("ol", ["start"])
        .add_tag_attributes("td", ["colspan", "rowspan"])
        .add_tag_attributes("th", ["colspan", "rowspan", "scope"])
        .add_tag_attributes("details", ["open"])
        .add_allowed_classes("a", ["anchor"])
        .add_allowed_classes("div", ["footnote-definition"])
        .add_allowed_classes("sup", ["footnote-reference", "footnote-definition-label"])
        .add_allowed_classes(
            "blockquote",
            [
                "markdown-alert-note",
                "markdown-alert-tip",
                "markdown-alert-important",
                "markdown-alert-warning",
                "markdown-alert-caution",
            ],
        )
        .add_url_schemes(["http", "https", "mailto"])
        .url_relative(UrlRelative::PassThrough)
        .link_rel(Some("noopener noreferrer"))
        // Only the anchors of this page: nothing else may be jumped to or found by a script.
        .attribute_filter(move |_, attribute, value| {
            (attribute != "id" || ids.contains(value)).then(|| value.into())
        });
    builder.clean(html).to_string()
}

fn link<'a>(runbook: &Runbook, target: &CowStr<'a>) -> CowStr<'a> {
    link_from(&runbook.id, target)
}

/// Links between files become links between pages; addresses that could run something lead nowhere.
fn link_from<'a>(from: &str, target: &CowStr<'a>) -> CowStr<'a> {
    let scheme = target
        .split_once(':')
        .filter(|(scheme, _)| !scheme.contains(['/', '?', '#', '.']));
    if let Some((scheme, _)) = scheme {
        let scheme = scheme.trim().to_ascii_lowercase();
        let harmless = matches!(scheme.as_str(), "http" | "https" | "mailto");
        return if harmless { target.clone() } else { "#".into() };
    }
    if target.starts_with(['#', '/']) {
        return target.clone();
    }
    match page_of_link(from, target) {
        Some((id, anchor)) => format!("{}{anchor}", url(&id)).into(),
        None => target.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::parse;

    fn shown(markdown: &str) -> String {
        let runbook = parse("folder/page", "page.md", markdown.to_owned()).0;
        let (heading, article) = Article::of(&runbook).with(&[]);
        heading + &article
    }

    #[test]
    fn every_heading_has_its_anchor() {
        let html = shown("text\n# A\n## B\n## B\n> ## In a quote\n");
        for part in [
            "<article class=\"runbook\" id=\"top\">",
            "<h1 id=\"a\">",
            "<h2 id=\"b\">",
            "<h2 id=\"b-1\">",
            "<h2 id=\"in-a-quote\">",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn each_of_very_many_blocks_is_followed_by_its_values_in_time() {
        let markdown = "```promql\nup\n```\n".repeat(100_000);
        let runbook = parse("page", "page.md", markdown).0;
        let article = Article::of(&runbook);
        let said: Vec<String> = (0..article.blocks.len())
            .map(|index| format!("<p>value {index}</p>"))
            .collect();
        let started = std::time::Instant::now();
        let (_, html) = article.with(&said);
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
        let places: Vec<_> = html.matches("</pre>\n<p>value ").collect();
        assert_eq!(places.len(), 100_000);
        let (first, last) = (html.find("value 0<"), html.find("value 99999<"));
        assert!(first < last && first.is_some());
        assert!(!html.contains(&*MARK));
    }

    #[test]
    fn no_two_parts_of_a_page_have_the_same_anchor() {
        let html = shown("first words\n\n# Top\n\n## Top\n\n## Top 3\n\n[a](#top)\n");
        for part in [
            "<article class=\"runbook\" id=\"top-2\">",
            "<h1 id=\"top\">",
            "<h2 id=\"top-1\">",
        ] {
            assert_eq!(html.matches(part).count(), 1, "{part} in {html}");
        }
        assert_eq!(html.matches("id=\"top\"").count(), 1, "{html}");
    }

    #[test]
    fn nothing_in_a_runbook_can_run_load_or_style() {
        let html = shown(
            "# <script>alert(1)</script>T\n\n<img src=x onerror=alert(1)>\n\n[a](javascript:alert(1)) [b](JavaScript:x) \
             ![p](data:text/html,x) [c](<java\tscript:x>) <div onclick=x style=\"position:fixed\" class=\"banner\">\n\n## H {#x\"onclick=\"y}\n\n\
             <iframe src=//e></iframe><meta http-equiv=refresh content=\"0;url=//e\"><svg onload=alert(1)><a xlink:href=javascript:x>z</a></svg>\n\
             <math><mtext><style><img src=x onerror=alert(1)></style></mtext></math><form action=//e><input name=q></form>\n\
             <a href=\"&#106;avascript:alert(1)\">q</a><link rel=stylesheet href=//e><base href=//e><object data=//e></object><style>*{color:red}</style>\n",
        );
        for part in [
            "<script",
            "<img",
            " onclick=",
            "onload",
            "onerror=alert(1)>\n",
            "<iframe",
            "<meta",
            "<svg",
            "<style",
            "style=",
            "<form",
            "<input",
            "<link",
            "<base",
            "<object",
            "banner",
            "href=\"javascript",
            "href=\"data",
            "color:red",
        ] {
            assert!(!html.to_lowercase().contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn tags_that_stay_open_close_with_the_page() {
        let html = shown("<details><summary>More</summary>\n\ntext\n\n</article></main><b>bold");
        assert!(html.contains("<details><summary>More</summary>"), "{html}");
        assert_eq!(html.matches("</article>").count(), 1, "{html}");
        assert!(!html.contains("</main>") && html.ends_with("</article>\n"));
    }

    #[test]
    fn ids_are_those_of_headings_and_a_mark_cannot_be_forged() {
        let html = shown(
            "# A\n<p id=\"ask\">x</p>\n\n```promql\nup\n```\n\n<p title=\"live-0000-0.\">y</p>\n",
        );
        assert!(!html.contains("id=\"ask\""), "{html}");
        assert!(html.contains("title=\"live-0000-0.\""), "{html}");
    }

    #[test]
    fn values_stand_below_their_blocks() {
        let runbook = parse(
            "p",
            "p.md",
            "1. a\n\n   ```promql\n   up > 0\n   ```\n\n```sh\nls\n```\n~~~ PromQL\ndown\n~~~\n"
                .into(),
        )
        .0;
        let article = Article::of(&runbook);
        assert_eq!(article.blocks, ["up > 0\n", "down\n"]);
        let (_, html) = article.with(&["<i>one</i>".into(), "<i>two</i>".into()]);
        assert!(html.contains("</code></pre>\n<i>one</i>"), "{html}");
        assert!(html.find("two") > html.find("ls"), "{html}");
        assert!(!html.contains("live-"), "{html}");
    }

    #[test]
    fn links_between_files_become_links_between_pages() {
        let html = shown(
            "[a](other.md#part) [b](../up.md) [c](https://x.y/z.md) [d](#here) [e](../../out.md)",
        );
        for part in [
            "href=\"/runbooks/folder/other#part\"",
            "href=\"/runbooks/up\"",
            "href=\"https://x.y/z.md\"",
            "href=\"#here\"",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }
}
