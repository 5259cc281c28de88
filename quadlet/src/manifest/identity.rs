//! Checks what a pod's containers run as and what the pod is called: users, groups, profiles, kernel parameters, host
//! name and DNS.
//!
//! Pure: no I/O, no clock, no randomness. The checks refuse what Kubernetes refuses, and what Podman would read in
//! another way.

use std::collections::BTreeSet;

use beemesh_protocol::{
    state::Object,
    workload::{is_label, is_name},
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, PodDNSConfig, PodSecurityContext, PodSpec, SeccompProfile,
};

use super::{
    field::{Field, cut},
    findings::Scope,
    names::{LABEL_RULE, NAME_RULE},
    policy::{CAPABILITIES, capability},
};

/// Limits of Kubernetes for `resolv.conf`.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_BYTES_MAX: usize = 2048;

/// The longest host name that the kernel keeps.
const HOSTNAME_BYTES_MAX: usize = 64;

/// The kernel parameters that Podman sets for a pod, and the prefixes of others.
const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];
const SYSCTL_PREFIXES: [&str; 2] = ["fs.mqueue.", "net."];

/// The name of a kernel parameter with dots. Kubernetes takes slashes, too, and then a dot is a part of a name.
pub(crate) fn sysctl_name(name: &str) -> String {
    let first = name.find(['.', '/']).and_then(|at| name.as_bytes().get(at));
    if first != Some(&b'/') {
        return name.to_owned();
    }
    let swap = |char| match char {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    name.chars().map(swap).collect()
}

/// The full host name of a pod with `setHostnameAsFQDN`; `None` if it has another one.
pub(crate) fn fully_qualified(name: &str, namespace: &str, spec: &PodSpec) -> Option<String> {
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let is_asked = spec.set_hostname_as_fqdn == Some(true) && spec.host_network != Some(true);
    let name = spec.hostname.as_deref().unwrap_or(name);
    is_asked.then(|| format!("{name}.{subdomain}.{namespace}.svc.cluster.local"))
}

/// What a container runs as: what it says itself, else what its pod says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunAs {
    pub(crate) user: Option<i64>,
    pub(crate) group: Option<i64>,
    pub(crate) non_root: bool,
}

impl RunAs {
    pub(crate) fn of(container: &Container, pod: Option<&PodSecurityContext>) -> Self {
        let own = container.security_context.as_ref();
        let own_user = own.and_then(|own| own.run_as_user);
        let own_group = own.and_then(|own| own.run_as_group);
        let own_non_root = own.and_then(|own| own.run_as_non_root);
        let non_root = own_non_root.or_else(|| pod?.run_as_non_root);
        Self {
            user: own_user.or_else(|| pod?.run_as_user),
            group: own_group.or_else(|| pod?.run_as_group),
            non_root: non_root == Some(true),
        }
    }
}

/// Checks the identity of a pod whose `spec` is at the path `at`.
pub(super) fn check(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    names(spec, at, scope);
    dns(spec, at, scope);
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let message = "is not allowed with hostPID, whose processes all containers see";
        scope.differs(&at.key("shareProcessNamespace"), message);
    }
    let context = at.key("securityContext");
    sysctls(spec, &context.key("sysctls"), scope);
    if let Some(security) = &spec.security_context {
        seccomp(security.seccomp_profile.as_ref(), &context, scope);
    }
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, one)| ("initContainers", index, one));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(index, one)| ("containers", index, one));
    for (list, index, one) in init.chain(main) {
        let at = at.key(list).index(index).key("securityContext");
        user(one, spec, &at, scope);
        let Some(security) = &one.security_context else {
            continue;
        };
        seccomp(security.seccomp_profile.as_ref(), &at, scope);
        if security.allow_privilege_escalation == Some(false) && security.privileged == Some(true) {
            let message = "must not be false for a privileged container";
            scope.differs(&at.key("allowPrivilegeEscalation"), message);
        }
        if let Some(lists) = &security.capabilities {
            capabilities(lists, &at.key("capabilities"), scope);
        }
    }
}

