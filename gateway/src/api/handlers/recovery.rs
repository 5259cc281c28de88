//! The recovery of this host as a cluster of one: shows what it would lose, and starts it.
//!
//! Shell: [`crate::cluster::view`] decides whether a recovery is possible, and what to show. Only local callers may use
//! these routes.

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
};
use beemesh_protocol::api::recovery::{Recovering, Recovery, RecoveryBody};

use crate::{
    api::{
        ApiError, Shared,
        request::small_body,
        request::{Asked, Caller, NoQuery},
    },
    membership::recover::{self, DecideError},
};

/// Shows the recovery without a request to other hosts.
pub(in crate::api) async fn show(
    State(shared): State<Shared>,
    _: Asked<NoQuery>,
) -> Json<Recovery> {
    Json(look(&shared))
}

pub(in crate::api) async fn decide(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    _: Asked<NoQuery>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<Recovering>), ApiError> {
    let body: RecoveryBody = small_body(request).await?;
    let recovery = look(&shared);
    if let Some(obstacle) = recovery.obstacle {
        return Err(ApiError::conflict(obstacle).hint("`beemesh status` shows the cluster"));
    }
    let whole = recovery.cluster.map(|cluster| cluster.to_string());
    if body.confirm != recovery.confirm && Some(&body.confirm) != whole.as_ref() {
        return Err(ApiError::bad_request(format!(
            "`{}` does not name this host's cluster, which is {}",
            body.confirm, recovery.confirm
        )));
    }
    let cluster = recover::decide(&shared.gateway).map_err(|error| match error {
        DecideError::Life(error) => ApiError::life(error),
        DecideError::Random(_) => ApiError::internal(format!("recover: {error}")),
    })?;
    tracing::warn!(
        %cluster, %caller, former = recovery.confirm, term = recovery.last_term, index = recovery.last_index,
        "recovery decided"
    );
    Ok((StatusCode::ACCEPTED, Json(Recovering { cluster })))
}

fn look(shared: &Shared) -> Recovery {
    let gateway = &shared.gateway;
    gateway.scene().recovery(gateway.node.last_entry())
}
