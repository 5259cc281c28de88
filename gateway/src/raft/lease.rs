//! Leases: a host asks the leader for them, and the leader decides on a state that is new enough.
//!
//! Shell: [`crate::raft::Settings::grant`] decides. Before that, a majority must confirm that this host leads, after the
//! request has arrived, and this host must have applied everything that was committed then.

use std::sync::Arc;

use beemesh_protocol::{
    HostId,
    peer::{Failure, ReplyBody, RequestBody},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{Node, View};
use crate::cluster::consensus::Role;

/// Maximum number of leases in one request; a host has fewer pods.
pub(crate) const LEASES_MAX: usize = 4096;

/// A host asks for leases.
pub(crate) struct Asking<'a> {
    /// The host.
    pub(crate) host: HostId,
    /// The names of the workloads, at most [`LEASES_MAX`].
    pub(crate) workloads: &'a [String],
    /// The term in which this host leads.
    pub(crate) term: u64,
    /// The replicated state. It includes everything that was committed when the request arrived.
    pub(crate) view: &'a watch::Receiver<Arc<View>>,
}

/// Decides which of the leases a host gets, and returns the names of their workloads. It must not block.
pub(crate) type Grant = Arc<dyn Fn(&Asking<'_>) -> Vec<String> + Send + Sync>;

/// Grants nothing, like a gateway that never leads.
#[cfg(test)]
pub(crate) fn grant_nothing() -> Grant {
    Arc::new(|_| Vec::new())
}

/// Who has asked for leases, and what the state that was looked at included.
#[cfg(test)]
pub(crate) type Asked = Arc<std::sync::Mutex<Vec<(HostId, u64)>>>;

/// Grants the first lease that is asked for.
#[cfg(test)]
pub(crate) fn grant_first(asked: &Asked) -> Grant {
    let asked = Arc::clone(asked);
    Arc::new(move |asking| {
        let applied = asking.view.borrow().applied;
        asked.lock().unwrap().push((asking.host, applied));
        asking.workloads.iter().take(1).cloned().collect()
    })
}

impl Node {
    /// Asks the leader for the leases of these workloads, and returns those that it grants. `None` if no leader has
    /// answered before the deadline. A lease counts from before this call.
    pub(crate) async fn lease(
        &self,
        workloads: Vec<String>,
        deadline: Instant,
    ) -> Option<Vec<String>> {
        let leader = self.leader()?;
        let reply = if leader == self.inner.host {
            self.grant(leader, &workloads, deadline).await
        } else {
            let request = RequestBody::Lease(workloads);
            let asked = self.inner.peers.ask(leader, request);
            timeout_at(deadline, asked).await.ok()?.ok()?
        };
        match reply {
            ReplyBody::Leased(granted) => Some(granted),
            _ => None,
        }
    }

    /// Answers a host that asks for leases.
    pub(super) async fn grant(
        &self,
        host: HostId,
        workloads: &[String],
        deadline: Instant,
    ) -> ReplyBody {
        if let Err(reply) = self.leading() {
            return reply;
        }
        let read = match timeout_at(deadline, self.inner.raft.get_read_log_id()).await {
            Ok(Ok((read, _))) => read.map_or(0, |id| id.index),
            Ok(Err(_)) => return self.not_leader(),
            Err(_) => return ReplyBody::Failed(Failure::Late),
        };
        let mut view = self.state();
        let caught_up = timeout_at(deadline, view.wait_for(|view| view.applied >= read)).await;
        match caught_up.map(|applied| applied.is_ok()) {
            Ok(true) => {}
            Ok(false) => return ReplyBody::Failed(Failure::Stopped),
            Err(_) => return ReplyBody::Failed(Failure::Late),
        }
        let (role, term) = {
            let now = self.inner.consensus.borrow();
            (now.role, now.term)
        };
        if role != Role::Leader {
            return self.not_leader();
        }
        let workloads = &workloads[..workloads.len().min(LEASES_MAX)];
        ReplyBody::Leased((self.inner.grant)(&Asking {
            host,
            workloads,
            term,
            view: &view,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::tests::{Mesh, deadline, host, put};

    #[tokio::test(flavor = "multi_thread")]
    async fn the_leader_decides_on_all_that_was_committed_before_the_request() {
        let mesh = Mesh::of(3).await;
        let leader = mesh.leader().await;
        let names = vec!["db".to_owned(), "web".to_owned()];
        for number in 1..=3 {
            let index = put(&mesh.node(leader), number, 1).await;
            let node = mesh.node(u8::try_from(number).unwrap());
            let mut consensus = node.consensus();
            let led = consensus.wait_for(|now| now.leader.is_some() && now.quorum);
            drop(led.await.unwrap());
            let granted = node.lease(names.clone(), deadline()).await;
            assert_eq!(granted.as_deref(), Some(&names[..1]));
            let last = mesh.asked.lock().unwrap().last().copied();
            let (by, applied) = last.unwrap();
            assert_eq!(by, host(u8::try_from(number).unwrap()));
            assert!(applied >= index, "{applied} {index}");
        }
        let follower = mesh.node(if leader == 1 { 2 } else { 1 });
        let reply = follower.grant(host(3), &names, deadline()).await;
        assert_eq!(reply, ReplyBody::NotLeader(Some(host(leader))));
        assert_eq!(mesh.asked.lock().unwrap().len(), 3);
        mesh.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_leader_without_a_majority_grants_nothing() {
        let mesh = Mesh::of(3).await;
        let number = mesh.leader().await;
        let leader = mesh.node(number);
        for other in (1..=3).filter(|other| *other != number) {
            mesh.stop(other).await;
        }
        let names = ["db".to_owned()];
        let reply = leader.grant(host(number), &names, deadline()).await;
        assert!(!matches!(reply, ReplyBody::Leased(_)), "{reply:?}");
        assert_eq!(*mesh.asked.lock().unwrap(), []);
        mesh.close().await;
    }
}
