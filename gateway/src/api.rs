//! The user's way in: HTTP/1.1 with JSON on a unix socket, and the part of it that other hosts may use.
//!
//! Wiring. [`serve`] answers local callers, [`serve_remote`] users elsewhere, [`serve_stream`] a peer's request over the mesh. What an answer says is
//! decided by the pure [`crate::cluster::view`]; [`handlers`] fetch what it is made of and carry out
//! what was asked. A request ends within the time it names, its body and its bytes in flight are bounded, and every
//! failure is JSON with words for a person.

mod audit_journal;
mod error;
mod handlers;
mod remote;
mod request;
mod roles;
mod server;

use std::sync::Arc;

use axum::{
    Router,
    http::{Method, Uri},
    routing::{delete, get, patch, post, put},
};
use tokio::sync::Semaphore;

use crate::{admission::Ledger, cluster::view::Scene, context::Gateway};

use error::ApiError;
use handlers::events::Feed;
use handlers::{apply, backup, events, hosts, logs, policy, read, recovery, tokens, users};
pub(crate) use remote::{listen as listen_remote, serve as serve_remote};
pub(crate) use server::{serve, serve_stream};

/// Manifests that are parsed at once: a file of 1 MiB costs some tens of MiB and up to a second of one core.
const PARSING_MAX: usize = 2;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    gateway: Gateway,
    feed: Feed,
    parsing: Arc<Semaphore>,
    trail: audit_journal::Trail,
    policy: Arc<policy::Known>,
    ledger: Arc<std::sync::Mutex<Ledger>>,
}

impl Gateway {
    /// Everything answers are made of, as it is now.
    fn scene(&self) -> Scene {
        let view = self.node.state().borrow().clone();
        Scene {
            host: self.host,
            applied: view.applied,
            state: view.state.clone(),
            metrics: self.node.metrics().borrow().clone(),
            reports: self.reports.borrow().clone(),
            reachable: self.reachable(),
            elsewhere: *self.elsewhere.borrow(),
            // Who changes its key is removed by that, and a member again in a moment.
            removed: *self.removed.borrow() && self.rotation.try_lock().is_ok(),
        }
    }
}

impl Shared {
    /// What all connections of this gateway use: it is made once, so that its bounds are those of the whole API.
    pub(crate) fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            feed: Feed::default(),
            parsing: Arc::new(Semaphore::new(PARSING_MAX)),
            trail: audit_journal::Trail::start(),
            policy: Arc::default(),
            ledger: Arc::default(),
        }
    }
}

/// All routes; who may use which from elsewhere, [`roles`] says.
fn routes() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(read::healthz))
        .route("/v1/apply", post(apply::apply))
        .route("/v1/workloads", get(read::workloads))
        .route(
            "/v1/workloads/{name}",
            get(read::workload).delete(apply::delete_workload),
        )
        .route("/v1/workloads/{name}/logs", get(logs::logs))
        .route("/v1/manifests", get(read::manifests))
        .route("/v1/manifests/{name}", delete(apply::delete_manifest))
        .route("/v1/hosts", get(read::hosts))
        .route("/v1/hosts/{name}", get(hosts::show).delete(hosts::remove))
        .route("/v1/hosts/{name}/labels", patch(hosts::label))
        .route(
            "/v1/hosts/{name}/drained",
            put(hosts::drain).delete(hosts::undrain),
        )
        .route("/v1/key", post(hosts::rotate))
        .route("/v1/status", get(read::status))
        .route("/v1/events", get(events::events))
        .route("/v1/backup", get(backup::backup))
        .route("/v1/restore", post(backup::restore))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/v1/policy", get(policy::show).put(policy::set))
        .route("/v1/users", get(users::list).post(users::create))
        .route("/v1/users/{name}", delete(users::revoke))
        .route("/v1/authority", put(users::reset))
        .route("/v1/audit", get(users::audit))
        .route("/v1/join", post(apply::join))
        .route("/v1/recovery", get(recovery::show).post(recovery::decide))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
}

/// The routes for other members: what only this host can tell, and what no log holds.
fn peer_router(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/workloads/{name}/logs", get(logs::own_logs))
        .route("/v1/sealing-keys/{id}", get(users::sealing_key))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(gateway)
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is no {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::method(format!("{} does not take {method}", uri.path()))
}

#[cfg(test)]
mod tests;
