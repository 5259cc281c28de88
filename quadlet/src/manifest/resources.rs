//! Checks what a container requests of its host's memory, cores and devices.
//!
//! Pure: no I/O, no clock, no randomness. The checks apply Kubernetes' grammar to every quantity, because Podman parses
//! all of them before it does anything else, and one that it cannot parse fails the play.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Container, EnvVar, PersistentVolumeClaim, PodSpec, ResourceFieldSelector,
        ResourceRequirements,
    },
    apimachinery::pkg::api::resource::Quantity as Written,
};

use super::{
    field::{Field, cut},
    findings::Scope,
    quantity::{self, Quantity},
};

type List = BTreeMap<String, Written>;

/// The least memory of a container: the runtime itself needs this much.
const MEMORY_MIN: i128 = 512 << 10;
/// The largest CPU quantity, in thousandths of a core. A larger one is a mistake, and the kernel accepts no such quota.
const CPU_MAX: i128 = 1_000_000_000;
/// The least CPU quantity, in thousandths of a core. The kernel accepts no quota below one millisecond in a hundred;
/// kubelet rounds up to it, too.
pub(crate) const CPU_MIN: i128 = 10;

/// The resources that a `resourceFieldRef` may name, and their divisors.
const FIELDS: [(&str, &[&str]); 6] = [
    ("limits.cpu", &["1", "1m"]),
    ("limits.memory", MEMORY_DIVISORS),
    ("limits.ephemeral-storage", MEMORY_DIVISORS),
    ("requests.cpu", &["1", "1m"]),
    ("requests.memory", MEMORY_DIVISORS),
    ("requests.ephemeral-storage", MEMORY_DIVISORS),
];
/// The beginnings of the other resources that a `resourceFieldRef` may name.
const PAGES: [&str; 2] = ["limits.hugepages-", "requests.hugepages-"];
const MEMORY_DIVISORS: &[&str] = &[
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// Checks all quantities of a pod whose `spec` is at the path `at`.
pub(super) fn pod(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    if let Some(resources) = &spec.resources {
        requirements(resources, &at.key("resources"), scope);
    }
    for (name, value) in spec.overhead.iter().flatten() {
        read(value, &at.key("overhead").key(name), scope);
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|dir| dir.size_limit.as_ref());
        if let Some(limit) = limit {
            let at = at.key("volumes").index(index).then("emptyDir.sizeLimit");
            let medium = volume
                .empty_dir
                .as_ref()
                .and_then(|dir| dir.medium.as_deref());
            if read(limit, &at, scope).is_some() && medium.unwrap_or_default().is_empty() {
                let message = "it is not limited: the volume can take as much as its host has; `medium: Memory` is limited";
                scope.not_counted(&at, message);
            }
        }
    }
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, one)| ("initContainers", index, one));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(index, one)| ("containers", index, one));
    for (list, index, one) in init.chain(main) {
        let at = at.key(list).index(index);
        if let Some(resources) = &one.resources {
            requirements(resources, &at.key("resources"), scope);
        }
        variables(one.env.as_deref(), &at, scope);
    }
    for (index, one) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let at = at.key("ephemeralContainers").index(index);
        if let Some(resources) = &one.resources {
            requirements(resources, &at.key("resources"), scope);
        }
        variables(one.env.as_deref(), &at, scope);
    }
}

/// Checks the quantities of a claim.
pub(super) fn claim(claim: &PersistentVolumeClaim, scope: &mut Scope<'_>) {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let Some(resources) = resources else { return };
    let at = Field::default().then("spec.resources");
    for (name, list) in [
        ("limits", &resources.limits),
        ("requests", &resources.requests),
    ] {
        for (key, value) in list.iter().flatten() {
            read(value, &at.key(name).key(key), scope);
        }
    }
    let storage = |list: &Option<List>| {
        let value = list.as_ref()?.get("storage")?;
        quantity::parse(&value.0).ok()
    };
    if let (Some(limit), Some(request)) = (storage(&resources.limits), storage(&resources.requests))
        && limit < request
    {
        scope.wrong(&at.then("limits.storage"), "is below the request");
    }
}

/// Parses a quantity, which must not be negative; `None` if it is invalid.
fn read(value: &Written, at: &Field, scope: &mut Scope<'_>) -> Option<Quantity> {
    let shown = cut(&value.0);
    match quantity::parse(&value.0) {
        Ok(value) if value.is_negative() => scope.wrong(at, format!("`{shown}` is negative")),
        Ok(value) => return Some(value),
        Err(reason) => scope.wrong(at, format!("`{shown}` is not a quantity: {reason}")),
    }
    None
}

