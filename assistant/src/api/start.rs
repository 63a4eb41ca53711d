//! `GET /`: one box to ask, and the answer below it. The question is the address, so that an answer can be shared.

use std::fmt::Write;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use tokio::time::timeout;

use super::answer::Shown;
use super::asked::{Asked, read_time};
use super::diagnose::{DiagnoseRequest, now_millis};
use super::html::{self, Tab, escape};
use super::links::{encode, with_query};
use super::pasted::Pasted;
use super::resolve::Resolved;
use super::{AppState, clock, incidents};
use crate::access::Caller;
use crate::error::ApiError;
use crate::incidents::Filter;
use crate::retrieval::url;

/// Longer addresses are refused by some proxies, before they come here.
const MAX_PASTED: usize = 6000;

/// Incidents below the box.
const RECENT: i64 = 8;
/// A store that is slow must not keep anyone from asking.
const RECENT_PATIENCE: Duration = Duration::from_millis(500);

/// A box to ask in a browser, and the answer to what the query says.
#[utoipa::path(get, path = "/", operation_id = "ask_page", tag = "pages", responses((status = 200, body = String, content_type = "text/html"),
    (status = 400, description = "A value makes no sense; the page says which", body = String, content_type = "text/html"),
    (status = 503, description = "The runbooks are still being read", body = String, content_type = "text/html")))]
pub(super) async fn page(
    State(state): State<AppState>,
    caller: Option<Extension<Caller>>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let (asked, notes) = Asked::read(query);
    let mut body = form(&asked);
    for note in notes {
        let _ = writeln!(body, "<p class=\"degraded\">{}</p>", escape(&note));
    }
    if asked.is_empty() {
        body.push_str(&recent(&state).await);
        return html::page(StatusCode::OK, Tab::Ask, "What is wrong?", &body);
    }
    let caller = caller.map_or_else(Caller::anonymous, |Extension(caller)| caller);
    match answer(&state, &asked, &caller).await {
        Ok(answer) => {
            body.push_str(&answer);
            html::page(StatusCode::OK, Tab::Ask, "Answer", &body)
        }
        Err(error) => {
            let (status, reason) = error.describe();
            let _ = writeln!(
                body,
                "<p class=\"degraded\" role=\"alert\">No answer: {}</p>",
                escape(&reason)
            );
            html::page(status, Tab::Ask, "No answer", &body)
        }
    }
}

/// Large where nothing was asked yet; else small, so that the answer is what is seen.
fn form(asked: &Asked) -> String {
    let is_new = asked.is_empty();
    let field = |name: &str, label: &str, value: &str, example: &str| {
        format!(
            "<label>{label}<input name=\"{name}\" value=\"{}\" placeholder=\"{example}\" autocomplete=\"off\" autocapitalize=\"off\" spellcheck=\"false\"></label>\n",
            escape(value)
        )
    };
    let has_lines = asked.q.len() > 90 || asked.q.contains('\n');
    format!(
        "<h1{}>What is wrong?</h1>\n<form id=\"ask\" method=\"get\" action=\"/\" class=\"{}\">\n\
         <label for=\"q\">A symptom, an alert’s name, or a pasted alert</label>\n\
         <div class=\"box\"><textarea id=\"q\" name=\"q\" rows=\"{}\" maxlength=\"{MAX_PASTED}\"{} placeholder=\"checkout cannot reach payments since 03:10\">{}</textarea>\n\
         <button>Diagnose</button></div>\n\
         <details class=\"narrow\"><summary>Where and when: {}</summary>\n<div class=\"row\">\n{}{}{}{}{}</div></details>\n\
         <p id=\"status\" role=\"status\"></p>\n</form>\n",
        if is_new { "" } else { " class=\"small\"" },
        if is_new { "new" } else { "asked" },
        if is_new || has_lines { 3 } else { 1 },
        if is_new { " autofocus" } else { "" },
        // A line feed right after the tag would be taken for none.
        format_args!("\n{}", escape(&asked.q)),
        escape(&narrowed(asked)),
        field("namespace", "Namespace", &asked.namespace, "all"),
        field("workload", "Workload", &asked.workload, "all"),
        field("pod", "Pod", &asked.pod, "all"),
        field("time", "Time (UTC)", &asked.time, "now"),
        field("window", "Window", &asked.window, "5m"),
    )
}

/// `shop/cart, 2026-01-31T03:10:00Z, 5m`
fn narrowed(asked: &Asked) -> String {
    let or = |text: &str, default: &str| match text.trim() {
        "" => default.to_owned(),
        text => text.to_owned(),
    };
    format!(
        "{}, {}, {}",
        match asked.scope() {
            scope if scope.is_empty() => "everywhere".to_owned(),
            scope => scope.describe(),
        },
        or(&asked.time, "now"),
        or(&asked.window, "5m")
    )
}

