//! Consensus: what the cluster has agreed on, and the way to change it.
//!
//! This module owns the log, the snapshots and openraft; no openraft type leaves it. Input: commands to propose, and
//! streams from other gateways. Output: [`View`]s of the replicated state and [`Consensus`]. The parts: [`log`] and
//! [`machine`] store durably, [`batch`] gathers proposals, [`pending_proposals`] learns their outcomes, [`network`] and
//! [`serve`] exchange messages with other gateways, [`ask`] finds the leader, [`lease`] asks it for leases, [`members`] decides who votes, and
//! [`elect`] decides when to start an election.

mod ask;
mod batch;
mod disk;
mod elect;
mod lease;
mod log;
mod machine;
mod members;
mod metrics;
mod network;
mod os;
mod pending_proposals;
mod recover;
mod rpc;
mod serve;
mod stream_limits;
#[cfg(test)]
pub(crate) mod tests;
mod types;

use std::{
    fs::{self, DirBuilder, File},
    future::Future,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use beemesh_protocol::{HostId, ipc::Class};
use openraft::{Config, SnapshotPolicy};
use tokio::{net::UnixStream, sync::watch};

pub(crate) use self::{
    ask::{ProposeError, ReadError},
    disk::System,
    lease::{Asking, Grant, LEASES_MAX},
    members::Wanted,
    recover::recover,
};
use self::{
    batch::Batcher,
    disk::Disk,
    elect::{Hearing, decide::LEASE},
    log::{Log, LogError},
    machine::{
        Machine,
        snapshots::{SnapshotError, Snapshots},
    },
    network::{Network, Peers},
    pending_proposals::PendingProposals,
    serve::Observe,
    types::{NodeId, Raft},
};
#[cfg(test)]
pub(crate) use self::{
    disk::{
        faulty::{Fault, Faulty},
        held::Access,
    },
    lease::grant_nothing,
    members::VOTERS_MAX,
    os::SIMULATED,
};
use crate::cluster::{consensus::Consensus, state::State};

/// How long openraft waits for the answer to an append. An idle leader sends an append only every one and a half
/// heartbeats, because openraft does not check its clock more often.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(300);
/// A host that answered within this time counts as reachable. It is a little longer than followers tolerate a silent
/// leader.
pub(crate) const LATELY: Duration = Duration::from_secs(2);
/// The gateway takes a snapshot after this many entries or [`SNAPSHOT_BYTES`] of log, whichever comes first. A restart
/// replays no more than that.
const SNAPSHOT_ENTRIES: u64 = 5000;
const SNAPSHOT_BYTES: u64 = 64 << 20;
/// The log keeps this many entries that a snapshot covers, for followers that lag a little.
const KEPT_ENTRIES: u64 = 1000;
/// If the log takes more bytes than this, it keeps only the entries that no snapshot covers.
const LOG_BYTES: u64 = 2 * SNAPSHOT_BYTES;
/// A follower that lags by more entries than this receives a snapshot instead of entries.
const LAG_MAX: u64 = 10_000;
/// How long sending and installing a snapshot may take.
const SNAPSHOT_MAX: Duration = Duration::from_secs(120);
/// Maximum number of entries in one append message; [`log`] bounds their bytes.
const APPEND_ENTRIES_MAX: u64 = 256;
/// How long to wait for the lock on the folder. The gateway that had it open may still be exiting, or may have forked a
/// child that holds its files until the child executes its program.
const LOCK_MAX: Duration = Duration::from_secs(2);
/// Pause between two attempts to take the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The advice in an error about files that are intact and were written by another version. A downgrade works as long as
/// the older version can read what the newer one wrote.
pub(crate) const AGAIN: &str =
    "install the version that wrote it (`dnf upgrade beemesh` on this host)";

/// Opens streams to other gateways. The handshake is complete when a stream is returned: the next bytes are the peer's.
pub(crate) trait Dial: Send + Sync + 'static {
    /// Opens a stream of this class to this host. [`io::ErrorKind::PermissionDenied`] means that the host is reachable
    /// but does not know this host as a member.
    fn open(
        &self,
        host: HostId,
        class: Class,
    ) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>>;
}

