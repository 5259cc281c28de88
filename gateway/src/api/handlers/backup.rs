//! Backup of all manifests in one file, and restore into a new cluster.
//!
//! Shell; [`missing`] is pure. A restore applies the manifests of the backup with the checks of an apply. It keeps what
//! is restored already, so that the user can repeat a restore that failed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::State,
    http::{Request, header},
    response::{IntoResponse, Response},
};
use beemesh_protocol::{
    api::Restored,
    backup::{self, BYTES_MAX},
    peer::{Committed, Outcome},
    state::{Change, ManifestRecord, Object, Snapshot},
};
use beemesh_quadlet::manifest::{
    self, is_workload,
    policy::{Policy, Rules},
};
use tokio::time::Instant;

use crate::{
    api::{
        ApiError, Shared,
        admission::keep_waiting,
        audit_journal::Done,
        error::problems,
        request::{self, Asked, Caller, ReadQuery, TimeoutQuery},
        submit::{confirm, look, propose, settle, unapplied},
    },
    cluster::{
        state::{ASSIGNED, State as Replicated},
        view::Scene,
    },
};

/// The longest file, for messages.
const BYTES_WORDS: &str = "256 MiB";

pub(in crate::api) async fn backup(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Response, ApiError> {
    let Scene { state, applied, .. } = look(&shared.gateway, &query).await?;
    let cluster = state.cluster();
    let file = aside(move || Ok(backup::encode(&of_contents(&state)))).await?;
    if file.len() > BYTES_MAX {
        return Err(ApiError::too_large(format!(
            "the manifests take {} bytes, and a backup holds at most {BYTES_WORDS}",
            file.len()
        )));
    }
    // The file contains every Secret. A backup is no change, so only this host's journal has it, not the replicated
    // audit log.
    shared.trail.note(Done {
        verb: ("backup", "taken"),
        name: cluster.map_or_else(String::new, |cluster| cluster.to_string()),
        index: applied,
        origin: caller.origin(shared.gateway.host),
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], file).into_response())
}

/// The state for a backup. A restore makes new revisions and new objects, and releases before 0.4.0 can restore a state
/// of this level.
fn of_contents(state: &Replicated) -> Snapshot {
    let snapshot = state.to_snapshot();
    Snapshot {
        level: snapshot.level.min(ASSIGNED),
        revisions: None,
        identities: None,
        ..snapshot
    }
}

pub(in crate::api) async fn restore(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<TimeoutQuery>,
    request: Request<Body>,
) -> Result<Json<Restored>, ApiError> {
    let gateway = &shared.gateway;
    let timeout = request::timeout(query.timeout)?;
    let (parts, body) = request.into_parts();
    let file = request::body(&parts, body, BYTES_MAX, BYTES_WORDS).await?;
    let snapshot = aside(move || decode(&file)).await?;
    confirm(gateway, Instant::now() + timeout).await?;
    let scene = gateway.scene();
    let rules = rules(&shared, &snapshot, &scene.state)?;
    let policy = snapshot.policy.is_some().then(|| rules.policy.stored());
    let held = aside(move || held(snapshot, &rules)).await?;
    let room = scene.state.check_backup(&held);
    room.map_err(|refusals| ApiError::refused(refusals, &[]))?;
    let missing = missing(&held, &scene.state).map_err(|reason| {
        ApiError::conflict(reason).hint("restore into a new cluster, or delete that manifest first")
    })?;
    let mut restored = Restored {
        index: scene.applied,
        manifests: held.len(),
        unchanged: held
            .iter()
            .filter(|one| is_there(one, &scene.state))
            .count(),
    };
    if let Some(document) = policy.filter(|_| scene.state.policy().is_none()) {
        restored.index = set_policy(&shared, &caller, document, timeout).await?;
    }
    let policy = Some(gateway.scene().state.policy_version());
    for (manifest, objects) in missing {
        let change = Change::Apply {
            manifest,
            objects,
            policy,
            keep: false,
            if_index: None,
        };
        let committed = propose(&shared, caller.clone(), change, timeout).await?;
        if !matches!(committed.outcome, Outcome::Applied(_)) {
            return Err(unapplied(committed.outcome, &[]));
        }
        restored.index = committed.index;
    }
    Ok(Json(restored))
}

