//! Checks an object against the policy and reports each violation with its field and the policy's line.
//!
//! Pure: no I/O, no clock, no randomness. The check covers everything by which Podman's `kube play` gives a pod or a
//! claim access to its host: the fields that it reads, the annotations that Podman or the runtime acts on, the devices
//! among the resources, and the options after the path of a mount.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use k8s_openapi::api::core::v1::{
    Container, PodSpec, SELinuxOptions, SeccompProfile, Volume, VolumeMount,
};

use super::{List, Rules, Switch, document::capability, path};
use crate::manifest::{
    field::{Field, cut},
    findings::Scope,
};

/// Prefixes of the annotations that Podman, its runtime or its hooks act on.
const GOVERNED: [&str; 11] = [
    "bind-mount-options",
    "dev.gvisor.",
    "io.containers.trace-syscall",
    "io.katacontainers.",
    "io.kubernetes.cri-o.",
    "io.podman.annotations.",
    "krun.",
    "module.wasm.",
    "org.criu.",
    "org.systemd.property.",
    "run.oci.",
];
/// The prefix of a claim's annotations, which select the kind of volume that Podman makes.
const VOLUME: &str = "volume.podman.io/";
/// The driver that Podman also uses without the annotation.
const VOLUME_LOCAL: (&str, &str) = ("volume.podman.io/driver", "local");

/// Annotations that select the seccomp profile of a pod or a container.
const SECCOMP: [&str; 2] = [
    "seccomp.security.alpha.kubernetes.io/pod",
    "container.seccomp.security.alpha.kubernetes.io/",
];
/// Names of Podman's default profile.
const SECCOMP_DEFAULT: [&str; 2] = ["runtime/default", "docker/default"];

/// The prefix of a device of the host among the resources, in Podman's notation.
const DEVICE: &str = "podman.io/device=";

/// Whether the rule on annotations applies to this key.
pub(super) fn is_governed(key: &str) -> bool {
    key.starts_with(VOLUME) || GOVERNED.iter().any(|start| key.starts_with(start))
}

/// Turns each refusal into a problem of the file. `what` names the value where the field does not.
struct Refusals<'r, 's, 'o> {
    rules: &'r Rules,
    scope: &'s mut Scope<'o>,
}

impl<'r> Refusals<'r, '_, '_> {
    fn refuse(&mut self, at: &Field, what: &str, line: &str) {
        let what = match what {
            "" => String::new(),
            what => format!("`{}` ", cut(what)),
        };
        let version = match self.rules.version {
            0 => "version 0, the default".to_owned(),
            version => format!("version {version}"),
        };
        let message = format!(
            "{what}is refused by `{}` of the cluster's policy ({version}): an administrator can change it, `beemesh policy set`",
            cut(line)
        );
        self.scope.wrong(at, message);
    }

    fn switch(&mut self, asked: bool, switch: Switch, at: &Field, what: &str) {
        if asked && !self.rules.policy.allows(switch) {
            self.refuse(at, what, &self.rules.policy.switch_line(switch));
        }
    }

    fn grace(&mut self, seconds: Option<i64>, at: &Field) {
        if let Some(seconds) = seconds.filter(|seconds| *seconds > self.rules.policy.grace_seconds)
        {
            self.refuse(at, &seconds.to_string(), &self.rules.policy.grace_line());
        }
    }

    fn listed(&mut self, list: List, at: &Field, what: &str) {
        self.refuse(at, what, &self.rules.policy.list_line(list));
    }

    fn list(&self, list: List) -> &'r [String] {
        self.rules.policy.list(list)
    }
}

/// Checks a pod whose `spec` is at the path `at`.
pub(crate) fn pod(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let Some(rules) = scope.rules else { return };
    let mut refusals = Refusals { rules, scope };
    for (name, asked, switch) in [
        ("hostNetwork", spec.host_network, Switch::HostNetwork),
        ("hostPID", spec.host_pid, Switch::HostPid),
        ("hostIPC", spec.host_ipc, Switch::HostIpc),
    ] {
        refusals.switch(asked == Some(true), switch, &at.key(name), "");
    }
    if let Some(context) = &spec.security_context {
        let at = at.key("securityContext");
        confinement(
            context.se_linux_options.as_ref(),
            context.seccomp_profile.as_ref(),
            &at,
            &mut refusals,
        );
        for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
            // The kernel accepts both notations.
            let name = sysctl.name.replace('/', ".");
            if !refusals.list(List::Sysctls).contains(&name) {
                let at = at.key("sysctls").index(index).key("name");
                refusals.listed(List::Sysctls, &at, &sysctl.name);
            }
        }
    }
    let grace = spec.termination_grace_period_seconds;
    refusals.grace(grace, &at.key(super::GRACE));
    let mut read_only = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        if host_path(volume, &at.key("volumes").index(index), &mut refusals) {
            read_only.insert(volume.name.as_str());
        }
    }
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, container)| ("initContainers", index, container));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(index, container)| ("containers", index, container));
    for (list, index, one) in init.chain(main) {
        let at = at.key(list).index(index);
        container(one, &read_only, &at, &mut refusals);
        host_ports(one, spec.host_network == Some(true), &at, &mut refusals);
        for (name, probe) in [
            ("livenessProbe", &one.liveness_probe),
            ("startupProbe", &one.startup_probe),
        ] {
            let grace = probe
                .as_ref()
                .and_then(|probe| probe.termination_grace_period_seconds);
            refusals.grace(grace, &at.key(name).key(super::GRACE));
        }
        probe_hosts(one, &at, &mut refusals);
    }
}

