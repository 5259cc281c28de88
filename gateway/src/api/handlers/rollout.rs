//! Shows the revisions of a workload, and changes its rollout: pause, resume, restart, undo, scale, stop, start.
//!
//! Shell. A restart, a stop, a start and a change of the replicas are applies of the present object with one field
//! changed; they are refused if the manifest changes at the same time, and tried again. They and an undo are checked
//! against the present policy, except for a stop, which the policy cannot prevent.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, State},
    http::Request,
};
use beemesh_protocol::{
    api::{Revisions, RolloutAction, RolloutChange, RolloutChanged},
    hex::Hex,
    peer::{Action, Committed, Outcome},
    state::{Change, Kind},
};
use beemesh_quadlet::manifest::{
    self, SINGLETON, STOPPED, asks_to_be_single, is_stopped, policy::Rules, timestamp::rfc3339,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    api::{
        ApiError, Shared,
        admission::{
            keep_waiting,
            prepare::{Prepared, prepare},
        },
        error::problems,
        request::{self, Asked, Caller, ReadQuery, TimeoutQuery, small_body},
        submit::{confirm, look, propose, unapplied},
    },
    clock::now_ms,
    cluster::state::{ROLLED, Revision, State as Replicated, Workload, no_revision},
};

/// The annotation that a restart changes, as `kubectl rollout restart` does.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// How often a restart or a change of the replicas is tried while the manifest changes.
const TRIES_MAX: usize = 3;

pub(in crate::api) async fn revisions(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Revisions>, ApiError> {
    let scene = look(&shared.gateway, &query).await?;
    let keyed = |hash: &[u8; 32]| {
        let keyed = Sha256::new()
            .chain_update(shared.hash_key)
            .chain_update(hash);
        Hex(&keyed.finalize()).to_string()
    };
    let revisions = scene.revisions(&name, keyed);
    let revisions = revisions.ok_or_else(|| no_workload(&name))?;
    Ok(Json(Revisions { revisions }))
}

pub(in crate::api) async fn change(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Asked(query): Asked<TimeoutQuery>,
    request: Request<Body>,
) -> Result<Json<RolloutChanged>, ApiError> {
    let timeout = request::timeout(query.timeout)?;
    let asked: RolloutChange = small_body(request).await?;
    check(&asked)?;
    let deadline = Instant::now() + timeout;
    for tried in 1.. {
        confirm(&shared.gateway, deadline).await?;
        let state = shared.gateway.scene().state;
        let workload = state.workload(&name).ok_or_else(|| no_workload(&name))?;
        let Some(change) = planned(&shared, &state, workload, &asked)? else {
            return Ok(Json(RolloutChanged {
                index: workload.index,
                revision: workload.revision,
                changed: false,
                stopped: is_stopped(&workload.object),
            }));
        };
        let stopped = leaves_stopped(&change, &state, workload);
        let prepared = Prepared {
            caller: &caller,
            change: &change,
            places: &[],
            command: command(asked.action),
            dry_run: false,
            force: asked.force,
        };
        prepare(&shared, &prepared, deadline).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let Committed { index, outcome } =
            propose(&shared, caller.clone(), change, left.max(Duration::ZERO)).await?;
        let revision = || {
            let scene = shared.gateway.scene();
            scene.state.workload(&name).map_or(0, |one| one.revision)
        };
        match outcome {
            Outcome::Applied(effects) => {
                let own = effects.iter().find(|effect| effect.name == name);
                return Ok(Json(RolloutChanged {
                    index,
                    revision: own.map_or(0, |effect| effect.revision),
                    changed: own.is_some_and(|effect| effect.action == Action::Updated),
                    stopped,
                }));
            }
            Outcome::Done => {
                return Ok(Json(RolloutChanged {
                    index,
                    revision: revision(),
                    changed: true,
                    stopped,
                }));
            }
            // The manifest has changed in between.
            Outcome::Refused(reasons)
                if tried < TRIES_MAX && !reasons.iter().any(|one| one.missing) => {}
            other => return Err(unapplied(other, &[])),
        }
    }
    Err(ApiError::internal("a change of a rollout was not tried"))
}

/// The command of the action.
fn command(action: RolloutAction) -> &'static str {
    match action {
        RolloutAction::Pause => "rollout pause",
        RolloutAction::Resume => "rollout resume",
        RolloutAction::Restart => "restart",
        RolloutAction::Undo => "rollout undo",
        RolloutAction::Scale => "scale",
        RolloutAction::Stop => "stop",
        RolloutAction::Start => "start",
    }
}

