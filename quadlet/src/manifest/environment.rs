//! Checks the variables of a container, and the texts that refer to them.
//!
//! Pure: no I/O, no clock, no randomness. Rendering resolves every variable, so a value that only a host knows cannot be
//! a part of another one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EnvVarSource, PodSpec, ResourceFieldSelector,
};

use super::{
    block::is_misread,
    expansion,
    field::{Field, cut},
    findings::Scope,
    pod::refers,
    quantity,
};

/// What to do about a word that Podman cannot read.
const MISREAD: &str = "Podman cannot read a text of several lines that begins with a blank or an empty line: begin it with its first word";

const NAME: &str = "use printable ASCII characters without `=`";

/// Labels and annotations that controllers of Kubernetes set on their pods, and Beemesh does not.
const OF_CONTROLLERS: [&str; 6] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "controller-revision-hash",
    "controller-uid",
    "pod-template-hash",
];

/// The knowledge about a variable before its ConfigMap or Secret is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Plain,
    Secret,
    OfHost,
}

/// The list and the key of `metadata.labels['KEY']` or `metadata.annotations['KEY']`.
pub(crate) fn entry(path: &str) -> Option<(&str, &str)> {
    let (list, rest) = path.strip_prefix("metadata.")?.split_once("['")?;
    let key = rest.strip_suffix("']")?;
    matches!(list, "labels" | "annotations").then_some((list, key))
}

/// Checks the variables of a container at the path `at`.
pub(super) fn check(container: &Container, spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    commands(container, at, scope);
    for (index, from) in container.env_from.iter().flatten().enumerate() {
        all_of(from, &at.key("envFrom").index(index), scope);
    }
    let mut known = BTreeMap::new();
    for (index, var) in container.env.iter().flatten().enumerate() {
        let at = at.key("env").index(index);
        if !expansion::is_variable(&var.name) {
            let message = format!("`{}` cannot name a variable: {NAME}", cut(&var.name));
            scope.differs(&at.key("name"), message);
        }
        let of = variable(var, container, spec, &known, &at, scope);
        known.insert(var.name.as_str(), of);
    }
    let in_map = |from: &EnvFromSource| from.secret_ref.is_some();
    let any_secret = container.env_from.iter().flatten().any(in_map);
    for (key, words) in [("command", &container.command), ("args", &container.args)] {
        for (index, word) in words.iter().flatten().enumerate() {
            let at = at.key(key).index(index);
            of_host(word, &known, &at, scope);
            if is_misread(word) {
                scope.differs(&at, MISREAD);
            }
            let mut names = expansion::names(word);
            let secret = names.find(|name| match known.get(name) {
                Some(known) => *known == Known::Secret,
                None => any_secret && expansion::is_variable(name),
            });
            if let Some(name) = secret {
                let whose = match known.contains_key(name) {
                    true => "is",
                    false => "may be",
                };
                let message = format!(
                    "`$({})` {whose} the value of a Secret: every user of the host can read it in the list of processes, as in Kubernetes; a variable or a file keeps it secret",
                    cut(name)
                );
                scope.advise(&at, message);
            }
        }
    }
}

/// Checks the commands of probes and hooks, which Podman reads, too.
fn commands(container: &Container, at: &Field, scope: &mut Scope<'_>) {
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    let probes = probes.map(|(key, probe)| (key, probe.as_ref().and_then(|one| one.exec.as_ref())));
    let hooks = container.lifecycle.as_ref();
    let hooks = [
        (
            "lifecycle.postStart",
            hooks.and_then(|all| all.post_start.as_ref()),
        ),
        (
            "lifecycle.preStop",
            hooks.and_then(|all| all.pre_stop.as_ref()),
        ),
    ];
    let hooks = hooks.map(|(key, hook)| (key, hook.and_then(|one| one.exec.as_ref())));
    for (key, exec) in probes.into_iter().chain(hooks) {
        let words = exec.and_then(|exec| exec.command.as_ref());
        for (index, word) in words.into_iter().flatten().enumerate() {
            if is_misread(word) {
                let at = at.then(key).then("exec.command").index(index);
                scope.differs(&at, MISREAD);
            }
        }
    }
}

fn all_of(from: &EnvFromSource, at: &Field, scope: &mut Scope<'_>) {
    match (&from.config_map_ref, &from.secret_ref) {
        (Some(source), None) => refers(
            &source.name,
            "ConfigMap",
            &at.then("configMapRef.name"),
            scope,
        ),
        (None, Some(source)) => {
            refers(&source.name, "Secret", &at.then("secretRef.name"), scope);
        }
        (None, None) | (Some(_), Some(_)) => {
            scope.differs(at, "needs one of configMapRef, secretRef");
        }
    }
    let prefix = from.prefix.as_deref().unwrap_or_default();
    if !prefix.is_empty() && !expansion::is_variable(prefix) {
        let message = format!("`{}` cannot begin a variable: {NAME}", cut(prefix));
        scope.differs(&at.key("prefix"), message);
    }
}