/// Runs a slow function on a blocking thread.
async fn aside<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let gone = |error| ApiError::internal(format!("the gateway is stopping: {error}"));
    tokio::task::spawn_blocking(act).await.map_err(gone)?
}

fn decode(file: &Bytes) -> Result<Snapshot, ApiError> {
    backup::decode(file).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// The rules for the manifests of the backup: the policy of the cluster, or, if that is the default, the policy in the
/// backup.
fn rules(shared: &Shared, snapshot: &Snapshot, state: &Replicated) -> Result<Arc<Rules>, ApiError> {
    match &snapshot.policy {
        Some(record) if state.policy().is_none() => {
            let read = Policy::read(&record.document);
            let policy = read.map_err(|found| ApiError::policy(problems(found)))?;
            let version = record.version;
            Ok(Arc::new(Rules { version, policy }))
        }
        Some(_) | None => shared.policy.rules(state),
    }
}

/// Sets the policy of a cluster that has the default; returns its log index after this host has applied it.
async fn set_policy(
    shared: &Shared,
    caller: &Caller,
    document: String,
    timeout: Duration,
) -> Result<u64, ApiError> {
    let change = Change::SetPolicy {
        document,
        if_version: Some(0),
    };
    let Committed { index, outcome } = propose(shared, caller.clone(), change, timeout).await?;
    if !matches!(outcome, Outcome::Done) {
        return Err(unapplied(outcome, &[]));
    }
    let there = |scene: &Scene| scene.applied >= index;
    match settle(&shared.gateway, timeout, there).await {
        (true, _) => Ok(index),
        (false, _) => Err(ApiError::unavailable(
            "the policy of the backup is set, but this host has not caught up: run the restore again",
        )),
    }
}

/// The manifests of a file, each checked like an apply.
fn held(snapshot: Snapshot, rules: &Rules) -> Result<Vec<ManifestRecord>, ApiError> {
    let mut manifests = snapshot.manifests;
    for record in &mut manifests {
        request::manifest_name(&record.manifest)?;
        let bodies = record.objects.iter().map(|object| object.body.as_slice());
        let read = manifest::reread(&bodies.collect::<Vec<_>>(), Some(rules));
        let told = |mut found: manifest::Problem| {
            // Lines of the backup file mean nothing to a user.
            (found.document, found.line) = (0, 0);
            found.message = format!("{} (manifest `{}`)", found.message, record.manifest);
            found
        };
        let read = read
            .map_err(|found| ApiError::manifest(problems(found.into_iter().map(told).collect())));
        let mut objects = read?.objects;
        for object in &mut objects {
            let id = |object: &Object| (object.kind, object.namespace.clone(), object.name.clone());
            let before = record.objects.iter().find(|held| id(held) == id(object));
            if let Some(before) = before {
                keep_waiting(object, before);
            }
        }
        record.objects = objects.into_iter().map(Arc::new).collect();
    }
    Ok(manifests)
}

/// The manifests to apply, in this order: first the ConfigMaps, Secrets and claims of all manifests, then the complete
/// manifests, so that every reference exists. The error is a message.
fn missing(
    held: &[ManifestRecord],
    state: &Replicated,
) -> Result<Vec<(String, Vec<Object>)>, String> {
    let by_name: BTreeMap<&str, &ManifestRecord> = held
        .iter()
        .map(|one| (one.manifest.as_str(), one))
        .collect();
    for present in state.manifests() {
        let same = by_name.get(present.name.as_str());
        let known = |object| same.is_some_and(|one| one.objects.contains(object));
        if !present.objects.iter().all(known) {
            return Err(format!(
                "this cluster has a manifest `{}` that the backup does not contain, or contains with other objects",
                present.name
            ));
        }
    }
    let late: Vec<_> = held.iter().filter(|one| !is_there(one, state)).collect();
    let first = late.iter().filter_map(|one| {
        let data = one
            .objects
            .iter()
            .filter(|object| !is_workload(object.kind));
        let data: Vec<Object> = data.map(|object| Object::clone(object)).collect();
        (!data.is_empty()).then(|| (one.manifest.clone(), data))
    });
    let all = late.iter().map(|one| {
        let objects = one.objects.iter().map(|object| Object::clone(object));
        (one.manifest.clone(), objects.collect())
    });
    Ok(first.chain(all).collect())
}

fn is_there(record: &ManifestRecord, state: &Replicated) -> bool {
    let found = state.manifest(&record.manifest);
    found.is_some_and(|found| found.objects == record.objects)
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::state::Command;

    use super::*;

    fn objects(yaml: &str) -> Vec<Object> {
        manifest::parse(yaml.as_bytes(), false).unwrap().objects
    }

    fn config(name: &str) -> String {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n")
    }

    fn pod(name: &str, config: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: main\n    image: localhost/x:1\n    \
             envFrom: [{{configMapRef: {{name: {config}}}}}]\n"
        )
    }

    fn put(state: &mut Replicated, index: u64, manifest: &str, objects: Vec<Object>) {
        let manifest = manifest.to_owned();
        let change = Change::Apply {
            manifest,
            objects,
            policy: None,
            keep: false,
            if_index: None,
        };
        let outcome = state.apply(index, &Command::unasked(1, change));
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }

    /// A state with two manifests that each need an object of the other.
    fn entangled() -> Replicated {
        let mut state = Replicated::default();
        put(&mut state, 1, "a", objects(&config("a")));
        put(
            &mut state,
            2,
            "b",
            objects(&format!("{}---\n{}", config("b"), pod("pb", "a"))),
        );
        put(
            &mut state,
            3,
            "a",
            objects(&format!("{}---\n{}", config("a"), pod("pa", "b"))),
        );
        state
    }

    #[test]
    fn a_restore_that_broke_off_anywhere_is_finished_by_the_next() {
        let before = entangled();
        let file = backup::encode(&before.to_snapshot());
        let held = held(decode(&file).unwrap(), &Rules::default()).unwrap();
        let steps = missing(&held, &Replicated::default()).unwrap();
        for done in 0..=steps.len() {
            let mut state = Replicated::default();
            for (index, (name, objects)) in (1..).zip(steps[..done].iter().cloned()) {
                put(&mut state, index, &name, objects);
            }
            for (index, (name, objects)) in (50..).zip(missing(&held, &state).unwrap()) {
                put(&mut state, index, &name, objects);
            }
            assert!(held.iter().all(|one| is_there(one, &state)), "after {done}");
            assert!(missing(&held, &state).unwrap().is_empty());
        }
    }

    #[test]
    fn what_a_cluster_has_is_not_overwritten() {
        let file = backup::encode(&entangled().to_snapshot());
        let held = held(decode(&file).unwrap(), &Rules::default()).unwrap();
        for name in ["a", "c"] {
            let mut state = Replicated::default();
            put(&mut state, 1, name, objects(&config("other")));
            let refused = missing(&held, &state).unwrap_err();
            assert!(refused.contains(&format!("`{name}`")), "{refused}");
        }
    }

    #[test]
    fn a_backup_cannot_hold_what_could_not_be_applied() {
        let mut snapshot = entangled().to_snapshot();
        snapshot.manifests[0].manifest = "../etc".into();
        let checked = |snapshot: &Snapshot| {
            held(
                decode(&backup::encode(snapshot)).unwrap(),
                &Rules::default(),
            )
        };
        assert!(checked(&snapshot).is_err());
        let mut snapshot = entangled().to_snapshot();
        Arc::make_mut(&mut snapshot.manifests[0].objects[0]).body = b"{\"kind\":\"Node\"}".to_vec();
        let held = checked(&snapshot);
        assert!(held.is_err() || held.unwrap()[0].objects.len() < 2);
    }
}
