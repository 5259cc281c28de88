//! Decides from when on a leader may act in its term.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes the time. Input: the state of consensus. A leader first
//! applies everything that was in its log at its election, because that may contain decisions of the leader before it.
//! It calls a host unreachable only when the host has had the time to answer it.

use std::time::Duration;

use tokio::time::Instant;

use super::leases::Leads;
use crate::cluster::consensus::{Consensus, Role};

/// The term of a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mandate {
    /// The term.
    pub(crate) term: u64,
    /// When it began.
    since: Instant,
    /// The last log index at that time.
    floor: u64,
}

impl Mandate {
    /// The present term of this host as leader; `before` is what this returned last.
    pub(crate) fn of(before: Option<Self>, consensus: &Consensus, now: Instant) -> Option<Self> {
        if consensus.role != Role::Leader {
            return None;
        }
        let new = Self {
            term: consensus.term,
            since: now,
            floor: consensus.last_log,
        };
        before.filter(|one| one.term == new.term).or(Some(new))
    }

    /// The same for leases: they depend on the time at which this gateway noticed that it leads.
    pub(crate) fn leads(&self) -> Leads {
        Leads {
            term: self.term,
            since: self.since,
            floor: self.floor,
        }
    }

    /// Returns true if the leader knows all decisions; `applied` is the last log index that its state includes.
    pub(crate) fn is_current(&self, consensus: &Consensus, applied: u64) -> bool {
        consensus.quorum && applied >= consensus.committed.max(self.floor)
    }

    /// When the leader knows which hosts are unreachable, if it does not yet: a host answers within `patience`.
    pub(crate) fn knows_hosts_at(
        &self,
        consensus: &Consensus,
        now: Instant,
        patience: Duration,
    ) -> Option<Instant> {
        let mut hosts = consensus.voters.iter().chain(&consensus.learners);
        let has_all = hosts.all(|host| consensus.acknowledging.contains(host));
        let at = self.since + patience;
        (!has_all && at > now).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::HostId;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn leads(term: u64, answered: u8) -> Consensus {
        let hosts = |n: u8| (1..=n).map(|n| HostId([n; 32])).collect();
        Consensus {
            role: Role::Leader,
            term,
            voters: hosts(3),
            last_log: 9,
            committed: 7,
            acknowledging: hosts(answered),
            quorum: answered > 1,
            ..Consensus::default()
        }
    }

    #[test]
    fn a_leader_first_applies_what_was_in_its_log_at_its_election() {
        let now = Instant::now();
        let mut consensus = leads(4, 2);
        let mandate = Mandate::of(None, &consensus, now).unwrap();
        let current = |consensus: &Consensus| [7, 8, 9].map(|at| mandate.is_current(consensus, at));
        assert_eq!(current(&consensus), [false, false, true]);
        consensus.last_log = 20;
        let later = Mandate::of(Some(mandate), &consensus, now + PATIENCE);
        assert_eq!(later, Some(mandate), "the term is the same");
        consensus.quorum = false;
        assert_eq!(current(&consensus), [false; 3]);
        let next = Mandate::of(Some(mandate), &leads(5, 2), now);
        assert_eq!(next.map(|one| one.term), Some(5));
        consensus.role = Role::Follower;
        assert_eq!(Mandate::of(Some(mandate), &consensus, now), None);
    }

    #[test]
    fn a_host_has_time_to_answer_a_new_leader() {
        let now = Instant::now();
        let mandate = Mandate::of(None, &leads(4, 2), now).unwrap();
        let at =
            |answered, after| mandate.knows_hosts_at(&leads(4, answered), now + after, PATIENCE);
        assert_eq!(at(2, Duration::ZERO), Some(now + PATIENCE));
        assert_eq!(at(2, PATIENCE), None);
        assert_eq!(at(3, Duration::ZERO), None);
    }
}