fn variable(
    var: &EnvVar,
    container: &Container,
    spec: &PodSpec,
    known: &BTreeMap<&str, Known>,
    at: &Field,
    scope: &mut Scope<'_>,
) -> Known {
    let text = var.value.as_deref().unwrap_or_default();
    let Some(from) = &var.value_from else {
        of_host(text, known, &at.key("value"), scope);
        let mut names = expansion::names(text);
        let secret = names.any(|name| known.get(name) == Some(&Known::Secret));
        return if secret { Known::Secret } else { Known::Plain };
    };
    let at = at.key("valueFrom");
    if !text.is_empty() {
        scope.differs(&at, "is not allowed beside a value");
    }
    value_from(from, container, spec, &at, scope)
}

fn value_from(
    from: &EnvVarSource,
    container: &Container,
    spec: &PodSpec,
    at: &Field,
    scope: &mut Scope<'_>,
) -> Known {
    let sources = [
        from.config_map_key_ref.is_some(),
        from.secret_key_ref.is_some(),
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
    ];
    if sources.iter().filter(|is_set| **is_set).count() != 1 {
        let message = "needs one of configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef";
        scope.differs(at, message);
        return Known::Plain;
    }
    if let Some(source) = &from.config_map_key_ref {
        let at = at.then("configMapKeyRef.name");
        refers(&source.name, "ConfigMap", &at, scope);
    }
    if let Some(source) = &from.secret_key_ref {
        refers(&source.name, "Secret", &at.then("secretKeyRef.name"), scope);
        return Known::Secret;
    }
    if let Some(source) = &from.field_ref {
        field(&source.field_path, &at.then("fieldRef.fieldPath"), scope);
    }
    match &from.resource_field_ref {
        Some(source) => resource(source, container, spec, &at.key("resourceFieldRef"), scope),
        None => Known::Plain,
    }
}

fn field(path: &str, at: &Field, scope: &mut Scope<'_>) {
    const FIELDS: &str = "metadata.name, .namespace, .uid, .labels['KEY'], .annotations['KEY'] or spec.serviceAccountName";
    if let Some((_, key)) = entry(path) {
        if OF_CONTROLLERS.contains(&key) {
            let message = format!(
                "no controller sets `{key}` here: the variable has what the manifest itself says, else nothing"
            );
            scope.not_done(at, message);
        }
        return;
    }
    let instead = match path {
        "metadata.name" | "metadata.namespace" | "metadata.uid" | "spec.serviceAccountName" => {
            return;
        }
        "spec.nodeName" => "mount the host's /etc/hostname as a hostPath volume",
        "status.hostIP" | "status.hostIPs" => {
            "in the container the name host.containers.internal leads to the host"
        }
        "status.podIP" | "status.podIPs" => "`hostname -i` in the container tells it",
        _ => {
            let message = format!("Podman does not know `{}`: use {FIELDS}", cut(path));
            return scope.differs(at, message);
        }
    };
    let message = format!(
        "only the host that runs the pod knows `{path}`, and Podman puts it into no variable: {instead}"
    );
    scope.differs(at, message);
}

fn resource(
    asked: &ResourceFieldSelector,
    container: &Container,
    spec: &PodSpec,
    at: &Field,
    scope: &mut Scope<'_>,
) -> Known {
    let named = asked.container_name.as_deref().filter(|n| !n.is_empty());
    let mut all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let of = match named {
        Some(name) => all.find(|one| one.name == name),
        None => Some(container),
    };
    let Some(of) = of else {
        let message = format!(
            "no container of this pod is named `{}`",
            cut(named.unwrap_or_default())
        );
        scope.differs(&at.key("containerName"), message);
        return Known::Plain;
    };
    let Some(name) = asked.resource.strip_prefix("limits.") else {
        return Known::Plain;
    };
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") || limits(of, name) {
        return Known::Plain;
    }
    if name == "ephemeral-storage" {
        let message = "the container has no such limit, and Podman does not know how much its host has: set resources.limits.ephemeral-storage";
        scope.differs(&at.key("resource"), message);
    } else if limits(container, name) {
        let message = format!(
            "container `{}` has no such limit, and Podman would give this container's own: set resources.limits.{name} there",
            cut(&of.name)
        );
        scope.differs(&at.key("resource"), message);
    }
    Known::OfHost
}

/// `true` for a container with a limit of this name other than 0.
fn limits(container: &Container, name: &str) -> bool {
    let limits = container.resources.as_ref();
    let limits = limits.and_then(|resources| resources.limits.as_ref());
    let limit = limits.and_then(|limits| quantity::parse(&limits.get(name)?.0).ok());
    limit.is_some_and(|limit| !limit.is_zero())
}

fn of_host(text: &str, known: &BTreeMap<&str, Known>, at: &Field, scope: &mut Scope<'_>) {
    let mut names = expansion::names(text);
    if let Some(name) = names.find(|name| known.get(name) == Some(&Known::OfHost)) {
        let message = format!(
            "`$({})` is a resource of the host that runs the pod, so no other value can contain it: give the container that limit",
            cut(name)
        );
        scope.differs(at, message);
    }
}
