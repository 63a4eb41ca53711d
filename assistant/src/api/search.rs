//! `POST /search`: the passages that answer a question, best first.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::Deserialize;

use super::{AppState, MAX_QUESTION_BYTES};
use crate::error::{ApiError, ApiResult};
use crate::retrieval::{Filters, SearchResponse};

const DEFAULT_LIMIT: i64 = 10;
const MAX_LIMIT: i64 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchRequest {
    query: String,
    #[serde(default, alias = "k")]
    limit: Option<i64>,
    #[serde(default)]
    filters: Option<Filters>,
}

pub(super) async fn search(
    State(state): State<AppState>,
    request: Result<Json<SearchRequest>, JsonRejection>,
) -> ApiResult<SearchResponse> {
    let Json(request) = request?;
    let query = checked_question("query", request.query)?;
    let limit = checked_limit(request.limit)?;
    let filters = request.filters.unwrap_or_default();
    let retriever = state.retriever.clone();
    let response = state
        .compute(move || retriever.search(&query, limit, &filters))
        .await??;
    Ok(Json(response))
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
