//! The host's key: made once, kept for ever.
//!
//! Shell: reads and writes one file. The file holds the 32 bytes of an ed25519 secret key and nothing else. A file that
//! others can read, or that is damaged, is refused: a new key would be another host.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use beemesh_protocol::HostId;
use libp2p::identity::{Keypair, ed25519};

/// Length of a secret key, in bytes.
const SECRET: usize = 32;

/// The host's key pair and the id that follows from it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) key: Keypair,
    pub(crate) host: HostId,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("read the host's key {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("make the host's key {path}")]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the host's key {path} has mode {mode:04o}: others may have read it; \
         if you trust that nobody did, `chmod 0600 {path}`, else remove it and join the cluster as a new host"
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "the host's key {path} is damaged ({length} bytes instead of {SECRET}); \
         restore it from a backup, or remove it and join the cluster as a new host"
    )]
    Damaged { path: PathBuf, length: usize },
}

/// Reads the key at `path`, or makes it when there is none.
pub(crate) fn load_or_make(path: &Path) -> Result<Identity, IdentityError> {
    let failed = |source| IdentityError::Read {
        path: path.to_owned(),
        source,
    };
    match File::open(path) {
        Ok(file) => read(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = ed25519::SecretKey::generate();
            make(path, secret.as_ref()).map_err(|source| IdentityError::Make {
                path: path.to_owned(),
                source,
            })?;
            tracing::info!(path = %path.display(), "made the host's key");
            read(path, File::open(path).map_err(failed)?)
        }
        Err(error) => Err(failed(error)),
    }
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

/// Writes a new key so that a power cut leaves either none or the whole of it.
fn make(path: &Path, secret: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let partial = path.with_extension("partial");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(secret)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
            make(&path, &vec![7; length]).unwrap();
            let error = load_or_make(&path).unwrap_err().to_string();
            assert!(error.contains("is damaged"), "{length}: {error}");
        }
    }
}
