//! Checks pods: accepts those that Podman plays as the manifest means them.
//!
//! Pure: no I/O, no clock, no randomness.

use std::{collections::BTreeSet, net::IpAddr};

use beemesh_protocol::workload::{is_label, is_name};
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    environment,
    field::{Field, cut},
    findings::Scope,
    identity, mounts,
    names::{self, LABEL_RULE, NAME_RULE},
    ranges, resources, volumes,
};

/// Checks the `spec` of a pod at the path `at`.
pub(super) fn check(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    if spec.containers.is_empty() {
        scope.wrong(&at.key("containers"), "has no container");
    }
    ranges::pod(spec, at, scope);
    resources::pod(spec, at, scope);
    identity::check(spec, at, scope);
    if let Some(hostname) = spec.hostname.as_deref().filter(|name| !is_label(name)) {
        let message = format!("`{}` is not a host name: {LABEL_RULE}", cut(hostname));
        scope.wrong(&at.key("hostname"), message);
    }
    let mut volumes = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let at = at.key("volumes").index(index);
        named(&volume.name, "volume", &mut volumes, &at, scope);
        volumes::source(volume, spec, &at, scope);
    }
    let mut names = BTreeSet::new();
    let mut host_ports = Vec::new();
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, container)| ("initContainers", index, container));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(index, container)| ("containers", index, container));
    for (list, index, one) in init.chain(main) {
        let at = at.key(list).index(index);
        named(&one.name, "container", &mut names, &at, scope);
        container(one, spec, &at, scope);
        ports(
            one,
            spec.host_network == Some(true),
            &mut host_ports,
            &at,
            scope,
        );
        match list {
            "initContainers" if !is_sidecar(one) => init_only(one, &at, scope),
            _ => probes(one, &at, scope),
        }
        restart_policy(one, list, &at, scope);
    }
}

/// Checks a name that must be unique in its pod.
fn named<'a>(
    name: &'a str,
    what: &str,
    taken: &mut BTreeSet<&'a str>,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    let at = at.key("name");
    if name.is_empty() {
        scope.wrong(&at, format!("the {what} has no name"));
    } else if !is_label(name) {
        scope.wrong(
            &at,
            format!("`{}` is not a {what} name: {LABEL_RULE}", cut(name)),
        );
    } else if !taken.insert(name) {
        scope.wrong(&at, format!("another {what} of this pod is named `{name}`"));
    }
}

fn container(container: &Container, spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let reference = container.image.as_deref().unwrap_or_default();
    image(
        reference,
        container.image_pull_policy.as_deref(),
        "imagePullPolicy",
        &at.key("image"),
        scope,
    );
    mounts::check(container, spec, at, scope);
    environment::check(container, spec, at, scope);
}

/// Checks an image and its pull policy, a sibling field.
pub(super) fn image(
    reference: &str,
    pull: Option<&str>,
    policy: &str,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    if !matches!(pull, None | Some("Always" | "IfNotPresent" | "Never")) {
        let message = format!(
            "`{}` is not one of Always, IfNotPresent, Never",
            cut(pull.unwrap_or_default())
        );
        scope.wrong(&at.beside(policy), message);
    }
    if reference.is_empty() {
        scope.wrong(at, "has no image");
        return;
    }
    let name = match names::image(reference) {
        Ok(name) => name,
        Err(reason) => {
            scope.wrong(
                at,
                format!("`{}` is not an image reference: {reason}", cut(reference)),
            );
            return;
        }
    };
    if name.floats() && matches!(pull, Some("IfNotPresent" | "Never")) {
        let message = format!(
            "`{reference}` may differ from host to host with {policy} {}: give it a fixed tag, or use Always",
            pull.unwrap_or_default()
        );
        scope.wrong(at, message);
    }
    if !name.qualified {
        let message = format!(
            "each host looks up `{reference}` in its own registries.conf: name the registry"
        );
        scope.advise(at, message);
    }
}

/// Checks a reference to an object.
pub(super) fn refers(name: &str, kind: &str, at: &Field, scope: &mut Scope<'_>) {
    if !is_name(name) {
        scope.wrong(
            at,
            format!("`{}` is not the name of a {kind}: {NAME_RULE}", cut(name)),
        );
    }
}

