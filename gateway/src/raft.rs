//! Consensus: what the cluster has agreed on, and the way to change it.
//!
//! Owner of the log, the snapshots and openraft; no openraft type leaves this module. Input: commands to propose and
//! streams from other gateways. Output: [`View`]s of the replicated state and [`Metrics`]. A shell over three parts:
//! [`log`] (durable), [`machine`] (applies) and [`network`] (speaks to the others).

use std::{
    collections::BTreeSet,
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
};

use beemesh_protocol::{
    HostId,
    ipc::Class,
    peer::{Committed, HostReport},
    state::Command,
};
use tokio::{net::UnixStream, sync::watch, time::Instant};

use crate::state::State;

/// Opens streams to other gateways; the handshake is done, the next bytes are the peer's.
pub(crate) trait Dial: Send + Sync + 'static {
    /// Opens a stream of this class to this host.
    fn open(
        &self,
        host: HostId,
        class: Class,
    ) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>>;
}

/// What a node needs to open.
pub(crate) struct Settings {
    /// The folder of log and snapshots; made when missing.
    pub(crate) dir: PathBuf,
    /// This host.
    pub(crate) host: HostId,
    /// The way to the others.
    pub(crate) dial: Arc<dyn Dial>,
    /// Gets what other hosts observe. It must not block.
    pub(crate) observe: Arc<dyn Fn(HostId, HostReport) + Send + Sync>,
}

/// The replicated state as of one applied entry.
#[derive(Clone, Default)]
pub(crate) struct View {
    /// The last applied log index; 0 before the first.
    pub(crate) applied: u64,
    /// The state.
    pub(crate) state: Arc<State>,
}

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
    /// Consensus has ended on this host; see [`Node::failed`].
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
    /// On the leader: itself and who acknowledged an append within [`LATELY`].
    pub(crate) acknowledging: BTreeSet<HostId>,
    /// On the leader: whether those are a majority. On a follower: whether it follows a leader.
    pub(crate) quorum: bool,
}

/// Why a node cannot open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// A placeholder until the storage is in.
    #[error("open raft in {dir}")]
    Io {
        /// Where.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why commands were not committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    /// No leader with a majority was found in time; the commands were not accepted.
    #[error("no gateway has quorum: {} of {voters} voters acknowledge", .voters - .silent.len())]
    NoQuorum {
        /// How many voters there are.
        voters: usize,
        /// The voters that are not heard from, as far as this host knows.
        silent: Vec<HostId>,
    },
    /// The time was over while the commands were on their way: they may still be committed.
    #[error("not committed in time; it may still be")]
    Deadline,
    /// The commands do not fit into an entry.
    #[error("commands of {size} bytes, at most {limit} fit into one log entry")]
    TooLarge {
        /// Their size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Consensus has ended on this host.
    #[error("consensus stopped: {0}")]
    Stopped(String),
}

/// Why a read is not linearizable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// No leader confirmed its leadership in time.
    #[error("no gateway has quorum: {} of {voters} voters acknowledge", .voters - .silent.len())]
    NoQuorum {
        /// How many voters there are.
        voters: usize,
        /// The voters that are not heard from, as far as this host knows.
        silent: Vec<HostId>,
    },
    /// This host did not catch up in time.
    #[error("this host has applied entry {applied} of {wanted}")]
    Behind {
        /// What it has applied.
        applied: u64,
        /// What the read needs.
        wanted: u64,
    },
    /// Consensus has ended on this host.
    #[error("consensus stopped: {0}")]
    Stopped(String),
}

/// Why a cluster was not founded.
pub(crate) type FoundError = ProposeError;

/// Why the membership was not changed now; the caller tries again later.
#[derive(Debug, thiserror::Error)]
#[error("change raft membership: {0}")]
pub(crate) struct MembersError(pub(crate) String);

/// One host's part in consensus.
#[derive(Clone)]
pub(crate) struct Node {
    view: watch::Receiver<Arc<View>>,
    metrics: watch::Receiver<Metrics>,
    failed: watch::Receiver<Option<String>>,
}
