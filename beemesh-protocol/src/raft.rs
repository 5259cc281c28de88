//! Raft messages between gateways, and the encoding of entries in the log.
//!
//! The names are those of the Raft paper (Ongaro, Ousterhout 2014). An entry has the same encoding on disk and on the
//! wire.

use crate::{HostId, state::Command};

/// A vote: the term, the candidate, and whether a quorum granted it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The candidate.
    pub node: HostId,
    /// Whether the candidate became leader.
    pub committed: bool,
}

/// The identity of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// That leader.
    pub node: HostId,
    /// Its log index.
    pub index: u64,
}

/// One log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub log_id: LogId,
    /// Its content.
    pub payload: Payload,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A new leader's first entry.
    Blank,
    /// A batch of changes, applied in order.
    Commands(Vec<Command>),
    /// A change of membership.
    Membership(Membership),
}

/// The voters and learners of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// One set of voters, or two during joint consensus.
    pub configs: Vec<Vec<HostId>>,
    /// Voters and learners.
    pub nodes: Vec<HostId>,
}

/// A membership and the entry that set it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredMembership {
    /// The entry; `None` before the first.
    pub log_id: Option<LogId>,
    /// The membership.
    pub membership: Membership,
}

/// Describes a snapshot; precedes its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry it includes.
    pub last_log_id: Option<LogId>,
    /// The membership at that entry.
    pub membership: StoredMembership,
    /// The snapshot's unique name.
    pub id: String,
}

/// A request on a [`crate::ipc::Class::Raft`] stream; answered by a [`Reply`] with the same id, in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the sender, unique on its stream.
    pub id: u64,
    /// The remote procedure call.
    pub body: RequestBody,
}

/// Raft's remote procedure calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    /// AppendEntries.
    Append {
        /// The leader's vote.
        vote: Vote,
        /// The entry before the first one sent.
        prev: Option<LogId>,
        /// The leader's commit point.
        committed: Option<LogId>,
        /// In order, without gaps.
        entries: Vec<Entry>,
    },
    /// RequestVote.
    Vote {
        /// The candidate's vote.
        vote: Vote,
        /// The candidate's last entry.
        last: Option<LogId>,
    },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// The result.
    pub body: ReplyBody,
}

/// The answers to Raft's remote procedure calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// All entries are stored.
    AppendSuccess,
    /// Entries up to this one are stored; the sender must send the rest again.
    AppendPartial(Option<LogId>),
    /// The entry before the first one is missing, or the receiver has a different one.
    AppendConflict,
    /// The receiver knows a higher vote.
    AppendHigherVote(Vote),
    /// The answer to a vote.
    Voted {
        /// The receiver's vote.
        vote: Vote,
        /// Whether it was granted.
        granted: bool,
        /// The receiver's last entry.
        last: Option<LogId>,
    },
    /// The receiver cannot serve Raft now.
    Failed(String),
}

/// The first frame on a [`crate::ipc::Class::Snapshot`] stream. `size` raw bytes follow, and the receiver answers with
/// a [`SnapshotReply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The sender's vote.
    pub vote: Vote,
    /// The snapshot's description.
    pub meta: SnapshotMeta,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub hash: [u8; 32],
}

/// The receiver's answer to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotReply {
    /// The snapshot is installed. The content is the receiver's vote.
    Installed(Vote),
    /// The snapshot is not installed, with the reason.
    Failed(String),
}

/// A snapshot file: its description and the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The description.
    pub meta: SnapshotMeta,
    /// The state, encoded by [`crate::state::Snapshot`].
    pub state: Vec<u8>,
}
