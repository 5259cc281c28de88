//! Ends the containers of a pod that the supervisor starts, as kubelet does: each by its `preStop` hook and its stop
//! signal within its grace period, and the sidecars last. Shell: decides nothing.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::hooks::Place;
use super::probes::spec::{self, ContainerSpec, Handler};
use crate::health::{Container, Role, Run};
use crate::podman::{Pod, Podman, PodmanError};
use crate::render;

/// The least time that a sidecar has to end after the other containers.
const GRACE_MIN: Duration = Duration::from_secs(2);

/// Ends all containers of a pod, if `yaml` says that the supervisor starts them. Afterwards the pod can be taken down at
/// once.
///
/// # Errors
///
/// Podman does not answer in time. A container that cannot be inspected or signalled is left to the take-down.
pub async fn end_pod(podman: &Podman, pod: &Pod, yaml: &[u8]) -> Result<(), PodmanError> {
    end_pod_within(podman, pod, yaml, Duration::MAX).await
}

/// The same with grace periods that are not longer than `limit`.
pub(super) async fn end_pod_within(
    podman: &Podman,
    pod: &Pod,
    yaml: &[u8],
    limit: Duration,
) -> Result<(), PodmanError> {
    let Some(staged) = render::staged(yaml) else {
        return Ok(());
    };
    let specs = spec::read(yaml);
    let mut containers = pod.containers.clone();
    staged.give_roles(&pod.name, &mut containers);
    let address = address(podman, &containers).await?;
    let began = Instant::now();
    let end = |container: &Container| {
        let spec = specs.iter().find(|spec| spec.name == container.name);
        let (id, spec) = (container.id.clone(), spec.cloned());
        async move {
            let Some(spec) = spec else {
                return podman.end_container(&id, None, None).await;
            };
            let grace = spec.grace.min(limit).saturating_sub(began.elapsed());
            let grace = grace.max(GRACE_MIN);
            end_container(podman, &id, &spec, address, grace).await
        }
    };
    let running = |role| {
        let all = containers.iter();
        all.filter(move |one| one.role == role && one.run == Run::Running)
    };
    let first = running(Role::Member).chain(running(Role::Init));
    for ended in join_all(first.map(&end)).await {
        ended?;
    }
    for name in staged.init.iter().rev() {
        let full = format!("{}-{name}", pod.name);
        if let Some(sidecar) = running(Role::Sidecar).find(|one| one.name == full) {
            end(sidecar).await?;
        }
    }
    Ok(())
}

/// Ends one container within `grace`: its `preStop` hook first, whose time counts against that.
///
/// # Errors
///
/// Podman does not answer in time.
pub async fn end_container(
    podman: &Podman,
    id: &str,
    spec: &ContainerSpec,
    address: Option<IpAddr>,
    grace: Duration,
) -> Result<(), PodmanError> {
    let place = Place {
        podman,
        container: id,
        address,
    };
    let (rest, outcome) = place.pre_stop(spec.pre_stop.as_ref(), grace).await;
    if let Err(reason) = outcome {
        tracing::warn!(container = spec.name, reason, "its preStop hook has failed");
    }
    podman
        .end_container(id, spec.stop_signal.clone(), Some(rest))
        .await
}

/// Whether a `preStop` hook of a YAML connects to the pod, which only the supervisor of the pod can do.
#[must_use]
pub fn needs_supervisor(yaml: &[u8]) -> bool {
    let specs = spec::read(yaml).into_iter();
    let mut hooks = specs.filter_map(|spec| spec.pre_stop);
    hooks.any(|hook| matches!(hook, Handler::Http(_)))
}

async fn address(podman: &Podman, containers: &[Container]) -> Result<Option<IpAddr>, PodmanError> {
    let infra = containers.iter().find(|one| one.role == Role::Infra);
    match infra {
        Some(infra) => podman.pod_address(&infra.id).await,
        None => Ok(None),
    }
}
