//! Pure: what the probes and hooks of a pod's containers do, with the defaults of Kubernetes.
//!
//! Input: a rendered pod, as [`render::probes`] reads it. Output: one [`ContainerSpec`] for each container. A port is
//! resolved by its name, and a path is ready to be sent. A handler that cannot be carried out says why
//! ([`Handler::Broken`]), so that the reason is reported where the result of the probe would be.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{self, ContainerPort, EnvVar, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::render::probes::{Probed, probed};

pub(super) mod path;

/// `terminationGracePeriodSeconds` if the pod does not set it.
const GRACE: Duration = Duration::from_secs(30);
/// `periodSeconds` if the probe does not set it.
const PERIOD_SECONDS: i32 = 10;
/// `timeoutSeconds` if the probe does not set it.
const TIMEOUT_SECONDS: i32 = 1;
/// `successThreshold` if the probe does not set it.
const SUCCESS_THRESHOLD: i32 = 1;
/// `failureThreshold` if the probe does not set it.
const FAILURE_THRESHOLD: i32 = 3;

/// The probes and hooks of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Its name on the host, `POD-CONTAINER`.
    pub name: String,
    /// `startupProbe`.
    pub startup: Option<Probe>,
    /// `livenessProbe`.
    pub liveness: Option<Probe>,
    /// `readinessProbe`.
    pub readiness: Option<Probe>,
    /// `lifecycle.postStart`.
    pub post_start: Option<Handler>,
    /// `lifecycle.preStop`.
    pub pre_stop: Option<Handler>,
    /// `lifecycle.stopSignal`.
    pub stop_signal: Option<String>,
    /// The time that it has to end.
    pub grace: Duration,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What it does.
    pub handler: Handler,
    /// The time from the start of the container to the first run.
    pub initial_delay: Duration,
    /// The time from the begin of one run to the begin of the next.
    pub period: Duration,
    /// The time limit of one run.
    pub timeout: Duration,
    /// The number of consecutive successes after which it counts as successful.
    pub success_threshold: u32,
    /// The number of consecutive failures after which it counts as failed.
    pub failure_threshold: u32,
    /// The time that the container has to end when the probe has failed.
    pub grace: Duration,
}

