//! `POST /webhook/alertmanager`: what Alertmanager says, stored before it is answered. Diagnoses come after.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::diagnose::now_millis;
use crate::error::ApiError;
use crate::incidents::Notification;
use crate::incidents::notification::Payload;

/// A group of ten thousand alerts. Alertmanager does not send again what is refused as too large.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;

#[derive(Serialize, ToSchema)]
pub(super) struct Stored {
    /// Ids of the incidents that the notification is about.
    incidents: Vec<String>,
}

/// A notification as Alertmanager sends it. It is stored when this answers, and diagnosed after.
#[utoipa::path(post, path = "/webhook/alertmanager", tag = "incidents", request_body = Payload, responses((status = 200, body = Stored)))]
pub(super) async fn alertmanager(
    State(state): State<AppState>,
    payload: Result<Json<Payload>, JsonRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let incidents = state.incidents()?;
    let Json(payload) = payload?;
    let notification = Notification::of(payload, now_millis()).map_err(ApiError::Unprocessable)?;
    let incidents = incidents.record(notification).await?;
    Ok((StatusCode::OK, Json(Stored { incidents })))
}
