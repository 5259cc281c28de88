//! Snapshot files.
//!
//! Shell. `INDEX-TERM.snapshot` holds a [`SnapshotFile`] and then its SHA-256 hash. A new snapshot is durable before it
//! is renamed to that name. The two newest are kept, so that the host can start if the newest one is damaged.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use beemesh_protocol::{
    DecodeError,
    raft::{SnapshotFile, SnapshotMeta},
    state,
};
use sha2::{Digest, Sha256};

use crate::{
    cluster::state::State,
    raft::{
        AGAIN,
        disk::Disk,
        types::{self, LogId, meta_in},
    },
};

/// Number of snapshots that are kept.
const KEPT: usize = 2;
/// Size of the hash at the end of the file.
const HASH: usize = 32;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The file system returned an error.
    #[error("raft snapshot {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The hash does not match the bytes.
    #[error("raft snapshot {0} is damaged: its hash does not match")]
    Damaged(PathBuf),
    /// The hash matches, but this version cannot read the content.
    #[error(
        "raft snapshot {path} is whole and cannot be read by this version of Beemesh: {why}: {AGAIN}"
    )]
    Unreadable {
        path: PathBuf,
        /// What this version does not know.
        why: DecodeError,
    },
    /// The newest snapshot is damaged, and the log does not reach back to an older one.
    #[error(
        "raft snapshot {0} is damaged, and the log does not reach back to an older one: remove this host from the cluster \
         and let it join again"
    )]
    Lost(PathBuf),
    /// There is no snapshot, although the log needs one.
    #[error(
        "the raft log begins after entry {0}, and {1} holds no snapshot: remove this host from the cluster and let it \
         join again"
    )]
    Missing(u64, PathBuf),
}

pub(crate) struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Snapshots {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    /// Makes a snapshot durable and removes old ones.
    pub(crate) fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> Result<(), SnapshotError> {
        let (index, term) = meta.last_log_id.map_or((0, 0), |id| (id.index, id.term));
        let path = self.dir.join(format!("{index:020}-{term}.snapshot"));
        let mut bytes = SnapshotFile {
            meta: meta.clone(),
            state: state.to_vec(),
        }
        .encode()
        .to_vec();
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        self.replace(&path, &bytes)
            .map_err(|source| SnapshotError::Io { path, source })?;
        for path in self.list()?.into_iter().skip(KEPT) {
            self.disk
                .remove(&path)
                .map_err(|source| SnapshotError::Io { path, source })?;
        }
        Ok(())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let partial = path.with_extension("partial");
        match self.disk.remove(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&partial)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.disk.rename(&partial, path)?;
        self.disk.sync_dir(&self.dir)
    }

    /// Lists the snapshot files, newest first.
    fn list(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut names = self
            .disk
            .list(&self.dir)
            .map_err(|source| SnapshotError::Io {
                path: self.dir.clone(),
                source,
            })?;
        names.retain(|name| name.ends_with(".snapshot"));
        names.sort_by(|a, b| b.cmp(a));
        Ok(names.into_iter().map(|name| self.dir.join(name)).collect())
    }

    /// Reads the newest snapshot.
    pub(crate) fn newest(&self) -> Result<Option<SnapshotFile>, SnapshotError> {
        self.list()?.first().map(|path| self.read(path)).transpose()
    }

    fn read(&self, path: &Path) -> Result<SnapshotFile, SnapshotError> {
        let failed = |source| SnapshotError::Io {
            path: path.to_owned(),
            source,
        };
        let file = self.disk.open(path).map_err(failed)?;
        let size = file.size().map_err(failed)?;
        let size = usize::try_from(size).map_err(|error| failed(io::Error::other(error)))?;
        let mut bytes = vec![0; size];
        file.read_at(&mut bytes, 0).map_err(failed)?;
        let content = size
            .checked_sub(HASH)
            .map(|at| bytes.split_at(at))
            .filter(|(content, hash)| Sha256::digest(content)[..] == **hash)
            .map(|(content, _)| content)
            .ok_or_else(|| SnapshotError::Damaged(path.to_owned()))?;
        SnapshotFile::decode(content).map_err(|why| SnapshotError::Unreadable {
            path: path.to_owned(),
            why,
        })
    }

    /// Returns the snapshot to start from, if the log holds the entries behind `purged`. A damaged newest snapshot is
    /// set aside if the log reaches back to an older one.
    pub(crate) fn load(
        &self,
        purged: Option<LogId>,
    ) -> Result<Option<(types::SnapshotMeta, State)>, SnapshotError> {
        let mut damaged = Vec::new();
        for path in self.list()? {
            match self.read(&path) {
                Ok(file) => {
                    let last = file.meta.last_log_id.map(|id| id.index);
                    if let Some(newest) = damaged.first()
                        && purged.map(|id| id.index) > last
                    {
                        return Err(SnapshotError::Lost(PathBuf::clone(newest)));
                    }
                    let state = state::Snapshot::decode(&file.state)
                        .map_err(|why| SnapshotError::Unreadable { path, why })?;
                    self.set_aside(&damaged)?;
                    return Ok(Some((meta_in(file.meta), State::from_snapshot(state))));
                }
                Err(SnapshotError::Damaged(path)) => damaged.push(path),
                Err(error) => return Err(error),
            }
        }
        match (damaged.first(), purged) {
            (Some(newest), Some(_)) => Err(SnapshotError::Lost(newest.clone())),
            (None, Some(purged)) => Err(SnapshotError::Missing(purged.index, self.dir.clone())),
            (_, None) => self.set_aside(&damaged).map(|()| None),
        }
    }

    fn set_aside(&self, damaged: &[PathBuf]) -> Result<(), SnapshotError> {
        for path in damaged {
            tracing::error!(path = %path.display(), "damaged snapshot; starting from an older one and the log");
            self.disk
                .rename(path, &path.with_extension("damaged"))
                .map_err(|source| SnapshotError::Io {
                    path: path.clone(),
                    source,
                })?;
        }
        Ok(())
    }
}
