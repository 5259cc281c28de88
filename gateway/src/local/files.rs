//! The gateway's folder: who this host is, and a join that is under way.
//!
//! Shell. Owns `host` (the host's key, so that consensus starts without the agent), `joining` (the cluster this host
//! was admitted to, with the members to expect, until its own admission arrives), `sealing-*` (what seals the cluster's authority), `removed` (that a member said that this
//! host is none any more, which its own log does not say), `recovering` (the cluster of one that this host's log is to become) and
//! `rotating` (the key that this host is to have).
//! All are written durably: a power cut leaves the old file or the new one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use beemesh_protocol::{ClusterId, HostId, ipc::Member};
use serde::{Deserialize, Serialize};

use super::sealing_key::{SealingKey, hex, key_id};

/// The folder and what lies in it.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    dir: PathBuf,
}

/// A join that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Joining {
    /// The cluster that admitted this host.
    pub(crate) cluster: ClusterId,
    /// Whether the log of the cluster that this host leaves is gone already.
    pub(crate) cleared: bool,
    /// The members of the new cluster, this host included.
    pub(crate) members: Vec<Expected>,
}

/// A change of this host's key that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotating {
    /// The new key.
    pub(crate) host: HostId,
    /// Once the new key is known to be a member's: what it joins.
    pub(crate) admitted: Option<Joining>,
}

/// A member as it is kept in `joining`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    host: HostId,
    name: String,
    addresses: Vec<String>,
}

impl From<Member> for Expected {
    fn from(member: Member) -> Self {
        Self {
            host: member.host,
            name: member.name,
            addresses: member.addresses,
        }
    }
}

impl From<Expected> for Member {
    fn from(expected: Expected) -> Self {
        Self {
            host: expected.host,
            name: expected.name,
            addresses: expected.addresses,
        }
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// A file or folder cannot be read or written.
    #[error("{doing} {path}")]
    Io {
        /// `read`, `write` or `remove`.
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "{path} is damaged ({reason}): restore it from a backup, or remove {dir} and join the cluster again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The gateway's folder.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Home {
    /// Uses `dir`, which is made when it is missing.
    pub(crate) fn open(dir: &Path) -> Result<Self, HomeError> {
        fs::create_dir_all(dir).map_err(io_error("write", dir))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Where the log and the snapshots are.
    pub(crate) fn raft(&self) -> PathBuf {
        self.dir.join("raft")
    }

    /// Where it is kept how attempts of Jobs ended.
    pub(crate) fn ended(&self) -> PathBuf {
        self.dir.join("ended")
    }

    /// The host this folder belongs to, once it is known.
    pub(crate) fn host(&self) -> Result<Option<HostId>, HomeError> {
        let path = self.dir.join("host");
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let host = text.trim().parse();
        host.map(Some).map_err(|error| self.damaged(&path, &error))
    }

    /// Remembers the host this folder belongs to.
    pub(crate) fn set_host(&self, host: HostId) -> Result<(), HomeError> {
        replace(&self.dir.join("host"), format!("{host}\n").as_bytes())
    }

    /// The join that is under way, if one is. The log of the cluster that is left is removed first.
    pub(crate) fn joining(&self) -> Result<Option<Joining>, HomeError> {
        let path = self.dir.join("joining");
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let mut joining: Joining =
            serde_json::from_slice(&bytes).map_err(|error| self.damaged(&path, &error))?;
        if !joining.cleared {
            let raft = self.raft();
            match fs::remove_dir_all(&raft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &raft)(error));
                }
                _ => sync_dir(&self.dir)?,
            }
            joining.cleared = true;
            self.set_joining(&joining)?;
        }
        Ok(Some(joining))
    }

    /// Remembers a join. From the next start on this host waits for its new cluster.
    pub(crate) fn set_joining(&self, joining: &Joining) -> Result<(), HomeError> {
        let bytes = serde_json::to_vec(joining).map_err(|error| HomeError::Io {
            doing: "write",
            path: self.dir.join("joining"),
            source: error.into(),
        })?;
        replace(&self.dir.join("joining"), &bytes)
    }

    /// Forgets a join that has come to its end, and that this host was removed before.
    pub(crate) fn joined(&self) -> Result<(), HomeError> {
        self.forget("removed")?;
        self.forget("joining")
    }

    /// The cluster of one that this host's log is to become, if somebody has decided that.
    pub(crate) fn recovering(&self) -> Result<Option<ClusterId>, HomeError> {
        let path = self.dir.join("recovering");
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let cluster = text.trim().parse();
        cluster
            .map(Some)
            .map_err(|error| self.damaged(&path, &error))
    }

    /// Remembers that this host's log is to become that of a new cluster. From the next start on it is.
    pub(crate) fn set_recovering(&self, cluster: ClusterId) -> Result<(), HomeError> {
        let path = self.dir.join("recovering");
        replace(&path, format!("{cluster}\n").as_bytes())
    }

    /// Forgets a recovery that is done.
    pub(crate) fn recovered(&self) -> Result<(), HomeError> {
        self.forget("recovering")
    }

    /// The change of this host's key that is under way, if one is.
    pub(crate) fn rotating(&self) -> Result<Option<Rotating>, HomeError> {
        let path = self.dir.join("rotating");
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let rotating = serde_json::from_slice(&bytes);
        rotating
            .map(Some)
            .map_err(|error| self.damaged(&path, &error))
    }

