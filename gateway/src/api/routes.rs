//! The routes and their handlers.

use axum::{
    Router,
    http::{Method, Uri},
    routing::{delete as on_delete, get, patch, post, put},
};

use beemesh_protocol::prepare;

use super::{
    ApiError, Shared, handlers,
    handlers::{
        apply, backup, delete, events, hosts, join, logs, policy, read, recovery, rollout, tokens,
        users,
    },
};
/// All routes. [`super::roles`] decides which of them a remote user may use.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(read::healthz))
        .route("/v1/apply", post(apply::apply))
        .route("/v1/workloads", get(read::workloads))
        .route(
            "/v1/workloads/{name}",
            get(read::workload).delete(delete::delete_workload),
        )
        .route("/v1/workloads/{name}/logs", get(logs::logs))
        .route("/v1/workloads/{name}/revisions", get(rollout::revisions))
        .route("/v1/workloads/{name}/rollout", post(rollout::change))
        .route("/v1/manifests", get(read::manifests))
        .route("/v1/manifests/{name}", on_delete(delete::delete_manifest))
        .route("/v1/hosts", get(read::hosts))
        .route("/v1/hosts/{name}", get(hosts::show).delete(hosts::remove))
        .route("/v1/hosts/{name}/labels", patch(hosts::label))
        .route(
            "/v1/hosts/{name}/drained",
            put(hosts::drain).delete(hosts::undrain),
        )
        .route("/v1/hosts/{name}/lost", put(hosts::lose))
        .route("/v1/key", post(hosts::rotate))
        .route("/v1/status", get(read::status))
        .route("/v1/events", get(events::events))
        .route("/v1/backup", get(backup::backup))
        .route("/v1/restore", post(backup::restore))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", on_delete(tokens::revoke))
        .route("/v1/policy", get(policy::show).put(policy::set))
        .route("/v1/users", get(users::list).post(users::create))
        .route("/v1/users/{name}", on_delete(users::revoke))
        .route("/v1/authority", put(users::reset))
        .route("/v1/audit", get(users::audit))
        .route("/v1/join", post(join::join))
        .route("/v1/recovery", get(recovery::show).post(recovery::decide))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
}

/// The routes for other members: data that only this host has.
pub(super) fn peer_router(shared: Shared) -> Router {
    Router::new()
        .route(prepare::ROUTE, post(handlers::prepare::answer))
        .route("/v1/workloads/{name}/logs", get(logs::own_logs))
        .route("/v1/sealing-keys/{id}", get(users::sealing_key))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(shared)
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is no {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::method(format!("{} does not take {method}", uri.path()))
}
