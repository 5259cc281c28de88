//! Checks numbers, addresses and words of a pod that Podman or the kernel accepts only within bounds.
//!
//! Pure: no I/O, no clock, no randomness. The checks refuse what Kubernetes refuses, and also what Podman alone does
//! not accept: Podman would find such a value only after the old pod is removed.

use core::net::IpAddr;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet},
        batch::v1::Job,
        core::v1::{Container, PodSpec, Probe, ReplicationController},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    field::{Field, cut},
    findings::Scope,
    selectors,
};

/// The largest user or group ID of Linux; the value above it means "none".
const ID_MAX: i64 = u32::MAX as i64 - 1;
/// Podman keeps times in nanoseconds.
const SECONDS_MAX: i64 = i32::MAX as i64;
/// The default of `progressDeadlineSeconds`.
const DEADLINE_S: i32 = 600;
/// The signals of Linux, by name.
const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Reports a number that is out of bounds.
fn bounded(value: Option<i64>, least: i64, most: i64, at: &Field, scope: &mut Scope<'_>) {
    if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
        let message = match value {
            _ if most >= SECONDS_MAX && value < least => {
                format!("{value} is too small: use {least} or more")
            }
            _ => format!("{value} is out of range: use {least} to {most}"),
        };
        scope.wrong(at, message);
    }
}

fn address(text: &str, at: &Field, scope: &mut Scope<'_>) {
    if text.parse::<IpAddr>().is_err() {
        scope.wrong(at, format!("`{}` is not an IP address", cut(text)));
    }
}

fn word(text: Option<&str>, allowed: &[&str], at: &Field, scope: &mut Scope<'_>) {
    if let Some(text) = text.filter(|text| !allowed.contains(text)) {
        let message = format!("`{}` is not one of {}", cut(text), allowed.join(", "));
        scope.wrong(at, message);
    }
}

/// Checks a pod whose `spec` is at the path `at`.
pub(super) fn pod(spec: &PodSpec, at: &Field, scope: &mut Scope<'_>) {
    let grace = at.key("terminationGracePeriodSeconds");
    bounded(
        spec.termination_grace_period_seconds,
        0,
        SECONDS_MAX,
        &grace,
        scope,
    );
    let deadline = at.key("activeDeadlineSeconds");
    bounded(
        spec.active_deadline_seconds,
        1,
        SECONDS_MAX,
        &deadline,
        scope,
    );
    if let Some(os) = &spec.os
        && os.name != "linux"
    {
        let message = format!("`{}` is not `linux`, which every host runs", cut(&os.name));
        scope.wrong(&at.then("os.name"), message);
    }
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        address(
            &alias.ip,
            &at.key("hostAliases").index(index).key("ip"),
            scope,
        );
    }
    let servers = spec
        .dns_config
        .as_ref()
        .and_then(|config| config.nameservers.as_ref());
    for (index, server) in servers.into_iter().flatten().enumerate() {
        address(
            server,
            &at.then("dnsConfig.nameservers").index(index),
            scope,
        );
    }
    if let Some(context) = &spec.security_context {
        let at = at.key("securityContext");
        bounded(context.run_as_user, 0, ID_MAX, &at.key("runAsUser"), scope);
        bounded(
            context.run_as_group,
            0,
            ID_MAX,
            &at.key("runAsGroup"),
            scope,
        );
        bounded(context.fs_group, 0, ID_MAX, &at.key("fsGroup"), scope);
        for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
            let at = at.key("supplementalGroups").index(index);
            bounded(Some(*group), 0, ID_MAX, &at, scope);
        }
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let at = at.key("volumes").index(index);
        let medium = volume
            .empty_dir
            .as_ref()
            .and_then(|dir| dir.medium.as_deref());
        word(medium, &["", "Memory"], &at.then("emptyDir.medium"), scope);
        let kind = volume
            .host_path
            .as_ref()
            .and_then(|path| path.type_.as_deref());
        let kinds = [
            "",
            "DirectoryOrCreate",
            "Directory",
            "FileOrCreate",
            "File",
            "Socket",
            "CharDevice",
            "BlockDevice",
        ];
        word(kind, &kinds, &at.then("hostPath.type"), scope);
    }
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, one)| ("initContainers", index, one));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(index, one)| ("containers", index, one));
    for (list, index, one) in init.chain(main) {
        container(one, &at.key(list).index(index), scope);
    }
}

