//! The policy: shown, set, and held against what is applied.
//!
//! Shell; the rules are those of [`beemesh_quadlet::manifest::policy`]. A manifest is checked on the host that takes it, before
//! anything is proposed, and the state machine refuses what another version of the policy has accepted.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::State,
    http::Request,
};
use beemesh_protocol::{
    api::{Policy as Shown, PolicySet},
    peer::Outcome,
    state::Change,
};
use beemesh_quadlet::manifest::{
    Manifest,
    policy::{DOCUMENT_BYTES_MAX, Policy, Rules},
};
use serde::Deserialize;
use tokio::time::Instant;

use super::read::{confirm, look};
use crate::{
    api::{
        ApiError, Shared,
        error::problems,
        handlers::apply::{parse, propose, settle, unapplied},
        request::{self, Asked, Caller, ReadQuery},
    },
    cluster::{releases, state::State as Replicated, view::Scene},
};

/// The release that brought the rules on host ports and on the time that a pod may take to end.
const NEWER_SINCE: [u32; 3] = [0, 2, 1];
/// The longest document, for people.
const DOCUMENT_BYTES_WORDS: &str = "64 KiB";

/// The rules that were read last: reading them costs more than a small change does.
#[derive(Debug, Default)]
pub(in crate::api) struct Known(Mutex<Arc<Rules>>);

impl Known {
    /// The rules that are in force in this state.
    pub(in crate::api) fn rules(&self, state: &Replicated) -> Result<Arc<Rules>, ApiError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.version != state.policy_version() {
            let policy = match state.policy() {
                Some(record) => Policy::read(&record.document).map_err(|_| {
                    let version = record.version;
                    let words = format!(
                        "the cluster's policy (version {version}) has rules that this release does not know, so it cannot check manifests"
                    );
                    ApiError::conflict(words).hint("upgrade this host, or ask another one")
                })?,
                None => Policy::default(),
            };
            let version = state.policy_version();
            *known = Arc::new(Rules { version, policy });
        }
        Ok(Arc::clone(&known))
    }
}

/// `PUT /v1/policy`.
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
        .map_err(|error| ApiError::bad_request(format!("the policy is no text: {error}")))?;
    let policy = Policy::read(text).map_err(|found| ApiError::policy(problems(found)))?;
    if policy.is_newer() {
        let scene = gateway.scene();
        let what = "a policy with these rules";
        releases::everybody(NEWER_SINCE, what, &scene.state, &scene.reports)?;
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
            "the policy was set at log index {index}, and another has replaced it, or this host has not caught up"
        ))
        .hint("`beemesh policy show` shows the one that is in force")),
    }
}

/// Reads a manifest and checks it; with it the version of the policy that accepts it.
pub(in crate::api) async fn admit(
    shared: &Shared,
    yaml: &Bytes,
    strict: bool,
    deadline: Instant,
) -> Result<(Manifest, u64), ApiError> {
    let gateway = &shared.gateway;
    let rules = shared.policy.rules(&gateway.scene().state)?;
    let version = rules.version;
    let refused = match parse(shared, yaml.clone(), strict, Some(rules)).await {
        Ok(manifest) => return Ok((manifest, version)),
        Err(refused) => refused,
    };
    // Where only the policy is against it, it is the latest that decides: this host may not have heard of it.
    if parse(shared, yaml.clone(), strict, None).await.is_err()
        || confirm(gateway, deadline).await.is_err()
    {
        return Err(refused);
    }
    let latest = shared.policy.rules(&gateway.scene().state)?;
    let version = latest.version;
    let manifest = parse(shared, yaml.clone(), strict, Some(latest)).await?;
    Ok((manifest, version))
}

/// Whether a change was refused at this index because the policy that accepted it is not in force any more.
pub(in crate::api) async fn is_outdated(
    shared: &Shared,
    outcome: &Outcome,
    index: u64,
    version: u64,
    deadline: Instant,
) -> bool {
    if !matches!(outcome, Outcome::Refused(_)) {
        return false;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let there = |scene: &Scene| scene.applied >= index;
    let (_, scene) = settle(&shared.gateway, left, there).await;
    scene.state.policy_version() != version
}
