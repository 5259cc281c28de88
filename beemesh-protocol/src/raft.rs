//! Raft messages between gateways, and the form in which entries lie in the log.
//!
//! The names are those of the Raft paper (Ongaro, Ousterhout 2014). An entry has one encoding, on disk and on the wire.

use crate::{HostId, state::Command};

/// A vote: the term, who it is for, and whether a quorum granted it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The candidate.
    pub node: HostId,
    /// Whether the candidate became leader.
    pub committed: bool,
}

/// Names an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// That leader.
    pub node: HostId,
    /// Its position.
    pub index: u64,
}

/// One log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub log_id: LogId,
    /// What it holds.
    pub payload: Payload,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A new leader's first entry.
    Blank,
    /// A batch of changes, applied in order.
    Commands(Vec<Command>),
    /// A change of membership.
    Membership(Membership),
}

/// Who votes and who learns.
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

/// What a snapshot covers; precedes its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry it includes.
    pub last_log_id: Option<LogId>,
    /// The membership at that entry.
    pub membership: StoredMembership,
    /// Names the snapshot.
    pub id: String,
}

/// A request on a [`crate::ipc::Class::Raft`] stream; answered by a [`Reply`] with the same id, in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the sender, unique on its stream.
    pub id: u64,
    /// What.
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
        /// In order, without holes.
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
    /// What came of it.
    pub body: ReplyBody,
}

/// The answers to Raft's remote procedure calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// All entries are stored.
    AppendSuccess,
    /// Entries up to this one are stored; send the rest again.
    AppendPartial(Option<LogId>),
    /// The entry before the first one is missing or another.
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

/// The first frame on a [`crate::ipc::Class::Snapshot`] stream; `size` raw bytes follow, then a [`SnapshotReply`] comes
/// back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The sender's vote.
    pub vote: Vote,
    /// What the snapshot covers.
    pub meta: SnapshotMeta,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub hash: [u8; 32],
}

/// The receiver's answer to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotReply {
    /// Installed; the receiver's vote.
    Installed(Vote),
    /// Not installed.
    Failed(String),
}

/// A snapshot file: what it covers and the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// What it covers.
    pub meta: SnapshotMeta,
    /// The state, as [`crate::state::Snapshot`] encodes it.
    pub state: Vec<u8>,
}
