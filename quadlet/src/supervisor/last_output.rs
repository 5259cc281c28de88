//! Keeps the output of the containers of a pod whose play failed, in a file below `/run/beemesh`. The pod is taken
//! down, and Podman's copy of the output is deleted with it.
//!
//! Shell. Input: the containers that Podman still has. Output: the file, from which the gateway answers requests for
//! the workload's logs while it has no pod. Without the file only the journal has the output.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use beemesh_protocol::pod;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::Instant;

use super::shell::Settings;
use crate::health::Container;
use crate::podman::{Podman, PodmanError};

/// Bytes that are kept of each container, from the end: some hundred lines, which are enough to diagnose a failed init
/// container.
const BYTES_MAX: usize = 64 << 10;
/// Maximum number of a pod's containers whose output is kept.
const CONTAINERS_MAX: usize = 32;
/// Number of lines to request from Podman. If lines are shorter than about half the width of a terminal, fewer bytes
/// are kept.
const LINES_MAX: u32 = 2000;
/// Number of lines to request for the last line that is not empty.
const LAST_LINES_MAX: u32 = 4;
/// Time limit. Reading takes milliseconds, and must not delay the failure of the unit by more.
const TIME_MAX: Duration = Duration::from_secs(5);

fn file(run: &Path, workload: &str) -> PathBuf {
    // A workload's name may contain dots. The file that is being written has a name without the suffix `.log`, so it
    // cannot be the file of another workload.
    run.join(format!("last-output-{workload}.log"))
}

/// Reads the output of a workload's containers before its last play failed. Returns `None` if no play has failed since
/// the boot, or if Podman has played the pod since.
#[must_use]
pub fn read(run: &Path, workload: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(file(run, workload)).ok()?;
    let max = u64::try_from(CONTAINERS_MAX * BYTES_MAX * 2).unwrap_or(u64::MAX);
    file.take(max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Removes the file after the workload was removed or Podman has played its pod.
pub fn forget(run: &Path, workload: &str) {
    match fs::remove_file(file(run, workload)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(workload, %error, "the kept output of a failed play was not removed");
        }
        _ => {}
    }
}

/// Stores the output of the containers of a failed play, and replaces that of an earlier one.
pub(super) async fn keep(podman: &Podman, settings: &Settings, all: &[Container]) {
    let said = all
        .iter()
        .filter(|one| one.role.is_in_manifest() && one.started_at >= 0);
    let prefix = format!("{}-", settings.workload);
    let mut kept = Vec::new();
    let deadline = Instant::now() + TIME_MAX;
    for one in said.take(CONTAINERS_MAX) {
        let name = one.name.strip_prefix(&prefix).unwrap_or(&one.name);
        match tokio::time::timeout_at(deadline, tail(podman, &one.id, LINES_MAX)).await {
            Ok(Ok(bytes)) => kept.extend(named(name, &bytes)),
            Ok(Err(error)) => {
                tracing::warn!(container = one.name, %error, "its output is not kept");
            }
            Err(_) => tracing::warn!(
                container = one.name,
                "the output of a container is not kept: Podman is slow"
            ),
        }
    }
    if kept.is_empty() {
        forget(&settings.run, &settings.workload);
        return;
    }
    let path = file(&settings.run, &settings.workload);
    let new = path.with_extension("log.new");
    let written = fs::write(&new, kept).and_then(|()| fs::rename(&new, &path));
    if let Err(error) = written {
        tracing::warn!(%error, "the output of the containers is only in the journal");
    }
}

/// The last line that a container wrote; empty if Podman does not answer in time.
pub(super) async fn last_line(podman: &Podman, container: &str) -> String {
    let tail = tokio::time::timeout(TIME_MAX, tail(podman, container, LAST_LINES_MAX)).await;
    let bytes = tail.map_or(Ok(Vec::new()), |tail| tail);
    let bytes = bytes.unwrap_or_else(|error| {
        tracing::warn!(%error, "the last line of a container is not known");
        Vec::new()
    });
    pod::last_line(&String::from_utf8_lossy(&bytes), pod::TEXT_CHARS_MAX)
}

async fn tail(podman: &Podman, container: &str, lines: u32) -> Result<Vec<u8>, PodmanError> {
    let output = podman.logs(container, false, Some(lines), None).await?;
    let mut output = std::pin::pin!(output);
    let mut last = Vec::new();
    while let Some(piece) = output.next().await {
        let piece: Bytes = piece?;
        last.extend_from_slice(&piece);
        let over = last.len().saturating_sub(BYTES_MAX);
        last.drain(..over);
    }
    Ok(last)
}

/// Adds the name of the container to each line.
fn named(name: &str, output: &[u8]) -> Vec<u8> {
    let lines = output.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .flat_map(|line| [name.as_bytes(), b" | ", line, b"\n"].concat())
        .take(2 * BYTES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_and_what_is_gone_says_nothing() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(named("zero", b"one\n\ntwo"), b"zero | one\nzero | two\n");
        assert!(named("n", &vec![b'\n'; BYTES_MAX]).is_empty());
        assert_eq!(named("n", &b"x\n".repeat(BYTES_MAX)).len(), 2 * BYTES_MAX);
        assert_eq!(read(run.path(), "web"), None);
        forget(run.path(), "web");
        fs::write(file(run.path(), "web"), "zero | one\n").unwrap();
        for other in ["web.new", "web.log", "web.log.new"] {
            let (path, written) = (file(run.path(), "web"), file(run.path(), other));
            assert!(written != path && written != path.with_extension("log.new"));
        }
        assert_eq!(read(run.path(), "web").unwrap(), b"zero | one\n");
        forget(run.path(), "web");
        assert_eq!(read(run.path(), "web"), None);
    }
}
