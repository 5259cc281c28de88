//! Atomic and durable replacement of files.
//!
//! Shell: writes a temporary file beside the target and renames it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Creates or replaces a file and its folder. When this function returns, the new bytes survive a power cut. If it
/// fails or is interrupted, the old file remains, or no file if there was none.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let partial = path.with_extension("partial");
    // A file from an earlier attempt may have other permissions, or be open in another process.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    rename(&partial, path)
}

/// Renames a durable file, replacing another file of the same folder. When this function returns, the rename survives a
/// power cut.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::rename(from, to)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_whatever_was_left_of_an_earlier_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/key");
        replace(&path, b"one", 0o600).unwrap();
        let partial = path.with_extension("partial");
        fs::write(&partial, b"half of it, and more than is written").unwrap();
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!partial.exists());
        // An obstacle to the temporary file leaves the target unchanged.
        fs::create_dir(&partial).unwrap();
        assert!(replace(&path, b"three", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }
}
