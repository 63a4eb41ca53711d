//! Runbooks as pages: the list, one page, and the section for an alert.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{AppState, html};
use crate::error::ApiError;
use crate::retrieval::{AlertPlace, url};
use crate::runbook::Format;

#[derive(Serialize, ToSchema)]
struct Entry {
    id: String,
    title: String,
    path: String,
    url: String,
    alerts: Vec<String>,
    labels: BTreeMap<String, String>,
    failure_modes: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Listing {
    runbooks: Vec<Entry>,
}

/// `GET /runbooks`: JSON, or a page for a browser.
#[utoipa::path(get, path = "/runbooks", tag = "runbooks", responses((status = 200, content((Listing = "application/json"), (String = "text/html")))))]
pub(super) async fn list(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let library = state.retriever.library();
    let wants_html = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if wants_html {
        let mut body = String::from("<h1>Runbooks</h1>\n<ul>\n");
        for runbook in &library.runbooks {
            let (id, title) = (html::escape(&runbook.id), html::escape(&runbook.title));
            // Writing to a String cannot fail.
            let _ = writeln!(
                body,
                "<li><a href=\"{}\">{title}</a> <code>{id}</code></li>",
                url(&runbook.id)
            );
        }
        body.push_str("</ul>\n");
        return html::page(StatusCode::OK, "Runbooks", &body);
    }
    let entries: Vec<Entry> = library
        .runbooks
        .iter()
        .map(|runbook| Entry {
            id: runbook.id.clone(),
            title: runbook.title.clone(),
            path: runbook.path.clone(),
            url: url(&runbook.id),
            alerts: runbook.alerts.clone(),
            labels: runbook.labels.clone(),
            failure_modes: runbook
                .failure_modes
                .iter()
                .map(|mode| mode.id.clone())
                .collect(),
        })
        .collect();
    Json(Listing { runbooks: entries }).into_response()
}

/// `GET /runbooks/{id}`: the page; with `.md` at the end the file as it is.
#[utoipa::path(get, path = "/runbooks/{id}", tag = "runbooks",
    params(("id" = String, Path, description = "Path of the page below its folder without the extension; may have slashes", example = "dns-servfail")),
    responses((status = 200, content((String = "text/html"), (String = "text/markdown"), (String = "text/plain"))), (status = 308, description = "The page of a file that is not Markdown")))]
pub(super) async fn page(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let library = state.retriever.library();
    if let Some(runbook) = library.get(&id) {
        let body = html::article(runbook);
        return Ok(html::page(StatusCode::OK, &runbook.title, &body));
    }
    if let Some(runbook) = id.strip_suffix(".md").and_then(|id| library.get(id)) {
        // Never as what a browser would run.
        let kind = match runbook.format {
            Format::Markdown => "text/markdown; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        };
        let content_type = [(header::CONTENT_TYPE, kind)];
        return Ok((content_type, runbook.source.clone()).into_response());
    }
    // By the name of its file.
    if let Some(format) = Format::of(std::path::Path::new(&id))
        && let Some((stem, _)) = id.rsplit_once('.')
        && let Some(runbook) = library.get(stem)
        && runbook.format == format
    {
        return Ok(Redirect::permanent(&url(stem)).into_response());
    }
    Err(ApiError::NotFound(format!(
        "there is no runbook `{id}`; GET /runbooks lists those there are"
    )))
}

/// `GET /r/{alertname}`: to the section for this alert, wherever it is now.
#[utoipa::path(get, path = "/r/{alertname}", tag = "runbooks",
    params(("alertname" = String, Path, description = "Name of an alert", example = "CoreDNSErrorsHigh")),
    responses((status = 307, description = "The section for the alert"), (status = 404, body = String, content_type = "text/html", description = "No runbook names the alert; the nearest three")))]
pub(super) async fn of_alert(State(state): State<AppState>, Path(alert): Path<String>) -> Response {
    match state.retriever.alert(&alert) {
        AlertPlace::Known(address) => Redirect::temporary(&address).into_response(),
        AlertPlace::Unknown(nearest) => {
            let alert = html::escape(&alert);
            let mut body = format!("<h1>No runbook for {alert}</h1>\n");
            if nearest.is_empty() {
                body.push_str("<p>No runbook names any alert.</p>\n");
            } else {
                body.push_str("<p>The nearest are:</p>\n<ul>\n");
                for (name, address) in nearest {
                    let (name, address) = (html::escape(&name), html::escape(&address));
                    let _ = writeln!(body, "<li><a href=\"{address}\">{name}</a></li>");
                }
                body.push_str("</ul>\n");
            }
            let _ = writeln!(
                body,
                "<p>To give it one, name it under <code>alerts</code> in a runbook's front matter. <a href=\"/runbooks\">All runbooks</a></p>"
            );
            html::page(StatusCode::NOT_FOUND, "No such alert", &body)
        }
    }
}
