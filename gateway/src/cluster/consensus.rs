//! How consensus is doing, as one host sees it.
//!
//! Pure: values that the room of consensus fills and everybody reads.

use std::collections::BTreeSet;

use beemesh_protocol::HostId;

/// What a node is to its cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// It votes for nobody and is in no cluster, or follows without a vote.
    #[default]
    Learner,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
    /// Consensus has ended on this host; the gateway must begin again.
    Stopped,
}

/// How consensus is doing, as this host sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metrics {
    /// This host's part.
    pub(crate) role: Role,
    /// The term.
    pub(crate) term: u64,
    /// Who leads.
    pub(crate) leader: Option<HostId>,
    /// Who votes.
    pub(crate) voters: BTreeSet<HostId>,
    /// Who follows without a vote.
    pub(crate) learners: BTreeSet<HostId>,
    /// The last log index; 0 before the first.
    pub(crate) last_log: u64,
    /// The last committed index this host knows.
    pub(crate) committed: u64,
    /// The last applied index.
    pub(crate) applied: u64,
    /// On the leader: itself and who acknowledged an append lately.
    pub(crate) acknowledging: BTreeSet<HostId>,
    /// On the leader: whether those are a majority. On a follower: whether its leader spoke
    /// lately.
    pub(crate) quorum: bool,
    /// On the leader: learners that have all but the last few entries on their disks.
    pub(crate) caught_up: BTreeSet<HostId>,
    /// On the leader: voters that have not answered for the time after which a voter is replaced.
    pub(crate) lost: BTreeSet<HostId>,
}

impl Metrics {
    /// Whether Raft counts this host, as a voter or a learner.
    pub(crate) fn counts(&self, host: HostId) -> bool {
        self.voters.contains(&host) || self.learners.contains(&host)
    }
}

/// The log's last entry, committed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastEntry {
    /// The term of the leader that wrote it.
    pub(crate) term: u64,
    /// Its index; 0 before the first.
    pub(crate) index: u64,
}
