//! Reads the termination message of a container that has ended.
//!
//! The message is a file in a volume of the container alone, and Podman tells the folder of that volume. Podman's
//! archives are of no use here: for a container that was started again they lack everything below `/dev`.
//!
//! Shell. Input: the file and the run that ended. Output: the message as one line of limited length.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use beemesh_protocol::pod::{self, TEXT_CHARS_MAX};

use crate::podman::Podman;
use crate::render::TERMINATION_MESSAGE;

/// Bytes that are read of a message: as many as in Kubernetes.
const BYTES_MAX: u64 = 4096;
/// How much earlier than the start of a run its message may seem to be written, in seconds. Files have the time of the
/// kernel's last tick, and Podman notes a start after it.
const SLACK: i64 = 1;

/// A run of a container that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EndedRun {
    /// When it began, in seconds since 1970.
    pub(super) began: i64,
    /// When the run after it began, if there is one.
    pub(super) next: Option<i64>,
}

/// The file with the termination message of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageFile {
    /// The volume.
    volume: String,
    /// The run that ended. The file has the messages of earlier and later runs, too.
    run: EndedRun,
}

impl EndedRun {
    /// The file with the message of this run.
    pub(super) fn message_file(self, volume: String) -> MessageFile {
        MessageFile { volume, run: self }
    }

    /// Whether a file of this time was written by this run.
    fn wrote_at(self, second: i64) -> bool {
        second >= self.began - SLACK && self.next.is_none_or(|next| second <= next)
    }
}

/// The message; empty if the run wrote none or it cannot be read.
pub(super) async fn message(podman: &Podman, container: &str, file: &MessageFile) -> String {
    let folder = match podman.volume_folder(&file.volume).await {
        Ok(folder) => folder,
        Err(error) => {
            tracing::warn!(container, %error, "its termination message is not known");
            return String::new();
        }
    };
    match read(&folder.join(TERMINATION_MESSAGE), file.run) {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(container, %error, "its termination message is not known");
            String::new()
        }
    }
}

/// Reads a message. Only a regular file has one: anything else could block or lead elsewhere.
fn read(path: &Path, run: EndedRun) -> io::Result<String> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not in a regular file"));
    }
    if !run.wrote_at(found.mtime()) {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(pod::clean(&String::from_utf8_lossy(&bytes), TEXT_CHARS_MAX))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A run that began this many seconds before a file was written.
    fn run(path: &Path, before: i64, next: Option<i64>) -> EndedRun {
        let written = fs::metadata(path).unwrap().mtime();
        EndedRun {
            began: written - before,
            next: next.map(|after| written + after),
        }
    }

    #[test]
    fn a_message_is_of_the_run_that_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("message");
        fs::write(&path, b"no route\nto \xff db\n").unwrap();
        for (before, next, is_its) in [
            (9, None, true),
            (0, None, true),
            (-1, None, true),
            (-2, None, false),
            (9, Some(0), true),
            (9, Some(-1), false),
        ] {
            let expected = if is_its {
                "no route to \u{fffd} db"
            } else {
                ""
            };
            let run = run(&path, before, next);
            assert_eq!(read(&path, run).unwrap(), expected, "{before} {next:?}");
        }
    }

    #[test]
    fn a_message_has_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("message");
        let max = usize::try_from(BYTES_MAX).unwrap();
        fs::write(&path, [" ".repeat(max - 1), "xy".to_owned()].concat()).unwrap();
        assert_eq!(read(&path, run(&path, 0, None)).unwrap(), "x");
        fs::write(&path, "x".repeat(max)).unwrap();
        let message = read(&path, run(&path, 0, None)).unwrap();
        assert_eq!(message, "x".repeat(TEXT_CHARS_MAX));
    }

    #[test]
    fn only_a_regular_file_has_a_message() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("secret"), "secret").unwrap();
        symlink(at("secret"), at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let run = run(&at("secret"), 9, None);
        assert_eq!(read(&at("secret"), run).unwrap(), "secret");
        for name in ["link", "folder", "pipe", "missing"] {
            assert!(read(&at(name), run).is_err(), "{name}");
        }
    }
}
