//! Probes and lifecycle hooks of containers.
//!
//! Pure: constants.

use super::{Area, ours, ours_until, refused};

const ADDRESS: &str =
    "the address of the pod by default; another one needs the rule `probeHosts` of the policy";

pub(super) static LIFECYCLE: Area = Area {
    api: "Lifecycle",
    title: None,
    rows: &[
        ours("postStart", "").of(&HOOK),
        ours("preStop", "its time is a part of the grace period").of(&HOOK),
        ours_until("stopSignal", "5.6", "also without `os`"),
    ],
    base: None,
};

static HOOK: Area = Area {
    api: "LifecycleHandler",
    title: None,
    rows: &[
        ours("exec", "").of(&EXEC),
        ours("httpGet", "").of(&HTTP_GET),
        ours("sleep", "").of(&SLEEP),
        refused(
            "tcpSocket",
            "Kubernetes has no such hook, either: use exec, httpGet or sleep",
        ),
    ],
    base: None,
};

static SLEEP: Area = Area {
    api: "SleepAction",
    title: None,
    rows: &[ours("seconds", "")],
    base: None,
};

static EXEC: Area = Area {
    api: "ExecAction",
    title: None,
    rows: &[ours("command", "")],
    base: None,
};

static HTTP_GET: Area = Area {
    api: "HTTPGetAction",
    title: None,
    rows: &[
        ours("port", ""),
        ours(
            "path",
            "a redirect to another address counts as success and is not followed",
        ),
        ours("scheme", ""),
        ours("httpHeaders", "").each(&HEADER),
        ours("host", ADDRESS),
    ],
    base: None,
};

static HEADER: Area = Area {
    api: "HTTPHeader",
    title: None,
    rows: &[ours("name", ""), ours("value", "")],
    base: None,
};

static TCP: Area = Area {
    api: "TCPSocketAction",
    title: None,
    rows: &[ours("port", ""), ours("host", ADDRESS)],
    base: None,
};

static GRPC: Area = Area {
    api: "GRPCAction",
    title: None,
    rows: &[ours("port", ""), ours("service", "")],
    base: None,
};

/// A liveness or startup probe.
pub(super) static LIVENESS: Area = Area {
    api: "Probe",
    title: Some("Probes: `livenessProbe`, `startupProbe`"),
    rows: &[
        ours("exec", "").of(&EXEC),
        ours("httpGet", "").of(&HTTP_GET),
        ours("tcpSocket", "").of(&TCP),
        ours("grpc", "").of(&GRPC),
        ours("initialDelaySeconds", ""),
        ours("periodSeconds", ""),
        ours("timeoutSeconds", ""),
        ours("successThreshold", ""),
        ours("failureThreshold", ""),
        ours("terminationGracePeriodSeconds", "the policy limits it"),
    ],
    base: None,
};

/// A readiness probe.
pub(super) static READINESS: Area = Area {
    api: "Probe",
    title: Some("Readiness probes: `readinessProbe`, the other fields as of the other probes"),
    rows: &[refused(
        "terminationGracePeriodSeconds",
        "a readiness probe ends no container: remove the field",
    )],
    base: Some(&LIVENESS),
};
