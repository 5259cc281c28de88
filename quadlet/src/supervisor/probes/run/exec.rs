//! Runs the command of a probe or hook in its container.

use std::time::Duration;

use beemesh_protocol::pod::{TEXT_CHARS_MAX, clean};
use tokio::time::Instant;

use super::super::{Fault, Outcome};
use super::{Pod, last_words};
use crate::podman::{ExecState, Podman, PodmanError};
use crate::supervisor::{acts::end_all, conmon};

/// How long Podman may take to start a command, and to report its end after the last of its processes was killed.
const PODMAN_TIME_MAX: Duration = Duration::from_secs(20);
/// The pause before Podman is asked again whether a command has ended whose output has.
const PAUSE: Duration = Duration::from_millis(50);
/// Number of these questions.
const QUESTIONS_MAX: u32 = 40;

/// Runs a command, and kills it with all its descendants when it exceeds its time limit. The time that Podman needs to
/// start it does not count.
pub(super) async fn run(pod: &Pod<'_>, command: &[String], limit: Duration) -> Outcome {
    let session = match pod.podman.exec_create(pod.container, command).await {
        Ok(session) => session,
        Err(error) => return Outcome::Unknown(error.to_string()),
    };
    let outcome = attend(pod.podman, &session, limit).await;
    match pod.podman.exec_remove(&session).await {
        Ok(()) => conmon::end(pod.container, &session),
        // Podman removes it with the container.
        Err(error) => tracing::debug!(%error, session, "a session was not removed"),
    }
    outcome
}

async fn attend(podman: &Podman, session: &str, limit: Duration) -> Outcome {
    let output = podman.exec_start(session);
    tokio::pin!(output);
    let began = Instant::now();
    let mut timed_out = false;
    let output = loop {
        let step = if timed_out { PODMAN_TIME_MAX } else { limit };
        if let Ok(output) = tokio::time::timeout(step, &mut output).await {
            break output;
        }
        if timed_out {
            // A descendant that was not found keeps the output open.
            break Ok(Vec::new());
        }
        if began.elapsed() >= limit + PODMAN_TIME_MAX {
            return Outcome::Unknown("Podman does not report the end of the command".to_owned());
        }
        match podman.exec_state(session).await {
            Ok(Some(ExecState {
                running: true, pid, ..
            })) if pid > 0 => {
                timed_out = true;
                end_all(pid);
            }
            // It has not begun yet, or has just ended.
            Ok(_) => {}
            Err(error) => return Outcome::Unknown(error.to_string()),
        }
    };
    if timed_out {
        return Outcome::Failure(Fault {
            exit: None,
            timed_out,
            output: output.map(|output| last_words(&output)).unwrap_or_default(),
        });
    }
    judge(podman, session, output).await
}

async fn judge(podman: &Podman, session: &str, output: Result<Vec<u8>, PodmanError>) -> Outcome {
    let mut ended = None;
    for _ in 0..QUESTIONS_MAX {
        match podman.exec_state(session).await {
            Ok(Some(ExecState { running: true, .. })) => tokio::time::sleep(PAUSE).await,
            Ok(state) => {
                ended = state;
                break;
            }
            Err(error) => return Outcome::Unknown(error.to_string()),
        }
    }
    let code = ended.map(|state| state.exit_code);
    match (output, code) {
        (Ok(_), Some(0)) => Outcome::Success,
        (Ok(output), Some(code)) => failed(code, told(code, &output)),
        // A command that cannot be started, such as one that the image does not have.
        (Err(error), Some(code)) if code != 0 && !error.is_passing() => {
            failed(code, clean(&error.to_string(), TEXT_CHARS_MAX))
        }
        (Err(error), _) => Outcome::Unknown(error.to_string()),
        (Ok(_), None) => Outcome::Unknown("Podman does not report the exit code".to_owned()),
    }
}

/// The last line of the output. If the command could not be started, Podman writes about its own sockets instead.
fn told(code: i32, output: &[u8]) -> String {
    let line = last_words(output);
    match code {
        126 if is_podmans(&line) => "the command cannot be executed".to_owned(),
        127 if is_podmans(&line) => "the command was not found".to_owned(),
        _ => line,
    }
}

fn is_podmans(line: &str) -> bool {
    line.starts_with("Error: read unixpacket") && line.contains("/attach:")
}

fn failed(code: i32, output: String) -> Outcome {
    Outcome::Failure(Fault {
        exit: u32::try_from(code).ok(),
        timed_out: false,
        output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_be_started_is_told_in_words() {
        let podmans =
            "Error: read unixpacket @->/proc/self/fd/13/attach: read: connection reset by peer\n";
        for (code, output, expected) in [
            (127, podmans, "the command was not found"),
            (126, podmans, "the command cannot be executed"),
            (127, "sh: nope: not found\n", "sh: nope: not found"),
            (3, "one\ntwo\n\n", "two"),
            (1, "", ""),
        ] {
            assert_eq!(told(code, output.as_bytes()), expected, "{code} {output}");
        }
    }
}
