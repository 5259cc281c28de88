//! The file format of a backup: one line of text, then the replicated state as in snapshots.
//!
//! Pure. The line is `beemesh-backup VERSION sha256=HEX bytes=COUNT`; checksum and count cover the bytes after it.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::{DecodeError, hex::Hex, state::Snapshot};

/// The longest file, in bytes, including its line. A reader holds the file in memory.
pub const BYTES_MAX: usize = 256 << 20;

/// The format that this release writes, and the latest that it can read.
const VERSION: u32 = 1;
const NAME: &str = "beemesh-backup ";
/// The longest first line, in bytes.
const LINE_MAX: usize = 160;

/// Why bytes are no readable backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// They do not begin with the line of a backup.
    #[error("this is not a backup of Beemesh")]
    Foreign,
    /// A later release wrote them.
    #[error(
        "the backup has format {0} of a later release of Beemesh: restore it with that release"
    )]
    Newer(u32),
    /// Their number differs from the count in the line.
    #[error(
        "the backup has {found} bytes instead of {wanted}: it was truncated, or something was appended"
    )]
    Cut {
        /// The number of bytes after the first line.
        found: usize,
        /// The number in the first line.
        wanted: usize,
    },
    /// Their checksum differs from the one in the line.
    #[error("the backup is damaged: its checksum does not match")]
    Damaged,
    /// Their checksum is right, but they do not decode.
    #[error("the backup cannot be decoded: {0}")]
    Content(#[from] DecodeError),
}

/// Encodes a backup file.
#[must_use]
pub fn encode(state: &Snapshot) -> Bytes {
    let content = state.encode();
    let line = format!(
        "{NAME}{VERSION} sha256={} bytes={}\n",
        checksum(&content),
        content.len()
    );
    let mut file = BytesMut::with_capacity(line.len() + content.len());
    file.extend_from_slice(line.as_bytes());
    file.extend_from_slice(&content);
    file.freeze()
}

/// Decodes the state in a backup file.
///
/// # Errors
///
/// If [`encode`] of this release or an earlier one did not write the file.
pub fn decode(file: &[u8]) -> Result<Snapshot, BackupError> {
    let head = &file[..file.len().min(LINE_MAX)];
    let end = head.iter().position(|byte| *byte == b'\n');
    let (line, content) = end
        .map(|end| (&file[..end], &file[end + 1..]))
        .ok_or(BackupError::Foreign)?;
    let line = std::str::from_utf8(line).map_err(|_| BackupError::Foreign)?;
    let rest = line.strip_prefix(NAME).ok_or(BackupError::Foreign)?;
    let (version, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let version: u32 = version.parse().map_err(|_| BackupError::Foreign)?;
    match version {
        1..=VERSION => {}
        0 => return Err(BackupError::Foreign),
        newer => return Err(BackupError::Newer(newer)),
    }
    let fields = rest.split_once(' ').and_then(|(sum, count)| {
        Some((sum.strip_prefix("sha256=")?, count.strip_prefix("bytes=")?))
    });
    let (sum, count) = fields.ok_or(BackupError::Foreign)?;
    let wanted: usize = count.parse().map_err(|_| BackupError::Foreign)?;
    if content.len() != wanted {
        let found = content.len();
        return Err(BackupError::Cut { found, wanted });
    }
    if checksum(content) != sum {
        return Err(BackupError::Damaged);
    }
    Ok(Snapshot::decode(content)?)
}

fn checksum(content: &[u8]) -> String {
    Hex(&Sha256::digest(content)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClusterId;

    #[test]
    fn a_backup_reads_back_and_no_changed_byte_goes_unnoticed() {
        let state = Snapshot {
            cluster: Some(ClusterId([7; 16])),
            ..Snapshot::default()
        };
        let file = encode(&state);
        assert_eq!(decode(&file), Ok(state));
        for at in 0..file.len() {
            let mut changed = file.to_vec();
            changed[at] ^= 1;
            assert!(decode(&changed).is_err(), "byte {at}");
            assert!(decode(&file[..at]).is_err(), "cut at {at}");
        }
        let more = [&file[..], b"x"].concat();
        assert!(matches!(decode(&more), Err(BackupError::Cut { .. })));
        let later = b"beemesh-backup 2 what=ever\n";
        assert_eq!(decode(later), Err(BackupError::Newer(2)));
        assert_eq!(decode(b"PK\x03\x04"), Err(BackupError::Foreign));
    }
}
