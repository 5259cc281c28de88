//! Returns the restarts of all containers to Podman, before Beemesh is removed from a host. Those of singletons are ended
//! instead: without a supervisor nothing would end them when their host loses its lease.
//!
//! Shell. While a mark below `/run/beemesh` exists, running supervisors hold no container. The mark ends with the boot,
//! and so do the supervisors.

use std::path::{Path, PathBuf};
use std::{fs, io};

use beemesh_protocol::workload::unit_name;
use tokio::process::Command;

use super::shell::Settings;
use super::sight::Eye;
use crate::health::{Restart, Role};
use crate::podman::{LABEL_WORKLOAD, Podman, PodmanError};
use crate::render;
use crate::render::probes::{Probed, probed};

/// The result of the release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// The containers that Podman restarts again, by name.
    pub containers: Vec<String>,
    /// The containers with probes. Podman continues to run those, but before version 5.5 without a time limit.
    pub probed: Vec<String>,
    /// The containers whose probes and hooks only Beemesh runs.
    pub unprobed: Vec<String>,
    /// The singletons whose pods were ended: nothing but Beemesh may run them.
    pub ended: Vec<String>,
    /// The failures, as messages.
    pub failures: Vec<String>,
}

pub(super) fn mark(run: &Path) -> PathBuf {
    run.join("released")
}

/// Releases every container of the workloads on this host.
///
/// # Errors
///
/// The mark cannot be written, or Podman cannot list its pods. A failure of a single container is among the failures.
pub async fn release(socket: &Path, folder: &Path, run: &Path) -> anyhow::Result<Released> {
    let podman = Podman::new(socket);
    let (mut members, mut unprobed) = (Vec::new(), Vec::new());
    let mut singletons = Vec::new();
    for pod in podman.pods(&[LABEL_WORKLOAD]).await? {
        let Some(workload) = pod.workload().map(str::to_owned) else {
            continue;
        };
        if pod.needs_lease() {
            singletons.push(workload);
            continue;
        }
        let settings = Settings {
            workload: workload.clone(),
            socket: socket.to_path_buf(),
            folder: folder.to_path_buf(),
            run: run.to_path_buf(),
        };
        let Some((_, yaml)) = Eye::new(&settings).persisted() else {
            continue;
        };
        let of_pod = render::rules(&yaml).restart;
        let mut own = pod.containers;
        if let Some(staged) = render::staged(&yaml) {
            staged.give_roles(&workload, &mut own);
            let probed = probed(&yaml).into_iter().filter(Probed::is_watched);
            unprobed.extend(probed.map(|one| one.name));
        }
        let is_kept = |role| matches!(role, Role::Member | Role::Sidecar);
        for container in own.iter().filter(|container| is_kept(container.role)) {
            let restart = container.role.restart(of_pod);
            let held = is_held(&podman, &container.id, restart).await;
            members.push((container.id.clone(), container.name.clone(), restart, held));
        }
    }
    let mut released = Released {
        unprobed,
        ..Released::default()
    };
    if members.is_empty() && singletons.is_empty() {
        // A purge leaves no file behind, not even the mark.
        return Ok(released);
    }
    // From here on every supervisor releases its containers at its next look, and that of a singleton ends.
    write_mark(run)?;
    for workload in singletons {
        match end(&podman, &workload).await {
            Ok(()) => released.ended.push(workload),
            Err(error) => {
                let words = format!("singleton {workload} was not ended");
                released.failures.push(format!(
                    "{words}: {error}; `podman pod rm -f {workload}` ends it"
                ));
            }
        }
    }
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

/// Whether Podman's policy for the container differs from its manifest. [`one`] reports the failure if this cannot be
/// read.
async fn is_held(podman: &Podman, container: &str, restart: Restart) -> bool {
    let details = podman.inspect(container).await;
    details.is_ok_and(|details| details.is_some_and(|details| details.restart != restart))
}

fn write_mark(run: &Path) -> io::Result<()> {
    fs::create_dir_all(run)?;
    fs::write(mark(run), "")
}

/// Stops the unit of a singleton, whose supervisor takes the pod down, and removes what is left.
async fn end(podman: &Podman, workload: &str) -> Result<(), PodmanError> {
    let unit = unit_name(workload);
    let stopped = Command::new("systemctl").args(["stop", &unit]).status();
    match stopped.await {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(unit, %status, "the unit is not stopped: its pod is removed"),
        Err(error) => tracing::warn!(unit, %error, "the unit is not stopped: its pod is removed"),
    }
    podman.remove_pod(workload).await
}

/// Releases a container. Returns whether it was held, and whether it has a probe.
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
