//! Runbooks as pages: the list, one page, and the section for an alert.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::article::Article;
use super::asked::Asked;
use super::diagnose::now_millis;
use super::html::Tab;
use super::links::{Links, encode, with_query};
use super::resolve::{Resolved, parameters};
use super::{AppState, evidence, html};
use crate::diagnosis::live::{Live, Moment};
use crate::error::{ApiError, Problem};
use crate::retrieval::url;
use crate::runbook::{Format, Runbook};

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
#[utoipa::path(get, path = "/runbooks", operation_id = "list_runbooks", tag = "runbooks", responses((status = 200, content((Listing = "application/json"), (String = "text/html")))))]
pub(super) async fn list(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let library = state.retriever.library();
    if html::wants_html(&headers) {
        let mut body = format!(
            "<h1>Runbooks</h1>\n<p class=\"quiet\">{} pages. The box of <a href=\"/\">the first page</a> finds the section for a symptom.</p>\n\
             <ul class=\"runbooks\">\n",
            library.runbooks.len()
        );
        for runbook in &library.runbooks {
            let (id, title) = (html::escape(&runbook.id), html::escape(&runbook.title));
            // Writing to a String cannot fail.
            let _ = writeln!(
                body,
                "<li><a href=\"{}\">{title}</a><br><code>{id}</code></li>",
                url(&runbook.id)
            );
        }
        body.push_str("</ul>\n");
        return html::page(StatusCode::OK, Tab::Runbooks, "Runbooks", &body);
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

/// So long a page waits for its values. It can be read without them, and asking again is quick: what came is remembered.
const PATIENCE: Duration = Duration::from_millis(1200);

/// `GET /runbooks/{id}`: the page with what its evidence says now, or at the `time` in the query; with `.md` at the end the
/// file as it is.
#[utoipa::path(get, path = "/runbooks/{id}", operation_id = "get_runbook", tag = "runbooks",
    params(("id" = String, Path, description = "Path of the page below its folder without the extension; may have slashes", example = "dns-servfail")),
    responses((status = 200, content((String = "text/html"), (String = "text/markdown"), (String = "text/plain"))), (status = 308, description = "The page of a file that is not Markdown")))]
