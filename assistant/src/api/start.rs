//! `GET /`: one box to ask, and the two files that pages need.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::html;

/// A box to ask in a browser.
#[utoipa::path(get, path = "/", tag = "pages", responses((status = 200, body = String, content_type = "text/html")))]
pub(super) async fn page() -> Response {
    html::page(StatusCode::OK, "Ask", include_str!("assets/start.html"))
}

pub(super) async fn style() -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (content_type, include_str!("assets/style.css"))
}

pub(super) async fn script() -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (content_type, include_str!("assets/start.js"))
}
