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
    response::{IntoResponse as _, Response},
};
use beemesh_protocol::{
    api::{Applied, Compared, ComparedObject},
    peer::{Effect, Outcome},
    rollout::{Rollout, Verdict},
    state::{Change, Command, Object},
};
use beemesh_quadlet::manifest::{self, BYTES_MAX, Manifest, Place, workload_name};
use tokio::time::Instant;

use crate::{
    api::{
        ApiError, Shared,
        admission::{
            self, check,
            prepare::{Prepared, prepare},
        },
        compare::{self, KEY_BYTES, Mask},
        error::problems,
        request::{self, ApplyQuery, Asked, Caller},
        submit::{check_room, confirm, follow, propose, unapplied},
    },
    clock::now_ms,
    cluster::{
        state::{ROLLED, State as Replicated},
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
) -> Result<Response, ApiError> {
    let gateway = &shared.gateway;
    if query.diff && !query.dry_run {
        return Err(ApiError::bad_request(
            "diff=true needs dryRun=true: the answer to an apply does not have the content of the objects",
        ));
    }
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
        objects,
        ..
    } = tried;
    let effects = match outcome {
        Outcome::Applied(effects) => effects,
        other => return Err(unapplied(other, &places)),
    };
    if query.diff {
        let versions = versions(&shared, &name, effects.clone(), objects, before.clone()).await?;
        let effects = kinds.applied(effects, &before).into_iter().zip(versions);
        let objects = effects.map(|(effect, (before, after))| ComparedObject {
            effect,
            before,
            after,
        });
        let compared = Compared {
            manifest: name,
            index,
            dry_run: true,
            objects: objects.collect(),
            warnings: problems(warnings),
        };
        return Ok(Json(compared).into_response());
    }
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
    Ok(Json(applied).into_response())
}

/// The content of each object before and after the apply, without the values of Secrets.
async fn versions(
    shared: &Shared,
    manifest: &str,
    effects: Vec<Effect>,
    objects: Vec<Object>,
    before: Arc<Replicated>,
) -> Result<Vec<compare::Versions>, ApiError> {
    let failed = |error: &dyn std::fmt::Display| {
        ApiError::internal(format!("compare the objects of the manifest: {error}"))
    };
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| failed(&error))?;
    // It takes as much memory and time as to parse the manifest.
    let permit = shared.parsing.clone().acquire_owned().await;
    let permit = permit.map_err(|error| failed(&error))?;
    let manifest = manifest.to_owned();
    let compared = tokio::task::spawn_blocking(move || {
        let mask = Mask::new(&key);
        let versions = compare::versions(&manifest, &effects, &objects, &before, &mask);
        drop(permit);
        versions
    });
    let compared = compared.await.map_err(|error| failed(&error))?;
    compared.map_err(|error| failed(&error))
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
    /// The objects of a dry run.
    objects: Vec<Object>,
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
        objects: Vec::new(),
    })
}

/// Below the level at which the state machine keeps objects of a manifest that are not among the applied ones: adds those
/// that this host knows.
fn with_those_that_stay(name: &str, mut objects: Vec<Object>, state: &Replicated) -> Vec<Object> {
    if state.level() >= ROLLED {
        return objects;
    }
    let id = |object: &Object| (object.kind, object.namespace.clone(), object.name.clone());
    let applied: Vec<_> = objects.iter().map(id).collect();
    let manifest = state.manifest(name);
    let present = manifest.into_iter().flat_map(|one| &one.objects);
    let stay = present.filter(|object| !applied.contains(&id(object)));
    objects.extend(stay.map(|object| (**object).clone()));
    objects
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
        noted = check::wait_for_references(&name, &mut manifest, &state, query.prune);
    }
    noted.extend(admission::fits(shared, &name, &manifest, query, deadline).await?);
    let Manifest {
        objects,
        places,
        mut warnings,
        ..
    } = manifest;
    warnings.extend(noted);
    let mut before = gateway.node.state().borrow().state.clone();
    let lacks = objects.iter().zip(&places).filter_map(|(object, place)| {
        let (field, message) = lack(object, before.hosts(), before.level())?;
        Some(manifest::Problem {
            document: place.document,
            line: place.line,
            field: field.to_owned(),
            message,
        })
    });
    warnings.extend(lacks);
    let kinds = Kinds::of(&objects);
    let objects = if query.prune {
        objects
    } else {
        with_those_that_stay(&name, objects, &before)
    };
    let change = Change::Apply {
        manifest: name.clone(),
        objects,
        policy: Some(version),
        keep: !query.prune,
        if_index: None,
    };
    if !query.diff {
        let asked = Prepared {
            caller,
            change: &change,
            places: &places,
            command: "apply",
            dry_run: query.dry_run,
            force: query.force,
        };
        warnings.extend(prepare(shared, &asked, deadline).await?);
    }
    let mut objects = Vec::new();
    let (index, outcome) = if query.dry_run {
        confirm(gateway, deadline).await?;
        let scene = gateway.scene();
        check_room(&scene, &change)?;
        let command = Command::unasked(now_ms(), change);
        let outcome = scene.state.preview(scene.applied + 1, &command);
        if let Change::Apply { objects: all, .. } = command.change {
            objects = all;
        }
        before = scene.state;
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
        objects,
    })
}