/// Refuses fields that do not belong to the action.
fn check(asked: &RolloutChange) -> Result<(), ApiError> {
    let is_undo = asked.action == RolloutAction::Undo;
    let is_scale = asked.action == RolloutAction::Scale;
    if asked.to_revision.is_some() && !is_undo {
        return Err(ApiError::bad_request(
            "toRevision belongs to the action undo",
        ));
    }
    if asked.replicas.is_some() != is_scale {
        return Err(ApiError::bad_request(
            "the action scale needs replicas, and no other action has them",
        ));
    }
    Ok(())
}

/// The change to propose; `None` if the workload is already as requested.
fn planned(
    shared: &Shared,
    state: &Replicated,
    workload: &Workload,
    asked: &RolloutChange,
) -> Result<Option<Change>, ApiError> {
    let name = &workload.name;
    if state.level() < ROLLED {
        return Err(ApiError::conflict(
            "the cluster does not keep revisions yet: all hosts must have run Beemesh 0.4.0 or later for ten minutes",
        )
        .hint("`beemesh host list` shows the release of each host"));
    }
    if !state.is_rolled(workload) {
        if matches!(asked.action, RolloutAction::Stop | RolloutAction::Start) {
            return Err(ApiError::conflict(format!(
                "workload `{name}` is a Job, and a Job cannot be stopped and started"
            ))
            .hint(format!(
                "`beemesh delete {name}` ends the Job and removes it"
            )));
        }
        return Err(ApiError::conflict(format!(
            "workload `{name}` is a Job, and a Job has no rollouts: apply its manifest again with a change to run it again"
        )));
    }
    let rules = || shared.policy.rules(state);
    let has_stopped = is_stopped(&workload.object);
    let change = match asked.action {
        RolloutAction::Pause | RolloutAction::Resume => Ok(Change::PauseRollout {
            workload: name.to_owned(),
            paused: asked.action == RolloutAction::Pause,
        }),
        RolloutAction::Stop | RolloutAction::Start
            if has_stopped == (asked.action == RolloutAction::Stop) =>
        {
            return Ok(None);
        }
        // Its operator may stop a workload that the present policy does not allow.
        RolloutAction::Stop => edited(state, workload, None, stop),
        RolloutAction::Start => edited(state, workload, Some(&*rules()?), start),
        RolloutAction::Restart if has_stopped => Err(ApiError::conflict(format!(
            "workload `{name}` is stopped, and has no pods to restart"
        ))
        .hint(format!("`beemesh start {name}` starts it"))),
        RolloutAction::Restart => {
            let at = rfc3339(now_ms());
            let rules = rules()?;
            edited(state, workload, Some(&*rules), |body| {
                restart(body, workload, &at);
            })
        }
        RolloutAction::Scale => {
            let replicas = asked.replicas.unwrap_or_default();
            if workload.object.kind != Kind::Deployment {
                return Err(ApiError::conflict(format!(
                    "workload `{name}` has no replicas: only a Deployment can be scaled"
                )));
            }
            if asks_to_be_single(&workload.object) && replicas != 1 {
                return Err(ApiError::conflict(format!(
                    "workload `{name}` is a singleton ({SINGLETON}), which has one replica"
                ))
                .hint(format!("`beemesh stop {name}` stops it")));
            }
            let rules = rules()?;
            edited(state, workload, Some(&*rules), |body| {
                body["spec"]["replicas"] = json!(replicas);
            })
        }
        RolloutAction::Undo => {
            let rules = rules()?;
            undo(state, workload, asked.to_revision, &rules)
        }
    };
    change.map(Some)
}

/// Returns true if the workload is stopped after the change.
fn leaves_stopped(change: &Change, state: &Replicated, workload: &Workload) -> bool {
    match change {
        Change::Apply { objects, .. } => objects.iter().any(is_stopped),
        Change::Undo { revision, .. } => {
            let mut kept = state.revisions(&workload.name).iter();
            let wanted = kept.find(|one| one.number == *revision);
            wanted.is_some_and(has_been_stopped)
        }
        _ => is_stopped(&workload.object),
    }
}

