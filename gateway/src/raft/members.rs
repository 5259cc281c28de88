//! Who votes and who follows.
//!
//! [`next_change`] is pure: members as they are and hosts as they should be in, the one next change out. The leader carries
//! one change out at a time; each is an entry of the log.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::HostId;
use openraft::{ChangeMembers, EmptyNode};
use tokio::time::timeout;

use super::{MembersError, Metrics, Node, Role, serve::ANSWER_MAX, types::NodeId};

/// More voters make every commit wait for more hosts and survive more failures; five survive two.
pub(crate) const VOTERS_MAX: usize = 5;
/// A change of membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Learn(HostId),
    Promote(HostId),
    RemoveVoter(HostId),
    RemoveLearner(HostId),
}

/// The next change, if any. Hosts that left go first: a voter that is gone weakens every majority.
fn next_change(metrics: &Metrics, hosts: &BTreeSet<HostId>) -> Option<Change> {
    let voters = &metrics.voters;
    let learners = &metrics.learners;
    let gone = |members: &BTreeSet<HostId>| members.difference(hosts).next().copied();
    if let Some(host) = gone(learners) {
        return Some(Change::RemoveLearner(host));
    }
    if let Some(host) = gone(voters).filter(|_| voters.len() > 1) {
        return Some(Change::RemoveVoter(host));
    }
    let unknown = hosts
        .iter()
        .find(|host| !voters.contains(host) && !learners.contains(host));
    if let Some(host) = unknown {
        return Some(Change::Learn(*host));
    }
    learners
        .iter()
        .filter(|_| voters.len() < VOTERS_MAX)
        .find(|host| metrics.acknowledging.contains(host) && metrics.caught_up.contains(host))
        .map(|host| Change::Promote(*host))
}

impl Node {
    /// Brings the members a step or more closer to these hosts: new hosts learn, learners that have caught up vote while
    /// there are fewer than [`VOTERS_MAX`] voters, hosts that are not named leave. Does nothing but on the leader. To be
    /// called again when hosts or metrics change.
    pub(crate) async fn reconcile_members(&self, hosts: &[HostId]) -> Result<(), MembersError> {
        let hosts: BTreeSet<HostId> = hosts.iter().copied().collect();
        if hosts.is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.inner.changing.lock().await;
        let raft = &self.inner.raft;
        loop {
            let metrics = self.summary(&raft.metrics().borrow().clone());
            if metrics.role != Role::Leader || !metrics.quorum {
                return Ok(());
            }
            let Some(change) = next_change(&metrics, &hosts) else {
                let mut known = hosts;
                known.extend(metrics.voters.iter().chain(&metrics.learners));
                self.inner.peers.retain(&known);
                self.inner.hearing.retain(&known);
                return Ok(());
            };
            tracing::info!(?change, "change the members");
            let one = |host| BTreeSet::from([NodeId(host)]);
            let node = |host| BTreeMap::from([(NodeId(host), EmptyNode {})]);
            let (members, retain) = match change {
                Change::Learn(host) => (ChangeMembers::AddNodes(node(host)), true),
                Change::Promote(host) => (ChangeMembers::AddVoterIds(one(host)), true),
                Change::RemoveVoter(host) => (ChangeMembers::RemoveVoters(one(host)), false),
                Change::RemoveLearner(host) => (ChangeMembers::RemoveNodes(one(host)), false),
            };
            timeout(ANSWER_MAX, raft.change_membership(members, retain))
                .await
                .map_err(|_| MembersError(format!("{change:?}: not committed in {ANSWER_MAX:?}")))?
                .map_err(|error| MembersError(format!("{change:?}: {error}")))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        HEARTBEAT,
        disk::held::Access,
        simulation::manifests,
        tests::{Mesh, PATIENCE, deadline, host},
    };
    use super::*;
    use crate::duties::keep_membership;

    fn set(numbers: &[u8]) -> BTreeSet<HostId> {
        numbers.iter().copied().map(host).collect()
    }

    #[test]
    fn members_follow_the_hosts_one_change_at_a_time() {
        use Change::{Learn, Promote, RemoveLearner, RemoveVoter};
        type Case<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a [u8], Option<Change>);
        let cases: [Case<'_>; 9] = [
            // voters, learners, acknowledging, hosts
            (&[1], &[], &[1], &[1], None),
            (&[1], &[], &[1], &[1, 2, 3], Some(Learn(host(2)))),
            (&[1], &[2], &[1], &[1, 2], None),
            (&[1], &[2], &[1, 2], &[1, 2], Some(Promote(host(2)))),
            (&[1, 2, 3, 4, 5], &[6], &[1, 6], &[1, 2, 3, 4, 5, 6], None),
            (
                &[1, 2, 3],
                &[4],
                &[1],
                &[1, 2, 3],
                Some(RemoveLearner(host(4))),
            ),
            (
                &[1, 2, 3],
                &[4],
                &[1, 4],
                &[1, 2, 4],
                Some(RemoveVoter(host(3))),
            ),
            // The leader itself leaves like anybody else, but the last voter stays.
            (&[1, 2], &[], &[1, 2], &[2], Some(RemoveVoter(host(1)))),
            (&[1], &[], &[1], &[2], Some(Learn(host(2)))),
        ];
        for (voters, learners, acknowledging, hosts, expected) in cases {
            let metrics = Metrics {
                voters: set(voters),
                learners: set(learners),
                acknowledging: set(acknowledging),
                caught_up: set(learners),
                ..Metrics::default()
            };
            let found = next_change(&metrics, &set(hosts));
            assert_eq!(found, expected, "{voters:?} {learners:?} -> {hosts:?}");
        }
        let lagging = Metrics {
            voters: set(&[1]),
            learners: set(&[2]),
            acknowledging: set(&[1, 2]),
            ..Metrics::default()
        };
        assert_eq!(next_change(&lagging, &set(&[1, 2])), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_learner_votes_when_it_has_caught_up_and_not_before() {
        let mesh = Mesh::founded(2).await;
        let leader = mesh.node(1);
        let token = vec![manifests::token(1)];
        leader.propose(token, deadline()).await.unwrap();
        mesh.disk(2).set(Access::Wait);
        let duty = tokio::spawn(keep_membership(leader.clone()));
        let join = vec![manifests::admit(host(2))];
        leader.propose(join, deadline()).await.unwrap();
        let mut metrics = leader.metrics();
        let learns = metrics.wait_for(|metrics| metrics.learners.contains(&host(2)));
        drop(tokio::time::timeout(PATIENCE, learns).await.unwrap());
        let early = metrics.wait_for(|metrics| {
            metrics.caught_up.contains(&host(2)) || metrics.voters.contains(&host(2))
        });
        let early = tokio::time::timeout(4 * HEARTBEAT, early).await.is_ok();
        assert!(!early, "it has nothing on its disk");
        mesh.disk(2).set(Access::Pass);
        let votes = metrics.wait_for(|metrics| metrics.voters.contains(&host(2)));
        drop(tokio::time::timeout(PATIENCE, votes).await.unwrap());
        duty.abort();
        mesh.close().await;
    }
}
