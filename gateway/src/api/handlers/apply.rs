//! Applies manifests: checks them, commits them, and waits for their rollout if requested.
//!
//! Shell: [`crate::api::error`] decides the response to a refusal, and [`crate::cluster::view`] the words of an effect.
//! The journal has every change with its user.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::State,
    http::Request,
};
use beemesh_protocol::{
    api::Applied,
    peer::Outcome,
    rollout::{Rollout, Verdict},
    state::{Change, Command},
};
use beemesh_quadlet::manifest::{self, BYTES_MAX, Manifest, Place, workload_name};
use tokio::time::Instant;

use crate::{
    api::{
        ApiError, Shared,
        admission::{self, check},
        error::problems,
        request::{self, ApplyQuery, Asked, Caller},
        submit::{check_room, confirm, follow, propose, unapplied},
    },
    clock::now_ms,
    cluster::{
        state::State as Replicated,
        view::{Kinds, View, lack},
    },
};

/// How often a manifest is checked again because the policy changed before its commit.
const POLICY_CHANGES_MAX: usize = 3;
pub(in crate::api) async fn apply(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<ApplyQuery>,
    request: Request<Body>,
) -> Result<Json<Applied>, ApiError> {
    let gateway = &shared.gateway;
    let timeout = request::timeout(query.timeout)?;
    let wait = request::wait(query.wait)?;
    let stable = request::stable(query.stable)?;
    if let Some(name) = &query.name {
        request::manifest_name(name)?;
    }
    let (parts, body) = request.into_parts();
    let yaml = request::body(&parts, body, BYTES_MAX, "1 MiB").await?;
    let deadline = Instant::now() + timeout;
    let mut tried = try_apply(&shared, &caller, &query, &yaml, deadline).await?;
    for _ in 0..POLICY_CHANGES_MAX {
        let (index, version) = (tried.index, tried.version);
        if !admission::is_outdated(&shared, &tried.outcome, index, version, deadline).await {
            break;
        }
        tried = try_apply(&shared, &caller, &query, &yaml, deadline).await?;
    }
    let Tried {
        name,
        index,
        outcome,
        places,
        warnings,
        kinds,
        before,
        ..
    } = tried;
    let effects = match outcome {
        Outcome::Applied(effects) => effects,
        other => return Err(unapplied(other, &places)),
    };
    let mut applied = Applied {
        manifest: name,
        index,
        dry_run: query.dry_run,
        settled: None,
        objects: kinds.applied(effects, &before),
        warnings: problems(warnings),
        workloads: None,
    };
    let has_effect = !applied.manifest.is_empty();
    if let Some(wait) = wait.filter(|_| !query.dry_run && has_effect) {
        let mine = |view: &View| view.workloads_of(&applied.manifest);
        let mut rollout = Rollout::new(stable);
        let look = |elapsed: Duration, view: &View| match view.scene.applied < index {
            true => Verdict::Wait(None),
            false => rollout.look(elapsed, &mine(view)),
        };
        let (verdict, view) = follow(gateway, wait, look).await;
        let workloads = mine(&view);
        applied.settled = Some(verdict == Verdict::Done);
        applied.workloads = Some(workloads);
    }
    Ok(Json(applied))
}

/// The result of one attempt to apply a manifest.
struct Tried {
    name: String,
    /// The version of the policy that it was checked against.
    version: u64,
    index: u64,
    outcome: Outcome,
    places: Vec<Place>,
    warnings: Vec<manifest::Problem>,
    kinds: Kinds,
    /// The state before the apply.
    before: Arc<Replicated>,
}

/// The result for a file with nothing but objects that have no effect, such as a Namespace: its warnings.
fn without_effect(
    shared: &Shared,
    query: &ApplyQuery,
    version: u64,
    manifest: Manifest,
) -> Result<Tried, ApiError> {
    if let Some(name) = &query.name {
        // An apply removes what its manifest no longer has.
        return Err(ApiError::bad_request(format!(
            "the file contains no objects that have an effect: `beemesh delete --manifest {name}` deletes the manifest"
        )));
    }
    Ok(Tried {
        name: String::new(),
        version,
        index: shared.gateway.scene().applied,
        outcome: Outcome::Applied(Vec::new()),
        places: Vec::new(),
        warnings: manifest.warnings,
        kinds: Kinds::of(&[]),
        before: shared.gateway.node.state().borrow().state.clone(),
    })
}

/// Parses, checks and proposes a manifest, or with `dry_run` previews the result.
async fn try_apply(
    shared: &Shared,
    caller: &Caller,
    query: &ApplyQuery,
    yaml: &Bytes,
    deadline: Instant,
) -> Result<Tried, ApiError> {
    let gateway = &shared.gateway;
    let (mut manifest, version) = admission::admit(shared, yaml, query.strict, deadline).await?;
    let Some(first) = manifest.objects.first() else {
        return without_effect(shared, query, version, manifest);
    };
    let named = query.name.clone();
    let name = named.unwrap_or_else(|| workload_name(&first.namespace, &first.name));
    let mut noted = Vec::new();
    if query.wait_for_references {
        // Objects that any host has committed before this request must be visible here.
        confirm(gateway, deadline).await?;
        let state = gateway.scene().state;
        noted = check::wait_for_references(&name, &mut manifest, &state);
    }
    noted.extend(admission::fits(shared, &name, &manifest, query, deadline).await?);
    let Manifest {
        objects,
        places,
        mut warnings,
        ..
    } = manifest;
    warnings.extend(noted);
    let before = gateway.node.state().borrow().state.clone();
    let lacks = objects.iter().zip(&places).filter_map(|(object, place)| {
        let (field, message) = lack(object, before.hosts())?;
        Some(manifest::Problem {
            document: place.document,
            line: place.line,
            field: field.to_owned(),
            message,
        })
    });
    warnings.extend(lacks);
    let kinds = Kinds::of(&objects);
    let change = Change::Apply {
        manifest: name.clone(),
        objects,
        policy: Some(version),
    };
    let (index, outcome) = if query.dry_run {
        confirm(gateway, deadline).await?;
        let scene = gateway.scene();
        check_room(&scene, &change)?;
        let command = Command::unasked(now_ms(), change);
        let outcome = scene.state.preview(scene.applied + 1, &command);
        (scene.applied, outcome)
    } else {
        let left = deadline.saturating_duration_since(Instant::now());
        let committed = propose(shared, caller.clone(), change, left).await?;
        (committed.index, committed.outcome)
    };
    Ok(Tried {
        name,
        version,
        index,
        outcome,
        places,
        warnings,
        kinds,
        before,
    })
}
