//! Joins this host to another cluster.
//!
//! Shell over [`crate::membership::join`].

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
};
use beemesh_protocol::{
    api::{JoinBody, Joining},
    token::Token,
};

use crate::{
    api::{
        ApiError, Shared,
        request::{Caller, small_body},
    },
    membership::{
        self,
        join::{JoinError, JoinStarted},
    },
};

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
            "join that cluster again, or `beemesh-agent purge` removes its workloads and this host's membership",
        ),
        JoinError::Member(_) | JoinError::UnderWay(_) => {
            ApiError::conflict(words).hint("`beemesh status` shows the cluster")
        }
        JoinError::Advertise(_) => ApiError::conflict(words)
            .hint("see `man beemesh-agent.toml` for the addresses that a host can have"),
        JoinError::TakesNoPlace(_) => ApiError::conflict(words),
        JoinError::Unnamed => ApiError::conflict(words).hint(
            "`hostnamectl hostname NAME` names the system, or `name` in /etc/beemesh/agent.toml.d this host in the cluster; then \
             `systemctl reload beemesh-agent`",
        ),
        JoinError::Refused(_) => {
            ApiError::conflict(words).hint("`beemesh token create` on a member makes a new token")
        }
        JoinError::NoAgent(_) => {
            ApiError::unavailable(words).hint("see `systemctl status beemesh-agent`")
        }
        JoinError::Unreachable(_) => ApiError::unavailable(words)
            .hint("port 4701 (UDP or TCP) of a member must be reachable from this host"),
        JoinError::Life(error) => ApiError::life(error),
    }
}
