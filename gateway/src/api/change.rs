//! Takes changes: checks them, has the cluster agree on them, and waits for their effect if asked to.
//!
//! Shell: what a refusal or an effect is called is decided by [`super::error`] and [`super::render`]. Every change is in
//! the journal with who asked for it.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
};
use beemesh_protocol::{
    api::{Applied, Deleted, JoinBody, Joining},
    peer::{Committed, Outcome},
    state::{Change, Command},
    token::Token,
};
use beemesh_quadlet::manifest::{self, BYTES_MAX, Manifest, Place, workload_name};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    ApiError, Gateway, Shared,
    error::problems,
    read::confirm,
    render::{Scene, applied_objects},
    request::{self, ApplyQuery, Asked, Caller, DeleteQuery},
    since,
    trail::Done,
};
use crate::{
    join::{JoinError, JoinStarted, now_ms},
    state::{changed, deed},
};

/// The bodies of everything but manifests: the longest join token is 8 KiB.
const SMALL_BODY_MAX: usize = 16 << 10;
/// A manifest up to this size, in bytes, is parsed where it arrives: that takes a tenth of a millisecond.
const SMALL_MANIFEST_MAX: usize = 4 << 10;

pub(super) async fn apply(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<ApplyQuery>,
    request: Request<Body>,
) -> Result<Json<Applied>, ApiError> {
    let gateway = &shared.gateway;
    let timeout = request::timeout(query.timeout)?;
    let wait = request::wait(query.wait)?;
    if let Some(name) = &query.name {
        request::manifest_name(name)?;
    }
    let (parts, body) = request.into_parts();
    let yaml = request::body(&parts, body, BYTES_MAX, "1 MiB").await?;
    let parsed = parse(&shared, yaml, query.strict).await?;
    let Manifest {
        objects,
        places,
        warnings,
    } = parsed;
    let first = objects.first().ok_or_else(|| {
        ApiError::bad_request("the manifest holds nothing that Beemesh runs or keeps")
    })?;
    let name = query
        .name
        .unwrap_or_else(|| workload_name(&first.namespace, &first.name));
    let change = Change::Apply {
        manifest: name.clone(),
        objects,
    };
    let (index, outcome) = if query.dry_run {
        confirm(gateway, Instant::now() + timeout).await?;
        let scene = gateway.scene();
        let command = Command::unasked(now_ms(), change);
        let outcome = scene.state.preview(scene.applied + 1, &command);
        (scene.applied, outcome)
    } else {
        let committed = propose(&shared, caller, change, timeout).await?;
        (committed.index, committed.outcome)
    };
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
        let there = |scene: &Scene| {
            scene.applied >= index && mine(scene).iter().all(|workload| workload.settled)
        };
        let (settled, scene) = settle(gateway, wait, there).await;
        let workloads = mine(&scene);
        applied.settled = Some(settled);
        applied.workloads = Some(workloads);
    }
    Ok(Json(applied))
}

pub(super) async fn delete_workload(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(workload): Path<String>,
    Asked(query): Asked<DeleteQuery>,
) -> Result<Json<Deleted>, ApiError> {
    delete(&shared, caller, Change::DeleteWorkload { workload }, &query).await
}

pub(super) async fn delete_manifest(
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

pub(super) async fn join(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<Joining>), ApiError> {
    let body: JoinBody = small_body(request).await?;
    let token =
        Token::from_line(&body.token).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let cluster = token.cluster;
    tracing::info!(%cluster, %caller, "asked to join a cluster");
    let JoinStarted { cluster, members } = shared
        .gateway
        .joiner
        .join(token)
        .await
        .map_err(not_joined)?;
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

async fn parse(shared: &Shared, yaml: bytes::Bytes, strict: bool) -> Result<Manifest, ApiError> {
    // Another thread costs more than a text this small, which no alias makes longer.
    if yaml.len() <= SMALL_MANIFEST_MAX && !yaml.contains(&b'*') {
        return manifest::parse(&yaml, strict).map_err(|found| ApiError::manifest(problems(found)));
    }
    let gone = |_| ApiError::internal("the manifest could not be parsed: the gateway is stopping");
    let permit = shared.parsing.clone().acquire_owned().await.map_err(gone)?;
    let parsed = tokio::task::spawn_blocking(move || {
        let parsed = manifest::parse(&yaml, strict);
        drop(permit);
        parsed
    });
    match parsed.await {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(found)) => Err(ApiError::manifest(problems(found))),
        Err(error) => Err(ApiError::internal(format!("parse the manifest: {error}"))),
    }
}

pub(super) async fn small_body<T: DeserializeOwned>(request: Request<Body>) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = request::body(&parts, body, SMALL_BODY_MAX, "16 KiB").await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("read the body as JSON: {error}")))
}

/// Has the cluster agree on a change. It is in the trail before this returns, if it made a difference.
pub(super) async fn propose(
    shared: &Shared,
    caller: Caller,
    change: Change,
    timeout: Duration,
) -> Result<Committed, ApiError> {
    let gateway = &shared.gateway;
    since::check(&change, || gateway.scene())?;
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

/// The outcome of a change that is not the one it should have.
pub(super) fn unapplied(outcome: Outcome, places: &[Place]) -> ApiError {
    match outcome {
        Outcome::Refused(refusals) => ApiError::refused(refusals, places),
        Outcome::Done | Outcome::Applied(_) | Outcome::Deleted(_) | Outcome::Admitted(_) => {
            ApiError::internal("the cluster answered a change as if it were another")
        }
    }
}

/// Waits until `there` or until the time is over; whether it came to be, and the last scene.
pub(super) async fn settle(
    gateway: &Gateway,
    wait: Duration,
    there: impl Fn(&Scene) -> bool,
) -> (bool, Scene) {
    let deadline = Instant::now() + wait;
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
        if there(&scene) {
            return (true, scene);
        }
        tokio::select! {
            Ok(()) = views.changed() => {}
            Ok(()) = reports.changed() => {}
            Ok(()) = connected.changed() => {}
            Ok(()) = metrics.changed() => {}
            () = tokio::time::sleep_until(deadline) => return (false, scene),
        }
    }
}
