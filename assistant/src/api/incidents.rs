//! `GET /incidents` and `/incidents/{id}`, as JSON or as pages, and `POST /incidents/{id}/feedback`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::Shown;
use super::diagnose::now_millis;
use super::html::{Tab, wants_html};
use super::{AppState, html};
use crate::diagnosis::Diagnosis;
use crate::error::ApiError;
use crate::incidents::{Feedback, Filter, Incident, Page, Verdict};

pub(super) mod page;

const LIMIT: i64 = 50;
const MOST: i64 = 500;
const MAX_COMMENT: usize = 4000;
/// What is judged where nothing was found.
const NO_CAUSE: &str = "none";

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListRequest {
    /// `firing` or `resolved`.
    #[serde(default)]
    #[param(pattern = "^(firing|resolved)?$")]
    state: String,
    /// Name of any of its alerts.
    #[serde(default)]
    alertname: String,
    /// Namespace of any of its alerts.
    #[serde(default)]
    namespace: String,
    /// RFC 3339: not over before this.
    #[serde(default)]
    #[param(format = DateTime)]
    from: String,
    /// RFC 3339: begun by then.
    #[serde(default)]
    #[param(format = DateTime)]
    to: String,
    /// 1 to 500 [default: 50].
    #[serde(default)]
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// The `next` of an earlier answer.
    #[serde(default)]
    after: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = IncidentList)]
pub(super) struct List {
    incidents: Vec<Incident>,
    /// For `after`, to get those that follow; `None` at the end.
    next: Option<String>,
}

/// Incidents, the latest first.
#[utoipa::path(get, path = "/incidents", operation_id = "list_incidents", tag = "incidents", params(ListRequest), responses(
    (status = 200, content((List = "application/json"), (String = "text/html"))), (status = 400, description = "A value makes no sense"),
    (status = 503, description = "Incidents cannot be read now, or are not kept")))]
pub(super) async fn list(
    State(state): State<AppState>,
    headers: HeaderMap,
    request: Result<Query<ListRequest>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(request) = request.map_err(|error| ApiError::BadRequest(error.body_text()))?;
    let filter = filter(&request)?;
    let (incidents, next) = state.incidents()?.store.list(&filter).await?;
    let next = next.map(|(started, id)| format!("{started}-{id}"));
    if wants_html(&headers) {
        let body = page::list(&incidents, next.as_deref(), &request, now_millis());
        return Ok(html::page(
            StatusCode::OK,
            Tab::Incidents,
            "Incidents",
            &body,
        ));
    }
    Ok(Json(List { incidents, next }).into_response())
}

/// An incident with its alerts, its diagnoses and what people said of them.
#[utoipa::path(get, path = "/incidents/{id}", operation_id = "get_incident", tag = "incidents", params(("id" = String, Path, description = "As `/incidents` gives it", example = "0123456789abcdef")), responses(
    (status = 200, content((Page = "application/json"), (String = "text/html"))),
    (status = 503, description = "Incidents cannot be read now, or are not kept")))]
pub(super) async fn one(
    State(state): State<AppState>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let found = find(&state, &id).await?;
    if wants_html(&headers) {
        let now = now_millis();
        let latest = found.diagnoses.first();
        // One of another version may have another shape; then its summary is shown.
        let diagnosis: Option<Diagnosis> =
            latest.and_then(|kept| serde_json::from_value(kept.diagnosis.clone()).ok());
        let shown = match &diagnosis {
            Some(diagnosis) => Some(Shown::of(&state, diagnosis, now).await),
            None => None,
        };
        let body = page::one(&found, shown.as_ref(), now);
        let title = format!("Incident {}", found.incident.alertname);
        return Ok(html::page(StatusCode::OK, Tab::Incidents, &title, &body));
    }
    Ok(Json(found).into_response())
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FeedbackRequest {
    /// `right` or `wrong`.
    #[schema(example = "right", pattern = "^(right|wrong)$")]
    verdict: String,
    /// The cause that is judged; if not given, the one that came first.
    #[serde(default)]
    failure_mode: String,
    #[serde(default)]
    comment: String,
}

/// Whether a cause was right. As JSON, or as the page's form sends it.
#[utoipa::path(post, path = "/incidents/{id}/feedback", tag = "incidents", params(("id" = String, Path, description = "As `/incidents` gives it", example = "0123456789abcdef")), request_body = FeedbackRequest, responses(
    (status = 204, description = "It is kept"), (status = 303, description = "To the page, after its form"), (status = 404, description = "There is no such incident")))]
