//! Shows and sets the policy.
//!
//! Shell; [`beemesh_quadlet::manifest::policy`] has the rules, and [`crate::api::admission`] checks manifests against
//! them.

use axum::{Extension, Json, body::Body, extract::State, http::Request};
use beemesh_protocol::{
    api::{Policy as Shown, PolicySet},
    peer::Outcome,
    state::Change,
};
use beemesh_quadlet::manifest::policy::{DOCUMENT_BYTES_MAX, Policy};
use serde::Deserialize;

use crate::{
    api::{
        ApiError, Shared,
        error::problems,
        request::{self, Asked, Caller, ReadQuery},
        submit::{look, propose, settle, unapplied},
    },
    cluster::{releases, view::Scene},
};

/// The longest document, for messages.
const DOCUMENT_BYTES_WORDS: &str = "64 KiB";

/// The query of `PUT /v1/policy`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::api) struct SetQuery {
    if_version: Option<u64>,
    timeout: Option<u64>,
}

pub(in crate::api) async fn show(
    State(shared): State<Shared>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Shown>, ApiError> {
    let state = look(&shared.gateway, &query).await?.state;
    let rules = shared.policy.rules(&state)?;
    let record = state.policy();
    Ok(Json(Shown {
        version: rules.version,
        index: record.map_or(0, |record| record.index),
        set_at_ms: record.map_or(0, |record| record.at_ms),
        rules: rules.policy.json(),
        document: rules.policy.text(),
    }))
}

pub(in crate::api) async fn set(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<SetQuery>,
    request: Request<Body>,
) -> Result<Json<PolicySet>, ApiError> {
    let gateway = &shared.gateway;
    let timeout = request::timeout(query.timeout)?;
    let (parts, body) = request.into_parts();
    let text = request::body(&parts, body, DOCUMENT_BYTES_MAX, DOCUMENT_BYTES_WORDS).await?;
    let text = std::str::from_utf8(&text)
        .map_err(|error| ApiError::bad_request(format!("the policy is not UTF-8 text: {error}")))?;
    let policy = Policy::read(text).map_err(|found| ApiError::policy(problems(found)))?;
    if let Some(since) = policy.since() {
        let scene = gateway.scene();
        let what = "a policy with these rules";
        releases::everybody(since, what, &scene.state, &scene.reports)?;
    }
    let document = policy.stored();
    let change = Change::SetPolicy {
        document: document.clone(),
        if_version: query.if_version,
    };
    let committed = propose(&shared, caller, change, timeout).await?;
    if !matches!(committed.outcome, Outcome::Done) {
        return Err(unapplied(committed.outcome, &[]));
    }
    let index = committed.index;
    let there = |scene: &Scene| scene.applied >= index;
    let (settled, scene) = settle(gateway, timeout, there).await;
    let record = scene.state.policy();
    match record.filter(|record| settled && record.document == document) {
        Some(record) => {
            let version = record.version;
            Ok(Json(PolicySet { index, version }))
        }
        None => Err(ApiError::conflict(format!(
            "the policy was set at log index {index}, but another policy has replaced it, or this host has not caught up"
        ))
        .hint("`beemesh policy show` prints the policy in force")),
    }
}
