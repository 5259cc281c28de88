//! Letting others become members.
//!
//! Shell over the replicated state's rules: [`admit`] proposes the application and tells the decision.

use std::time::Duration;

use beemesh_protocol::{
    HostId,
    mesh::{JoinAnswer, JoinRequest, NO_TOKEN},
    peer::Outcome,
    state::{Change, Command, Host, Origin},
};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    clock::now_ms,
    cluster::state::{NO_SUCH_TOKEN, token_id},
    raft::Node,
};

/// An applicant is answered within this time; the new host's agent waits a little longer.
pub(crate) const ADMIT_MAX: Duration = Duration::from_secs(10);

/// The change that admits an applicant.
pub(crate) fn admission(host: HostId, request: &JoinRequest, replaces: Option<HostId>) -> Change {
    Change::Admit {
        token: request.shown(),
        secret_hash: Sha256::digest(request.secret).into(),
        host: Host {
            id: host,
            name: request.name.clone(),
            addresses: request.addresses.clone(),
            labels: Default::default(),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
        },
        replaces,
    }
}

/// Decides on an application: the replicated state does, by its token. `replaces` is the member that the applicant may replace.
pub(crate) async fn admit(
    node: &Node,
    host: HostId,
    request: JoinRequest,
    replaces: Option<HostId>,
) -> JoinAnswer {
    let refuse = |reason: String| JoinAnswer::Refused { reason };
    let now = node.state().borrow().state.clone();
    // Who was cut off by a recovery asks about the cluster that was, of which nobody is a member any more.
    let was = request.token == NO_TOKEN && now.was(request.cluster);
    if now.cluster() != Some(request.cluster) && !was {
        return refuse("the token is of another cluster".into());
    }
    if let Err(error) = node.read_index(Instant::now() + ADMIT_MAX).await {
        return refuse(format!("the cluster cannot decide now: {error}"));
    }
    let view = node.state().borrow().clone();
    let is_member = !view.state.is_without(host);
    match (request.token, is_member && !was) {
        (NO_TOKEN, false) if replaces.is_none() => return JoinAnswer::Stranger,
        (NO_TOKEN, true) if replaces.is_none() => {
            let members = view.state.members();
            let cluster = request.cluster;
            return JoinAnswer::Admitted { cluster, members };
        }
        // Its log is gone when it joins. As long as Raft takes it for the host that it was, what that host has acknowledged counts.
        (_, false) if node.metrics().borrow().counts(host) => {
            return refuse("this host is still being removed: try again in a moment".into());
        }
        _ => {}
    }
    let change = admission(host, &request, replaces);
    let (at_ms, token) = (now_ms(), request.shown());
    // Whoever has no token is not worth an entry of the log. Of those who race for the last use of one, the entry decides.
    let secret_hash = Sha256::digest(request.secret).into();
    if !is_member && !view.state.admits(&token, &secret_hash, at_ms) {
        return refuse(NO_SUCH_TOKEN.into());
    }
    let command = Command {
        at_ms,
        change,
        origin: Some(Origin {
            host: node.host(),
            who: format!("join token {}", token_id(&token)),
            from: host.to_string(),
        }),
    };
    let committed = node
        .propose(vec![command], Instant::now() + ADMIT_MAX)
        .await;
    match committed.map(|mut committed| committed.pop().map(|one| one.outcome)) {
        Ok(Some(Outcome::Admitted(members))) => {
            tracing::info!(%host, "host admitted");
            JoinAnswer::Admitted {
                cluster: request.cluster,
                members,
            }
        }
        Ok(Some(Outcome::Refused(refusals))) => {
            let reasons: Vec<_> = refusals
                .into_iter()
                .map(|refusal| refusal.message)
                .collect();
            refuse(reasons.join("; "))
        }
        Ok(_) => refuse("the cluster gave no answer".into()),
        Err(error) => refuse(format!("the cluster cannot decide now: {error}")),
    }
}

#[cfg(test)]
mod tests;
