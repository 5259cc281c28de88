//! Answers strangers that apply for membership.
//!
//! Shell over [`admit`] and [`replace`].

use beemesh_protocol::{
    HostId,
    mesh::{JoinAnswer, JoinRequest},
};

use super::{admit::admit, replace};
use crate::context::Gateway;

/// Returns the answer to a stranger that applies for membership.
pub(crate) async fn answer(gateway: &Gateway, host: HostId, request: JoinRequest) -> JoinAnswer {
    if gateway.life.now().is_removed() {
        let reason = "that host was removed from the cluster itself".into();
        return JoinAnswer::Refused { reason };
    }
    let replaces = match &request.replace {
        None => None,
        Some(replace) => match replace::lost(gateway, host, &request, replace).await {
            Ok(lost) => Some(lost),
            Err(reason) => return JoinAnswer::Refused { reason },
        },
    };
    admit(&gateway.node, host, request, replaces).await
}
