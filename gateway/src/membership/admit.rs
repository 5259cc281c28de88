//! Admission of other hosts.
//!
//! Shell over the rules of the replicated state: [`admit`] proposes an application and returns the decision.

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
    cluster::{change::token_id, state::NO_SUCH_TOKEN},
    raft::Node,
};

/// An applicant gets an answer within this time; its agent waits a little longer.
pub(crate) const ADMIT_MAX: Duration = Duration::from_secs(10);

/// Builds the change that admits an applicant.
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
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        },
        replaces,
    }
}

/// Decides on an application. The replicated state decides by the token. `replaces` is the member that the applicant
/// may replace.
pub(crate) async fn admit(
    node: &Node,
    host: HostId,
    request: JoinRequest,
    replaces: Option<HostId>,
) -> JoinAnswer {
    let refuse = |reason: String| JoinAnswer::Refused { reason };
    let now = node.state().borrow().state.clone();
    // A host that a recovery cut off asks about the former cluster, which has no members.
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
        // The host loses its log when it joins. While Raft still counts it as the former host, the acknowledgements of
        // that host count, so it must not return yet.
        (_, false) if node.consensus().borrow().counts(host) => {
            return refuse("this host is still being removed: try again in a moment".into());
        }
        _ => {}
    }
    let change = admission(host, &request, replaces);
    let (at_ms, token) = (now_ms(), request.shown());
    // An application without a valid token gets no log entry. If several hosts use the last use of a token at once, the
    // log entry decides.
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