/// Reaches no other host, like a host without a network.
#[cfg(test)]
pub(crate) struct Nobody;

#[cfg(test)]
impl Dial for Nobody {
    fn open(
        &self,
        _: HostId,
        _: Class,
    ) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>> {
        Box::pin(async { Err(io::ErrorKind::HostUnreachable.into()) })
    }
}

/// The parameters of [`Node::open`].
pub(crate) struct Settings {
    /// The folder of log and snapshots, which is created if missing.
    pub(crate) dir: PathBuf,
    /// The file system that holds the folder.
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) host: HostId,
    /// Opens streams to the other hosts.
    pub(crate) dial: Arc<dyn Dial>,
    /// A voter that does not answer for this long is replaced by a learner that does.
    pub(crate) lost_after: Duration,
    /// Receives the observations that other hosts make of themselves. It must not block.
    pub(crate) observe: Observe,
    /// Decides which leases hosts get while this host leads. It must not block.
    pub(crate) grant: Grant,
}

/// The replicated state as of one applied entry.
#[derive(Clone, Default)]
pub(crate) struct View {
    /// The last applied log index; 0 before the first.
    pub(crate) applied: u64,
    pub(crate) state: Arc<State>,
}

/// Why a node cannot open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The file system returned an error.
    #[error("open raft in {dir}")]
    Io {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another process has the folder open.
    #[error("{0} is in use by another gateway")]
    Locked(PathBuf),
    /// The log is damaged or of another version.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshots are damaged or of another version.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// openraft refused to start.
    #[error("start raft: {0}")]
    Start(String),
}

/// Why a membership change failed. The caller tries again later.
#[derive(Debug, thiserror::Error)]
#[error("change raft membership: {0}")]
pub(crate) struct MembersError(String);

/// This host's Raft node. Clones share it.
#[derive(Clone)]
pub(crate) struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    host: HostId,
    raft: Raft,
    log: Log,
    peers: Arc<Peers>,
    lost_after: Duration,
    /// The term in which this host leads, and since when.
    leading: Mutex<Option<(u64, tokio::time::Instant)>>,
    hearing: Hearing,
    /// Limits the streams that other gateways open to this host.
    stream_limits: stream_limits::StreamLimits,
    batcher: Batcher,
    pending_proposals: Arc<PendingProposals>,
    observe: Observe,
    grant: Grant,
    view: watch::Receiver<Arc<View>>,
    consensus: watch::Receiver<Consensus>,
    failed: watch::Sender<Option<String>>,
    pristine: bool,
    /// Held during a membership change.
    changing: tokio::sync::Mutex<()>,
    /// The log's writer and the lock on the folder; `None` once the node is closed.
    held: Mutex<Option<(JoinHandle<()>, File)>>,
}

impl Node {
    /// Opens the log and the snapshots and starts to take part in consensus.
    pub(crate) async fn open(settings: Settings) -> Result<Self, OpenError> {
        let Settings {
            dir,
            disk,
            host,
            dial,
            lost_after,
            observe,
            grant,
        } = settings;
        let (failed, _) = watch::channel(None);
        let (view_in, view) = watch::channel(Arc::new(View::default()));
        let pending_proposals = Arc::new(PendingProposals::default());
        let opened = {
            let (failed, pending_proposals) = (failed.clone(), Arc::clone(&pending_proposals));
            let open = move || open_storage(host, &disk, &dir, failed, view_in, pending_proposals);
            os::blocking(open).await
        };
        let Storage {
            log,
            writer,
            machine,
            lock,
            pristine,
        } = opened.map_err(|error| OpenError::Start(error.to_string()))??;
        let peers = Arc::new(Peers::new(dial));
        let raft = Raft::new(
            NodeId(host),
            Arc::new(config()?),
            Network {
                peers: Arc::clone(&peers),
                durable: log.durable(),
            },
            log.clone(),
            machine,
        )
        .await
        .map_err(|error| OpenError::Start(error.to_string()))?;
        let (metrics_in, consensus) = watch::channel(Consensus::default());
        let node = Self {
            inner: Arc::new(Inner {
                host,
                batcher: Batcher::new(raft.clone()),
                pending_proposals,
                raft,
                log,
                peers,
                lost_after,
                leading: Mutex::default(),
                hearing: Hearing::default(),
                stream_limits: stream_limits::StreamLimits::default(),
                observe,
                grant,
                view,
                consensus,
                failed,
                pristine,
                changing: tokio::sync::Mutex::default(),
                held: Mutex::new(Some((writer, lock))),
            }),
        };
        node.watch(metrics_in);
        node.take_part();
        Ok(node)
    }

