//! Deletes workloads and manifests from the cluster.
//!
//! Shell.

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use beemesh_protocol::{
    api::Deleted,
    peer::{Committed, Outcome},
    state::Change,
};

use crate::{
    api::{
        ApiError, Shared,
        request::{self, Asked, Caller, DeleteQuery},
        submit::{propose, settle, unapplied},
    },
    cluster::view::Scene,
};

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

/// Deletes, and waits for the effect if requested.
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