/// Checks the full host name of a workload's pod.
pub(super) fn full_name(object: &Object, spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let name = fully_qualified(&object.name, &object.namespace, spec);
    if let Some(name) = name.filter(|name| name.len() > HOSTNAME_BYTES_MAX) {
        let message = format!(
            "the full host name `{}` has {} bytes, at most {HOSTNAME_BYTES_MAX} are allowed: shorten hostname or subdomain",
            cut(&name),
            name.len()
        );
        scope.differs(&at.key("setHostnameAsFQDN"), message);
    }
}

fn names(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    if let Some(name) = spec.subdomain.as_deref().filter(|name| !name.is_empty()) {
        let at = at.key("subdomain");
        if !is_label(name) {
            let message = format!("`{}` is not a subdomain: {LABEL_RULE}", cut(name));
            scope.differs(&at, message);
        } else if spec.set_hostname_as_fqdn != Some(true) {
            let message = "no name in DNS is made of it, and `hostname -f` gives the host name alone: with setHostnameAsFQDN it is a part of the host name";
            scope.not_done(&at, message);
        }
    }
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = at.key("hostAliases").index(index).key("hostnames");
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            if !is_name(name) {
                let message = format!("`{}` is not a host name: {NAME_RULE}", cut(name));
                scope.differs(&at.index(index), message);
            }
        }
    }
}

fn dns(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let policy = spec.dns_policy.as_deref().unwrap_or_default();
    let policies = ["Default", "ClusterFirst", "ClusterFirstWithHostNet", "None"];
    if !policy.is_empty() && !policies.contains(&policy) {
        let message = format!("`{}` is not one of {}", cut(policy), policies.join(", "));
        scope.differs(&at.key("dnsPolicy"), message);
    }
    if policy == "Default" && spec.host_network != Some(true) {
        let message = "the pod asks the name server of its network, which knows the other pods of the host and asks the name servers of the host for the rest";
        scope.advise(&at.key("dnsPolicy"), message);
    }
    let none = PodDNSConfig::default();
    let config = spec.dns_config.as_ref().unwrap_or(&none);
    let at = at.key("dnsConfig");
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if policy == "None" && servers.is_empty() {
        let message = "is missing: with `dnsPolicy: None` the pod has no other name server";
        scope.differs(&at.key("nameservers"), message);
    }
    if servers.len() > NAMESERVERS_MAX {
        let message = format!("has more than {NAMESERVERS_MAX} name servers");
        scope.differs(&at.key("nameservers"), message);
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let bytes = searches.join(" ").len();
    if searches.len() > SEARCHES_MAX || bytes > SEARCHES_BYTES_MAX {
        let message =
            format!("has more than {SEARCHES_MAX} domains or {SEARCHES_BYTES_MAX} characters");
        scope.differs(&at.key("searches"), message);
    }
    for (index, domain) in searches.iter().enumerate() {
        // Kubernetes takes a lone dot, and a dot at the end.
        let name = domain.strip_suffix('.').unwrap_or(domain);
        if !is_name(name) && domain != "." {
            let message = format!("`{}` is not a domain: {NAME_RULE}", cut(domain));
            scope.differs(&at.key("searches").index(index), message);
        }
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        let at = at.key("options").index(index);
        let name = option.name.as_deref().unwrap_or_default();
        let value = option.value.as_deref().unwrap_or_default();
        if name.is_empty() {
            scope.differs(&at.key("name"), "is missing");
        }
        for (key, text) in [("name", name), ("value", value)] {
            if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
                scope.differs(&at.key(key), "has a space or a line break");
            }
        }
    }
    if policy == "None" {
        return;
    }
    for (key, is_set, instead) in [
        (
            "nameservers",
            !servers.is_empty(),
            "Podman asks them instead of the host's name servers, while Kubernetes would ask them only if those do not answer: with `dnsPolicy: None` they are the only ones",
        ),
        (
            "searches",
            !searches.is_empty(),
            "Podman uses them instead of the host's search domains, to which Kubernetes would add them: list those, too, if the pod needs them",
        ),
    ] {
        if is_set {
            scope.advise(&at.key(key), instead);
        }
    }
}

