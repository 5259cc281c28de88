//! Asks this host's Podman for its version, before the agent uses features that it may lack.
//!
//! Shell: one short exchange on Podman's socket; [`version`] judges the answer. The agent asks, not the gateway: the
//! generator of an old Podman rejects the gateway's Quadlet, so there would be no gateway to ask.

pub(crate) mod version;

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// systemd may have to start Podman's service for the socket first. A longer wait has another cause, which is reported
/// elsewhere.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// The headers of the response take half a kilobyte.
const ANSWER_BYTES_MAX: u64 = 8 << 10;

/// Returns Podman's version, such as `5.4.2`.
pub(crate) async fn ask(socket: &Path) -> anyhow::Result<String> {
    let asked = tokio::time::timeout(ANSWER_TIME_MAX, exchange(socket)).await;
    let answer = asked.with_context(|| format!("no answer within {ANSWER_TIME_MAX:?}"));
    let answer = answer.and_then(|answer| answer);
    answer.with_context(|| format!("ask Podman at {} for its version", socket.display()))
}

async fn exchange(socket: &Path) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = b"GET /libpod/_ping HTTP/1.0\r\nHost: podman\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
    read.context("read the answer")?;
    match version::of_ping(&answer) {
        Some(version) => Ok(version.to_owned()),
        None => bail!("the answer does not name it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_without_a_server_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("podman.sock");
        let error = format!("{:#}", ask(&socket).await.unwrap_err());
        assert!(error.contains("podman.sock for its version: "), "{error}");
    }
}
