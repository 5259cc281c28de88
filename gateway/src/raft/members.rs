//! Decides who votes and who follows.
//!
//! [`next_change`] is pure. Input: the current members and the wanted hosts. Output: the next change. The leader makes
//! one change at a time; each is an entry of the log.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::{HostId, state::Host};
use openraft::{ChangeMembers, EmptyNode};
use tokio::time::timeout;

use super::{MembersError, Node, serve::ANSWER_MAX, types::NodeId};
use crate::cluster::{
    consensus::{Consensus, Role},
    state::{DEMOTED_MS, State},
};

/// With more voters, each commit waits for more hosts, and the cluster survives more failures. Five voters survive two.
pub(crate) const VOTERS_MAX: usize = 5;
/// A change of membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Completes a change of voters that a leader began and did not complete.
    Complete,
    Learn(HostId),
    Promote(HostId),
    /// Demotes a lost voter and promotes a reachable learner in its place.
    Replace {
        lost: HostId,
        by: HostId,
    },
    /// Demotes a voter that is about to leave.
    Demote(HostId),
    RemoveVoter(HostId),
    RemoveLearner(HostId),
}

/// The hosts that should take part in Raft.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The members of the cluster.
    pub(crate) hosts: BTreeSet<HostId>,
    /// The hosts among them that must not vote now.
    pub(crate) demoted: BTreeSet<HostId>,
}

impl Wanted {
    /// Reads the wanted members from the replicated state, as of this time in milliseconds since 1970. A demotion lasts
    /// for [`DEMOTED_MS`], and works for hosts whose clocks differ by no more than that. A demotion that ends more than
    /// twice that time in the future was written by a clock that runs ahead, and is ignored: otherwise the host would
    /// have no vote until the clocks agree.
    pub(crate) fn of(state: &State, now_ms: u64) -> Self {
        let latest = now_ms.saturating_add(2 * DEMOTED_MS);
        let demoted = |host: &&Host| host.votes_from_ms > now_ms && host.votes_from_ms <= latest;
        let hosts = state.hosts();
        Self {
            hosts: hosts.keys().copied().collect(),
            demoted: hosts.values().filter(demoted).map(|host| host.id).collect(),
        }
    }
}

/// Returns the next change, if any. A change that an earlier leader began is completed first: until then each commit needs
/// a majority of both sets of voters. Hosts that left the cluster are removed next, because an unreachable voter
/// weakens every majority.
fn next_change(consensus: &Consensus, wanted: &Wanted) -> Option<Change> {
    if consensus.is_joint {
        return Some(Change::Complete);
    }
    let Wanted { hosts, demoted } = wanted;
    let voters = &consensus.voters;
    let learners = &consensus.learners;
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
    let without = |host: &HostId| {
        let left = voters.iter().filter(|one| *one != host);
        let there = left
            .clone()
            .filter(|one| consensus.acknowledging.contains(one));
        2 * there.count() > left.count()
    };
    if let Some(host) = voters.intersection(demoted).find(|host| without(host)) {
        return Some(Change::Demote(*host));
    }
    let by = learners.difference(demoted).copied().find(|host| {
        consensus.acknowledging.contains(host) && consensus.caught_up.contains(host)
    })?;
    if voters.len() < VOTERS_MAX {
        return Some(Change::Promote(by));
    }
    let lost = consensus.lost.intersection(voters).next().copied();
    lost.map(|lost| Change::Replace { lost, by })
}

