//! Proposes changes to the cluster, and waits until this host has applied them.
//!
//! Shell.

use std::{sync::Arc, time::Duration};

use beemesh_protocol::{
    peer::{Committed, Outcome},
    rollout::Verdict,
    state::{Change, Command},
};
use beemesh_quadlet::manifest::Place;
use tokio::time::Instant;

use super::{
    ApiError, Shared,
    audit_journal::Done,
    request::{Caller, ReadQuery, timeout},
};
use crate::{
    clock::now_ms,
    cluster::{
        change::about,
        releases,
        state::changed,
        view::{Scene, View},
    },
    context::Gateway,
};

/// Proposes a change to the cluster. If the change has an effect, it is in the audit log before this returns.
pub(super) async fn propose(
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
    let about = about(&change);
    let verb = about.verb;
    let name = about
        .subject
        .name(gateway.node.state().borrow().state.hosts());
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
        .ok_or_else(|| ApiError::internal("the cluster gave no answer to a change"))?;
    if changed(&committed.outcome) {
        shared.trail.note(Done {
            verb,
            name,
            index: committed.index,
            origin,
        });
    }
    Ok(committed)
}

/// Refuses a change that exceeds a limit of the cluster. While gateways of older versions are members, the state
/// machine accepts such a change.
pub(super) fn check_room(scene: &Scene, change: &Change) -> Result<(), ApiError> {
    let Change::Apply {
        manifest, objects, ..
    } = change
    else {
        return Ok(());
    };
    let room = scene.state.check_bytes(manifest, objects);
    room.map_err(|refusals| {
        ApiError::refused(refusals, &[]).hint(
            "`beemesh get manifests` lists the manifests, and `DELETE /v1/manifests/NAME` deletes a manifest with all its objects",
        )
    })
}

/// The error for a change with an unexpected outcome.
pub(super) fn unapplied(outcome: Outcome, places: &[Place]) -> ApiError {
    match outcome {
        Outcome::Refused(refusals) => ApiError::refused(refusals, places),
        Outcome::Done | Outcome::Applied(_) | Outcome::Deleted(_) | Outcome::Admitted(_) => {
            ApiError::internal("the cluster answered a change with the outcome of another kind")
        }
    }
}

/// Waits until `there` returns true or the time is over. Returns whether it did, and the last scene.
pub(super) async fn settle(
    gateway: &Gateway,
    wait: Duration,
    there: impl Fn(&Scene) -> bool,
) -> (bool, Scene) {
    let look = |_: Duration, view: &View| match there(&view.scene) {
        true => Verdict::Done,
        false => Verdict::Wait(None),
    };
    let (verdict, view) = follow(gateway, wait, look).await;
    (verdict == Verdict::Done, view.scene.clone())
}

/// Calls `look` for every view until it returns a verdict or the time is over. Returns the verdict and the last view.
/// `look` gets the time since the wait began.
pub(super) async fn follow(
    gateway: &Gateway,
    wait: Duration,
    mut look: impl FnMut(Duration, &View) -> Verdict,
) -> (Verdict, Arc<View>) {
    let begun = Instant::now();
    let deadline = begun + wait;
    let mut views = gateway.views.follow();
    loop {
        let view = views.now();
        let now = Instant::now();
        let verdict = look(now - begun, &view);
        let again = match verdict {
            Verdict::Wait(again) => again.map_or(deadline, |again| deadline.min(begun + again)),
            Verdict::Done | Verdict::Stuck => return (verdict, view),
        };
        if now >= deadline {
            return (verdict, view);
        }
        tokio::select! {
            () = views.changed() => {}
            () = tokio::time::sleep_until(again) => {}
        }
    }
}

/// The scene of this host: after the leader has confirmed that it is up to date, or at once if the caller accepts a
/// stale one.
pub(super) async fn look(gateway: &Gateway, query: &ReadQuery) -> Result<Scene, ApiError> {
    up_to_date(gateway, query).await?;
    Ok(gateway.scene())
}

/// Like [`look`], but returns a view.
pub(super) async fn view(gateway: &Gateway, query: &ReadQuery) -> Result<Arc<View>, ApiError> {
    up_to_date(gateway, query).await?;
    Ok(gateway.views.now())
}

async fn up_to_date(gateway: &Gateway, query: &ReadQuery) -> Result<(), ApiError> {
    let timeout = timeout(query.timeout)?;
    if !query.stale {
        confirm(gateway, Instant::now() + timeout).await?;
    }
    Ok(())
}

/// Waits until this host has applied everything that was committed before the call.
pub(super) async fn confirm(gateway: &Gateway, deadline: Instant) -> Result<(), ApiError> {
    let confirmed = gateway.node.read_index(deadline).await;
    confirmed.map_err(|error| ApiError::read(&error, &gateway.scene()))
}