    /// Remembers how far a change of this host's key is.
    pub(crate) fn set_rotating(&self, rotating: &Rotating) -> Result<(), HomeError> {
        let path = self.dir.join("rotating");
        let bytes = serde_json::to_vec(rotating).map_err(|error| HomeError::Io {
            doing: "write",
            path: path.clone(),
            source: error.into(),
        })?;
        replace(&path, &bytes)
    }

    /// Forgets a change of this host's key that is done, or was given up.
    pub(crate) fn rotated(&self) -> Result<(), HomeError> {
        self.forget("rotating")
    }

    fn forget(&self, name: &str) -> Result<(), HomeError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path)(error))
            }
            _ => sync_dir(&self.dir),
        }
    }

    /// The key of this id that seals an authority, if this host has it.
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

    /// Keeps a key that seals an authority, beside those of authorities before it.
    pub(crate) fn set_sealing_key(&self, key: &SealingKey) -> Result<(), HomeError> {
        replace(&self.sealing_path(&key_id(key)), key)
    }

    fn sealing_path(&self, id: &[u8; 32]) -> PathBuf {
        self.dir.join(format!("sealing-{}", hex(id)))
    }

    /// Whether this host was told that it is no member any more.
    pub(crate) fn removed(&self) -> Result<bool, HomeError> {
        Ok(read(&self.dir.join("removed"))?.is_some())
    }

    /// Remembers that this host is no member of its cluster any more.
    pub(crate) fn set_removed(&self, cluster: ClusterId) -> Result<(), HomeError> {
        replace(&self.dir.join("removed"), format!("{cluster}\n").as_bytes())
    }

    fn damaged(&self, path: &Path, reason: &dyn std::fmt::Display) -> HomeError {
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

/// When this returns, the new bytes survive a power cut; when it fails, the old ones do.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let partial = path.with_extension("partial");
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(io_error("write", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> Result<(), HomeError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("write", dir))
}

#[cfg(test)]
mod tests {
    use harness::interrupt::{Outcome, at_each_call};

    use super::*;

    #[test]
    fn a_join_clears_the_old_log_once_and_is_forgotten_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(
            (home.host().unwrap(), home.joining().unwrap()),
            (None, None)
        );
        home.set_host(HostId([3; 32])).unwrap();
        fs::create_dir_all(home.raft().join("old")).unwrap();
        let mut joining = Joining {
            cluster: ClusterId([1; 16]),
            cleared: false,
            members: vec![],
        };
        home.set_joining(&joining).unwrap();
        joining.cleared = true;
        assert_eq!(home.joining().unwrap(), Some(joining.clone()));
        assert!(!home.raft().exists());
        // The log of the new cluster stays when the gateway is restarted before the join has come to its end.
        fs::create_dir_all(home.raft().join("new")).unwrap();
        assert_eq!(home.joining().unwrap(), Some(joining.clone()));
        assert!(home.raft().join("new").exists());
        home.set_removed(ClusterId([1; 16])).unwrap();
        assert!(home.removed().unwrap());
        home.joined().unwrap();
        assert_eq!(
            (home.host().unwrap(), home.joining().unwrap()),
            (Some(HostId([3; 32])), None)
        );
        assert!(!home.removed().unwrap(), "it is a member again");
        home.set_recovering(ClusterId([2; 16])).unwrap();
        assert_eq!(home.recovering().unwrap(), Some(ClusterId([2; 16])));
        home.recovered().unwrap();
        assert_eq!(home.recovering().unwrap(), None);
        let rotating = Rotating {
            host: HostId([4; 32]),
            admitted: Some(joining),
        };
        home.set_rotating(&rotating).unwrap();
        assert_eq!(home.rotating().unwrap(), Some(rotating));
        home.rotated().unwrap();
        assert_eq!(home.rotating().unwrap(), None);
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
        fs::write(dir.path().join("joining"), "{\"cluster\":").unwrap();
        let text = home.host().unwrap_err().to_string();
        assert!(
            text.contains("/host is damaged (`12D3nonsense` is not the PeerId"),
            "{text}"
        );
        assert!(matches!(home.joining(), Err(HomeError::Damaged { .. })));
    }

    #[test]
    fn a_join_that_ends_or_fails_at_any_system_call_is_remembered_as_before_or_after() {
        let joining = |cluster| Joining {
            cluster: ClusterId([cluster; 16]),
            cleared: true,
            members: vec![],
        };
        at_each_call(
            |folder| {
                let home = Home::open(folder).unwrap();
                home.set_host(HostId([3; 32])).unwrap();
                home.set_joining(&joining(1)).unwrap();
            },
            |folder| {
                let act = || -> Result<(), HomeError> {
                    let home = Home::open(folder)?;
                    home.set_joining(&joining(2))?;
                    home.joining()?;
                    home.joined()?;
                    home.set_host(HostId([4; 32]))
                };
                act().map_err(|error| error.to_string())
            },
            |folder, outcome, words| {
                let home = Home::open(folder).unwrap();
                let found = (home.host().unwrap(), home.joining().unwrap());
                let order = [(3, Some(1)), (3, Some(2)), (3, None), (4, None)];
                let order =
                    order.map(|(host, cluster)| (Some(HostId([host; 32])), cluster.map(joining)));
                assert!(order.contains(&found), "{words} left {found:?}");
                match outcome {
                    Outcome::Done => assert_eq!(found, order[3], "{words}"),
                    Outcome::Killed => {}
                    Outcome::Failed(reason) => {
                        assert!(reason.contains(folder.to_str().unwrap()), "{words}");
                    }
                }
            },
        );
    }
}
