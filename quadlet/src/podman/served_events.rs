//! Podman's events as the gateway serves them to the supervisors of the host.
//!
//! Shell. For each open event stream, Podman's service reads every entry of the journal anew. The streams of a hundred
//! supervisors would cost a hundred times what the events of a hundred workloads cost one stream. So the gateway follows
//! Podman once and serves the events by a socket. A supervisor without a gateway follows Podman itself.
//!
//! The client writes the value of the label [`LABEL_WORKLOAD`](super::LABEL_WORKLOAD) and a line end. The server answers
//! with an empty line when it serves that label, and then with one line of JSON for each event. It closes the connection
//! when it has lost Podman, or when the client does not keep up.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::events::{Event, LINE_BYTES_MAX};

/// How long the server may take to answer. It does not answer while it has no connection to Podman.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The socket of the gateway below the folder of the sockets.
#[must_use]
pub fn socket(run: &Path) -> PathBuf {
    run.join("events.sock")
}

/// One event as a line.
#[must_use]
pub fn line(event: &Event) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A subscription to the gateway.
pub(super) struct Served {
    stream: UnixStream,
    pending: Vec<u8>,
}

impl Served {
    /// Subscribes to the events of a label's value. Fails if the gateway does not serve them now.
    pub(super) async fn open(socket: &Path, value: &str) -> io::Result<Self> {
        let open = async {
            let mut stream = UnixStream::connect(socket).await?;
            stream.write_all(format!("{value}\n").as_bytes()).await?;
            let mut served = Self {
                stream,
                pending: Vec::new(),
            };
            match served.line().await?.as_slice() {
                b"" => Ok(served),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        };
        timeout(ANSWER_MAX, open).await?
    }

    /// Waits for the next event. Fails when the connection has ended. The future may be dropped.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        loop {
            let line = self.line().await?;
            if let Ok(event) = serde_json::from_slice(&line) {
                return Ok(event);
            }
        }
    }

    /// The next line without its end.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.pending.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            if self.pending.len() > LINE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.stream.read_buf(&mut self.pending).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
