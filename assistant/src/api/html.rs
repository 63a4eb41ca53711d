//! Markdown → a page. What a runbook says is text: raw HTML in it is shown, never run.

use std::fmt::Write;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pulldown_cmark::{CowStr, Event, Parser, Tag, TagEnd, html};

use crate::retrieval::url;
use crate::runbook::Runbook;
use crate::runbook::anchor::{TOP, page_of_link};
use crate::runbook::parse::{heading_anchors, markdown_options};

/// Our two files and our own address; nothing else is loaded, run or sent anywhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub(super) fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{} · Runwire</title>\n<link rel=\"stylesheet\" href=\"/assets/style.css\">\n</head>\n<body>\n\
         <header><a href=\"/\">Runwire</a> <a href=\"/runbooks\">Runbooks</a></header>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    );
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CONTENT_SECURITY_POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            HeaderName::from_static("referrer-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    ];
    (status, headers, text).into_response()
}

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The runbook's Markdown as HTML, with the anchor of each section on its heading.
pub(super) fn article(runbook: &Runbook) -> String {
    let mut anchors = heading_anchors(runbook).into_iter();
    let events = Parser::new_ext(runbook.body(), markdown_options()).map(|event| match event {
        Event::Start(Tag::Heading { level, .. }) => {
            let anchor = anchors.next().unwrap_or_default();
            let mut tag = format!("<{level} id=\"{0}\">", escape(&anchor));
            // Writing to a String cannot fail.
            let _ = write!(
                tag,
                "<a class=\"anchor\" href=\"#{}\">#</a> ",
                escape(&anchor)
            );
            Event::Html(tag.into())
        }
        Event::End(TagEnd::Heading(level)) => Event::Html(format!("</{level}>\n").into()),
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Link {
            link_type,
            dest_url: link(runbook, &dest_url),
            title,
            id,
        }),
        // Pictures from elsewhere would tell others who reads what; the text beside them stays.
        Event::Start(Tag::Image { dest_url, .. }) => {
            let target = link(runbook, &dest_url);
            Event::Html(format!("<a href=\"{}\">picture: ", escape(&target)).into())
        }
        Event::End(TagEnd::Image) => Event::Html("</a>".into()),
        other => other,
    });
    let mut body = String::new();
    html::push_html(&mut body, events);
    let has_top = runbook
        .sections
        .first()
        .is_some_and(|section| section.level == 0);
    let id = if has_top {
        format!(" id=\"{TOP}\"")
    } else {
        String::new()
    };
    format!("<article{id}>\n{body}</article>\n")
}

/// Links between files become links between pages; addresses that could run something lead nowhere.
fn link<'a>(runbook: &Runbook, target: &CowStr<'a>) -> CowStr<'a> {
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
    match page_of_link(&runbook.id, target) {
        Some((id, anchor)) => format!("{}{anchor}", url(&id)).into(),
        None => target.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::parse;

    fn shown(markdown: &str) -> String {
        article(&parse("folder/page", "page.md", markdown.to_owned()).0)
    }

    #[test]
    fn every_heading_has_its_anchor() {
        let html = shown("text\n# A\n## B\n## B\n> ## In a quote\n");
        for part in [
            "<article id=\"top\">",
            "<h1 id=\"a\">",
            "<h2 id=\"b\">",
            "<h2 id=\"b-1\">",
            "<h2 id=\"in-a-quote\">",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }

    #[test]
    fn nothing_in_a_runbook_can_run() {
        let html = shown(
            "# <script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n[a](javascript:alert(1)) [b](JavaScript:x) \
             ![p](data:text/html,x) [c](<java\tscript:x>) <div onclick=x>\n\n## H {#x\"onclick=\"y}\n",
        );
        assert!(
            !html.contains("<script") && !html.contains("<img") && !html.contains("<div"),
            "{html}"
        );
        assert!(
            !html.to_lowercase().contains("href=\"javascript") && !html.contains("href=\"data"),
            "{html}"
        );
        assert!(!html.contains("\"onclick"), "{html}");
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