fn has_been_stopped(revision: &Revision) -> bool {
    revision.object().is_some_and(|object| is_stopped(object))
}

fn restart(body: &mut Value, workload: &Workload, at: &str) {
    let metadata = match workload.object.kind {
        Kind::Pod => &mut body["metadata"],
        _ => &mut body["spec"]["template"]["metadata"],
    };
    annotate(metadata, RESTARTED_AT, at);
}

fn stop(body: &mut Value) {
    annotate(&mut body["metadata"], STOPPED, "true");
}

/// Undoes [`stop`], so that the contents are those from before it.
fn start(body: &mut Value) {
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    let annotations = metadata.get_mut("annotations");
    let Some(annotations) = annotations.and_then(Value::as_object_mut) else {
        return;
    };
    annotations.remove(STOPPED);
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}

fn annotate(metadata: &mut Value, annotation: &str, value: &str) {
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = Value::Object(Map::new());
    }
    metadata["annotations"][annotation] = json!(value);
}

/// The apply of the workload's object with an edit, checked against `rules`.
fn edited(
    state: &Replicated,
    workload: &Workload,
    rules: Option<&Rules>,
    edit: impl FnOnce(&mut Value),
) -> Result<Change, ApiError> {
    let mut body: Value = serde_json::from_slice(&workload.object.body)
        .map_err(|error| ApiError::internal(format!("read the workload: {error}")))?;
    edit(&mut body);
    let body = body.to_string();
    let read = manifest::reread(&[body.as_bytes()], rules);
    let read = read.map_err(|found| ApiError::manifest(problems(found)))?;
    let mut objects = read.objects;
    for object in &mut objects {
        keep_waiting(object, &workload.object);
    }
    let present = state.manifest(&workload.manifest);
    Ok(Change::Apply {
        manifest: workload.manifest.clone(),
        objects,
        policy: rules.map(|rules| rules.version),
        keep: true,
        if_index: present.map(|one| one.index),
    })
}

/// The return to an earlier revision, if the present policy allows its contents.
fn undo(
    state: &Replicated,
    workload: &Workload,
    number: Option<u64>,
    rules: &Rules,
) -> Result<Change, ApiError> {
    let name = &workload.name;
    let kept = state.revisions(name);
    // A revision that was stopped had no pods to return to.
    let earlier = || {
        let earlier = kept.iter().rev().skip(1);
        earlier.filter(|one| !has_been_stopped(one))
    };
    let wanted = match number.filter(|number| *number > 0) {
        Some(number) => kept.iter().find(|one| one.number == number),
        None => earlier()
            .find(|one| one.was_ready())
            .or_else(|| earlier().next()),
    };
    let Some(wanted) = wanted else {
        return Err(match number.filter(|number| *number > 0) {
            Some(number) => ApiError::not_found(no_revision(name, number, kept)),
            None => ApiError::conflict(format!("workload `{name}` has no earlier revision")),
        }
        .hint(format!(
            "`beemesh rollout history {name}` lists the kept revisions"
        )));
    };
    let objects = wanted.object().into_iter().chain(wanted.uses());
    let bodies: Vec<&[u8]> = objects.map(|object| &object.body[..]).collect();
    manifest::reread(&bodies, Some(rules)).map_err(|found| ApiError::manifest(problems(found)))?;
    Ok(Change::Undo {
        workload: name.clone(),
        revision: wanted.number,
        policy: Some(rules.version),
    })
}

fn no_workload(name: &str) -> ApiError {
    ApiError::not_found(format!("workload `{name}` not found"))
        .hint("`beemesh get workloads` lists workloads")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_undoes_a_stop() {
        for before in [
            json!({"metadata": {"name": "web"}}),
            json!({"metadata": {"annotations": {"a": "b"}, "name": "web"}}),
        ] {
            let mut body = before.clone();
            stop(&mut body);
            assert_eq!(body["metadata"]["annotations"][STOPPED], "true");
            start(&mut body);
            assert_eq!(body, before);
            start(&mut body);
            assert_eq!(body, before);
        }
    }
}
