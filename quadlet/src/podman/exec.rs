//! Commands in a running container, for probes and hooks.
//!
//! A session is created, started and removed. The answer to the start is the output of the command, and ends with it.
//! If the connection is closed before, the command runs on. Podman 5.4 blocks for half a minute when it is asked to
//! remove a session whose command ignores SIGTERM, so a session is only removed after its command has ended.

use beemesh_protocol::percent;
use bytes::Bytes;
use hyper014::body::HttpBody as _;
use serde::Deserialize;
use serde_json::json;

use super::logs::Frames;
use super::wire::Call;
use super::{LOOK_TIME_MAX, Podman, PodmanError, absent_is_gone, error};

/// The end of the output that is kept, in bytes. A report shows its last line.
const OUTPUT_BYTES_MAX: usize = 4 << 10;

/// Answer of `GET /libpod/exec/ID/json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecState {
    /// Whether the command runs.
    #[serde(default)]
    pub running: bool,
    /// Its exit code, 0 until it has ended. 126 and 127 are also those of a command that could not be started.
    #[serde(default)]
    pub exit_code: i32,
    /// The PID of the command on the host; 0 if it does not run.
    #[serde(default)]
    pub pid: i32,
}

/// Answer of `POST /libpod/containers/NAME/exec`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

impl Podman {
    /// Prepares a command in a container. Returns the id of the session.
    pub async fn exec_create(
        &self,
        container: &str,
        command: &[String],
    ) -> Result<String, PodmanError> {
        let path = format!("/libpod/containers/{}/exec", percent::encode(container));
        let body = json!({ "Cmd": command, "AttachStdout": true, "AttachStderr": true });
        let call = Call::post(operation(), path).body(&body);
        let created: Created = self.wire.json(call.within(LOOK_TIME_MAX)).await?;
        Ok(created.id)
    }

    /// Starts the command of a session, and waits for its end without a time limit. Returns the end of its output.
    pub async fn exec_start(&self, session: &str) -> Result<Vec<u8>, PodmanError> {
        let path = format!("/libpod/exec/{}/start", percent::encode(session));
        let call = Call::post(operation(), path).body(&json!({ "Detach": false, "Tty": false }));
        let mut body = self.wire.open(call.within(LOOK_TIME_MAX)).await?;
        let mut frames = Frames::default();
        let mut output = Tail::default();
        while let Some(chunk) = body.data().await {
            let chunk = chunk
                .map_err(|error| error::from_hyper(&operation(), self.wire.socket(), &error))?;
            frames.pending.extend_from_slice(&chunk);
            let unreadable = |reason| PodmanError::Unreadable {
                operation: operation(),
                reason,
            };
            while let Some(piece) = frames.take().map_err(unreadable)? {
                output.push(&piece);
            }
        }
        Ok(output.0)
    }

    /// The state of a session; `None` if there is no such session.
    pub async fn exec_state(&self, session: &str) -> Result<Option<ExecState>, PodmanError> {
        let path = format!("/libpod/exec/{}/json", percent::encode(session));
        let call = Call::get(operation(), path).within(LOOK_TIME_MAX);
        match self.wire.json(call).await {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a session whose command does not run.
    pub async fn exec_remove(&self, session: &str) -> Result<(), PodmanError> {
        let path = format!("/libpod/exec/{}/remove", percent::encode(session));
        let call = Call::post(operation(), path).body(&json!({ "Force": false }));
        absent_is_gone(self.wire.empty(call.within(LOOK_TIME_MAX)).await)
    }
}

fn operation() -> String {
    "run a command in the container".to_owned()
}

/// The end of an output.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, piece: &Bytes) {
        let keep = &piece[piece.len().saturating_sub(OUTPUT_BYTES_MAX)..];
        let excess = (self.0.len() + keep.len()).saturating_sub(OUTPUT_BYTES_MAX);
        self.0.drain(..excess);
        self.0.extend_from_slice(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_kept() {
        let mut tail = Tail::default();
        for size in [1, OUTPUT_BYTES_MAX, 10, 3 * OUTPUT_BYTES_MAX, 5] {
            let piece: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut all = tail.0.clone();
            all.extend_from_slice(&piece);
            tail.push(&piece.into());
            let expected = &all[all.len().saturating_sub(OUTPUT_BYTES_MAX)..];
            assert_eq!(tail.0, expected, "{size}");
        }
    }

    #[test]
    fn a_state_is_read() {
        let text = r#"{"CanRemove":false,"ContainerID":"07c1","DetachKeys":"","ExitCode":0,"ID":"e1","Running":true,
            "Pid":4711,"ProcessConfig":{"arguments":null,"entrypoint":"true"}}"#;
        let state: ExecState = serde_json::from_str(text).unwrap();
        let expected = ExecState {
            running: true,
            exit_code: 0,
            pid: 4711,
        };
        assert_eq!(state, expected);
    }
}
