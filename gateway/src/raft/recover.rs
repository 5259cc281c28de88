//! Turns a host's log into that of a cluster of one, before Raft opens it.
//!
//! Shell. It applies all entries of the host's log, committed or not, because that loses the least. The result is a
//! snapshot and an empty log that continues behind it. Each step is durable before the next one starts, and repeating
//! all steps does no harm.

use std::{io, path::Path, sync::Arc};

use beemesh_protocol::{ClusterId, HostId, state::Host};
use openraft::{
    EntryPayload, RaftLogReader as _,
    storage::{RaftLogStorage as _, RaftStateMachine as _},
};
use tokio::sync::watch;

use super::{
    Node, OpenError, Storage, View,
    disk::Disk,
    machine::{
        snapshot_id,
        snapshots::{SnapshotError, Snapshots},
    },
    open_storage, os,
    types::{
        LeaderId, LogId, Membership, NodeId, SnapshotMeta, StorageError, StoredMembership, Vote,
        meta_out,
    },
};
use crate::cluster::consensus::LastEntry;

/// The new log starts at the next multiple of this index. The hosts that were cut off may have continued, and their
/// units may carry indexes of entries that this host never received. When those hosts join again, all of these indexes
/// must lie in the past.
const LEAP: u64 = 1_000_000_000;

/// Why the recovery failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    /// The log or the snapshots cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot be read or written.
    #[error("read and write the raft log: {0}")]
    Storage(Box<StorageError>),
    /// The new snapshot cannot be written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The log's writer ended with an error.
    #[error("end the raft log")]
    Close(#[source] io::Error),
    /// The folder holds no member's state to recover.
    #[error("this host has never been a member of a cluster")]
    NoMember,
}

impl From<StorageError> for RecoverError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Box::new(error))
    }
}

impl Node {
    /// Returns the position of the last entry of this host's log.
    pub(crate) fn last_entry(&self) -> LastEntry {
        let last = self.inner.log.last();
        let (term, index) = last.map_or((0, 0), |id| (id.leader_id.term, id.index));
        LastEntry { term, index }
    }
}

/// Turns the content of the folder into the beginning of this cluster, with this host as its only member. Does nothing
/// if that has been done before.
pub(crate) async fn recover(
    dir: &Path,
    disk: Arc<dyn Disk>,
    host: HostId,
    cluster: ClusterId,
) -> Result<(), RecoverError> {
    let (failed, _) = watch::channel(None);
    let (view_in, view) = watch::channel(Arc::new(View::default()));
    let opened = {
        let (disk, dir) = (Arc::clone(&disk), dir.to_owned());
        let open = move || open_storage(host, &disk, &dir, failed, view_in, Arc::default());
        os::blocking(open).await
    };
    let mut storage = opened.map_err(|error| OpenError::Start(error.to_string()))??;
    let recovered = rewrite(&mut storage, &view, host, cluster, |meta, state| {
        Snapshots::new(disk, dir.join("snapshots")).save(&meta_out(&meta), &state)
    })
    .await;
    let closed = storage.log.close().await;
    let Storage { writer, lock, .. } = storage;
    let joined = os::blocking(move || writer.join().is_ok()).await;
    drop(lock);
    recovered?;
    closed.map_err(RecoverError::Close)?;
    match joined {
        Ok(true) => Ok(()),
        Ok(false) => Err(RecoverError::Close(io::Error::other("its writer panicked"))),
        Err(error) => Err(RecoverError::Close(error)),
    }
}