/// What went on of late; or why that cannot be told.
async fn recent(state: &AppState) -> String {
    let Ok(kept) = state.incidents() else {
        return "<p class=\"quiet\">Incidents are not kept here.</p>\n".into();
    };
    let filter = Filter {
        limit: RECENT,
        ..Filter::default()
    };
    let list = timeout(RECENT_PATIENCE, kept.store.list(&filter)).await;
    let mut html = String::from("<section class=\"recent\"><h2>Recent incidents</h2>\n");
    match list {
        Ok(Ok((list, next))) => {
            html.push_str(&incidents::page::rows(&list, now_millis()));
            if next.is_some() {
                html.push_str("<p><a href=\"/incidents\">All incidents</a></p>\n");
            }
        }
        Ok(Err(error)) => {
            let _ = writeln!(
                html,
                "<p class=\"degraded\" role=\"status\">They cannot be read now: {}</p>",
                escape(&error.to_string())
            );
        }
        Err(_) => html.push_str(
            "<p class=\"degraded\" role=\"status\">They cannot be read now: the store does not answer</p>\n",
        ),
    }
    html.push_str("</section>\n");
    html
}

async fn answer(state: &AppState, asked: &Asked, caller: &Caller) -> Result<String, ApiError> {
    let now = now_millis();
    let pasted = Pasted::read(&asked.q);
    let request = request(asked, pasted.as_ref(), now)?;
    let diagnosis = state.diagnose(request, caller, "page").await?.diagnosis;
    let runbook = match &pasted {
        Some(pasted) => runbook_of(state, pasted).await,
        None => None,
    };
    let shared = Asked {
        time: diagnosis.time.clone(),
        ..asked.clone()
    };
    let address = format!("/{}&q={}", shared.kept(), encode(asked.q.trim()));
    let shown = Shown::of(state, &diagnosis, now).await;
    let alert = pasted.as_ref().and_then(Pasted::name);
    let mut html = format!(
        "<section class=\"answer\" aria-label=\"Answer\">\n{}\
         <p class=\"moment\"><span>{}<strong>{}</strong> at {}, over {}.</span> <a href=\"{}\">Link to this answer</a></p>\n",
        shown.status(),
        alert.map_or_else(String::new, |name| format!(
            "Alert <strong>{}</strong>, ",
            escape(name)
        )),
        escape(&diagnosis.scope.describe()),
        clock::time(&diagnosis.time),
        escape(&diagnosis.window),
        escape(&address),
    );
    if let Some((title, address)) = runbook {
        let address = with_query(&address, Some(&shown.kept));
        let _ = writeln!(
            html,
            "<p class=\"runbook-of\">The alert’s runbook: <a href=\"{}\">{}</a></p>",
            escape(&address),
            escape(&title)
        );
    }
    html.push_str(&shown.body());
    html.push_str("</section>\n");
    Ok(html)
}

fn request(asked: &Asked, pasted: Option<&Pasted>, now: i64) -> Result<DiagnoseRequest, ApiError> {
    let mut request = json!({});
    match pasted {
        Some(pasted) => {
            request["alert"] = json!({
                "labels": pasted.labels, "annotations": pasted.annotations, "startsAt": pasted.starts_at
            });
        }
        None if !asked.q.trim().is_empty() => request["query"] = json!(asked.q.trim()),
        None => {}
    }
    let scope = asked.scope();
    if !scope.is_empty() {
        request["scope"] = json!(scope);
    }
    if !asked.time.trim().is_empty() {
        let millis = read_time(&asked.time, now).map_err(ApiError::BadRequest)?;
        request["time"] = json!(millis as f64 / 1000.0);
    }
    if !asked.window.trim().is_empty() {
        request["window"] = json!(asked.window.trim());
    }
    serde_json::from_value(request).map_err(|error| ApiError::BadRequest(error.to_string()))
}

/// The page that the alert's own address or else its name means.
async fn runbook_of(state: &AppState, pasted: &Pasted) -> Option<(String, String)> {
    for reference in [pasted.runbook_url(), pasted.name()].into_iter().flatten() {
        if let Resolved::Known(address) = state.resolve(reference).await {
            let library = state.retriever.library();
            let page = address.split('#').next().unwrap_or_default();
            let runbook = library
                .runbooks
                .iter()
                .find(|runbook| url(&runbook.id) == page)?;
            return Some((runbook.title.clone(), address));
        }
    }
    None
}
