//! Admission: parses a manifest, and checks it against the policy and against the workloads of the cluster.
//!
//! Shell over [`check`] and the rules of [`beemesh_quadlet::manifest::policy`]. The host that receives the manifest
//! does all of this before it proposes anything. The state machine refuses a manifest that was checked against another
//! version of the policy.

pub(super) mod check;
pub(super) mod prepare;

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use beemesh_protocol::{
    peer::Outcome,
    state::{Object, Reference},
};
use beemesh_quadlet::manifest::{
    self, Manifest,
    policy::{Policy, Rules},
};
use tokio::time::Instant;

use self::check::Around;
use super::{
    ApiError, Shared,
    error::problems,
    request::ApplyQuery,
    submit::{confirm, settle},
};
use crate::cluster::{state::State, view::Scene};

/// A manifest of up to this size, in bytes, is parsed on the thread that received it, in a tenth of a millisecond.
const SMALL_MANIFEST_MAX: usize = 4 << 10;

/// A cache of the rules that were parsed last: to parse them takes longer than a small change.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Arc<Rules>>);

impl Known {
    /// The rules of the policy in this state.
    pub(super) fn rules(&self, state: &State) -> Result<Arc<Rules>, ApiError> {
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

/// Parses a manifest and checks it against these rules; `None` means no policy.
pub(super) async fn parse(
    shared: &Shared,
    yaml: Bytes,
    strict: bool,
    rules: Option<Arc<Rules>>,
) -> Result<Manifest, ApiError> {
    // A small text without aliases cannot expand, and to pass it to another thread would take longer.
    if yaml.len() <= SMALL_MANIFEST_MAX && !yaml.contains(&b'*') {
        return manifest::parse_under(&yaml, strict, rules.as_deref())
            .map_err(|found| ApiError::manifest(problems(found)));
    }
    let gone = |_| ApiError::internal("the manifest could not be parsed: the gateway is stopping");
    let permit = shared.parsing.clone().acquire_owned().await.map_err(gone)?;
    let parsed = tokio::task::spawn_blocking(move || {
        let parsed = manifest::parse_under(&yaml, strict, rules.as_deref());
        drop(permit);
        parsed
    });
    match parsed.await {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(found)) => Err(ApiError::manifest(problems(found))),
        Err(error) => Err(ApiError::internal(format!("parse the manifest: {error}"))),
    }
}

/// Parses a manifest and checks it against the policy; also returns the version of the policy.
pub(super) async fn admit(
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
    // If only the policy forbids it, the latest policy decides, which this host may not have applied yet.
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

/// Keeps the optional references of a workload that waits for missing objects: it was applied although they were missing,
/// and its object is read again. `before` is the object as it was admitted.
pub(super) fn keep_waiting(object: &mut Object, before: &Object) {
    for reference in &mut object.references {
        let same =
            |known: &&Reference| known.kind == reference.kind && known.name == reference.name;
        let known = before.references.iter().find(same);
        reference.optional |= known.is_some_and(|known| known.optional);
    }
}

/// Returns true if the cluster refused the change at this index because the policy has changed since the check.
pub(super) async fn is_outdated(
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

/// Checks a manifest against the workloads of the cluster; returns the warnings if it is admitted.
pub(super) async fn fits(
    shared: &Shared,
    name: &str,
    manifest: &Manifest,
    query: &ApplyQuery,
    deadline: Instant,
) -> Result<Vec<manifest::Problem>, ApiError> {
    let gateway = &shared.gateway;
    let look = || {
        let scene = gateway.scene();
        let around = Around {
            state: &scene.state,
            reports: &scene.reports,
            waits: query.wait_for_references,
            prune: query.prune,
        };
        let mut ledger = shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdict = check::check(name, manifest, around, &mut ledger);
        if query.strict {
            verdict.wrong.append(&mut verdict.warnings);
        }
        verdict
    };
    let mut verdict = look();
    let refuses = |verdict: &check::Verdict| !verdict.wrong.is_empty() || !verdict.held.is_empty();
    // A change that this host has not applied yet may have ended the conflict.
    if refuses(&verdict) && confirm(gateway, deadline).await.is_ok() {
        verdict = look();
    }
    if !refuses(&verdict) {
        verdict.warnings.append(&mut verdict.awaited);
        return Ok(verdict.warnings);
    }
    let refused = if verdict.wrong.is_empty() {
        ApiError::held
    } else {
        ApiError::manifest
    };
    let mut all: Vec<_> = verdict.wrong.into_iter().chain(verdict.held).collect();
    all.sort();
    Err(refused(problems(all)))
}