/// Checks the addresses other than the pod's own to which the host would connect for a container.
fn probe_hosts(container: &Container, at: &Field, refusals: &mut Refusals<'_, '_, '_>) {
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (name, probe) in probes {
        let Some(probe) = probe else { continue };
        let at = at.key(name);
        let get = probe.http_get.as_ref().and_then(|get| get.host.as_deref());
        let socket = probe.tcp_socket.as_ref();
        let socket = socket.and_then(|socket| socket.host.as_deref());
        probe_host(get, &at.then("httpGet.host"), refusals);
        probe_host(socket, &at.then("tcpSocket.host"), refusals);
    }
    let Some(lifecycle) = &container.lifecycle else {
        return;
    };
    for (name, hook) in [
        ("postStart", &lifecycle.post_start),
        ("preStop", &lifecycle.pre_stop),
    ] {
        let get = hook.as_ref().and_then(|hook| hook.http_get.as_ref());
        let host = get.and_then(|get| get.host.as_deref());
        let at = at.key("lifecycle").key(name).then("httpGet.host");
        probe_host(host, &at, refusals);
    }
}

fn probe_host(host: Option<&str>, at: &Field, refusals: &mut Refusals<'_, '_, '_>) {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return;
    };
    let is_same = |one: &String| one.eq_ignore_ascii_case(host);
    if !refusals.list(List::ProbeHosts).iter().any(is_same) {
        refusals.listed(List::ProbeHosts, at, host);
    }
}

/// Checks a volume and returns whether it may only be mounted read-only.
fn host_path(volume: &Volume, at: &Field, refusals: &mut Refusals<'_, '_, '_>) -> bool {
    let Some(source) = &volume.host_path else {
        return false;
    };
    let (at, written) = (at.key("hostPath"), source.path.as_str());
    let Some(parts) = path::components(written) else {
        if written.starts_with('/') {
            let message = format!(
                "`{}` may lead elsewhere than it says: write it without `..`",
                cut(written)
            );
            refusals.scope.wrong(&at.key("path"), message);
        }
        return false;
    };
    let kind = source.type_.as_deref().unwrap_or_default();
    if matches!(kind, "CharDevice" | "BlockDevice") || path::is_in(&parts, "/dev") {
        // Podman reads `FROM:TO` from the path of a device.
        let allowed = !written.contains(':') && is_device(&parts, refusals.list(List::Devices));
        if !allowed {
            refusals.listed(List::Devices, &at.key("path"), written);
        }
        return false;
    }
    let holds = |folder: &&str| path::is_in(&parts, folder);
    let folders = refusals.list(List::HostPaths);
    let writable = folders.iter().map(String::as_str);
    let writable = writable.filter(|folder| !folder.ends_with(":ro"));
    if writable.clone().any(|folder| holds(&folder)) {
        return false;
    }
    let mut readable = folders
        .iter()
        .filter_map(|folder| folder.strip_suffix(":ro"));
    if !readable.any(|folder| holds(&folder)) {
        refusals.listed(List::HostPaths, &at.key("path"), written);
        return false;
    }
    if kind.ends_with("OrCreate") {
        refusals.listed(List::HostPaths, &at.key("type"), kind);
    }
    true
}

fn is_device(parts: &[&str], devices: &[String]) -> bool {
    devices.iter().any(|folder| path::is_in(parts, folder))
}

fn container(
    container: &Container,
    read_only: &BTreeSet<&str>,
    at: &Field,
    refusals: &mut Refusals<'_, '_, '_>,
) {
    if let Some(context) = &container.security_context {
        let at = at.key("securityContext");
        let privileged = context.privileged == Some(true);
        refusals.switch(privileged, Switch::Privileged, &at.key("privileged"), "");
        let unmasked = context.proc_mount.as_deref();
        let unmasked = unmasked.is_some_and(|mount| !matches!(mount, "" | "Default"));
        refusals.switch(unmasked, Switch::ProcUnmasked, &at.key("procMount"), "");
        confinement(
            context.se_linux_options.as_ref(),
            context.seccomp_profile.as_ref(),
            &at,
            refusals,
        );
        let added = context.capabilities.as_ref();
        let added = added.and_then(|capabilities| capabilities.add.as_ref());
        for (index, name) in added.into_iter().flatten().enumerate() {
            let allowed = refusals.list(List::Capabilities);
            let wanted = capability(name);
            if !allowed.iter().any(|one| *one == wanted || one == "ALL") {
                let at = at.then("capabilities.add").index(index);
                refusals.listed(List::Capabilities, &at, name);
            }
        }
    }
    for (index, one) in container.volume_mounts.iter().flatten().enumerate() {
        mount(
            one,
            read_only,
            &at.key("volumeMounts").index(index),
            refusals,
        );
    }
    if let Some(resources) = &container.resources {
        for (name, map) in [
            ("limits", &resources.limits),
            ("requests", &resources.requests),
        ] {
            let at = at.key("resources").key(name);
            for key in map.iter().flatten().map(|(key, _)| key) {
                device(key, &at.key(key), refusals);
            }
        }
    }
}

