//! Takes changes: checks them, has the cluster agree on them, and waits for their effect if asked to.
//!
//! Shell: what a refusal or an effect is called is decided by [`crate::api::error`] and [`crate::cluster::view`]. Every change is in
//! the journal with who asked for it.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{Request, StatusCode},
};
use beemesh_protocol::{
    api::{Applied, Deleted, JoinBody, Joining},
    peer::{Committed, Outcome},
    rollout::{Rollout, Verdict},
    state::{Change, Command},
    token::Token,
};
use beemesh_quadlet::manifest::{self, BYTES_MAX, Manifest, Place, policy::Rules, workload_name};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{policy, read::confirm};
use crate::{
    admission::{self, Around},
    api::{
        ApiError, Shared,
        audit_journal::Done,
        error::problems,
        request::{self, ApplyQuery, Asked, Caller, DeleteQuery},
    },
    clock::now_ms,
    cluster::{
        releases,
        state::{changed, deed},
        view::{Scene, applied_objects, lack},
    },
    context::Gateway,
    membership::{
        self,
        join::{JoinError, JoinStarted},
    },
};

/// The bodies of everything but manifests: the longest join token is 8 KiB.
const SMALL_BODY_MAX: usize = 16 << 10;
/// How often a manifest is checked anew because the policy changed while it was on its way.
const POLICY_CHANGES_MAX: usize = 3;
/// A manifest up to this size, in bytes, is parsed where it arrives: that takes a tenth of a millisecond.
const SMALL_MANIFEST_MAX: usize = 4 << 10;

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
        if !policy::is_outdated(&shared, &tried.outcome, index, version, deadline).await {
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
        objects: applied_objects(effects),
        warnings: problems(warnings),
        workloads: None,
    };
    if let Some(wait) = wait.filter(|_| !query.dry_run) {
        let mine = |scene: &Scene| {
            let mut workloads = scene.workloads();
            workloads.retain(|workload| workload.manifest == applied.manifest);
            workloads
        };
        let mut rollout = Rollout::new(stable);
        let look = |elapsed: Duration, scene: &Scene| match scene.applied < index {
            true => Verdict::Wait(None),
            false => rollout.look(elapsed, &mine(scene)),
        };
        let (verdict, scene) = follow(gateway, wait, look).await;
        let workloads = mine(&scene);
        applied.settled = Some(verdict == Verdict::Done);
        applied.workloads = Some(workloads);
    }
    Ok(Json(applied))
}

/// What became of a manifest that was read and checked.
struct Tried {
    name: String,
    /// The version of the policy that accepted it.
    version: u64,
    index: u64,
    outcome: Outcome,
    places: Vec<Place>,
    warnings: Vec<manifest::Problem>,
}

/// Reads, checks and proposes a manifest, or looks what that would do.
async fn try_apply(
    shared: &Shared,
    caller: &Caller,
    query: &ApplyQuery,
    yaml: &Bytes,
    deadline: Instant,
) -> Result<Tried, ApiError> {
    let gateway = &shared.gateway;
    let (mut manifest, version) = policy::admit(shared, yaml, query.strict, deadline).await?;
    let first = manifest.objects.first().ok_or_else(|| {
        ApiError::bad_request("the manifest holds nothing that Beemesh runs or keeps")
    })?;
    let named = query.name.clone();
    let name = named.unwrap_or_else(|| workload_name(&first.namespace, &first.name));
    let mut noted = Vec::new();
    if query.wait_for_references {
        // What was applied a moment ago, at whichever host, is there.
        confirm(gateway, deadline).await?;
        let state = gateway.scene().state;
        noted = admission::wait_for_references(&name, &mut manifest, &state);
    }
    noted.extend(fits(shared, &name, &manifest, query, deadline).await?);
    let Manifest {
        objects,
        places,
        mut warnings,
        ..
    } = manifest;
    warnings.extend(noted);
    let members = gateway.node.state().borrow().state.clone();
    let lacks = objects.iter().zip(&places).filter_map(|(object, place)| {
        let message = lack(object, members.hosts());
        (!message.is_empty()).then(|| manifest::Problem {
            document: place.document,
            line: place.line,
            field: String::new(),
            message,
        })
    });
    warnings.extend(lacks);
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
    })
}