    /// Returns true if this host had no log when the node was opened: it has never been in a cluster.
    pub(crate) fn is_pristine(&self) -> bool {
        self.inner.pristine
    }

    pub(crate) fn host(&self) -> HostId {
        self.inner.host
    }

    /// Returns the replicated state, which is published after every applied batch.
    pub(crate) fn state(&self) -> watch::Receiver<Arc<View>> {
        self.inner.view.clone()
    }

    /// Returns the state of consensus on this host.
    pub(crate) fn consensus(&self) -> watch::Receiver<Consensus> {
        self.inner.consensus.clone()
    }

    /// Waits until consensus has ended on this host for good, and returns the reason. The process must exit; a restart
    /// may help.
    pub(crate) async fn failed(&self) -> String {
        let mut failed = self.inner.failed.subscribe();
        let reason = failed.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or_default()
    }

    /// Stops taking part in consensus. When this returns, the folder is closed and unlocked.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        if let Err(error) = self.inner.log.close().await {
            tracing::warn!(%error, "the last commit point is not in the raft log");
        }
        let held = self
            .inner
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((writer, lock)) = held {
            let joined = os::blocking(move || writer.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("the raft log's writer panicked");
            }
            drop(lock);
        }
    }
}

struct Storage {
    log: Log,
    writer: JoinHandle<()>,
    machine: Machine,
    lock: File,
    pristine: bool,
}

fn open_storage(
    host: HostId,
    disk: &Arc<dyn Disk>,
    dir: &Path,
    failed: watch::Sender<Option<String>>,
    view: watch::Sender<Arc<View>>,
    pending_proposals: Arc<PendingProposals>,
) -> Result<Storage, OpenError> {
    let io_failed = |source| OpenError::Io {
        dir: dir.to_owned(),
        source,
    };
    let (logs, snapshots) = (dir.join("log"), dir.join("snapshots"));
    for path in [&logs, &snapshots] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io_failed)?;
    }
    disk.sync_dir(dir).map_err(io_failed)?;
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))
        .map_err(io_failed)?;
    let begun = std::time::Instant::now();
    while let Err(error) = lock.try_lock() {
        match error {
            fs::TryLockError::WouldBlock if begun.elapsed() < LOCK_MAX => {
                std::thread::sleep(LOCK_PAUSE)
            }
            fs::TryLockError::WouldBlock => return Err(OpenError::Locked(dir.to_owned())),
            fs::TryLockError::Error(source) => return Err(io_failed(source)),
        }
    }
    let snapshots = Arc::new(Snapshots::new(Arc::clone(disk), snapshots));
    let (log, found, writer) =
        Log::open(host, Arc::clone(disk), &logs, log::SEGMENT_BYTES, failed)?;
    let newest = snapshots.load(found.purged)?;
    Ok(Storage {
        pristine: found.pristine && newest.is_none(),
        machine: Machine::open(snapshots, newest, view, log.durable(), pending_proposals),
        log,
        writer,
        lock,
    })
}

fn config() -> Result<Config, OpenError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "beemesh".into(),
        heartbeat_interval: millis(HEARTBEAT),
        // [`elect`] starts elections, openraft does not. These timeouts bound how long an election waits for votes, and
        // set the lease.
        enable_elect: false,
        election_timeout_min: millis(LEASE),
        election_timeout_max: millis(LEASE) + 1,
        install_snapshot_timeout: millis(SNAPSHOT_MAX),
        max_payload_entries: APPEND_ENTRIES_MAX,
        replication_lag_threshold: LAG_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| OpenError::Start(error.to_string()))
}