pub(super) async fn feedback(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let is_form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
    let given: FeedbackRequest = if is_form {
        let body: Result<Bytes, BytesRejection> = Bytes::from_request(request, &state).await;
        form(&body?)?
    } else {
        let json: Result<Json<FeedbackRequest>, JsonRejection> =
            Json::from_request(request, &state).await;
        json?.0
    };
    let found = find(&state, &id).await?;
    let feedback = judged(&state, &found, given)?;
    state.incidents()?.judge(&id, &feedback).await?;
    if is_form {
        return Ok(Redirect::to(&found.incident.url).into_response());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A form's body is written as a query is.
fn form(body: &[u8]) -> Result<FeedbackRequest, ApiError> {
    let wrong =
        |reason: String| ApiError::Unprocessable(format!("the form does not fit: {reason}"));
    let address = format!("/?{}", String::from_utf8_lossy(body));
    let address: Uri = address
        .parse()
        .map_err(|_| wrong("it is not URL-encoded".into()))?;
    let query = Query::try_from_uri(&address).map_err(|error| wrong(error.body_text()))?;
    Ok(query.0)
}

async fn find(state: &AppState, id: &str) -> Result<Page, ApiError> {
    let store = &state.incidents()?.store;
    let found = match id.contains('\0') {
        // PostgreSQL takes no NUL in a text, and nothing has one.
        true => None,
        false => store.get(id).await?,
    };
    found.ok_or_else(|| {
        ApiError::NotFound(format!(
            "there is no incident `{id}`; GET /incidents lists those there are"
        ))
    })
}

fn judged(state: &AppState, found: &Page, given: FeedbackRequest) -> Result<Feedback, ApiError> {
    let verdict = match given.verdict.as_str() {
        "right" => Verdict::Right,
        "wrong" => Verdict::Wrong,
        other => {
            return Err(ApiError::BadRequest(format!(
                "`verdict` is \"{other}\"; give \"right\" or \"wrong\""
            )));
        }
    };
    if given.comment.chars().count() > MAX_COMMENT {
        return Err(ApiError::BadRequest(format!(
            "`comment` is longer than {MAX_COMMENT} characters; give fewer"
        )));
    }
    let failure_mode = match given.failure_mode.as_str() {
        "" => found
            .incident
            .cause
            .clone()
            .unwrap_or_else(|| NO_CAUSE.into()),
        id => id.to_owned(),
    };
    // It becomes a label's value, so it must be one of a closed set.
    let library = state.retriever.library();
    let mut known = library
        .runbooks
        .iter()
        .flat_map(|runbook| &runbook.failure_modes);
    let is_known = failure_mode == NO_CAUSE
        || found.incident.cause.as_ref() == Some(&failure_mode)
        || known.any(|mode| mode.id == failure_mode);
    if !is_known {
        return Err(ApiError::BadRequest(format!(
            "no runbook knows the failure mode `{failure_mode}`; give one of those in the diagnosis, or `{NO_CAUSE}`"
        )));
    }
    Ok(Feedback {
        verdict,
        failure_mode,
        comment: given.comment.replace('\0', "\u{fffd}"),
    })
}

fn filter(request: &ListRequest) -> Result<Filter, ApiError> {
    let bad = |text: String| Err(ApiError::BadRequest(text));
    if !matches!(request.state.as_str(), "" | "firing" | "resolved") {
        return bad(format!(
            "`state` is \"{}\"; give `firing` or `resolved`, or leave it out",
            request.state
        ));
    }
    let limit = request.limit.unwrap_or(LIMIT);
    if !(1..=MOST).contains(&limit) {
        return bad(format!("`limit` is {limit}; give 1 to {MOST}"));
    }
    let time = |name: &str, text: &str| {
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse::<jiff::Timestamp>().map_err(|_| {
            ApiError::BadRequest(format!(
                "`{name}` is \"{text}\"; give RFC 3339, such as 2026-01-31T03:10:00Z"
            ))
        })?;
        Ok::<_, ApiError>(Some(parsed.as_millisecond()))
    };
    let (from, to) = (time("from", &request.from)?, time("to", &request.to)?);
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return bad("`from` is later than `to`; exchange them".into());
    }
    let after = match request.after.as_str() {
        "" => None,
        text => {
            let parts = text.rsplit_once('-');
            let parts = parts.and_then(|(time, id)| Some((time.parse().ok()?, id.to_owned())));
            match parts {
                Some(after) => Some(after),
                None => {
                    return bad(format!(
                        "`after` is \"{text}\"; give the `next` of an earlier answer"
                    ));
                }
            }
        }
    };
    // PostgreSQL takes no NUL in a text, and nothing has one.
    let text = |text: &str| text.replace('\0', "\u{fffd}");
    Ok(Filter {
        state: request.state.clone(),
        alertname: text(&request.alertname),
        namespace: text(&request.namespace),
        from,
        to,
        after: after.map(|(time, id): (i64, String)| (time, text(&id))),
        limit,
    })
}