async fn rewrite(
    storage: &mut Storage,
    view: &watch::Receiver<Arc<View>>,
    host: HostId,
    cluster: ClusterId,
    save: impl FnOnce(SnapshotMeta, Vec<u8>) -> Result<(), SnapshotError>,
) -> Result<(), RecoverError> {
    let survivor = apply_all(storage, view, host).await?;
    let state = Arc::clone(&view.borrow().state);
    let (applied, _) = storage.machine.applied_state().await?;
    let begins = if state.cluster() == Some(cluster) {
        applied
    } else {
        let survivor = survivor.ok_or(RecoverError::NoMember)?;
        let vote = storage.log.read_vote().await?;
        let begins = beginning(host, vote, storage.log.last().max(applied));
        let bytes = state.recovered(cluster, survivor).to_snapshot().encode();
        save(meta(host, begins), bytes.to_vec())?;
        Some(begins)
    };
    let begins = begins.ok_or(RecoverError::NoMember)?;
    // Raft continues in a later term, so the old leader does not matter.
    let LeaderId { term, node_id } = begins.leader_id;
    storage.log.save_vote(&Vote::new(term, node_id)).await?;
    storage.log.purge(begins).await?;
    tracing::warn!(%cluster, index = begins.index, term, "this host is a cluster of one now");
    Ok(())
}

/// Applies the entries behind the snapshot. Returns this host as it last was a member, because the entries may include
/// its own removal.
async fn apply_all(
    storage: &mut Storage,
    view: &watch::Receiver<Arc<View>>,
    host: HostId,
) -> Result<Option<Host>, StorageError> {
    let member = || view.borrow().state.hosts().get(&host).cloned();
    let mut survivor = member();
    loop {
        let (applied, _) = storage.machine.applied_state().await?;
        let next = applied.map_or(0, |id| id.index + 1);
        let log = &mut storage.log;
        let entries = log.limited_get_log_entries(next, u64::MAX).await?;
        if entries.is_empty() {
            return Ok(survivor);
        }
        let commands = entries.iter().map(|entry| match &entry.payload {
            EntryPayload::Normal(batch) => batch.commands.len(),
            _ => 0,
        });
        let commands: usize = commands.sum();
        tracing::info!(
            from = next,
            entries = entries.len(),
            commands,
            "apply what the log has"
        );
        storage.machine.apply(entries).await?;
        survivor = member().or(survivor);
    }
}

/// Returns the first position of the new log: behind every old entry, in a term in which no host has voted.
fn beginning(host: HostId, vote: Option<Vote>, last: Option<LogId>) -> LogId {
    let voted = vote.map_or(0, |vote| vote.leader_id.term);
    let (term, index) = last.map_or((0, 0), |id| (id.leader_id.term, id.index));
    let leader = LeaderId::new(term.max(voted) + 1, NodeId(host));
    LogId::new(leader, (index / LEAP + 1) * LEAP)
}

