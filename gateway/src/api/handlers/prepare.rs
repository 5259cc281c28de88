//! Answers a member that asks what prevents this host from running workloads.
//!
//! Shell over [`crate::workloads::prepare`].

use axum::{Extension, Json, body::Body, extract::State, http::Request};
use beemesh_protocol::prepare::{Answer, BYTES_MAX, ITEMS_MAX, Question};

use crate::api::{
    ApiError, Shared,
    request::{Asked, Caller, NoQuery, body},
};

/// Answers the question of another member.
pub(in crate::api) async fn answer(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    _: Asked<NoQuery>,
    request: Request<Body>,
) -> Result<Json<Answer>, ApiError> {
    let (parts, sent) = request.into_parts();
    let bytes = body(&parts, sent, BYTES_MAX, "2 MiB").await?;
    let question: Question = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("read the body as JSON: {error}")))?;
    if question.workloads.len() > ITEMS_MAX {
        let count = question.workloads.len();
        return Err(ApiError::bad_request(format!(
            "{count} workloads: at most {ITEMS_MAX}"
        )));
    }
    tracing::debug!(%caller, who = ?question.who, workloads = question.workloads.len(), "asked before an apply");
    Ok(Json(shared.prepare.answer(&question).await))
}
