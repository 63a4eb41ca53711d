//! The files that pages need, in the program itself. Their addresses change with what is in them, so browsers may keep them.

use std::sync::LazyLock;

use axum::extract::RawQuery;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;

use crate::hash::fnv;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/page.js");
const ICON: &str = include_str!("assets/icon.svg");

static VERSIONS: LazyLock<[String; 3]> = LazyLock::new(|| {
    [STYLE, SCRIPT, ICON].map(|text| format!("v={:016x}", fnv(&[text.as_bytes()]) as u64))
});

pub(super) fn style_url() -> String {
    format!("/assets/style.css?{}", VERSIONS[0])
}

pub(super) fn script_url() -> String {
    format!("/assets/page.js?{}", VERSIONS[1])
}

pub(super) fn icon_url() -> String {
    format!("/assets/icon.svg?{}", VERSIONS[2])
}

pub(super) async fn style(RawQuery(query): RawQuery) -> impl IntoResponse {
    file("text/css; charset=utf-8", STYLE, query, &VERSIONS[0])
}

pub(super) async fn script(RawQuery(query): RawQuery) -> impl IntoResponse {
    file(
        "text/javascript; charset=utf-8",
        SCRIPT,
        query,
        &VERSIONS[1],
    )
}

pub(super) async fn icon(RawQuery(query): RawQuery) -> impl IntoResponse {
    file("image/svg+xml", ICON, query, &VERSIONS[2])
}

/// Another version than ours is asked for by a page of before or after an update: it must not be kept under that name.
fn file(
    kind: &'static str,
    text: &'static str,
    query: Option<String>,
    version: &str,
) -> ([(HeaderName, HeaderValue); 3], &'static str) {
    let keep = if query.as_deref() == Some(version) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static(keep)),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (headers, text)
}