impl Node {
    /// Moves the membership at least one step closer to the wanted hosts. New hosts become learners. Learners that have
    /// caught up become voters while there are fewer than [`VOTERS_MAX`] voters or one of those is lost. Demoted voters
    /// become learners if the others have a majority without them. Hosts that are not wanted are removed. Only the
    /// leader does this; on other hosts it does nothing. Call it again when the hosts or metrics change.
    pub(crate) async fn reconcile_members(&self, wanted: &Wanted) -> Result<(), MembersError> {
        if wanted.hosts.is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.inner.changing.lock().await;
        let raft = &self.inner.raft;
        loop {
            let consensus = self.summary(&raft.metrics().borrow().clone());
            if consensus.role != Role::Leader || !consensus.quorum {
                return Ok(());
            }
            let Some(change) = next_change(&consensus, wanted) else {
                let mut known = wanted.hosts.clone();
                known.extend(consensus.voters.iter().chain(&consensus.learners));
                self.inner.peers.retain(&known);
                self.inner.hearing.retain(&known);
                return Ok(());
            };
            tracing::info!(?change, "change the members");
            let one = |host| BTreeSet::from([NodeId(host)]);
            let node = |host| BTreeMap::from([(NodeId(host), EmptyNode {})]);
            let (members, retain) = match change {
                // It adds nobody to the set of voters that was last begun, and ends the earlier one.
                Change::Complete => (ChangeMembers::AddVoterIds(BTreeSet::new()), true),
                Change::Learn(host) => (ChangeMembers::AddNodes(node(host)), true),
                Change::Promote(host) => (ChangeMembers::AddVoterIds(one(host)), true),
                Change::Replace { lost, by } => {
                    let stay = consensus.voters.iter().filter(|host| **host != lost);
                    let voters = stay.chain([&by]).copied().map(NodeId).collect();
                    (ChangeMembers::ReplaceAllVoters(voters), true)
                }
                Change::Demote(host) => (ChangeMembers::RemoveVoters(one(host)), true),
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
    use beemesh_protocol::{
        ClusterId,
        state::{Change as StateChange, Command},
    };

    use super::super::tests::host;
    use super::*;

    fn set(numbers: &[u8]) -> BTreeSet<HostId> {
        numbers.iter().copied().map(host).collect()
    }

    fn wanted(hosts: &[u8], demoted: &[u8]) -> Wanted {
        Wanted {
            hosts: set(hosts),
            demoted: set(demoted),
        }
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
            // The leader itself can leave, but the last voter stays.
            (&[1, 2], &[], &[1, 2], &[2], Some(RemoveVoter(host(1)))),
            (&[1], &[], &[1], &[2], Some(Learn(host(2)))),
        ];
        for (voters, learners, acknowledging, hosts, expected) in cases {
            let consensus = Consensus {
                voters: set(voters),
                learners: set(learners),
                acknowledging: set(acknowledging),
                caught_up: set(learners),
                ..Consensus::default()
            };
            let found = next_change(&consensus, &wanted(hosts, &[]));
            assert_eq!(found, expected, "{voters:?} {learners:?} -> {hosts:?}");
        }
        // Of five voters the second is lost. The sixth host is reachable, the seventh is not.
        let mut lost = Consensus {
            voters: set(&[1, 2, 3, 4, 5]),
            learners: set(&[6, 7]),
            acknowledging: set(&[1, 3, 4, 5, 7]),
            caught_up: set(&[6, 7]),
            lost: set(&[2]),
            ..Consensus::default()
        };
        let all = wanted(&[1, 2, 3, 4, 5, 6, 7], &[]);
        let replaced = Change::Replace {
            lost: host(2),
            by: host(7),
        };
        assert_eq!(next_change(&lost, &all), Some(replaced));
        let joint = Consensus {
            is_joint: true,
            ..lost.clone()
        };
        assert_eq!(next_change(&joint, &all), Some(Change::Complete));
        lost.acknowledging.remove(&host(7));
        assert_eq!(next_change(&lost, &all), None, "nobody is there");
        let lagging = Consensus {
            voters: set(&[1]),
            learners: set(&[2]),
            acknowledging: set(&[1, 2]),
            ..Consensus::default()
        };
        assert_eq!(next_change(&lagging, &wanted(&[1, 2], &[])), None);
    }

    #[test]
    fn who_is_demoted_learns_where_the_others_can_agree() {
        type Case<'a> = (&'a [u8], &'a [u8], u8, bool);
        let cases: [Case<'_>; 7] = [
            // voters, acknowledging, demoted
            (&[1, 2], &[1, 2], 2, true),
            // The leader itself.
            (&[1, 2], &[1, 2], 1, true),
            (&[1], &[1], 1, false),
            (&[1, 2, 3, 4], &[1, 2, 3], 3, true),
            (&[1, 2, 3], &[1, 2], 2, false),
            (&[1, 2, 3], &[1, 2], 3, true),
            // It has no vote.
            (&[1, 2], &[1, 2, 3], 3, false),
        ];
        for (voters, acknowledging, demoted, does) in cases {
            let all = set(&[1, 2, 3, 4]);
            let learners: BTreeSet<HostId> = all.difference(&set(voters)).copied().collect();
            let consensus = Consensus {
                voters: set(voters),
                acknowledging: set(acknowledging),
                caught_up: learners.clone(),
                learners,
                ..Consensus::default()
            };
            let change = next_change(&consensus, &wanted(&[1, 2, 3, 4], &[demoted]));
            let expected = does.then_some(Change::Demote(host(demoted)));
            assert_eq!(change, expected, "{voters:?} {acknowledging:?} {demoted}");
        }
    }

    #[test]
    fn a_clock_that_ran_ahead_takes_no_vote_away() {
        let now = 1_000_000_000;
        let demoted = |at_ms| {
            let found = StateChange::Found {
                cluster: ClusterId([1; 16]),
                host: Host {
                    id: host(2),
                    name: "h2".into(),
                    addresses: Vec::new(),
                    labels: Default::default(),
                    drained: false,
                    claims_as: None,
                    votes_from_ms: 0,
                    lost_at_ms: 0,
                    declared_lost: false,
                    steady_at_ms: 0,
                },
            };
            let mut state = State::default();
            let _ = state.apply(1, &Command::unasked(0, found));
            let change = StateChange::DemoteHost { host: host(2) };
            let _ = state.apply(2, &Command::unasked(at_ms, change));
            Wanted::of(&state, now).demoted
        };
        assert_eq!(demoted(now), set(&[2]));
        let ahead = demoted(now + DEMOTED_MS);
        assert_eq!(ahead, set(&[2]), "a clock may be ahead a little");
        assert_eq!(demoted(now - DEMOTED_MS), BTreeSet::new(), "it is over");
        assert_eq!(demoted(now + 365 * 86_400_000), BTreeSet::new());
    }
}
