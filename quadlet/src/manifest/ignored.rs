//! Fields that Kubernetes supports and Podman ignores.
//!
//! Pure: no I/O, no clock, no randomness. Podman drops these fields silently (see its `docs/kubernetes_support.md`), so
//! this module lists them. A field is not listed if its absence changes nothing on a Beemesh host, as with
//! `enableServiceLinks`, and neither is a value that Kubernetes itself fills in.

use serde_json::{Value, json};

use super::{field::Field, findings::Scope};

/// The field, the consequence for the user, and a value that has no consequence.
type Ignored = (&'static str, &'static str, Option<&'static str>);

const DEPLOYMENT: &[Ignored] = &[
    ("paused", "the workload is rolled out", Some("false")),
    (
        "strategy.type",
        "each host replaces its pod",
        Some("RollingUpdate"),
    ),
];

const DAEMON_SET: &[Ignored] = &[(
    "updateStrategy.type",
    "each host replaces its pod",
    Some("RollingUpdate"),
)];

const JOB: &[Ignored] = &[
    ("activeDeadlineSeconds", "", None),
    ("backoffLimitPerIndex", "", None),
    ("completionMode", "", Some("NonIndexed")),
    ("completions", "one host runs it once", Some("1")),
    ("maxFailedIndexes", "", None),
    ("parallelism", "one host runs it once", Some("1")),
    ("podFailurePolicy", "", None),
    ("successPolicy", "", None),
    ("suspend", "it runs", Some("false")),
    ("ttlSecondsAfterFinished", "delete it by name", None),
];

const POD: &[Ignored] = &[
    ("activeDeadlineSeconds", "", None),
    ("affinity", "nodeSelector picks hosts", None),
    ("dnsPolicy", "dnsConfig is used", Some("ClusterFirst")),
    ("ephemeralContainers", "they do not run", None),
    (
        "imagePullSecrets",
        "log in to the registry on each host",
        None,
    ),
    ("nodeName", "nodeSelector picks hosts", None),
    ("priorityClassName", "", None),
    ("readinessGates", "", None),
    ("resourceClaims", "no host has such a resource", None),
    ("resources", "set them on the containers", None),
    ("runtimeClassName", "", None),
    ("schedulerName", "", Some("default-scheduler")),
    ("schedulingGates", "", None),
    ("securityContext.appArmorProfile", "", None),
    ("securityContext.fsGroup", "", None),
    (
        "securityContext.runAsNonRoot",
        "set runAsUser",
        Some("false"),
    ),
    (
        "securityContext.seccompProfile",
        "Podman's own profile is used",
        Some("RuntimeDefault"),
    ),
    ("securityContext.windowsOptions", "", None),
    (
        "serviceAccount",
        "there is no API server to log in to",
        Some("default"),
    ),
    (
        "serviceAccountName",
        "there is no API server to log in to",
        Some("default"),
    ),
    ("setHostnameAsFQDN", "", Some("false")),
    ("subdomain", "", None),
    ("tolerations", "hosts have no taints", None),
    ("topologySpreadConstraints", "", None),
];

const CONTAINER: &[Ignored] = &[
    ("lifecycle.postStart", "it does not run", None),
    ("lifecycle.preStop", "it does not run", None),
    (
        "readinessProbe",
        "the workload counts as ready when it runs; a livenessProbe is checked",
        None,
    ),
    ("resizePolicy", "", None),
    ("resources.claims", "no host has such a resource", None),
    ("securityContext.appArmorProfile", "", None),
    (
        "securityContext.runAsNonRoot",
        "set runAsUser",
        Some("false"),
    ),
    (
        "securityContext.seccompProfile",
        "Podman's own profile is used",
        Some("RuntimeDefault"),
    ),
    ("securityContext.windowsOptions", "", None),
    ("stdin", "", Some("false")),
    ("stdinOnce", "", Some("false")),
    (
        "volumeDevices",
        "a hostPath of type BlockDevice is a device of the host",
        None,
    ),
];

const CLAIM: &[Ignored] = &[
    ("dataSource", "the volume starts empty", None),
    ("dataSourceRef", "the volume starts empty", None),
    ("selector", "", None),
    ("volumeMode", "the volume is a folder", Some("Filesystem")),
    ("volumeName", "", None),
];

/// Warns of the fields in a controller's or claim's `spec` that Podman ignores.
pub(super) fn in_spec(kind: &str, spec: &Value, scope: &mut Scope<'_>) {
    let table = match kind {
        "Deployment" => DEPLOYMENT,
        "DaemonSet" => DAEMON_SET,
        "Job" => JOB,
        "PersistentVolumeClaim" => CLAIM,
        _ => return,
    };
    warn(table, spec, &Field::default().key("spec"), scope);
}

/// Warns of the fields in a pod that Podman ignores.
pub(super) fn in_pod(spec: &Value, at: &Field, scope: &mut Scope<'_>) {
    warn(POD, spec, at, scope);
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            warn(CONTAINER, container, &at.key(list).index(index), scope);
        }
    }
}

fn warn(table: &[Ignored], value: &Value, at: &Field, scope: &mut Scope<'_>) {
    for (name, instead, harmless) in table {
        let found = name.split('.').fold(value, |value, key| &value[key]);
        let text = match found {
            Value::Object(entries) => entries
                .get("type")
                .and_then(Value::as_str)
                .map(str::to_owned),
            Value::String(text) => Some(text.clone()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                Some(found.to_string())
            }
        };
        let is_set = ![json!(null), json!([]), json!({}), json!("")].contains(found);
        if is_set && harmless.is_none_or(|harmless| text.as_deref() != Some(harmless)) {
            let instead = match instead.is_empty() {
                true => String::new(),
                false => format!(": {instead}"),
            };
            scope.not_done(&at.then(name), format!("Podman ignores it{instead}"));
        }
    }
}
