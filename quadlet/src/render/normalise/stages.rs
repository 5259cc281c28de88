//! Decides whether the supervisor of a workload must start its containers, and writes down what it needs for that.
//!
//! Pure: no I/O, no clock, no randomness. Podman runs init containers to their end, has no sidecars, and knows only a
//! part of the probes and hooks. So a sidecar becomes an ordinary container in front of the others: without Beemesh,
//! Podman starts it after the init containers. The annotations of [`crate::render::staged`] keep the rest.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::containers;
use crate::{
    manifest::{
        annotations::{
            INIT_ORDER, LEASE, OURS, REQUIRED, RESTART_POLICY, SIDECARS, START, SUPERVISOR, VOLUMES,
        },
        is_sidecar,
    },
    render::staged::PreparedVolume,
};

/// Turns sidecars into containers, and sets the annotations that the supervisor reads. Only the supervisor starts and
/// restarts the containers of a singleton.
pub(super) fn stage(
    metadata: &mut ObjectMeta,
    spec: &mut PodSpec,
    volumes: &BTreeMap<String, PreparedVolume>,
    is_singleton: bool,
) {
    for container in containers(spec) {
        if let Some(folder) = &mut container.working_dir {
            *folder = without_dots(folder);
        }
    }
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| !OURS.contains(&key.as_str()));
    // Podman runs init containers again after one has failed, also those that have done their work.
    let has_init = spec
        .init_containers
        .as_ref()
        .is_some_and(|init| !init.is_empty());
    let is_staged = is_singleton
        || has_init
        || !volumes.is_empty()
        || containers(spec).any(|one| needs_supervisor(one));
    // A list of pods shows labels only.
    let labels = metadata.labels.get_or_insert_default();
    labels.retain(|key, _| ![START, LEASE].contains(&key.as_str()));
    if is_staged {
        annotations.insert(START.to_owned(), SUPERVISOR.to_owned());
        labels.insert(START.to_owned(), SUPERVISOR.to_owned());
    }
    if is_singleton {
        annotations.insert(LEASE.to_owned(), REQUIRED.to_owned());
        labels.insert(LEASE.to_owned(), REQUIRED.to_owned());
        let policy = spec.restart_policy.replace("Never".to_owned());
        let policy = policy.unwrap_or_else(|| "Always".to_owned());
        annotations.insert(RESTART_POLICY.to_owned(), policy);
    }
    if !volumes.is_empty() {
        let list: Vec<&PreparedVolume> = volumes.values().collect();
        let list = serde_json::to_string(&list).unwrap_or_default();
        annotations.insert(VOLUMES.to_owned(), list);
    }
    let init = spec.init_containers.take().unwrap_or_default();
    let order: Vec<String> = init.iter().map(|one| one.name.clone()).collect();
    let (sidecars, init): (Vec<_>, Vec<_>) = init.into_iter().partition(is_sidecar);
    spec.init_containers = (!init.is_empty()).then_some(init);
    if !sidecars.is_empty() {
        let names: Vec<&str> = sidecars.iter().map(|one| one.name.as_str()).collect();
        annotations.insert(SIDECARS.to_owned(), names.join(","));
        annotations.insert(INIT_ORDER.to_owned(), order.join(","));
        spec.containers.splice(..0, sidecars);
    }
    if is_singleton {
        // A policy of a sidecar of its own would hold in Podman.
        containers(spec).for_each(|one| one.restart_policy = None);
    }
    if annotations.is_empty() {
        metadata.annotations = None;
    }
}

/// An absolute path without `.` and `..`, as a container runtime of Kubernetes reads it: the folder before a `..` need not
/// exist.
fn without_dots(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_owned();
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether Podman alone would run the container in another way than its manifest says.
fn needs_supervisor(container: &Container) -> bool {
    let hooks = container.lifecycle.as_ref();
    is_sidecar(container)
        || container.working_dir.is_some()
        || container.liveness_probe.is_some()
        || container.readiness_probe.is_some()
        || container.startup_probe.is_some()
        || hooks.is_some_and(|hooks| {
            hooks.post_start.is_some() || hooks.pre_stop.is_some() || hooks.stop_signal.is_some()
        })
}