fn meta(host: HostId, begins: LogId) -> SnapshotMeta {
    let voters = [NodeId(host)].into();
    SnapshotMeta {
        last_log_id: Some(begins),
        last_membership: StoredMembership::new(Some(begins), Membership::new(vec![voters], ())),
        snapshot_id: snapshot_id(Some(begins)),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command, sync::OnceLock, time::Duration};

    use harness::interrupt::at_each_call;
    use tempfile::TempDir;

    use super::{
        super::{
            Nobody, Settings, System,
            tests::{Mesh, PATIENCE, apply, commands, deadline, host, put},
        },
        *,
    };
    use crate::cluster::consensus::Consensus;

    const NEW: ClusterId = ClusterId([9; 16]);

    /// The folder of a host that led two others. Its log ends with an entry that those do not have.
    struct Survivor {
        dir: TempDir,
        host: HostId,
        last: u64,
    }

    async fn survivor() -> Survivor {
        let mut mesh = Mesh::of(3).await;
        let mut consensus = mesh.node(1).consensus();
        let led = consensus.wait_for(|consensus| consensus.leader.is_some() && consensus.quorum);
        let leader = led.await.unwrap().leader.unwrap();
        let number = leader.0[0];
        let node = mesh.node(number);
        let members = (1..=3).map(|number| commands::admit(host(number)));
        let commands = std::iter::once(commands::token(3)).chain(members);
        node.propose(commands.collect(), deadline()).await.unwrap();
        put(&node, 1, 1).await;
        for other in (1..=3).filter(|other| *other != number) {
            mesh.stop(other).await;
        }
        let before = node.last_entry().index;
        let soon = tokio::time::Instant::now() + Duration::from_millis(300);
        let late = node.propose(vec![apply(2, 2, 10)], soon).await;
        assert!(late.is_err(), "nobody else has it");
        let last = node.last_entry().index;
        assert!(last > before, "it is in this log");
        mesh.stop(number).await;
        Survivor {
            dir: mesh.dirs.swap_remove(usize::from(number) - 1),
            host: leader,
            last,
        }
    }

    async fn recovered(dir: &Path, host: HostId) -> Result<(), RecoverError> {
        recover(dir, Arc::new(System), host, NEW).await
    }

    /// Opens the folder, and expects a cluster of one that has all entries and accepts more.
    async fn goes_on(dir: &Path, me: HostId, last: u64) {
        let node = Node::open(Settings {
            dir: dir.to_owned(),
            disk: Arc::new(System),
            host: me,
            dial: Arc::new(Nobody),
            lost_after: PATIENCE,
            observe: Arc::new(|_| {}),
            grant: crate::raft::grant_nothing(),
        });
        let node = node.await.unwrap();
        assert!(!node.is_pristine());
        let leads = |consensus: &Consensus| consensus.leader == Some(me) && consensus.quorum;
        let mut consensus = node.consensus();
        let led = tokio::time::timeout(PATIENCE, consensus.wait_for(leads)).await;
        assert_eq!(led.unwrap().unwrap().voters, [me].into());
        let committed = put(&node, 3, 3).await;
        assert!(committed > LEAP && committed > last, "{committed}");
        node.read_index(deadline()).await.unwrap();
        let view = Arc::clone(&node.state().borrow());
        assert_eq!(view.state.cluster(), Some(NEW));
        assert!(view.state.was(ClusterId([1; 16])));
        let names: Vec<_> = view.state.manifests().map(|one| one.name.clone()).collect();
        assert_eq!(names, ["config1", "config2", "config3"]);
        node.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_survivor_goes_on_alone_with_all_that_its_log_has() {
        let Survivor { dir, host, last } = survivor().await;
        let stranger = recovered(dir.path(), HostId([7; 32])).await;
        assert!(
            matches!(stranger, Err(RecoverError::NoMember)),
            "{stranger:?}"
        );
        for _ in 0..2 {
            recovered(dir.path(), host).await.unwrap();
        }
        goes_on(dir.path(), host, last).await;
        // From then on it starts like any other host.
        goes_on(dir.path(), host, last).await;
    }

    #[test]
    fn a_recovery_that_ends_or_fails_at_any_system_call_is_done_by_the_next_one() {
        let runtime = || tokio::runtime::Runtime::new().unwrap();
        let template = OnceLock::new();
        let template = || template.get_or_init(|| runtime().block_on(survivor()));
        at_each_call(
            |folder| {
                let Survivor { dir, host, .. } = template();
                let copied = Command::new("cp")
                    .args(["-a", "--sparse=always", "."])
                    .arg(folder)
                    .current_dir(dir.path())
                    .status();
                assert!(copied.unwrap().success());
                fs::write(folder.join("owner"), host.0).unwrap();
            },
            |folder| {
                let act = || -> anyhow::Result<()> {
                    let owner = fs::read(folder.join("owner"))?;
                    let host = HostId(owner.as_slice().try_into()?);
                    let alone = tokio::runtime::Builder::new_current_thread();
                    let runtime = { alone }.enable_all().build()?;
                    Ok(runtime.block_on(recovered(folder, host))?)
                };
                act().map_err(|error| format!("{error:#}"))
            },
            |folder, _, _| {
                let Survivor { host, last, .. } = template();
                runtime().block_on(async {
                    recovered(folder, *host).await.unwrap();
                    goes_on(folder, *host, *last).await;
                });
            },
        );
    }
}