/// Holds a manifest against what the cluster runs; what is to be said of one that is accepted.
async fn fits(
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
        };
        let mut ledger = shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdict = admission::check(name, manifest, around, &mut ledger);
        if query.strict {
            verdict.wrong.append(&mut verdict.warnings);
        }
        verdict
    };
    let mut verdict = look();
    let refuses =
        |verdict: &admission::Verdict| !verdict.wrong.is_empty() || !verdict.held.is_empty();
    // What is in the way may be gone, and this host may not have heard of it.
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

pub(in crate::api) async fn delete_workload(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(workload): Path<String>,
    Asked(query): Asked<DeleteQuery>,
) -> Result<Json<Deleted>, ApiError> {
    delete(&shared, caller, Change::DeleteWorkload { workload }, &query).await
}

pub(in crate::api) async fn delete_manifest(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(manifest): Path<String>,
    Asked(query): Asked<DeleteQuery>,
) -> Result<Json<Deleted>, ApiError> {
    delete(&shared, caller, Change::DeleteManifest { manifest }, &query).await
}

/// Deletes, and waits for the effect if asked to.
async fn delete(
    shared: &Shared,
    caller: Caller,
    change: Change,
    query: &DeleteQuery,
) -> Result<Json<Deleted>, ApiError> {
    let gateway = &shared.gateway;
    let timeout = request::timeout(query.timeout)?;
    let wait = request::wait(query.wait)?;
    let Committed { index, outcome } = propose(shared, caller, change, timeout).await?;
    let removed = match outcome {
        Outcome::Deleted(removed) => removed,
        other => return Err(unapplied(other, &[])),
    };
    let mut deleted = Deleted {
        index,
        removed,
        settled: None,
        waiting_for: Vec::new(),
    };
    if let Some(wait) = wait {
        let holding = |scene: &Scene| scene.holding(index, &deleted.removed);
        let there = |scene: &Scene| scene.applied >= index && holding(scene).is_empty();
        let (settled, scene) = settle(gateway, wait, there).await;
        let waiting_for = holding(&scene);
        deleted.settled = Some(settled);
        deleted.waiting_for = waiting_for;
    }
    Ok(Json(deleted))
}

pub(in crate::api) async fn join(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<Joining>), ApiError> {
    let body: JoinBody = small_body(request).await?;
    let token =
        Token::from_line(&body.token).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let cluster = token.cluster;
    tracing::info!(%cluster, %caller, "asked to join a cluster");
    let joined =
        membership::join::join(&shared.gateway, token, &body.advertise, body.replace).await;
    let JoinStarted { cluster, members } = joined.map_err(not_joined)?;
    let members = members.into_iter().map(|member| member.name).collect();
    Ok((StatusCode::ACCEPTED, Json(Joining { cluster, members })))
}

fn not_joined(error: JoinError) -> ApiError {
    let words = error.to_string();
    match error {
        JoinError::InUse(_) => ApiError::conflict(words).hint("`beemesh get manifests` lists them"),
        JoinError::LeftOver(_) => ApiError::conflict(words).hint(
            "join that cluster again, or `beemesh-agent purge` removes what it left and this host's part in it",
        ),
        JoinError::Member(_) | JoinError::UnderWay(_) => {
            ApiError::conflict(words).hint("`beemesh status` shows the cluster")
        }
        JoinError::Advertise(_) => ApiError::conflict(words)
            .hint("`man beemesh-agent.toml` tells which addresses a host may have"),
        JoinError::TakesNoPlace(_) => ApiError::conflict(words),
        JoinError::Unnamed => ApiError::conflict(words).hint(
            "`hostnamectl hostname NAME` names the system, or `name` in /etc/beemesh/agent.toml.d this host in the cluster; then \
             `systemctl reload beemesh-agent`",
        ),
        JoinError::Refused(_) => {
            ApiError::conflict(words).hint("`beemesh token create` on a member makes a new token")
        }
        JoinError::NoAgent(_) => {
            ApiError::unavailable(words).hint("`systemctl status beemesh-agent` tells more")
        }
        JoinError::Unreachable(_) => ApiError::unavailable(words)
            .hint("port 4701 (UDP or TCP) of a member must be reachable from this host"),
        JoinError::Home(source) => ApiError::internal(format!("{words}: {source}")),
    }
}

/// Reads a manifest under these rules; without any, whatever it asks for is accepted.
pub(in crate::api) async fn parse(
    shared: &Shared,
    yaml: Bytes,
    strict: bool,
    rules: Option<Arc<Rules>>,
) -> Result<Manifest, ApiError> {
    // Another thread costs more than a text this small, which no alias makes longer.
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

pub(in crate::api) async fn small_body<T: DeserializeOwned>(
    request: Request<Body>,
) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = request::body(&parts, body, SMALL_BODY_MAX, "16 KiB").await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("read the body as JSON: {error}")))
}

