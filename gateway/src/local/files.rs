//! The gateway's folder: the identity of this host, and the keys that seal the cluster's authority.
//!
//! Shell. Owns the file `host` (the host's key, so that consensus starts without the agent) and the files `sealing-*`.
//! [`super::lifecycle`] keeps the host's membership in the same folder. All files are written durably: a power cut
//! leaves either the old file or the new one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use beemesh_protocol::HostId;

use super::{
    durable,
    sealing_key::{SealingKey, hex, key_id},
};

/// The gateway's folder.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    dir: PathBuf,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// A file or folder cannot be read or written.
    #[error("{doing} {path}")]
    Io {
        /// `read`, `write` or `remove`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file has invalid content.
    #[error(
        "{path} is damaged ({reason}): restore it from a backup, or remove {dir} and join the cluster again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The gateway's folder.
        dir: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
}

impl Home {
    /// Uses `dir`, which is created if missing.
    pub(crate) fn open(dir: &Path) -> Result<Self, HomeError> {
        fs::create_dir_all(dir).map_err(io_error("write", dir))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Returns the folder of the log and the snapshots.
    pub(crate) fn raft(&self) -> PathBuf {
        self.dir.join("raft")
    }

    /// Returns the folder that records how attempts of Jobs ended.
    pub(crate) fn ended(&self) -> PathBuf {
        self.dir.join("ended")
    }

    /// Returns the host that this folder belongs to, if it is recorded.
    pub(crate) fn host(&self) -> Result<Option<HostId>, HomeError> {
        let path = self.dir.join("host");
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let host = text.trim().parse();
        host.map(Some).map_err(|error| self.damaged(&path, &error))
    }

    /// Records the host that this folder belongs to.
    pub(crate) fn set_host(&self, host: HostId) -> Result<(), HomeError> {
        replace(&self.dir.join("host"), format!("{host}\n").as_bytes())
    }

    /// Removes the log of a cluster that this host leaves.
    pub(crate) fn clear_log(&self) -> Result<(), HomeError> {
        let raft = self.raft();
        match fs::remove_dir_all(&raft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &raft)(error))
            }
            _ => sync_dir(&self.dir),
        }
    }

    /// Returns the sealing key with this id, if this host has it.
    pub(crate) fn sealing_key(&self, id: [u8; 32]) -> Result<Option<SealingKey>, HomeError> {
        let path = self.sealing_path(&id);
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let key = SealingKey::try_from(bytes.as_slice()).ok();
        let key = key.filter(|key| key_id(key) == id);
        let wrong = || self.damaged(&path, &"not the key of its name");
        key.map(Some).ok_or_else(wrong)
    }

    /// Stores a sealing key beside those of earlier authorities.
    pub(crate) fn set_sealing_key(&self, key: &SealingKey) -> Result<(), HomeError> {
        replace(&self.sealing_path(&key_id(key)), key)
    }

    fn sealing_path(&self, id: &[u8; 32]) -> PathBuf {
        self.dir.join(format!("sealing-{}", hex(id)))
    }

    /// Returns the path of a file in the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads a file; `None` if it does not exist.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, HomeError> {
        read(path)
    }

    /// Writes a file durably. If it fails, the old bytes remain.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
        replace(path, bytes)
    }

    /// Removes a file, if it exists.
    pub(super) fn remove(&self, path: &Path) -> Result<(), HomeError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("remove", path)(error)),
            Ok(()) => sync_dir(&self.dir),
        }
    }

    pub(super) fn damaged(&self, path: &Path, reason: &dyn std::fmt::Display) -> HomeError {
        HomeError::Damaged {
            path: path.to_owned(),
            dir: self.dir.clone(),
            reason: reason.to_string(),
        }
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_owned();
    move |source| HomeError::Io {
        doing,
        path,
        source,
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, HomeError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    durable::replace(path, bytes).map_err(io_error("write", path))
}

fn sync_dir(dir: &Path) -> Result<(), HomeError> {
    durable::sync_folder(dir).map_err(io_error("write", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_cleared_and_the_host_stays() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(home.host().unwrap(), None);
        home.set_host(HostId([3; 32])).unwrap();
        fs::create_dir_all(home.raft().join("old")).unwrap();
        home.clear_log().unwrap();
        home.clear_log().unwrap();
        assert!(!home.raft().exists());
        assert_eq!(home.host().unwrap(), Some(HostId([3; 32])));
    }

    #[test]
    fn a_sealing_key_is_found_by_its_id_and_not_believed_under_another() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let (one, other) = ([1; 32], [2; 32]);
        home.set_sealing_key(&one).unwrap();
        assert_eq!(home.sealing_key(key_id(&one)).unwrap(), Some(one));
        assert_eq!(home.sealing_key(key_id(&other)).unwrap(), None);
        fs::rename(
            home.sealing_path(&key_id(&one)),
            home.sealing_path(&key_id(&other)),
        )
        .unwrap();
        let error = home.sealing_key(key_id(&other)).unwrap_err();
        assert!(matches!(error, HomeError::Damaged { .. }), "{error}");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        fs::write(dir.path().join("host"), "12D3nonsense").unwrap();
        let text = home.host().unwrap_err().to_string();
        assert!(
            text.contains("/host is damaged (`12D3nonsense` is not the PeerId"),
            "{text}"
        );
    }
}
