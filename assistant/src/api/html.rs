//! The frame of every page, and what a browser may do on it.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::assets;

/// Our two files and our own address; nothing else is loaded, run or sent anywhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 8] = [
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
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    ),
    // Values are of this moment: going back shows them again, asking again does not.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// No heading's anchor has a colon: a runbook's «Content» is not this.
const MAIN: &str = "page:main";

/// Which part of the service a page belongs to.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Tab {
    Ask,
    Runbooks,
    Incidents,
    Other,
}

const TABS: [(Tab, &str, &str); 3] = [
    (Tab::Ask, "/", "Ask"),
    (Tab::Runbooks, "/runbooks", "Runbooks"),
    (Tab::Incidents, "/incidents", "Incidents"),
];

pub(super) fn page(status: StatusCode, here: Tab, title: &str, body: &str) -> Response {
    let tabs: Vec<String> = TABS
        .iter()
        .map(|&(tab, address, name)| {
            let current = if tab == here {
                " aria-current=\"page\""
            } else {
                ""
            };
            format!("<a href=\"{address}\"{current}>{name}</a>")
        })
        .collect();
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{} · Runwire</title>\n<link rel=\"stylesheet\" href=\"{}\">\n<link rel=\"icon\" href=\"{}\">\n\
         <script src=\"{}\" defer></script>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#{MAIN}\">To the content</a>\n\
         <header><nav aria-label=\"Pages\"><a class=\"home\" href=\"/\">Runwire</a> {}</nav></header>\n\
         <main id=\"{MAIN}\">\n{body}</main>\n</body>\n</html>\n",
        escape(title),
        assets::style_url(),
        assets::icon_url(),
        assets::script_url(),
        tabs.join(" "),
    );
    (status, HEADERS, text).into_response()
}

/// A browser says so; programs that do not care get JSON.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

/// What is wrong with a request is told to a browser as a page. The status and every other header stay.
pub(super) async fn problems_as_pages(request: Request, next: Next) -> Response {
    let (method, address) = (request.method().clone(), request.uri().clone());
    let for_a_person =
        matches!(method, Method::GET | Method::POST) && wants_html(request.headers());
    let response = next.run(request).await;
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/problem+json");
    if !for_a_person || !is_problem {
        return response;
    }
    let (parts, body) = response.into_parts();
    // Our own sentence: never longer than the request that it may quote.
    let body = axum::body::to_bytes(body, super::MAX_BODY_BYTES).await;
    let problem: Value = body
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok())
        .unwrap_or_default();
    let text = |key: &str| escape(problem[key].as_str().unwrap_or_default());
    let html = format!(
        "<h1>{}</h1>\n<p class=\"degraded\" role=\"alert\">{}</p>\n<p>{}</p>\n",
        text("title"),
        text("detail"),
        next_step(parts.status, &method, &address),
    );
    let mut shown = page(parts.status, Tab::Other, parts.status.as_str(), &html);
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            shown.headers_mut().append(name, value.clone());
        }
    }
    shown
}

/// What a person can do about it, which is not always what a program can.
fn next_step(status: StatusCode, method: &Method, address: &Uri) -> String {
    match status {
        StatusCode::UNAUTHORIZED => "A browser does not send a token by itself: open this page under the address at which \
             you log in. With a token, ask in a terminal: <code>curl -H 'Authorization: Bearer TOKEN' …</code>"
            .into(),
        // Wherever else a link leads, it is refused as well.
        StatusCode::FORBIDDEN => String::new(),
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => match *method {
            Method::GET => {
                let again = address.path_and_query().map_or("/", |path| path.as_str());
                // Two slashes would lead to another host.
                let again = escape(&format!("/{}", again.trim_start_matches('/')));
                format!("<a href=\"{again}\">Try again</a>")
            }
            _ => "Go back and send it again.".into(),
        },
        _ => "<a href=\"/\">Ask what is wrong</a> · <a href=\"/runbooks\">All runbooks</a>".into(),
    }
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
