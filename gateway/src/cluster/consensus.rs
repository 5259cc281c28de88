//! The state of Raft, as seen by one host.
//!
//! Pure: the room of consensus writes these values, and all others read them.

use std::collections::BTreeSet;

use beemesh_protocol::HostId;

/// The role of a host in its cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is in no cluster, or receives the log and does not vote.
    #[default]
    Learner,
    /// It is a voter and follows the leader.
    Follower,
    /// It is a candidate in an election.
    Candidate,
    /// It is the leader.
    Leader,
    /// Raft has stopped on this host, and the gateway must restart.
    Stopped,
}

/// The state of Raft, as seen by this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Consensus {
    /// This host's role.
    pub(crate) role: Role,
    /// The term.
    pub(crate) term: u64,
    /// The leader, if known.
    pub(crate) leader: Option<HostId>,
    /// The voters.
    pub(crate) voters: BTreeSet<HostId>,
    /// Two sets of voters must agree, because a change from one to the other is not complete (joint consensus). `voters`
    /// has the members of both.
    pub(crate) is_joint: bool,
    /// The learners.
    pub(crate) learners: BTreeSet<HostId>,
    /// The last log index; 0 if the log is empty.
    pub(crate) last_log: u64,
    /// The last index that this host knows to be committed.
    pub(crate) committed: u64,
    /// The last applied index.
    pub(crate) applied: u64,
    /// On the leader: itself and the hosts that acknowledged an append recently.
    pub(crate) acknowledging: BTreeSet<HostId>,
    /// On the leader: whether those are a majority. On a follower: whether it heard the leader recently.
    pub(crate) quorum: bool,
    /// On the leader: learners that have stored all but the last few entries.
    pub(crate) caught_up: BTreeSet<HostId>,
    /// On the leader: voters that have not answered for so long that another host should replace them as voter.
    pub(crate) lost: BTreeSet<HostId>,
}

impl Consensus {
    /// Whether this host is a voter or a learner.
    pub(crate) fn counts(&self, host: HostId) -> bool {
        self.voters.contains(&host) || self.learners.contains(&host)
    }
}

/// The log's last entry, committed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastEntry {
    /// The term of the leader that wrote it.
    pub(crate) term: u64,
    /// Its log index; 0 if the log is empty.
    pub(crate) index: u64,
}