/// Has the cluster agree on a change. It is in the trail before this returns, if it made a difference.
pub(in crate::api) async fn propose(
    shared: &Shared,
    caller: Caller,
    change: Change,
    timeout: Duration,
) -> Result<Committed, ApiError> {
    let gateway = &shared.gateway;
    let scene = gateway.scene();
    releases::check(&change, &scene.state, &scene.reports)?;
    check_room(&scene, &change)?;
    let deadline = Instant::now() + timeout;
    let deed = deed(&change);
    let name = gateway.node.state().borrow().state.subject(&change);
    let origin = caller.origin(gateway.host);
    let command = Command {
        at_ms: now_ms(),
        change,
        origin: Some(origin.clone()),
    };
    let mut committed = match gateway.node.propose(vec![command], deadline).await {
        Ok(committed) => committed,
        Err(error) => return Err(ApiError::propose(&error, &gateway.scene(), timeout)),
    };
    let committed = committed
        .pop()
        .ok_or_else(|| ApiError::internal("the cluster answered nothing to a change"))?;
    if changed(&committed.outcome) {
        shared.trail.note(Done {
            deed,
            name,
            index: committed.index,
            origin,
        });
    }
    Ok(committed)
}

/// Refuses what the cluster has no room for. While older gateways are members, the state machine accepts it all the same.
fn check_room(scene: &Scene, change: &Change) -> Result<(), ApiError> {
    let Change::Apply {
        manifest, objects, ..
    } = change
    else {
        return Ok(());
    };
    let room = scene.state.check_bytes(manifest, objects);
    room.map_err(|refusals| {
        ApiError::refused(refusals, &[]).hint(
            "`beemesh get manifests` lists what is kept, and `DELETE /v1/manifests/NAME` removes a manifest with all its objects",
        )
    })
}

/// The outcome of a change that is not the one it should have.
pub(in crate::api) fn unapplied(outcome: Outcome, places: &[Place]) -> ApiError {
    match outcome {
        Outcome::Refused(refusals) => ApiError::refused(refusals, places),
        Outcome::Done | Outcome::Applied(_) | Outcome::Deleted(_) | Outcome::Admitted(_) => {
            ApiError::internal("the cluster answered a change as if it were another")
        }
    }
}

/// Waits until `there` or until the time is over; whether it came to be, and the last scene.
pub(in crate::api) async fn settle(
    gateway: &Gateway,
    wait: Duration,
    there: impl Fn(&Scene) -> bool,
) -> (bool, Scene) {
    let look = |_: Duration, scene: &Scene| match there(scene) {
        true => Verdict::Done,
        false => Verdict::Wait(None),
    };
    let (verdict, scene) = follow(gateway, wait, look).await;
    (verdict == Verdict::Done, scene)
}

/// Looks at every scene until there is a verdict or the time is over; the verdict and the last scene. `look` hears how long the wait
/// has taken.
async fn follow(
    gateway: &Gateway,
    wait: Duration,
    mut look: impl FnMut(Duration, &Scene) -> Verdict,
) -> (Verdict, Scene) {
    let begun = Instant::now();
    let deadline = begun + wait;
    let mut views = gateway.node.state();
    let mut reports = gateway.reports.clone();
    let mut connected = gateway.link.connected();
    let mut metrics = gateway.node.metrics();
    loop {
        // Marked as seen before it is looked at, so that no change between the two is missed.
        views.mark_unchanged();
        reports.mark_unchanged();
        connected.mark_unchanged();
        metrics.mark_unchanged();
        let scene = gateway.scene();
        let now = Instant::now();
        let verdict = look(now - begun, &scene);
        let again = match verdict {
            Verdict::Wait(again) => again.map_or(deadline, |again| deadline.min(begun + again)),
            Verdict::Done | Verdict::Stuck => return (verdict, scene),
        };
        if now >= deadline {
            return (verdict, scene);
        }
        tokio::select! {
            Ok(()) = views.changed() => {}
            Ok(()) = reports.changed() => {}
            Ok(()) = connected.changed() => {}
            Ok(()) = metrics.changed() => {}
            () = tokio::time::sleep_until(again) => {}
        }
    }
}
