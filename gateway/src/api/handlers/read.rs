//! Answers queries about the cluster.
//!
//! Shell over [`crate::cluster::view`]: confirms with the leader that this host has applied all committed changes,
//! unless the caller accepts a stale view.

use axum::{
    Json,
    extract::{Path, State},
};
use beemesh_protocol::api::{Hosts, Manifests, Status, Workload, Workloads};
use beemesh_quadlet::manifest::as_written;

use crate::{
    api::{
        ApiError, Shared,
        request::{Asked, NoQuery, ReadQuery},
        submit::{look, view},
    },
    cluster::view::Own,
};

pub(in crate::api) async fn healthz(_: Asked<NoQuery>) -> &'static str {
    "ok\n"
}

pub(in crate::api) async fn workloads(
    State(shared): State<Shared>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Workloads>, ApiError> {
    let view = view(&shared.gateway, &query).await?;
    Ok(Json(Workloads {
        workloads: view.workloads(),
    }))
}

pub(in crate::api) async fn workload(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Workload>, ApiError> {
    let view = view(&shared.gateway, &query).await?;
    let state = &view.scene.state;
    let found = state.workload(&name).zip(view.workload(&name));
    let (workload, mut shown) = found.ok_or_else(|| no_workload(&name))?;
    let object = serde_json::from_slice(&as_written(&workload.object.body));
    let object = object.map_err(|error| {
        ApiError::internal(format!("the stored object of `{name}` is damaged: {error}"))
    })?;
    shown.object = Some(object);
    Ok(Json(shown))
}

pub(in crate::api) async fn manifests(
    State(shared): State<Shared>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Manifests>, ApiError> {
    let scene = look(&shared.gateway, &query).await?;
    Ok(Json(Manifests {
        manifests: scene.manifests(),
    }))
}

pub(in crate::api) async fn hosts(
    State(shared): State<Shared>,
    Asked(query): Asked<ReadQuery>,
) -> Result<Json<Hosts>, ApiError> {
    let view = view(&shared.gateway, &query).await?;
    Ok(Json(Hosts {
        hosts: view.hosts(),
    }))
}

/// This host's view. The handler asks no other host, so it also answers without a quorum.
pub(in crate::api) async fn status(
    State(shared): State<Shared>,
    _: Asked<NoQuery>,
) -> Json<Status> {
    let gateway = &shared.gateway;
    let welcome = gateway.link.welcome().borrow().clone();
    let own = Own {
        name: welcome.map_or_else(|| gateway.host.to_string(), |welcome| welcome.name),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trouble: gateway.link.trouble().borrow().clone(),
    };
    Json(gateway.views.now().status(own))
}

pub(in crate::api) fn no_host(name: &str) -> ApiError {
    ApiError::not_found(format!("host `{name}` not found")).hint("`beemesh get hosts` lists them")
}

pub(in crate::api) fn no_workload(name: &str) -> ApiError {
    ApiError::not_found(format!("workload `{name}` not found"))
}