fn sysctls(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let context = spec.security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_ref());
    let mut known = BTreeSet::new();
    for (index, sysctl) in sysctls.into_iter().flatten().enumerate() {
        let at = at.index(index);
        let name = sysctl_name(&sysctl.name);
        let of_net = name.starts_with("net.");
        let prefixed = SYSCTL_PREFIXES.iter().any(|one| name.starts_with(one));
        let message = if !prefixed && !SYSCTLS.contains(&name.as_str()) {
            "belongs to the whole host, so no pod can have its own: set it in /etc/sysctl.d of the hosts".to_owned()
        } else if of_net && spec.host_network == Some(true) {
            "belongs to the host in the host's network: set it in /etc/sysctl.d of the hosts"
                .to_owned()
        } else if !of_net && spec.host_ipc == Some(true) {
            "belongs to the host with hostIPC: set it in /etc/sysctl.d of the hosts".to_owned()
        } else if !known.insert(name) {
            "appears twice".to_owned()
        } else {
            let value = sysctl.value.as_str();
            if value.is_empty() || value.contains('=') || value.trim() != value {
                let message = format!(
                    "`{}` is not accepted by Podman: use a value without `=` and without spaces at its ends",
                    cut(value)
                );
                scope.differs(&at.key("value"), message);
            }
            continue;
        };
        scope.differs(
            &at.key("name"),
            format!("`{}` {message}", cut(&sysctl.name)),
        );
    }
}

fn capabilities(lists: &Capabilities, at: &Field, scope: &mut Scope<'_>) {
    let mut added = BTreeSet::new();
    for (key, list) in [("add", &lists.add), ("drop", &lists.drop)] {
        for (index, written) in list.iter().flatten().enumerate() {
            let at = at.key(key).index(index);
            let name = capability(written);
            if !CAPABILITIES.contains(&name.as_str()) {
                let message = format!("`{}` is not a capability of Linux", cut(written));
                scope.differs(&at, message);
            } else if key == "drop" && added.contains(&name) {
                let message = format!(
                    "`{}` is both added and dropped: keep it in one of the lists",
                    cut(written)
                );
                scope.differs(&at, message);
            } else if key == "add" {
                added.insert(name);
            }
        }
    }
}

fn seccomp(profile: Option<&SeccompProfile>, at: &Field, scope: &mut Scope<'_>) {
    let Some(profile) = profile else { return };
    let at = at.then("seccompProfile.type");
    match profile.type_.as_str() {
        "RuntimeDefault" | "Unconfined" => {}
        "Localhost" => {
            let message = "Podman takes no file of the host for it over its API: use RuntimeDefault or Unconfined";
            scope.differs(&at, message);
        }
        other => {
            let message = format!(
                "`{}` is not one of RuntimeDefault, Unconfined, Localhost",
                cut(other)
            );
            scope.differs(&at, message);
        }
    }
}

/// Checks the user of a container whose `securityContext` is at the path `at`.
fn user(container: &Container, spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let RunAs {
        user,
        group,
        non_root,
    } = RunAs::of(container, spec.security_context.as_ref());
    match (user, group) {
        (Some(0), _) if non_root => {
            let message = "is 0, which is root, and runAsNonRoot forbids it: set another number";
            scope.differs(&at.key("runAsUser"), message);
        }
        (None, Some(_)) if non_root => {
            let message = "is missing: with a runAsGroup alone Podman runs the container as root, which runAsNonRoot forbids";
            scope.differs(&at.key("runAsUser"), message);
        }
        (None, Some(_)) => {
            let message = "with a group alone Podman runs the container as root, whatever user its image names: set runAsUser, too";
            scope.advise(&at.key("runAsGroup"), message);
        }
        (Some(_), _) | (None, None) => {}
    }
}
