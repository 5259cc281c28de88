//! Carries out decisions about single containers and their probes. Shell: decides nothing. A failure is reported, and
//! the next look decides again.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use beemesh_protocol::pod::FailedProbe;

use super::failure::classify;
use super::{Effect, Event, last_output, stop, termination};
use crate::podman::{Podman, PodmanError, Probing, Session};

/// Attempts to end a container whose probe or hook has failed, and the first pause between them, which doubles.
const CONDEMN_TRIES_MAX: u32 = 8;
const CONDEMN_PAUSE_MIN: Duration = Duration::from_secs(1);
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
        Effect::Start {
            container,
            folders,
            working_dir,
        } => {
            let started = async {
                podman.make_folders(workload, &folders).await?;
                if let Some(folder) = &working_dir {
                    podman.make_folder(&container, folder).await?;
                }
                podman.start(&container).await
            };
            Some(match started.await {
                Ok(()) => Event::Started,
                Err(error) => Event::NotStarted {
                    id: container,
                    failure: classify(&error),
                },
            })
        }
        Effect::Remove { container } => {
            tell(podman.remove_container(&container).await);
            Some(Event::Started)
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
        Effect::Hear {
            id,
            container,
            file,
        } => {
            let message = match file {
                Some(file) => termination::message(podman, &container, &file).await,
                None => String::new(),
            };
            let output = match message.is_empty() {
                true => last_output::last_line(podman, &id).await,
                false => String::new(),
            };
            Some(Event::Heard {
                container,
                message,
                output,
            })
        }
        _ => None,
    }
}

/// Ends what is left of a pod that has completed: its sidecars, its holder and its infra container.
pub(super) async fn rest(podman: &Podman, workload: &str, yaml: Option<&[u8]>) {
    let rested = async {
        if let (Some(pod), Some(yaml)) = (podman.pod(workload).await?, yaml) {
            // Podman stops no pod of which a container has ended.
            stop::end_pod(podman, &pod, yaml).await?;
        }
        podman.stop_pod(workload).await?;
        podman.remove_holder(workload).await
    };
    tell(rested.await);
}

/// Ends a container whose probe or hook has failed. Its end is an event of Podman.
pub(super) async fn condemn(
    podman: &Podman,
    workload: &str,
    address: Option<IpAddr>,
    effect: Effect,
) {
    let Effect::Condemn {
        container,
        reason,
        spec,
        grace,
        holder,
        restart,
    } = effect
    else {
        return;
    };
    tracing::warn!(container = spec.name, reason, "the container is ended");
    let mut pause = CONDEMN_PAUSE_MIN;
    for _ in 0..CONDEMN_TRIES_MAX {
        let ended = async {
            // Otherwise the pod of a single container would stop with it.
            if let Some(image) = &holder {
                podman.make_holder(workload, image).await?;
                podman.hold(&container, restart).await?;
            }
            stop::end_container(podman, &container, &spec, address, grace).await
        };
        let Err(error) = ended.await else {
            return;
        };
        tracing::warn!(%error, "will retry");
        tokio::time::sleep(pause).await;
        pause *= 2;
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

/// Kills a process, its process group if it leads one, and all its descendants. Inside the container no other process
/// would kill those.
pub(super) fn end_all(pid: i32) {
    // As a group, 1 would stand for every process.
    if pid <= 1 {
        return;
    }
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
    let group = [Pid::from_raw(-pid)];
    let all = pids.into_iter().map(Pid::from_raw).chain(group);
    for pid in all {
        // The process may just have ended, or lead no group.
        if let Err(error) = kill(pid, Signal::SIGKILL)
            && error != nix::errno::Errno::ESRCH
        {
            tracing::warn!(%pid, %error, "a process of a probe was not ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_command_is_ended_with_its_descendants() {
        let script = "sleep 60 & (sleep 60; true) & echo begun; wait";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut begun = [0; 6];
        output.read_exact(&mut begun).unwrap();
        end_all(i32::try_from(child.id()).unwrap());
        // The output ends when the last of them has.
        assert_eq!(output.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(!child.wait().unwrap().success());
    }
}
