//! Fills in the defaults of Kubernetes that differ from those of Podman, or that a reader of the YAML needs.
//!
//! Pure: no I/O, no clock, no randomness.

use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, HTTPGetAction, LifecycleHandler, PodSpec, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::containers;
use crate::{
    manifest::names,
    render::{GRACE_SECONDS, Revision},
};

/// Maximum length of a host name in Linux.
const HOSTNAME_MAX: usize = 63;

/// The numbers of a probe that Kubernetes uses for 0 and for a missing one.
const PERIOD_SECONDS: i32 = 10;
const TIMEOUT_SECONDS: i32 = 1;
const SUCCESSES: i32 = 1;
const FAILURES: i32 = 3;

/// Fills in the defaults of a pod.
pub(super) fn fill(revision: &Revision<'_>, spec: &mut PodSpec) {
    spec.restart_policy
        .get_or_insert_with(|| "Always".to_owned());
    spec.termination_grace_period_seconds
        .get_or_insert(GRACE_SECONDS);
    // Podman would use the name of the pod as host name. With `_` it is no valid host name.
    let name = revision.name();
    let unfit = revision.pod_name() != name || name.len() > HOSTNAME_MAX;
    if unfit && spec.hostname.is_none() && spec.host_network != Some(true) {
        spec.hostname = Some(host_name(revision));
    }
    for one in containers(spec) {
        container(one);
    }
    for image in spec
        .volumes
        .iter_mut()
        .flatten()
        .filter_map(|volume| volume.image.as_mut())
    {
        let policy = pull_policy(image.reference.as_deref().unwrap_or_default());
        image.pull_policy.get_or_insert_with(|| policy.to_owned());
    }
}

/// The host name of a pod: its name, of which a long one is cut before the number.
fn host_name(revision: &Revision<'_>) -> String {
    let number = match revision.number {
        0 => String::new(),
        number => format!("-{number}"),
    };
    let room = HOSTNAME_MAX - number.len().min(HOSTNAME_MAX);
    let name: String = revision.object.name.chars().take(room).collect();
    name.trim_end_matches(['-', '.']).to_owned() + &number
}

fn container(container: &mut Container) {
    let policy = pull_policy(container.image.as_deref().unwrap_or_default());
    container
        .image_pull_policy
        .get_or_insert_with(|| policy.to_owned());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
    let ports = container.ports.as_deref().unwrap_or_default();
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    for one in probes.into_iter().flatten() {
        probe(one, ports);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
        for one in hooks.into_iter().flatten() {
            hook(one, ports);
        }
    }
}

/// The default of Kubernetes.
fn pull_policy(reference: &str) -> &'static str {
    match names::image(reference) {
        Ok(name) if name.floats() => "Always",
        Ok(_) | Err(_) => "IfNotPresent",
    }
}

fn probe(probe: &mut Probe, ports: &[ContainerPort]) {
    for (number, default) in [
        (&mut probe.period_seconds, PERIOD_SECONDS),
        (&mut probe.timeout_seconds, TIMEOUT_SECONDS),
        (&mut probe.success_threshold, SUCCESSES),
        (&mut probe.failure_threshold, FAILURES),
    ] {
        let written = number.filter(|number| *number != 0);
        *number = Some(written.unwrap_or(default));
    }
    if let Some(get) = &mut probe.http_get {
        http(get, ports);
    }
    if let Some(socket) = &mut probe.tcp_socket {
        resolve(&mut socket.port, ports);
    }
}

fn hook(hook: &mut LifecycleHandler, ports: &[ContainerPort]) {
    if let Some(get) = &mut hook.http_get {
        http(get, ports);
    }
    if let Some(socket) = &mut hook.tcp_socket {
        resolve(&mut socket.port, ports);
    }
}

fn http(get: &mut HTTPGetAction, ports: &[ContainerPort]) {
    for (text, default) in [(&mut get.path, "/"), (&mut get.scheme, "HTTP")] {
        let written = text.take().filter(|text| !text.is_empty());
        *text = Some(written.unwrap_or_else(|| default.to_owned()));
    }
    resolve(&mut get.port, ports);
}

/// Replaces the name of a port of the container with its number.
fn resolve(port: &mut IntOrString, ports: &[ContainerPort]) {
    let IntOrString::String(name) = port else {
        return;
    };
    let named = ports.iter().find(|one| one.name.as_ref() == Some(name));
    let number = named.map(|one| one.container_port);
    if let Some(number) = number.or_else(|| name.parse().ok()) {
        *port = IntOrString::Int(number);
    }
}
