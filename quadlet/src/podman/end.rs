//! Ends the containers of a pod before the pod is taken down, each by the signal that its manifest names: before 5.6
//! Podman ignores `lifecycle.stopSignal` and sends SIGTERM.
//!
//! Podman's service stops pods on a small pool of threads: three for each core, and one more. A thread waits there for
//! a pod's grace period. So a few pods with long grace periods would delay the stop of all others for as long. A pod
//! whose containers have ended occupies a thread only for a moment, so this module does the waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use beemesh_protocol::percent;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::inspect::InspectedPod;
use super::wire::Call;
use super::{DOWN_TIME_MAX, LOOK_TIME_MAX, Podman, PodmanError};

/// The first pause after a container was signalled or killed.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// The pause between two looks is at most the time waited so far divided by this; a look takes a millisecond.
const PAUSE_PART: u32 = 8;
/// The longest pause between two looks at a container.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the kernel may take to end a killed container.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);

/// Answer of `GET /libpod/containers/NAME/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    is_infra: bool,
    state: InspectedState,
    #[serde(default)]
    config: InspectedConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    #[serde(default)]
    running: bool,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    pid: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    /// A number in releases before Podman 5.
    #[serde(default)]
    stop_signal: Option<String>,
    #[serde(default)]
    stop_timeout: u64,
}

/// A container that was sent its stop signal.
#[derive(Debug)]
struct Ending {
    id: String,
    pid: i64,
    grace: Duration,
    killed: bool,
}

/// The next step for a container that was sent its stop signal.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Stop waiting: it has ended, or the kernel has not ended it in time.
    Leave,
    Wait,
    Kill,
}

impl Podman {
    /// Sends each container of a pod, which is named by its id, the signal that `signals` has for its name, otherwise its own stop signal, and
    /// waits until all have ended or their grace periods are over. A container that cannot be inspected or signalled is
    /// left to the take-down.
    pub(super) async fn end(
        &self,
        pod: &str,
        signals: &BTreeMap<String, String>,
    ) -> Result<(), PodmanError> {
        let operation = format!("look for the containers of pod {pod}");
        let path = format!("/libpod/pods/{}/json", percent::encode(pod));
        let call = Call::get(operation, path).within(LOOK_TIME_MAX);
        let Ok(inspected) = self.wire.json::<InspectedPod>(call).await else {
            return Ok(());
        };
        let mut endings = Vec::new();
        for container in inspected.containers {
            let signal = signals.get(&container.name).cloned();
            endings.extend(self.tell_to_end(container.id, signal, None).await);
        }
        let what = format!("the containers of pod {pod}");
        self.until_ended(endings, &what).await
    }

    /// Sends a container a signal, or its own stop signal, and waits until it has ended. It is killed after `grace`, or
    /// its own grace period. A container that cannot be inspected or signalled is left as it is.
    pub(crate) async fn end_container(
        &self,
        id: &str,
        signal: Option<String>,
        grace: Option<Duration>,
    ) -> Result<(), PodmanError> {
        let ending = self.tell_to_end(id.to_owned(), signal, grace).await;
        let what = format!("container {id}");
        self.until_ended(ending.into_iter().collect(), &what).await
    }

    async fn until_ended(&self, mut endings: Vec<Ending>, what: &str) -> Result<(), PodmanError> {
        let begun = Instant::now();
        while !endings.is_empty() {
            sleep(pause(&endings, begun.elapsed())).await;
            if begun.elapsed() > DOWN_TIME_MAX {
                return Err(PodmanError::Late {
                    operation: format!("wait for {what} to end"),
                    after: DOWN_TIME_MAX,
                });
            }
            let mut left = Vec::with_capacity(endings.len());
            for mut ending in endings {
                let state = self.seen(&ending.id).await.map(|seen| seen.state);
                match next(&ending, state.as_ref(), begun.elapsed()) {
                    Next::Leave => continue,
                    Next::Wait => {}
                    Next::Kill => {
                        ending.killed = true;
                        if self.signal(&ending.id, "KILL").await.is_err() {
                            continue;
                        }
                    }
                }
                left.push(ending);
            }
            endings = left;
        }
        Ok(())
    }

    async fn tell_to_end(
        &self,
        id: String,
        signal: Option<String>,
        grace: Option<Duration>,
    ) -> Option<Ending> {
        let Inspected {
            is_infra,
            state,
            config,
        } = self.seen(&id).await?;
        if is_infra || !state.running || state.paused {
            return None;
        }
        let own = config.stop_signal.filter(|signal| !signal.is_empty());
        let signal = signal.or(own);
        let signal = signal.unwrap_or_else(|| "TERM".to_owned());
        self.signal(&id, &signal).await.ok()?;
        Some(Ending {
            id,
            pid: state.pid,
            grace: grace.unwrap_or(Duration::from_secs(config.stop_timeout)),
            killed: false,
        })
    }

    async fn seen(&self, id: &str) -> Option<Inspected> {
        let call = Call::get(
            format!("inspect container {id}"),
            format!("/libpod/containers/{id}/json"),
        );
        self.wire.json(call.within(LOOK_TIME_MAX)).await.ok()
    }
}

/// Pure: how long to wait before the next look at these containers.
fn pause(endings: &[Ending], since: Duration) -> Duration {
    let due = |ending: &Ending| match ending.killed {
        true => PAUSE_MIN,
        false => ending.grace.saturating_sub(since),
    };
    let due = endings.iter().map(due).min().unwrap_or(PAUSE_MAX);
    let by_age = (since / PAUSE_PART).min(PAUSE_MAX);
    by_age.min(due).max(PAUSE_MIN)
}

/// Pure: the next step for a container that was sent its stop signal this long ago.
fn next(ending: &Ending, state: Option<&InspectedState>, since: Duration) -> Next {
    match state {
        Some(state) if state.running && state.pid == ending.pid => match ending.killed {
            false if since >= ending.grace => Next::Kill,
            true if since >= ending.grace + KILL_TIME_MAX => Next::Leave,
            _ => Next::Wait,
        },
        // It was removed, has ended, or was started again.
        _ => Next::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_its_grace_period_and_no_more() {
        let grace = Duration::from_secs(30);
        let ending = |killed| Ending {
            id: "a".to_owned(),
            pid: 7,
            grace,
            killed,
        };
        let state = |running, pid| InspectedState {
            running,
            paused: false,
            pid,
        };
        let second = Duration::from_secs(1);
        for (killed, state, since, expected) in [
            (false, Some(state(true, 7)), second, Next::Wait),
            (false, Some(state(true, 7)), grace - second, Next::Wait),
            (false, Some(state(true, 7)), grace, Next::Kill),
            (true, Some(state(true, 7)), grace + second, Next::Wait),
            (
                true,
                Some(state(true, 7)),
                grace + KILL_TIME_MAX,
                Next::Leave,
            ),
            (false, Some(state(false, 0)), second, Next::Leave),
            (false, Some(state(true, 8)), second, Next::Leave),
            (false, None, second, Next::Leave),
        ] {
            let found = next(&ending(killed), state.as_ref(), since);
            assert_eq!(found, expected, "{killed} {state:?} {since:?}");
        }
        for (killed, since, expected) in [
            (false, Duration::ZERO, PAUSE_MIN),
            (false, 4 * second, second / 2),
            (false, 20 * second, PAUSE_MAX),
            (false, grace - second / 4, second / 4),
            (false, grace, PAUSE_MIN),
            (true, grace, PAUSE_MIN),
        ] {
            assert_eq!(
                pause(&[ending(killed)], since),
                expected,
                "{killed} {since:?}"
            );
        }
    }
}
