//! Gives the restarts of all containers back to Podman, before Beemesh is removed from a host.
//!
//! Shell. A mark below `/run/beemesh` has supervisors that still run hold nothing any more; it ends with the boot, as they do.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::shell::Settings;
use super::sight::Eye;
use crate::health::{Restart, Role};
use crate::podman::{LABEL_WORKLOAD, Podman, PodmanError};
use crate::render;

/// What was given back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// The containers that Podman restarts again, by name.
    pub containers: Vec<String>,
    /// The containers with probes. Podman goes on to run those, but without a limit to their time before its version 5.5.
    pub probed: Vec<String>,
    /// What could not be done, in words.
    pub failures: Vec<String>,
}

pub(super) fn mark(run: &Path) -> PathBuf {
    run.join("released")
}

/// Releases every container of the workloads on this host.
///
/// # Errors
/// When the mark cannot be written or Podman lists no pods. What fails for one container alone is among the failures.
pub async fn release(socket: &Path, folder: &Path, run: &Path) -> anyhow::Result<Released> {
    let podman = Podman::new(socket);
    let mut members = Vec::new();
    for pod in podman.pods(&[LABEL_WORKLOAD]).await? {
        let Some(workload) = pod.workload() else {
            continue;
        };
        let settings = Settings {
            workload: workload.to_owned(),
            socket: socket.to_path_buf(),
            folder: folder.to_path_buf(),
            run: run.to_path_buf(),
        };
        let Some((_, yaml)) = Eye::new(&settings).persisted() else {
            continue;
        };
        let restart = render::rules(&yaml).restart;
        let own = pod.containers.iter();
        for container in own.filter(|container| container.role == Role::Member) {
            let held = is_held(&podman, &container.id, restart).await;
            members.push((container.id.clone(), container.name.clone(), restart, held));
        }
    }
    let mut released = Released::default();
    if members.is_empty() {
        // After a purge nothing is to be left behind, not even the mark.
        return Ok(released);
    }
    // From here on a supervisor that looks gives back by itself what it held.
    write_mark(run)?;
    for (id, name, restart, held) in members {
        match one(&podman, &id, restart).await {
            Ok((given_back, probed)) => {
                let told = || name.clone();
                released.containers.extend((given_back || held).then(told));
                released.probed.extend(probed.then(told));
            }
            Err(error) => released.failures.push(error.to_string()),
        }
    }
    Ok(released)
}

/// Whether Podman does not restart the container as its manifest says. What cannot be told is told by [`one`].
async fn is_held(podman: &Podman, container: &str, restart: Restart) -> bool {
    let details = podman.inspect(container).await;
    details.is_ok_and(|details| details.is_some_and(|details| details.restart != restart))
}

fn write_mark(run: &Path) -> io::Result<()> {
    fs::create_dir_all(run)?;
    fs::write(mark(run), "")
}

/// Whether the container was given back, and whether it has a probe.
async fn one(
    podman: &Podman,
    container: &str,
    restart: Restart,
) -> Result<(bool, bool), PodmanError> {
    let Some(details) = podman.inspect(container).await? else {
        return Ok((false, false));
    };
    let is_held = details.restart != restart;
    if is_held {
        podman.release(container, restart).await?;
    }
    Ok((is_held, details.schedule.is_some()))
}