fn requirements(resources: &ResourceRequirements, at: &Field, scope: &mut Scope<'_>) {
    let mut values: BTreeMap<(&str, &str), Quantity> = BTreeMap::new();
    for (name, list) in [
        ("limits", &resources.limits),
        ("requests", &resources.requests),
    ] {
        for (key, value) in list.iter().flatten() {
            let at = at.key(name).key(key);
            if let Some(value) = read(value, &at, scope) {
                values.insert((name, key), value);
                one(name, key, value, &at, scope);
            }
        }
    }
    for ((name, key), limit) in &values {
        let request = values.get(&("requests", key));
        if *name == "limits" && request.is_some_and(|request| limit < request) {
            scope.wrong(&at.key(name).key(key), "is below the request");
        }
    }
}

/// Checks one resource.
fn one(list: &str, key: &str, value: Quantity, at: &Field, scope: &mut Scope<'_>) {
    match key {
        "memory" if list == "limits" && !value.is_zero() && value.units() < MEMORY_MIN => {
            let message = "is less than 512Ki, with which no container starts: `m` is a thousandth of a byte, `Mi` a mebibyte";
            scope.wrong(at, message);
        }
        "cpu" if value.millis() > CPU_MAX => scope.wrong(at, "is more cores than any host has"),
        "cpu" | "memory" => {}
        _ if value.is_zero() || key.contains('=') => {}
        "ephemeral-storage" => {
            scope.not_counted(
                at,
                "it is not limited: the container can write as much as its host has",
            );
        }
        _ if key.starts_with("hugepages-") => {
            scope.differs(
                at,
                "Podman does not set huge pages aside, so the container might find none: use memory",
            );
        }
        _ if key.contains('/') => {
            let message = "no host has such a resource, so no host could run the pod: request a device by its name, such as `nvidia.com/gpu=all`, which the policy must allow in `devices`";
            scope.wrong(at, message);
        }
        _ => scope.wrong(
            at,
            "is not a resource: use cpu, memory or ephemeral-storage",
        ),
    }
}

fn variables(env: Option<&[EnvVar]>, at: &Field, scope: &mut Scope<'_>) {
    for (index, var) in env.unwrap_or_default().iter().enumerate() {
        let from = var
            .value_from
            .as_ref()
            .and_then(|from| from.resource_field_ref.as_ref());
        if let Some(from) = from {
            let at = at
                .key("env")
                .index(index)
                .then("valueFrom.resourceFieldRef");
            resource_field(from, &at, scope);
        }
    }
}

/// Checks the reference to a resource.
pub(super) fn resource_field(from: &ResourceFieldSelector, at: &Field, scope: &mut Scope<'_>) {
    let known = FIELDS.iter().find(|(name, _)| *name == from.resource);
    let pages = PAGES.iter().any(|start| from.resource.starts_with(start));
    let divisors = known.map(|(_, divisors)| *divisors);
    let Some(divisors) = divisors.or(pages.then_some(MEMORY_DIVISORS)) else {
        let names: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        let message = format!(
            "`{}` is not one of {}",
            cut(&from.resource),
            names.join(", ")
        );
        return scope.wrong(&at.key("resource"), message);
    };
    let Some(divisor) = &from.divisor else { return };
    let at = at.key("divisor");
    if let Some(value) = read(divisor, &at, scope) {
        let is_known = |one: &&str| quantity::parse(one) == Ok(value);
        if !value.is_zero() && !divisors.iter().any(is_known) {
            let message = format!(
                "`{}` is not one of {}",
                cut(&divisor.0),
                divisors.join(", ")
            );
            scope.wrong(&at, message);
        }
    }
}

/// Writes the quantities of a pod in a form that Podman parses correctly: see [`quantity`].
pub(crate) fn settle(spec: &mut PodSpec) {
    for volume in spec.volumes.iter_mut().flatten() {
        let limit = volume
            .empty_dir
            .as_mut()
            .and_then(|dir| dir.size_limit.as_mut());
        if let Some(limit) = limit {
            limit.0 = quantity::bytes(&limit.0);
        }
    }
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        settle_container(container);
    }
}

fn settle_container(container: &mut Container) {
    for var in container.env.iter_mut().flatten() {
        let from = var
            .value_from
            .as_mut()
            .and_then(|from| from.resource_field_ref.as_mut());
        if let Some(divisor) = from.and_then(|from| from.divisor.as_mut()) {
            divisor.0 = canonical(&divisor.0);
        }
    }
    let Some(resources) = &mut container.resources else {
        return;
    };
    for (list, least) in [
        (&mut resources.limits, CPU_MIN),
        (&mut resources.requests, 1),
    ] {
        for (key, value) in list.iter_mut().flatten() {
            match key.as_str() {
                "cpu" => value.0 = quantity::millis(&value.0, least),
                "memory" | "ephemeral-storage" => value.0 = quantity::bytes(&value.0),
                _ if key.starts_with("hugepages-") => value.0 = quantity::bytes(&value.0),
                _ => {}
            }
        }
    }
}

/// A divisor in the text form that Podman knows.
fn canonical(text: &str) -> String {
    let same = |one: &&&str| quantity::parse(one) == quantity::parse(text);
    let known = ["1m"].iter().chain(MEMORY_DIVISORS).find(same);
    known.map_or_else(|| text.to_owned(), |known| (*known).to_owned())
}