/// What a probe or a hook does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// Runs a command in the container.
    Exec(Vec<String>),
    /// Sends an HTTP request to the pod.
    Http(HttpGet),
    /// Opens a connection to the pod.
    Tcp {
        /// `host`.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// Calls `grpc.health.v1.Health/Check` of the pod.
    Grpc {
        /// The port.
        port: u16,
        /// The name of the service.
        service: String,
    },
    /// Waits. Only for hooks.
    Sleep(Duration),
    /// Cannot be carried out, for this reason.
    Broken(String),
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGet {
    /// `host`.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
    /// The path and the query, encoded.
    pub path: String,
    /// Whether the request is sent over TLS.
    pub tls: bool,
    /// `httpHeaders`, in their order.
    pub headers: Vec<(String, String)>,
}

impl ContainerSpec {
    /// Whether a prober has anything to do for the container.
    #[must_use]
    pub fn has_probes(&self) -> bool {
        self.startup.is_some() || self.liveness.is_some() || self.readiness.is_some()
    }
}

/// The containers in a YAML of [`crate::render::render`], in their order in the pod; empty for any other file.
#[must_use]
pub fn read(yaml: &[u8]) -> Vec<ContainerSpec> {
    probed(yaml).into_iter().map(container).collect()
}

fn container(raw: Probed) -> ContainerSpec {
    let Probed {
        name,
        grace,
        ports,
        env,
        startup,
        liveness,
        readiness,
        lifecycle,
    } = raw;
    let grace = grace.map_or(GRACE, seconds);
    let probe = |raw: Option<v1::Probe>| raw.map(|raw| probe(raw, grace, &ports, &env));
    let lifecycle = lifecycle.unwrap_or_default();
    let hook = |raw: Option<v1::LifecycleHandler>| raw.map(|raw| hook(raw, &ports));
    ContainerSpec {
        startup: probe(startup),
        liveness: probe(liveness),
        readiness: probe(readiness),
        post_start: hook(lifecycle.post_start),
        pre_stop: hook(lifecycle.pre_stop),
        stop_signal: lifecycle.stop_signal,
        grace,
        name,
    }
}

fn probe(raw: v1::Probe, grace: Duration, ports: &[ContainerPort], env: &[EnvVar]) -> Probe {
    let handler = if let Some(exec) = raw.exec {
        command(expanded(exec.command.unwrap_or_default(), env))
    } else if let Some(get) = raw.http_get {
        http(get, ports)
    } else if let Some(tcp) = raw.tcp_socket {
        with_port(&tcp.port, ports, |port| Handler::Tcp {
            host: tcp.host,
            port,
        })
    } else if let Some(grpc) = raw.grpc {
        with_port(&IntOrString::Int(grpc.port), ports, |port| Handler::Grpc {
            port,
            service: grpc.service.unwrap_or_default(),
        })
    } else {
        Handler::Broken("the probe has no handler".to_owned())
    };
    Probe {
        handler,
        initial_delay: seconds(raw.initial_delay_seconds.unwrap_or_default().into()),
        period: seconds(or(raw.period_seconds, PERIOD_SECONDS).into()),
        timeout: seconds(or(raw.timeout_seconds, TIMEOUT_SECONDS).into()),
        success_threshold: or(raw.success_threshold, SUCCESS_THRESHOLD).unsigned_abs(),
        failure_threshold: or(raw.failure_threshold, FAILURE_THRESHOLD).unsigned_abs(),
        grace: raw.termination_grace_period_seconds.map_or(grace, seconds),
    }
}

fn hook(raw: v1::LifecycleHandler, ports: &[ContainerPort]) -> Handler {
    if let Some(exec) = raw.exec {
        // Kubernetes expands variables in commands of probes only.
        command(exec.command.unwrap_or_default())
    } else if let Some(get) = raw.http_get {
        http(get, ports)
    } else if let Some(sleep) = raw.sleep {
        Handler::Sleep(seconds(sleep.seconds))
    } else if raw.tcp_socket.is_some() {
        // Kubernetes accepts the field, and fails to run the hook.
        Handler::Broken("tcpSocket is not supported as a lifecycle hook".to_owned())
    } else {
        Handler::Broken("the hook has no handler".to_owned())
    }
}

fn command(command: Vec<String>) -> Handler {
    match command.is_empty() {
        true => Handler::Broken("exec has no command".to_owned()),
        false => Handler::Exec(command),
    }
}

fn http(get: HTTPGetAction, ports: &[ContainerPort]) -> Handler {
    let headers = get.http_headers.unwrap_or_default();
    let headers = headers
        .into_iter()
        .map(|header| (header.name, header.value));
    with_port(&get.port, ports, |port| {
        Handler::Http(HttpGet {
            host: get.host.filter(|host| !host.is_empty()),
            port,
            path: path::encoded(get.path.as_deref().unwrap_or_default()),
            tls: get
                .scheme
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            headers: headers.collect(),
        })
    })
}

/// A port by its name among the ports of the container, or by its number, which may be a string.
fn with_port(
    port: &IntOrString,
    ports: &[ContainerPort],
    handler: impl FnOnce(u16) -> Handler,
) -> Handler {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = ports.iter().find(|port| port.name.as_ref() == Some(name));
            named.map_or_else(|| name.parse().ok(), |port| Some(port.container_port))
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok());
    match (number.filter(|number| *number > 0), port) {
        (Some(number), _) => handler(number),
        (None, IntOrString::Int(number)) => {
            Handler::Broken(format!("{number} is not a port number"))
        }
        (None, IntOrString::String(name)) => {
            Handler::Broken(format!("the container has no port named {name}"))
        }
    }
}

/// Replaces `$(NAME)` by the value of a variable of the container. `$$` stands for `$`, and a reference to an unknown
/// variable stays. A variable whose value comes from elsewhere is empty here, as in Kubernetes.
fn expanded(command: Vec<String>, env: &[EnvVar]) -> Vec<String> {
    let values: BTreeMap<&str, &str> = env
        .iter()
        .map(|one| (one.name.as_str(), one.value.as_deref().unwrap_or_default()))
        .collect();
    let words = command.into_iter();
    words.map(|word| expand(&word, &values)).collect()
}

fn expand(word: &str, values: &BTreeMap<&str, &str>) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let reference = after.strip_prefix('(').and_then(|one| one.split_once(')'));
        rest = match reference {
            Some((name, after)) => {
                match values.get(name) {
                    Some(value) => text.push_str(value),
                    None => text.push_str(&format!("$({name})")),
                }
                after
            }
            None => {
                text.push('$');
                after.strip_prefix('$').unwrap_or(after)
            }
        };
    }
    text + rest
}

/// The value, or the default if it is absent, 0 or negative.
fn or(value: Option<i32>, default: i32) -> i32 {
    value.filter(|value| *value > 0).unwrap_or(default)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests;