fn container(container: &Container, at: &Field, scope: &mut Scope<'_>) {
    if let Some(context) = &container.security_context {
        let at = at.key("securityContext");
        bounded(context.run_as_user, 0, ID_MAX, &at.key("runAsUser"), scope);
        bounded(
            context.run_as_group,
            0,
            ID_MAX,
            &at.key("runAsGroup"),
            scope,
        );
        let mount = context.proc_mount.as_deref();
        word(
            mount,
            &["", "Default", "Unmasked"],
            &at.key("procMount"),
            scope,
        );
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = at.key("volumeMounts").index(index).key("mountPropagation");
        let allowed = ["", "None", "HostToContainer", "Bidirectional"];
        word(mount.mount_propagation.as_deref(), &allowed, &at, scope);
    }
    let signal = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    if let Some(signal) = signal.filter(|signal| !is_signal(signal)) {
        let message = format!("`{}` is not a signal: write it as SIGTERM", cut(signal));
        scope.wrong(&at.then("lifecycle.stopSignal"), message);
    }
    for (name, one) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        if let Some(one) = one {
            probe(name, one, &at.key(name), scope);
        }
    }
}

/// Whether Kubernetes and Podman accept the text as the name of a signal.
fn is_signal(text: &str) -> bool {
    let Some(name) = text.strip_prefix("SIG") else {
        return false;
    };
    let offset = |rest: &str| rest.parse::<u8>().is_ok_and(|n| (1..=15).contains(&n));
    let real_time = name.strip_prefix("RTMIN+").or(name.strip_prefix("RTMAX-"));
    match real_time {
        Some(rest) => offset(rest),
        None => SIGNALS.contains(&name),
    }
}

fn probe(name: &str, probe: &Probe, at: &Field, scope: &mut Scope<'_>) {
    let Probe {
        initial_delay_seconds,
        period_seconds,
        timeout_seconds,
        success_threshold,
        failure_threshold,
        termination_grace_period_seconds,
        ..
    } = probe;
    // In all of these fields Kubernetes treats 0 as unset.
    for (key, value) in [
        ("initialDelaySeconds", initial_delay_seconds),
        ("periodSeconds", period_seconds),
        ("timeoutSeconds", timeout_seconds),
        ("successThreshold", success_threshold),
        ("failureThreshold", failure_threshold),
    ] {
        bounded(value.map(i64::from), 0, SECONDS_MAX, &at.key(key), scope);
    }
    if name != "readinessProbe" && success_threshold.is_some_and(|count| count > 1) {
        scope.wrong(&at.key("successThreshold"), "must be 1 for this probe");
    }
    let key = at.key("terminationGracePeriodSeconds");
    bounded(
        *termination_grace_period_seconds,
        1,
        SECONDS_MAX,
        &key,
        scope,
    );
}

/// Checks `maxSurge` and `maxUnavailable` of a rolling update.
fn shares(
    surge: Option<&IntOrString>,
    unavailable: Option<&IntOrString>,
    at: &Field,
    scope: &mut Scope<'_>,
) {
    share(surge, &at.key("maxSurge"), scope);
    let at = at.key("maxUnavailable");
    share(unavailable, &at, scope);
    let is_none = match unavailable {
        Some(IntOrString::Int(count)) => *count == 0,
        Some(IntOrString::String(share)) => share.trim_start_matches('0') == "%",
        None => false,
    };
    if is_none {
        let message = "counts as 1: a host replaces its pod where it is, so one pod is unavailable";
        scope.not_done(&at, message);
    }
}

/// Checks a value that is a count or a percentage.
fn share(value: Option<&IntOrString>, at: &Field, scope: &mut Scope<'_>) {
    let is_share = |text: &str| {
        let digits = text.strip_suffix('%');
        digits.is_some_and(|digits| {
            let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            all && digits.parse::<u32>().is_ok_and(|share| share <= 100)
        })
    };
    match value {
        Some(IntOrString::Int(count)) if *count < 0 => {
            scope.wrong(at, format!("{count} is negative"))
        }
        Some(IntOrString::String(text)) if !is_share(text) => {
            let message = format!(
                "`{}` is neither a number nor a share from 0% to 100%",
                cut(text)
            );
            scope.wrong(at, message);
        }
        Some(IntOrString::Int(_) | IntOrString::String(_)) | None => {}
    }
}