/// The first and the last port of an entry.
pub(super) fn ports(entry: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        text.parse::<u16>().ok().filter(|port| plain && *port > 0)
    };
    let (first, last) = match entry.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(entry)?, port(entry)?),
    };
    (first <= last).then_some(first..=last)
}

/// Checks the host ports of a container: those that it publishes, and in the host's network all of its ports.
fn host_ports(
    container: &Container,
    of_host: bool,
    at: &Field,
    refusals: &mut Refusals<'_, '_, '_>,
) {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let at = at.key("ports").index(index);
        let (key, number) = match port.host_port.filter(|port| *port != 0) {
            Some(port) => ("hostPort", port),
            None if of_host => ("containerPort", port.container_port),
            None => continue,
        };
        // Another check has refused a value that is no port.
        let Ok(number) = u16::try_from(number) else {
            continue;
        };
        let mut allowed = refusals
            .list(List::HostPorts)
            .iter()
            .filter_map(|entry| ports(entry));
        if !allowed.any(|range| range.contains(&number)) {
            refusals.listed(List::HostPorts, &at.key(key), &number.to_string());
        }
    }
}

/// Checks a device among the resources: a host's device by its path, or a vendor's device by its name.
fn device(key: &str, at: &Field, refusals: &mut Refusals<'_, '_, '_>) {
    if !key.contains('=') {
        return;
    }
    let devices = refusals.list(List::Devices);
    let allowed = match key.strip_prefix(DEVICE) {
        // `FROM:TO:MODE`
        Some(path) => {
            let from = path.split(':').next().unwrap_or_default();
            path::components(from).is_some_and(|parts| is_device(&parts, devices))
        }
        None => devices.iter().any(|one| one == key),
    };
    if !allowed {
        refusals.listed(List::Devices, at, "");
    }
}

/// Checks a mount: the options after its path, and that it does not write where it may only read.
fn mount(
    mount: &VolumeMount,
    read_only: &BTreeSet<&str>,
    at: &Field,
    refusals: &mut Refusals<'_, '_, '_>,
) {
    let options = mount.mount_path.split_once(':').map(|(_, options)| options);
    let options = options.into_iter().flat_map(|list| list.split([',', ':']));
    let options: Vec<&str> = options.collect();
    for option in &options {
        if !refusals
            .list(List::MountOptions)
            .iter()
            .any(|one| one == option)
        {
            refusals.listed(List::MountOptions, &at.key("mountPath"), option);
        }
    }
    let reads = mount.read_only == Some(true) || options.contains(&"ro");
    if read_only.contains(mount.name.as_str()) && !reads {
        refusals.listed(List::HostPaths, &at.key("readOnly"), "false");
    }
}

/// Checks the SELinux and seccomp settings of a pod or a container.
fn confinement(
    label: Option<&SELinuxOptions>,
    profile: Option<&SeccompProfile>,
    at: &Field,
    refusals: &mut Refusals<'_, '_, '_>,
) {
    let labelled = label.is_some_and(|label| *label != SELinuxOptions::default());
    refusals.switch(
        labelled,
        Switch::SeLinuxOptions,
        &at.key("seLinuxOptions"),
        "",
    );
    if let Some(profile) = profile {
        let other = profile.type_ != "RuntimeDefault";
        let at = at.then("seccompProfile.type");
        refusals.switch(other, Switch::SeccompUnconfined, &at, &profile.type_);
    }
}

/// Checks the annotations at the path `at`: of a workload, of its pod, or of a claim.
pub(crate) fn annotations(
    annotations: Option<&BTreeMap<String, String>>,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    let Some(rules) = scope.rules else { return };
    let mut refusals = Refusals { rules, scope };
    for (key, value) in annotations.into_iter().flatten() {
        let at = at.key(key);
        if SECCOMP.iter().any(|start| key.starts_with(start)) {
            let other = !SECCOMP_DEFAULT.contains(&value.as_str());
            refusals.switch(other, Switch::SeccompUnconfined, &at, value);
        }
        let is_local = (key.as_str(), value.as_str()) == VOLUME_LOCAL;
        let allowed = |one: &String| match one.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            // The annotation of one container: `KEY/NAME`.
            None => key
                .strip_prefix(one.as_str())
                .is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'/', ..])),
        };
        if is_governed(key) && !is_local && !refusals.list(List::Annotations).iter().any(allowed) {
            refusals.listed(List::Annotations, &at, "");
        }
    }
}