fn ports(
    container: &Container,
    of_host: bool,
    taken: &mut Vec<(Option<IpAddr>, String, i32)>,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let at = at.key("ports").index(index);
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if !(1..=65535).contains(&port.container_port) {
            scope.wrong(&at.key("containerPort"), "is not a port: use 1 to 65535");
        }
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            let message = format!("`{}` is not one of TCP, UDP, SCTP", cut(protocol));
            scope.wrong(&at.key("protocol"), message);
        }
        let Some(host_port) = port.host_port.filter(|port| *port != 0) else {
            continue;
        };
        let written = port.host_ip.as_deref().unwrap_or_default();
        let address = written.parse::<IpAddr>();
        if address.is_err() && !written.is_empty() {
            let message = format!("`{}` is not an IP address", cut(written));
            scope.wrong(&at.key("hostIP"), message);
        }
        let address = address.ok().filter(|address| !address.is_unspecified());
        let meets = |(other, spoken, number): &(Option<IpAddr>, String, i32)| {
            let same = other.is_none() || address.is_none() || *other == address;
            same && spoken == protocol && *number == host_port
        };
        if !(1..=65535).contains(&host_port) {
            scope.wrong(&at.key("hostPort"), "is not a port: use 1 to 65535");
        } else if of_host && host_port != port.container_port {
            scope.wrong(
                &at.key("hostPort"),
                "must be the containerPort in the host's network",
            );
        } else if taken.iter().any(meets) {
            let message = format!("port {host_port} of the host is published twice by this pod");
            scope.wrong(&at.key("hostPort"), message);
        } else {
            taken.push((address, protocol.to_owned(), host_port));
        }
    }
}

fn init_only(container: &Container, at: &Field, scope: &mut Scope<'_>) {
    for (name, is_set) in [
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ] {
        if is_set {
            scope.unreadable(
                at.key(name),
                "an init container runs to its end: only a sidecar, with `restartPolicy: Always`, can have one",
            );
        }
    }
}

/// Whether the init container is a sidecar, which goes on running beside the containers.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn restart_policy(container: &Container, list: &str, at: &Field, scope: &mut Scope<'_>) {
    let Some(policy) = &container.restart_policy else {
        return;
    };
    let at = at.key("restartPolicy");
    if list != "initContainers" {
        let message = "is for init containers only: the pod's restartPolicy holds for this one";
        scope.differs(&at, message);
    } else if !is_sidecar(container) {
        let message = format!(
            "`{}` is not `Always`, which makes a sidecar: an init container has no other",
            cut(policy)
        );
        scope.differs(&at, message);
    }
}

fn probes(container: &Container, at: &Field, scope: &mut Scope<'_>) {
    for (name, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        if let Some(one) = probe {
            handler(one, container, &at.key(name), scope);
        }
    }
}

fn handler(probe: &Probe, container: &Container, at: &Field, scope: &mut Scope<'_>) {
    let handlers = [
        probe.exec.is_some(),
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.grpc.is_some(),
    ];
    if handlers.iter().filter(|is_set| **is_set).count() != 1 {
        scope.wrong(at, "needs one of exec, httpGet, tcpSocket, grpc");
        return;
    }
    if let Some(grpc) = &probe.grpc
        && !(1..=65535).contains(&grpc.port)
    {
        scope.wrong(&at.then("grpc.port"), "is not a port: use 1 to 65535");
    }
    if let Some(exec) = &probe.exec
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        scope.wrong(&at.then("exec.command"), "has no command");
    }
    let ports = [
        ("httpGet", probe.http_get.as_ref().map(|get| &get.port)),
        (
            "tcpSocket",
            probe.tcp_socket.as_ref().map(|socket| &socket.port),
        ),
    ];
    for (name, port) in ports {
        let Some(port) = port else { continue };
        let at = at.key(name);
        let is_known = match port {
            IntOrString::Int(number) => (1..=65535).contains(number),
            IntOrString::String(name) => {
                let mut ports = container.ports.iter().flatten();
                name.parse::<u16>().is_ok_and(|port| port > 0)
                    || ports.any(|port| port.name.as_ref() == Some(name))
            }
        };
        if !is_known {
            scope.wrong(
                &at.key("port"),
                "is neither 1 to 65535 nor the name of a port of this container",
            );
        }
    }
}