pub(super) async fn page(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let library = state.retriever.library();
    if let Some(runbook) = library.get(&id) {
        let (asked, notes) = Asked::read(query);
        let body = with_values(&state, runbook, &asked, notes).await;
        return Ok(html::page(
            StatusCode::OK,
            Tab::Runbooks,
            &runbook.title,
            &body,
        ));
    }
    if let Some(runbook) = id.strip_suffix(".md").and_then(|id| library.get(id)) {
        // Never as what a browser would run.
        let kind = match runbook.format {
            Format::Markdown => "text/markdown; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        };
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        return Ok((headers, runbook.source.clone()).into_response());
    }
    // By the name of its file.
    if let Some(format) = Format::of(std::path::Path::new(&id))
        && let Some((stem, _)) = id.rsplit_once('.')
        && let Some(runbook) = library.get(stem)
        && runbook.format == format
    {
        let address = with_query(&url(stem), raw.as_deref());
        return Ok(Redirect::permanent(&address).into_response());
    }
    readable(&state)?;
    Err(ApiError::NotFound(format!(
        "there is no runbook `{id}`; GET /runbooks lists those there are"
    )))
}

/// Before the runbooks are read nobody knows which there are.
fn readable(state: &AppState) -> Result<(), ApiError> {
    if state.retriever.state().ready {
        return Ok(());
    }
    Err(ApiError::Unavailable(
        "the runbooks are still being read; ask again in a second".into(),
    ))
}

async fn with_values(
    state: &AppState,
    runbook: &Arc<Runbook>,
    asked: &Asked,
    mut notes: Vec<String>,
) -> String {
    let article = Article::of(runbook);
    let moment = asked.moment(now_millis(), &mut notes);
    let (live, blocks) = tokio::join!(
        state.engine.live(runbook, &moment, PATIENCE),
        state.engine.live_blocks(&article.blocks, &moment, PATIENCE),
    );
    let links = Links {
        config: &state.config,
        time_millis: moment.time_millis,
    };
    let said: Vec<String> = blocks
        .iter()
        .map(|block| evidence::block(block, &links))
        .collect();
    let is_live = !live.modes.is_empty() || !blocks.is_empty();
    let (title, article) = article.with(&said);
    let mut body = format!("<div class=\"title\">{title}</div>\n");
    for note in &notes {
        let _ = writeln!(
            body,
            "<p class=\"degraded\" role=\"status\">Left out of the address: {}</p>",
            html::escape(note)
        );
    }
    if !is_live {
        return format!("{body}<div class=\"page\">\n{article}</div>\n");
    }
    body.push_str(&head(asked, &moment, &live, &runbook.id));
    body.push_str(&evidence::degraded(&live.degraded));
    let panel = match live.modes.is_empty() {
        true => String::new(),
        false => format!(
            "<aside aria-label=\"Evidence\"><h2 class=\"panel\">Evidence</h2>\n{}</aside>\n",
            evidence::panel(&live, &links)
        ),
    };
    format!("{body}<div class=\"page live\">\n{panel}{article}</div>\n")
}

/// Whom the values are about, and when they were; and how to change that.
fn head(asked: &Asked, moment: &Moment, live: &Live, id: &str) -> String {
    let time = jiff::Timestamp::from_millisecond(moment.time_millis)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default();
    let fixed = Asked {
        time: jiff::Timestamp::from_millisecond(moment.time_millis)
            .map_or_else(|_| asked.time.clone(), |time| time.to_string()),
        ..asked.clone()
    };
    let now = Asked {
        time: String::new(),
        ..asked.clone()
    };
    let page = url(id);
    let scope = &live.scope;
    let mut html = format!(
        "<p class=\"moment\"><span>Values of <strong>{}</strong> at <time>{time}</time>, over {}.</span> \
         <a href=\"{}\">Now</a> <a href=\"{}\">Link to this moment</a> <a href=\"/{}\">Diagnose</a></p>\n",
        html::escape(&scope.describe()),
        humantime::format_duration(moment.window),
        html::escape(&format!("{page}{}", now.kept())),
        html::escape(&format!("{page}{}", fixed.kept())),
        html::escape(&diagnose_link(&fixed, id)),
    );
    let field = |name: &str, label: &str, value: &str| {
        format!(
            "<label>{label} <input name=\"{name}\" value=\"{}\" autocomplete=\"off\" spellcheck=\"false\"></label>\n",
            html::escape(value)
        )
    };
    let _ = write!(
        html,
        "<details class=\"scope\"><summary>Change scope or time</summary><form method=\"get\" class=\"row\">\n{}{}{}{}{}<button>Show</button></form></details>\n",
        field("namespace", "Namespace", &asked.namespace),
        field("workload", "Workload", &asked.workload),
        field("pod", "Pod", &asked.pod),
        field("time", "Time (UTC)", &asked.time),
        field("window", "Window", &asked.window),
    );
    html
}

fn diagnose_link(asked: &Asked, id: &str) -> String {
    let kept = asked.kept();
    let separator = if kept.is_empty() { '?' } else { '&' };
    // The page's own words are a question too, where nobody is named.
    format!(
        "{kept}{separator}q={}",
        encode(&id.replace(['-', '/'], " "))
    )
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Reference {
    #[serde(default)]
    url: String,
}

/// `GET /r?url=…`: to the section that a `runbook_url` of any style means.
#[utoipa::path(get, path = "/r", tag = "runbooks",
    params(("url" = String, Query, description = "Address of a runbook in any style, or the name of an alert", min_length = 1, example = "https://runbooks.prometheus-operator.dev/runbooks/coredns/corednsdown/")),
    responses((status = 307, description = "The section that is meant"),
        (status = 400, description = "Nothing is given to look for", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The runbooks are still being read", body = Problem, content_type = "application/problem+json"), (status = 404, body = String, content_type = "text/html", description = "No runbook fits; the nearest three")))]
pub(super) async fn of_url(
    State(state): State<AppState>,
    RawQuery(raw): RawQuery,
    query: Result<Query<Reference>, QueryRejection>,
) -> Result<Response, ApiError> {
    let reference = query
        .map(|Query(reference)| reference.url)
        .unwrap_or_default();
    if reference.trim().is_empty() {
        return Err(ApiError::BadRequest(
            "give the address of a runbook or the name of an alert, as in /r?url=https://… or /r/CoreDNSDown".into(),
        ));
    }
    let raw = raw.unwrap_or_default();
    let beside: Vec<&str> = raw
        .split('&')
        .filter(|pair| !pair.starts_with("url="))
        .collect();
    let kept = parameters(&reference, &beside.join("&"));
    readable(&state)?;
    Ok(found(&state, &reference, Some(&kept)).await)
}

/// `GET /r/{alertname}`: to the section for this alert, wherever it is now.
#[utoipa::path(get, path = "/r/{alertname}", tag = "runbooks",
    params(("alertname" = String, Path, description = "Name of an alert", example = "CoreDNSErrorsHigh")),
    responses((status = 307, description = "The section for the alert"), (status = 404, body = String, content_type = "text/html", description = "No runbook names the alert; the nearest three")))]
pub(super) async fn of_alert(
    State(state): State<AppState>,
    alert: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let Path(alert) = alert?;
    readable(&state)?;
    Ok(found(&state, &alert, raw.as_deref()).await)
}

async fn found(state: &AppState, reference: &str, query: Option<&str>) -> Response {
    match state.resolve(reference).await {
        Resolved::Known(address) => {
            Redirect::temporary(&with_query(&address, query)).into_response()
        }
        Resolved::Unknown(alert, nearest) => {
            let kept = query.filter(|query| !query.is_empty());
            let kept = kept.map_or_else(String::new, |query| format!("&{query}"));
            let diagnose = html::escape(&format!("/?q={}{kept}", encode(&alert)));
            let alert = html::escape(&alert);
            let mut body = format!("<h1>No runbook for {alert}</h1>\n");
            if nearest.is_empty() {
                body.push_str("<p>Nothing in the runbooks comes near.</p>\n");
            } else {
                body.push_str("<p>The nearest are:</p>\n<ul>\n");
                for (name, address) in nearest {
                    let address = with_query(&address, query);
                    let (name, address) = (html::escape(&name), html::escape(&address));
                    let _ = writeln!(body, "<li><a href=\"{address}\">{name}</a></li>");
                }
                body.push_str("</ul>\n");
            }
            let _ = writeln!(
                body,
                "<p><a href=\"{diagnose}\">Diagnose {alert}</a> · <a href=\"/runbooks\">All runbooks</a></p>\n\
                 <p class=\"quiet\">To give it one, name it under <code>alerts</code> in a runbook's front matter.</p>"
            );
            html::page(StatusCode::NOT_FOUND, Tab::Runbooks, "No such alert", &body)
        }
    }
}
