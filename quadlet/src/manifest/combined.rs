//! Checks fields of a pod that exclude or need each other.
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, PodSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    field::{Field, cut},
    findings::Scope,
};

/// The longest name of a port: that of a service of IANA.
const PORT_NAME_MAX: usize = 15;

/// Checks the `spec` of a pod at the path `at`.
pub(super) fn pod(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let mut ports = BTreeMap::new();
    for (index, one) in spec.init_containers.iter().flatten().enumerate() {
        let at = at.key("initContainers").index(index);
        container(one, &at, scope);
        match one.restart_policy.as_deref() {
            Some("Always") => port_names(one, &mut ports, &at, scope),
            Some(_) | None => {
                port_names(one, &mut BTreeMap::new(), &at, scope);
                unpublished(one, &at, scope);
            }
        }
    }
    for (index, one) in spec.containers.iter().enumerate() {
        let at = at.key("containers").index(index);
        container(one, &at, scope);
        port_names(one, &mut ports, &at, scope);
    }
}

fn container(container: &Container, at: &Field, scope: &mut Scope<'_>) {
    hooks(container, at, scope);
    let context = container.security_context.as_ref();
    let privileged = context.is_some_and(|context| context.privileged == Some(true));
    let mut paths = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = at.key("volumeMounts").index(index);
        if mount.mount_propagation.as_deref() == Some("Bidirectional") && !privileged {
            let message = "`Bidirectional` is only for privileged containers: what they mount appears on the host";
            scope.differs(&at.key("mountPropagation"), message);
        }
        let path = mount.mount_path.split(':').next().unwrap_or_default();
        if !paths.insert(path) {
            let message = format!("another volume is mounted at `{}`", cut(path));
            scope.differs(&at.key("mountPath"), message);
        }
    }
}

/// Checks that each hook says one thing to do.
fn hooks(container: &Container, at: &Field, scope: &mut Scope<'_>) {
    let Some(lifecycle) = &container.lifecycle else {
        return;
    };
    for (name, hook) in [
        ("postStart", &lifecycle.post_start),
        ("preStop", &lifecycle.pre_stop),
    ] {
        let Some(hook) = hook else { continue };
        let at = at.key("lifecycle").key(name);
        let handlers = [
            hook.exec.is_some(),
            hook.http_get.is_some(),
            hook.sleep.is_some(),
            // Another check refuses it.
            hook.tcp_socket.is_some(),
        ];
        if handlers.iter().filter(|is_set| **is_set).count() != 1 {
            scope.differs(&at, "needs one of exec, httpGet, sleep");
        }
        let command = hook.exec.as_ref().map(|exec| exec.command.as_deref());
        if command.is_some_and(|command| command.is_none_or(<[String]>::is_empty)) {
            scope.differs(&at.then("exec.command"), "has no command");
        }
        if hook.sleep.as_ref().is_some_and(|sleep| sleep.seconds < 0) {
            scope.differs(&at.then("sleep.seconds"), "is negative");
        }
        let port = hook.http_get.as_ref().map(|get| &get.port);
        if port.is_some_and(|port| !is_port_of(port, container)) {
            let message = "is neither 1 to 65535 nor the name of a port of this container";
            scope.differs(&at.then("httpGet.port"), message);
        }
    }
}

fn is_port_of(port: &IntOrString, container: &Container) -> bool {
    match port {
        IntOrString::Int(number) => (1..=65535).contains(number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            name.parse::<u16>().is_ok_and(|port| port > 0)
                || ports.any(|port| port.name.as_ref() == Some(name))
        }
    }
}

/// Checks the names of a container's ports, and adds them to those of the containers that run with it.
fn port_names<'a>(
    container: &'a Container,
    others: &mut BTreeMap<&'a str, &'a str>,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    let mut own = BTreeSet::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
        let at = at.key("ports").index(index).key("name");
        if !is_port_name(name) {
            let message = format!(
                "`{}` is not the name of a port: use at most {PORT_NAME_MAX} lower-case letters, digits and single `-`, at least one letter, and no `-` at an end",
                cut(name)
            );
            scope.differs(&at, message);
        } else if !own.insert(name) {
            let message = format!("another port of this container is named `{name}`");
            scope.differs(&at, message);
        } else if let Some(other) = others.insert(name, &container.name) {
            let message = format!(
                "a port of container `{}` is named `{name}`, too: what refers to the name means one of them",
                cut(other)
            );
            scope.advise(&at, message);
        }
    }
}

fn is_port_name(name: &str) -> bool {
    name.len() <= PORT_NAME_MAX
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// Reports the host ports of an init container, which has ended when the pod runs.
fn unpublished(container: &Container, at: &Field, scope: &mut Scope<'_>) {
    let is_published = |port: &ContainerPort| port.host_port.is_some_and(|port| port != 0);
    for (index, port) in container.ports.iter().flatten().enumerate() {
        if is_published(port) {
            let at = at.key("ports").index(index).key("hostPort");
            let message = "it is not published: an init container has ended when the pod runs";
            scope.not_done(&at, message);
        }
    }
}