/// A controller that has numbers to check.
pub(super) trait Controlled {
    /// Checks them, below `spec`.
    fn check(&self, spec: &Field, scope: &mut Scope<'_>);
}

impl Controlled for k8s_openapi::api::core::v1::Pod {
    fn check(&self, _: &Field, _: &mut Scope<'_>) {}
}

impl Controlled for Deployment {
    fn check(&self, at: &Field, scope: &mut Scope<'_>) {
        let Some(spec) = &self.spec else { return };
        selectors::check(&spec.selector, &spec.template, &at.key("selector"), scope);
        for (key, value) in [
            ("minReadySeconds", spec.min_ready_seconds),
            ("progressDeadlineSeconds", spec.progress_deadline_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ] {
            bounded(value.map(i64::from), 0, SECONDS_MAX, &at.key(key), scope);
        }
        let ready = spec.min_ready_seconds.unwrap_or(0);
        match spec.progress_deadline_seconds {
            Some(deadline) if deadline <= ready => {
                let message = format!(
                    "{deadline} must be more than minReadySeconds ({ready}): otherwise every rollout fails"
                );
                scope.differs(&at.key("progressDeadlineSeconds"), message);
            }
            None if DEADLINE_S <= ready => {
                let message = format!(
                    "{ready} must be less than progressDeadlineSeconds ({DEADLINE_S} unless written): otherwise every rollout fails"
                );
                scope.differs(&at.key("minReadySeconds"), message);
            }
            _ => {}
        }
        let strategy = spec.strategy.as_ref();
        let kind = strategy.and_then(|strategy| strategy.type_.as_deref());
        if kind == Some("Recreate") && strategy.is_some_and(|one| one.rolling_update.is_some()) {
            let message = "belongs to the type RollingUpdate: remove it, or the type";
            scope.differs(&at.then("strategy.rollingUpdate"), message);
        }
        word(
            kind,
            &["", "RollingUpdate", "Recreate"],
            &at.then("strategy.type"),
            scope,
        );
        if let Some(rolling) = strategy.and_then(|strategy| strategy.rolling_update.as_ref()) {
            let at = at.then("strategy.rollingUpdate");
            let (surge, unavailable) = (&rolling.max_surge, &rolling.max_unavailable);
            shares(surge.as_ref(), unavailable.as_ref(), &at, scope);
        }
    }
}

impl Controlled for ReplicaSet {
    fn check(&self, at: &Field, scope: &mut Scope<'_>) {
        let Some(spec) = &self.spec else { return };
        if let Some(template) = &spec.template {
            selectors::check(&spec.selector, template, &at.key("selector"), scope);
        }
        min_ready(spec.min_ready_seconds, at, scope);
    }
}

impl Controlled for ReplicationController {
    fn check(&self, at: &Field, scope: &mut Scope<'_>) {
        let Some(spec) = &self.spec else { return };
        if let (Some(selector), Some(template)) = (&spec.selector, &spec.template) {
            selectors::labels(selector, template, &at.key("selector"), scope);
        }
        min_ready(spec.min_ready_seconds, at, scope);
    }
}

fn min_ready(seconds: Option<i32>, at: &Field, scope: &mut Scope<'_>) {
    let at = at.key("minReadySeconds");
    bounded(seconds.map(i64::from), 0, SECONDS_MAX, &at, scope);
}

impl Controlled for DaemonSet {
    fn check(&self, at: &Field, scope: &mut Scope<'_>) {
        let Some(spec) = &self.spec else { return };
        selectors::check(&spec.selector, &spec.template, &at.key("selector"), scope);
        for (key, value) in [
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
        ] {
            bounded(value.map(i64::from), 0, SECONDS_MAX, &at.key(key), scope);
        }
        let strategy = spec.update_strategy.as_ref();
        let kind = strategy.and_then(|strategy| strategy.type_.as_deref());
        word(
            kind,
            &["", "RollingUpdate", "OnDelete"],
            &at.then("updateStrategy.type"),
            scope,
        );
        if let Some(rolling) = strategy.and_then(|strategy| strategy.rolling_update.as_ref()) {
            let at = at.then("updateStrategy.rollingUpdate");
            let (surge, unavailable) = (&rolling.max_surge, &rolling.max_unavailable);
            shares(surge.as_ref(), unavailable.as_ref(), &at, scope);
        }
    }
}

impl Controlled for Job {
    fn check(&self, at: &Field, scope: &mut Scope<'_>) {
        let Some(spec) = &self.spec else { return };
        if let Some(selector) = &spec.selector {
            selectors::check(selector, &spec.template, &at.key("selector"), scope);
        }
        for (key, value) in [
            ("backoffLimit", spec.backoff_limit),
            ("backoffLimitPerIndex", spec.backoff_limit_per_index),
            ("completions", spec.completions),
            ("maxFailedIndexes", spec.max_failed_indexes),
            ("parallelism", spec.parallelism),
            ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ] {
            bounded(value.map(i64::from), 0, SECONDS_MAX, &at.key(key), scope);
        }
        let deadline = at.key("activeDeadlineSeconds");
        bounded(
            spec.active_deadline_seconds,
            1,
            SECONDS_MAX,
            &deadline,
            scope,
        );
    }
}
