//! Carries out decisions about single containers and their probes. Shell: decides nothing. A failure is reported, and
//! the next look decides again.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use beemesh_protocol::pod::FailedProbe;

use super::{Effect, Event, last_output};
use crate::podman::{Podman, PodmanError, Probing, Session};

/// Maximum number of processes of one probe that are killed with it.
const PROCESSES_MAX: usize = 1000;

pub(super) async fn act(podman: &Podman, workload: &str, effect: Effect) -> Option<Event> {
    match effect {
        Effect::Hold {
            container,
            image,
            restart,
        } => {
            // The holder is created first. Otherwise the pod of a single container would stop if that container ended
            // in between.
            let held = async {
                podman.make_holder(workload, &image).await?;
                podman.hold(&container, restart).await
            };
            tell(held.await);
            None
        }
        Effect::Release {
            container,
            restart,
            last,
        } => {
            let released = async {
                podman.release(&container, restart).await?;
                match last {
                    true => podman.remove_holder(workload).await,
                    false => Ok(()),
                }
            };
            tell(released.await);
            None
        }
        Effect::Rest => {
            let rested = async {
                podman.stop_pod(workload).await?;
                podman.remove_holder(workload).await
            };
            tell(rested.await);
            None
        }
        Effect::Probing { container } => {
            let Probing { sessions, .. } = probing(podman, &container).await;
            Some(Event::Probing {
                id: container,
                sessions: sessions.into_iter().map(|session| session.id).collect(),
            })
        }
        Effect::EndProbe {
            container,
            sessions,
        } => {
            let Probing {
                name,
                sessions: all,
                ..
            } = probing(podman, &container).await;
            for Session { id, pid } in all {
                if sessions.contains(&id) {
                    tracing::warn!(
                        container = name,
                        "its probe runs for longer than it may, and is ended"
                    );
                    end_all(pid);
                }
            }
            None
        }
        Effect::TellProbe { id, container } => {
            let details = podman.inspect(&id).await;
            let probe = details.ok().flatten().and_then(|details| details.failed);
            if let Some(FailedProbe {
                timed_out, output, ..
            }) = &probe
            {
                tracing::warn!(
                    container,
                    timed_out,
                    output,
                    "its probe has failed too often"
                );
            }
            Some(Event::ProbeSaid { container, probe })
        }
        Effect::Hear { id, container } => {
            let output = last_output::last_line(podman, &id).await;
            Some(Event::Heard { container, output })
        }
        _ => None,
    }
}

async fn probing(podman: &Podman, container: &str) -> Probing {
    let probing = podman.probing(container).await;
    probing.unwrap_or_else(|error| {
        tracing::warn!(%error, "will retry");
        Probing::default()
    })
}

fn tell(outcome: Result<(), PodmanError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "will retry");
    }
}

/// Kills a process and all its descendants. Inside the container no other process would kill those.
pub(super) fn end_all(pid: i32) {
    let mut pids = vec![pid];
    let mut at = 0;
    while let Some(pid) = pids.get(at).copied()
        && pids.len() < PROCESSES_MAX
    {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
        at += 1;
    }
    for pid in pids {
        // The process may just have ended.
        if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL)
            && error != nix::errno::Errno::ESRCH
        {
            tracing::warn!(pid, %error, "a process of a probe was not ended");
        }
    }
}
