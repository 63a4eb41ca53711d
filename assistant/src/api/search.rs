//! `POST /search`: the passages that answer a question, best first. `POST /search/batch`: the same for many at once.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{AppState, MAX_QUESTION_BYTES, Place};
use crate::error::{ApiError, ApiResult, Problem};
use crate::retrieval::{Filters, SearchResponse};

const DEFAULT_LIMIT: i64 = 10;
const MAX_LIMIT: i64 = 100;

/// With a few milliseconds each, the last of them is still answered within a second.
const MAX_QUERIES: usize = 100;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchRequest {
    /// A sentence, an alert's name or an error line.
    #[schema(
        min_length = 1,
        max_length = 65536,
        pattern = r"\S",
        example = "dns answers servfail"
    )]
    query: String,
    /// How many passages; 10 if it is left out. `k` is the same.
    #[serde(default, alias = "k", deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    #[serde(default, deserialize_with = "object")]
    filters: Option<Filters>,
}

/// Passages of the runbooks for a question, best first.
#[utoipa::path(post, path = "/search", tag = "search", request_body = SearchRequest, responses((status = 200, body = SearchResponse)))]
pub(super) async fn search(
    State(state): State<AppState>,
    request: Result<Json<SearchRequest>, JsonRejection>,
) -> ApiResult<SearchResponse> {
    let Json(request) = request?;
    let place = state.place()?;
    Ok(Json(answer(&state, &place, request).await?))
}

/// `limit` and `filters` are for those queries that have none of their own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest {
    /// Each as of `/search`. Checked one by one: a wrong one must not cost the others their answers.
    #[schema(min_items = 1, max_items = 100)]
    queries: Vec<Value>,
    #[serde(default, alias = "k", deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    #[serde(default, deserialize_with = "object")]
    filters: Option<Filters>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct BatchResponse {
    results: Vec<BatchItem>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum BatchItem {
    Found(SearchResponse),
    Failed { error: Problem },
}

/// A batch has one place in the queue and works on one query after the other, so that it holds up nobody for long.
#[utoipa::path(post, path = "/search/batch", tag = "search", request_body = BatchRequest, responses((status = 200, body = BatchResponse)))]
pub(super) async fn batch(
    State(state): State<AppState>,
    request: Result<Json<BatchRequest>, JsonRejection>,
) -> ApiResult<BatchResponse> {
    let Json(request) = request?;
    let count = request.queries.len();
    if !(1..=MAX_QUERIES).contains(&count) {
        return Err(ApiError::BadRequest(format!(
            "`queries` has {count} items; send from 1 to {MAX_QUERIES}"
        )));
    }
    checked_limit(request.limit)?;
    let place = state.place()?;
    let mut results = Vec::with_capacity(count);
    let mut is_refused = false;
    for query in request.queries {
        let found = match serde_json::from_value::<SearchRequest>(query) {
            // Who was refused once would wait in vain for each of the others.
            Ok(_) if is_refused => Err(ApiError::TooManyRequests),
            Ok(mut query) => {
                query.limit = query.limit.or(request.limit);
                query.filters = query.filters.or_else(|| request.filters.clone());
                answer(&state, &place, query).await
            }
            Err(error) => Err(ApiError::Unprocessable(format!(
                "the query does not fit: {error}"
            ))),
        };
        match found {
            // The first query finds no core: nor would the others, and the client had better come back.
            Err(error @ (ApiError::TooManyRequests | ApiError::Unavailable(_)))
                if results.is_empty() =>
            {
                return Err(error);
            }
            Ok(found) => results.push(BatchItem::Found(found)),
            Err(error) => {
                is_refused |= matches!(error, ApiError::TooManyRequests);
                let error = error.into_problem();
                results.push(BatchItem::Failed { error });
            }
        }
    }
    Ok(Json(BatchResponse { results }))
}

pub(super) async fn answer(
    state: &AppState,
    place: &Place<'_>,
    request: SearchRequest,
) -> Result<SearchResponse, ApiError> {
    let query = checked_question("query", request.query)?;
    let limit = checked_limit(request.limit)?;
    let filters = request.filters.unwrap_or_default();
    let retriever = state.retriever.clone();
    let found = state
        .compute_in(place, move || retriever.search(&query, limit, &filters))
        .await?;
    Ok(found?)
}

/// A whole number, also where it is written with a fraction of nothing: to JSON 3.0 is 3.
pub(super) fn whole_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else {
        return Ok(None);
    };
    let whole = number.as_i64().or_else(|| {
        let value = number.as_f64()?;
        // Below 2^53 every whole number is exact.
        (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
    });
    match whole {
        Some(whole) => Ok(Some(whole)),
        None => Err(serde::de::Error::custom(format!(
            "{number} is not a whole number"
        ))),
    }
}

/// An object with names. A list of its values in their order, which serde takes as well, is not what is described.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    let Some(object) = Option::<serde_json::Map<String, Value>>::deserialize(from)? else {
        return Ok(None);
    };
    T::deserialize(Value::Object(object))
        .map(Some)
        .map_err(serde::de::Error::custom)
}

pub(super) fn checked_question(name: &str, question: String) -> Result<String, ApiError> {
    if question.trim().is_empty() {
        return Err(ApiError::BadRequest(format!(
            "`{name}` is empty; send a sentence, an alert name or an error line"
        )));
    }
    if question.len() > MAX_QUESTION_BYTES {
        return Err(ApiError::BadRequest(format!(
            "`{name}` is longer than {} KiB; send the lines that matter",
            MAX_QUESTION_BYTES >> 10
        )));
    }
    Ok(question)
}

fn checked_limit(limit: Option<i64>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    usize::try_from(limit)
        .ok()
        .filter(|_| (1..=MAX_LIMIT).contains(&limit))
        .ok_or_else(|| {
            ApiError::BadRequest(format!(
                "`limit` is {limit}; give a number from 1 to {MAX_LIMIT}"
            ))
        })
}
