//! A new host that replaces a lost one.
//!
//! Shell over [`Gateway`]: it checks that the lost host can be removed before it proposes anything, so that a mistake
//! does not use up the token. The admission and the removal are one log entry.

use beemesh_protocol::{
    HostId,
    mesh::{JoinRequest, Replace},
    state::Host,
};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::known;
use crate::{
    clock::now_ms,
    cluster::state::NO_SUCH_TOKEN,
    context::Gateway,
    membership::admit::{ADMIT_MAX, admission},
};

/// Returns the member that the applicant may replace. The error is a message for the user.
pub(crate) async fn lost(
    gateway: &Gateway,
    applicant: HostId,
    request: &JoinRequest,
    replace: &Replace,
) -> Result<HostId, String> {
    let confirmed = gateway.node.read_index(Instant::now() + ADMIT_MAX).await;
    confirmed.map_err(|error| format!("the cluster cannot decide now: {error}"))?;
    let state = gateway.node.state().borrow().state.clone();
    // An applicant without a valid token learns nothing about the members.
    let secret_hash = Sha256::digest(request.secret).into();
    if !state.admits(&replace.token, &secret_hash, now_ms()) {
        return Err(NO_SUCH_TOKEN.to_owned());
    }
    let name = &replace.name;
    let named = |host: &&Host| host.name == *name || host.id.to_string() == *name;
    let Some(lost) = state.hosts().values().find(named) else {
        return Err(format!(
            "host `{name}` not found, so this host cannot replace it"
        ));
    };
    if gateway.link.connected().borrow().contains(&lost.id) || lost.id == gateway.host {
        return Err(format!(
            "{name} is reachable, so it is not lost: remove it with `beemesh host remove {name}`; if it was switched off just now, try again in half a minute"
        ));
    }
    let change = admission(applicant, request, Some(lost.id));
    known::check(gateway, &change)?;
    Ok(lost.id)
}
