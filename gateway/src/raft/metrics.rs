//! Translates openraft's metrics into Beemesh's own [`Consensus`].
//!
//! Shell: one task converts the metrics and publishes them. It requests a snapshot when the log has grown by many
//! bytes, purges entries behind the snapshot when they take too much of the disk, and detects that openraft has ended.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use beemesh_protocol::HostId;
use tokio::{sync::watch, time};

use super::{
    LATELY, LOG_BYTES, Node, SNAPSHOT_BYTES,
    types::{NodeId, RaftMetrics, is_majority, role_in},
};
use crate::cluster::consensus::{Consensus, Role};

/// Which hosts acknowledge the leader, and whether the leader is heard, changes with time alone.
const REFRESH: Duration = Duration::from_millis(500);
/// A learner that lags by no more entries than this has caught up: replicating the rest takes a moment.
const LAG_MAX: u64 = 100;

impl Node {
    /// Publishes the metrics until openraft ends.
    pub(super) fn watch(&self, publish: watch::Sender<Consensus>) {
        let node = Self {
            inner: Arc::clone(&self.inner),
        };
        tokio::spawn(async move {
            let mut raw = node.inner.raft.metrics();
            let (mut snapshot, mut written) = (None, 0);
            loop {
                let now = raw.borrow_and_update().clone();
                let consensus = node.summary(&now);
                let stopped = consensus.role == Role::Stopped;
                publish.send_if_modified(|before| {
                    let changed = *before != consensus;
                    *before = consensus;
                    changed
                });
                if let Err(fatal) = &now.running_state {
                    node.ended(&fatal.to_string());
                }
                if stopped {
                    return;
                }
                if snapshot != now.snapshot {
                    (snapshot, written) = (now.snapshot, node.inner.log.written());
                    // The kept entries only help followers that lag, and they may be large.
                    if let Some(last) = snapshot.filter(|_| node.inner.log.held() > LOG_BYTES) {
                        drop(node.inner.raft.trigger().purge_log(last.index).await);
                    }
                } else if node.inner.log.written() > written + SNAPSHOT_BYTES {
                    written = node.inner.log.written();
                    // An error means that openraft has ended, which the next iteration detects.
                    drop(node.inner.raft.trigger().snapshot().await);
                }
                tokio::select! {
                    changed = raw.changed() => if changed.is_err() {
                        node.ended("openraft has ended");
                        return;
                    },
                    () = time::sleep(REFRESH) => {}
                }
            }
        });
    }

    /// Records why consensus ended, unless a reason is recorded already.
    fn ended(&self, reason: &str) {
        self.inner.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| reason.to_owned());
            first
        });
    }

    /// Returns since when this host has led in this term, if it does.
    fn leads_since(&self, role: Role, term: u64) -> Option<time::Instant> {
        let mut leading = self
            .inner
            .leading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let same = leading.filter(|(led, _)| role == Role::Leader && *led == term);
        let begins = (role == Role::Leader).then(|| (term, time::Instant::now()));
        *leading = same.or(begins);
        leading.map(|(_, since)| since)
    }

    pub(super) fn summary(&self, raw: &RaftMetrics) -> Consensus {
        let host = self.inner.host;
        let role = match &raw.running_state {
            Err(_) => Role::Stopped,
            Ok(()) => role_in(raw.state),
        };
        let membership = raw.membership_config.membership();
        let mut acknowledging = self.inner.peers.lately();
        acknowledging.insert(host);
        acknowledging.retain(|host| membership.get_node(&NodeId(*host)).is_some());
        let last_log = raw.last_log_index.unwrap_or(0);
        let caught_up = |learner: &NodeId| {
            let matched = raw.replication.as_ref().and_then(|all| all.get(learner));
            let matched = matched.copied().flatten();
            matched.is_some_and(|id| id.index > 0 && id.index + LAG_MAX >= last_log)
        };
        let since = self.leads_since(role, raw.current_term);
        let lost = |voter: &HostId| {
            let silent = |since| {
                self.inner
                    .peers
                    .is_silent(*voter, since, self.inner.lost_after)
            };
            *voter != host && since.is_some_and(silent)
        };
        let majority = is_majority(membership, |node| acknowledging.contains(&node.0));
        Consensus {
            role,
            term: raw.current_term,
            leader: raw.current_leader.map(|node| node.0),
            voters: membership.voter_ids().map(|node| node.0).collect(),
            is_joint: membership.get_joint_config().len() > 1,
            learners: membership.learner_ids().map(|node| node.0).collect(),
            caught_up: membership
                .learner_ids()
                .filter(caught_up)
                .map(|node| node.0)
                .collect(),
            lost: membership
                .voter_ids()
                .map(|node| node.0)
                .filter(lost)
                .collect(),
            last_log,
            committed: self.inner.log.committed(),
            applied: raw.last_applied.map_or(0, |id| id.index),
            quorum: match role {
                Role::Leader => majority,
                Role::Follower | Role::Learner => raw
                    .current_leader
                    .is_some_and(|leader| self.inner.hearing.hears(leader.0, LATELY)),
                Role::Candidate | Role::Stopped => false,
            },
            acknowledging,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Mesh, PATIENCE, host};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_follower_whose_leader_is_gone_does_not_count_on_a_quorum() {
        let mesh = Mesh::of(2).await;
        let leader = mesh.node(1).consensus().borrow().leader;
        let (lost, left) = if leader == Some(host(1)) {
            (1, 2)
        } else {
            (2, 1)
        };
        let mut consensus = mesh.node(left).consensus();
        let led = consensus.wait_for(|consensus| consensus.quorum);
        drop(tokio::time::timeout(PATIENCE, led).await.unwrap());
        mesh.stop(lost).await;
        let alone = consensus.wait_for(|consensus| !consensus.quorum);
        drop(tokio::time::timeout(PATIENCE, alone).await.unwrap());
        mesh.start(lost).await;
        let led = consensus.wait_for(|consensus| consensus.quorum);
        drop(tokio::time::timeout(PATIENCE, led).await.unwrap());
        mesh.close().await;
    }
}
