//! The identity key of the host: created once, and kept until a rotation replaces it.
//!
//! Shell: reads and writes one file, which holds exactly the 32 bytes of an ed25519 secret key. The agent refuses a
//! damaged file and a file that other users can read. It does not replace such a file, because a new key would be a new
//! host.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use beemesh_protocol::HostId;
use libp2p::identity::{Keypair, ed25519};

use crate::durable;

/// Length of a secret key, in bytes.
const SECRET: usize = 32;
/// Mode of the key file: only root reads it.
const MODE: u32 = 0o600;

/// The key pair of the host and the host id that is derived from it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(super) key: Keypair,
    pub(crate) host: HostId,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("read the host's key {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("create the host's key {path}")]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the host's key {path} has mode {mode:04o}: other users may have read it; if you trust that none did, `chmod 0600 {path}`, else remove it and join the cluster as a new host"
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "the host's key {path} is damaged ({length} bytes instead of {SECRET}); \
         restore it from a backup, or remove it and join the cluster as a new host"
    )]
    Damaged { path: PathBuf, length: usize },
    #[error("{path} is not the key {host}, which is the next key of the host")]
    NotNext { path: PathBuf, host: HostId },
}

/// Reads the key at `path`. If there is no such file, creates a key.
pub(crate) fn load_or_make(path: &Path) -> Result<Identity, IdentityError> {
    let failed = |source| IdentityError::Read {
        path: path.to_owned(),
        source,
    };
    match File::open(path) {
        Ok(file) => read(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let failed = |source| IdentityError::Make {
                path: path.to_owned(),
                source,
            };
            let mut secret = [0; SECRET];
            getrandom::fill(&mut secret).map_err(|error| failed(error.into()))?;
            durable::replace(path, &secret, MODE).map_err(failed)?;
            tracing::info!(path = %path.display(), "created the host's key");
            read(path, File::open(path).map_err(failed)?)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Creates the next key beside the one at `path`. It replaces a next key that was created before and not used yet.
pub(crate) fn make_next(path: &Path) -> Result<HostId, IdentityError> {
    let next = next(path);
    let failed = |source| IdentityError::Make {
        path: next.clone(),
        source,
    };
    let mut secret = [0; SECRET];
    getrandom::fill(&mut secret).map_err(|error| failed(error.into()))?;
    durable::replace(&next, &secret, MODE).map_err(failed)?;
    let made = read(&next, File::open(&next).map_err(failed)?)?;
    Ok(made.host)
}

/// Makes the next key the identity key, which takes effect at the next start. Does nothing if it is the identity key
/// already.
pub(crate) fn use_next(path: &Path, host: HostId) -> Result<(), IdentityError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError::Read { path, source }
    };
    let own = read(path, File::open(path).map_err(failed(path))?)?;
    if own.host == host {
        return Ok(());
    }
    let next = next(path);
    let found = read(&next, File::open(&next).map_err(failed(&next))?)?;
    if found.host != host {
        return Err(IdentityError::NotNext { path: next, host });
    }
    durable::rename(&next, path).map_err(|source| IdentityError::Make {
        path: path.to_owned(),
        source,
    })
}

fn next(path: &Path) -> PathBuf {
    path.with_extension("next")
}

fn read(path: &Path, file: File) -> Result<Identity, IdentityError> {
    let failed = |source| IdentityError::Read {
        path: path.to_owned(),
        source,
    };
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o177 != 0 {
        return Err(IdentityError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    let limit = SECRET as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    let length = bytes.len();
    let secret = ed25519::SecretKey::try_from_bytes(&mut bytes);
    let secret = secret.map_err(|_| IdentityError::Damaged {
        path: path.to_owned(),
        length,
    })?;
    let pair = ed25519::Keypair::from(secret);
    Ok(Identity {
        host: HostId(pair.public().to_bytes()),
        key: pair.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use harness::interrupt::{Outcome, at_each_call};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_refused_when_it_is_open_or_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent/identity");
        let made = load_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(load_or_make(&path).unwrap().host, made.host);
        assert_eq!(
            made.host.to_string(),
            made.key.public().to_peer_id().to_string()
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_make(&path).unwrap_err().to_string();
        assert!(error.contains("has mode 0640"), "{error}");

        for length in [0, 31, 33] {
            fs::remove_file(&path).unwrap();
            durable::replace(&path, &vec![7; length], MODE).unwrap();
            let error = load_or_make(&path).unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{length}: {error}");
        }
    }

    #[test]
    fn another_key_takes_the_place_of_the_first_when_it_is_the_one_that_was_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let first = load_or_make(&path).unwrap().host;
        assert!(matches!(
            use_next(&path, HostId([1; 32])),
            Err(IdentityError::Read { .. })
        ));
        let unused = make_next(&path).unwrap();
        let second = make_next(&path).unwrap();
        assert!(first != second && unused != second);
        assert!(matches!(
            use_next(&path, unused),
            Err(IdentityError::NotNext { .. })
        ));
        assert_eq!(load_or_make(&path).unwrap().host, first);
        for _ in 0..2 {
            use_next(&path, second).unwrap();
            assert_eq!(load_or_make(&path).unwrap().host, second);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_change_of_keys_that_ends_or_fails_at_any_system_call_leaves_the_old_or_the_new_one() {
        let key = |folder: &Path| folder.join("identity");
        at_each_call(
            |folder| {
                let old = load_or_make(&key(folder)).unwrap().host;
                let new = make_next(&key(folder)).unwrap();
                fs::write(folder.join("known"), format!("{old} {new}")).unwrap();
            },
            |folder| {
                let act = || -> anyhow::Result<()> {
                    let known = fs::read_to_string(folder.join("known"))?;
                    let (_, new) = known.split_once(' ').unwrap_or_default();
                    Ok(use_next(&key(folder), new.parse()?)?)
                };
                act().map_err(|error| format!("{error:#}"))
            },
            |folder, outcome, words| {
                let known = fs::read_to_string(folder.join("known")).unwrap();
                let found = load_or_make(&key(folder)).unwrap().host.to_string();
                let (old, new) = known.split_once(' ').unwrap();
                assert!(found == old || found == new, "{words}");
                if *outcome == Outcome::Done {
                    assert_eq!(found, new, "{words}");
                }
                use_next(&key(folder), new.parse().unwrap()).unwrap();
                assert_eq!(load_or_make(&key(folder)).unwrap().host.to_string(), new);
            },
        );
    }

    #[test]
    fn a_start_that_ends_or_fails_at_any_system_call_leaves_no_key_or_a_whole_one() {
        let key = |folder: &Path| folder.join("agent/identity");
        at_each_call(
            |_| {},
            |folder| {
                let made = load_or_make(&key(folder)).map_err(|error| format!("{error:#}"))?;
                fs::write(folder.join("known"), made.host.to_string()).map_err(|error| {
                    // The key exists by then, so the error is about the test's own file.
                    format!("{}: {error}", key(folder).display())
                })
            },
            |folder, outcome, words| {
                let known = fs::read_to_string(folder.join("known")).unwrap_or_default();
                let found = load_or_make(&key(folder)).unwrap().host;
                assert_eq!(load_or_make(&key(folder)).unwrap().host, found, "{words}");
                match outcome {
                    Outcome::Done => assert_eq!(found.to_string(), known, "{words}"),
                    Outcome::Killed => assert!(found.to_string().starts_with(&known), "{words}"),
                    Outcome::Failed(reason) => {
                        assert!(reason.contains(key(folder).to_str().unwrap()), "{words}");
                    }
                }
            },
        );
    }
}
