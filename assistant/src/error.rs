//! `ApiError`: the only place that knows HTTP statuses. Every error is `application/problem+json` (RFC 9457) with a
//! sentence that says what to change.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

use crate::incidents::StoreError;
use crate::retrieval::NotReady;

#[derive(Debug)]
pub enum ApiError {
    /// 400: understood, but a value makes no sense.
    BadRequest(String),
    /// 401: who asks did not say so, or not in a way that is known.
    Unauthorized(String),
    /// 403: not under this name.
    Forbidden(String),
    /// 404
    NotFound(String),
    /// 405: the sentence and the methods that would do.
    MethodNotAllowed(String),
    /// 408: the body did not come, or the answer took too long.
    TooSlow,
    /// 413
    TooLarge(String),
    /// 415
    UnsupportedMediaType(String),
    /// 422: JSON, but not of the right shape.
    Unprocessable(String),
    /// 429: more than we can work on at once.
    TooManyRequests,
    /// 429: more than one caller may ask; so long until the next.
    RateLimited(Duration),
    /// 503: something we need is not there (yet).
    Unavailable(String),
    /// 500: our fault. Logged whole, told in general.
    Internal(anyhow::Error),
}

pub type ApiResult<T> = Result<Json<T>, ApiError>;

/// How long a refused client should wait, in seconds. A query takes milliseconds: a second empties any queue of ours.
const RETRY_AFTER: &str = "1";

/// What went wrong (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    /// A sentence that says what to change.
    #[schema(example = "`limit` is 0; give a number from 1 to 100")]
    pub detail: String,
}

impl ApiError {
    /// Status and sentence; what is our fault is logged.
    pub fn describe(self) -> (StatusCode, String) {
        match self {
            Self::BadRequest(detail) => (StatusCode::BAD_REQUEST, detail),
            Self::Unauthorized(detail) => (StatusCode::UNAUTHORIZED, detail),
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "the request took too long: send it again, and at once".into(),
            ),
            Self::Forbidden(detail) => (StatusCode::FORBIDDEN, detail),
            Self::NotFound(detail) => (StatusCode::NOT_FOUND, detail),
            Self::MethodNotAllowed(detail) => (StatusCode::METHOD_NOT_ALLOWED, detail),
            Self::TooLarge(detail) => (StatusCode::PAYLOAD_TOO_LARGE, detail),
            Self::UnsupportedMediaType(detail) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, detail),
            Self::Unprocessable(detail) => (StatusCode::UNPROCESSABLE_ENTITY, detail),
            Self::TooManyRequests => (
                StatusCode::TOO_MANY_REQUESTS,
                "all workers are busy; send the request again after the time in Retry-After".into(),
            ),
            Self::RateLimited(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "more requests than one caller may make; send the next one in {} s",
                    whole_seconds(wait)
                ),
            ),
            Self::Unavailable(detail) => (StatusCode::SERVICE_UNAVAILABLE, detail),
            Self::Internal(error) => {
                error!(error = format!("{error:#}"), "request failed");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "something failed in the assistant; its log says what".into(),
                )
            }
        }
    }

    /// As the body says it, for answers of which only a part failed.
    pub fn into_problem(self) -> Problem {
        let (status, detail) = self.describe();
        Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let wait = match &self {
            Self::RateLimited(wait) => whole_seconds(*wait).into(),
            _ => HeaderValue::from_static(RETRY_AFTER),
        };
        let problem = self.into_problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or_default();
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            headers.insert(header::RETRY_AFTER, wait);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Never less than one: a client that comes back at once comes in vain.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0 || wait.is_zero())
}

impl From<anyhow::Error> for ApiError {
    fn from(error: anyhow::Error) -> Self {
        if let Some(not_ready) = error.downcast_ref::<NotReady>() {
            return Self::Unavailable(not_ready.to_string());
        }
        Self::Internal(error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        // Told whole: the one who sends alerts is the one who can mend it.
        warn!(
            error = error.to_string(),
            "incidents cannot be kept or read"
        );
        Self::Unavailable(format!("{error}; nothing was changed, send it again"))
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::JsonDataError(error) => {
                Self::Unprocessable(format!("the body does not fit: {}", cause(&error)))
            }
            JsonRejection::JsonSyntaxError(error) => {
                Self::BadRequest(format!("the body is not JSON: {}", cause(&error)))
            }
            JsonRejection::MissingJsonContentType(_) => Self::UnsupportedMediaType(
                "send the body as JSON with the header `Content-Type: application/json`".into(),
            ),
            JsonRejection::BytesRejection(error) => error.into(),
            // The enum is open: what axum adds later is still the request's fault.
            other => Self::BadRequest(other.body_text()),
        }
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::BadRequest(format!(
            "the path cannot be read: {}; encode it as text in UTF-8",
            rejection.body_text()
        ))
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::TooLarge(format!(
                "the body is larger than this path takes ({} KiB, but for Alertmanager's); send less",
                crate::api::MAX_BODY_BYTES >> 10
            ));
        }
        Self::BadRequest("the body ended early; send it whole".into())
    }
}

/// What is at the bottom of an error: axum's own words above it say nothing to a caller.
fn cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        // serde_path_to_error shows the path to the field and then its source; deeper only the field's words remain.
        if deepest.to_string().contains(": ") && deepest.to_string().ends_with(&source.to_string())
        {
            break;
        }
        deepest = source;
    }
    deepest
        .to_string()
        .trim_start_matches("Failed to deserialize the JSON body into the target type: ")
        .trim_start_matches("Failed to parse the request body as JSON: ")
        .to_owned()
}
