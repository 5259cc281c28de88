//! The `spec` of pods and of their containers.
//!
//! Pure: constants.

use super::{
    Area,
    handlers::{LIFECYCLE, LIVENESS, READINESS},
    idle, ours, refused, right,
    scheduling::{AFFINITY, COUNTED, SPREAD},
    security::{CONTAINER_SECURITY, POD_SECURITY},
    volumes::{MOUNT, VOLUME},
    warned, warned_but,
};

const NO_SERVER: &str = "Podman ignores it: there is no API server to log in to";
const NO_PRIORITY: &str =
    "Podman ignores it: pods have no priorities, and none is evicted for another";
const NO_DEVICE: &str = "no host has such a resource, so no host could run the pod";
const MESSAGE: &str = "`/dev/termination-log` by default, if one of the two fields is set, or if `command`, `args` or `env` contain this path; the first 256 characters are reported";
const RULE: &str = "needs a rule of the policy";

pub(super) static SPEC: Area = Area {
    api: "PodSpec",
    title: Some("Pods: `spec` of a Pod, `spec.template.spec` of the other kinds"),
    rows: &[
        right("containers", "").each(&CONTAINER),
        ours(
            "initContainers",
            "in order; one with `restartPolicy: Always` is a sidecar",
        )
        .each(&INIT),
        right("volumes", "").each(&VOLUME),
        right("restartPolicy", "only `Always`, except in a Pod or a Job"),
        right(
            "terminationGracePeriodSeconds",
            "30 by default; the policy limits it",
        ),
        ours("nodeSelector", "the labels of hosts"),
        right("hostname", "the name of the pod by default"),
        right("hostAliases", "").each(&ALIAS),
        right("hostNetwork", RULE),
        right("hostPID", RULE),
        right("hostIPC", RULE),
        right(
            "hostUsers",
            "`false` needs ranges of IDs for `containers` in `/etc/subuid` and `/etc/subgid`",
        ),
        right("shareProcessNamespace", ""),
        right("os", "").of(&OS),
        right("securityContext", "").of(&POD_SECURITY),
        ours("dnsConfig", "").of(&DNS),
        ours(
            "dnsPolicy",
            "the names of pods on the same host are those of the cluster",
        ),
        refused(
            "runtimeClassName",
            "no host has runtime classes, so the container would run with another runtime: remove the field",
        ),
        refused("resourceClaims", NO_DEVICE),
        refused(
            "schedulingGates",
            "no controller removes a gate, so the pod would start at once: apply it when it is to start",
        ),
        warned(
            "activeDeadlineSeconds",
            "Podman ignores it: the pod is not ended",
        ),
        ours("affinity", COUNTED).of(&AFFINITY),
        warned("ephemeralContainers", "Podman ignores it: they do not run"),
        warned(
            "imagePullSecrets",
            "Podman ignores it: log in to the registry on each host",
        ),
        warned("nodeName", "Podman ignores it: nodeSelector picks hosts"),
        warned(
            "overhead",
            "Podman ignores it: nothing is set aside for a runtime",
        ),
        warned_but("preemptionPolicy", NO_PRIORITY, &["PreemptLowerPriority"]),
        warned_but("priority", NO_PRIORITY, &["0"]),
        warned("priorityClassName", NO_PRIORITY),
        warned(
            "readinessGates",
            "Podman ignores it: the pod is ready when its containers are",
        ),
        warned("resources", "Podman ignores it: set them on the containers"),
        warned_but(
            "schedulerName",
            "Podman ignores it: Beemesh places the pod",
            &["default-scheduler"],
        ),
        warned_but("serviceAccount", NO_SERVER, &["default"]),
        warned_but("serviceAccountName", NO_SERVER, &["default"]),
        ours("setHostnameAsFQDN", "with `subdomain`"),
        ours(
            "subdomain",
            "with `setHostnameAsFQDN`; a warning without it, because no name in DNS is made of it",
        ),
        warned("tolerations", "Podman ignores it: hosts have no taints"),
        ours("topologySpreadConstraints", COUNTED).each(&SPREAD),
        idle(
            "automountServiceAccountToken",
            "no token is mounted: there is no API server",
        ),
        idle(
            "enableServiceLinks",
            "there are no Services of which variables could be set",
        ),
    ],
    base: None,
};

static ALIAS: Area = Area {
    api: "HostAlias",
    title: None,
    rows: &[right("ip", ""), right("hostnames", "")],
    base: None,
};

static OS: Area = Area {
    api: "PodOS",
    title: None,
    rows: &[right("name", "`linux`; another one is refused")],
    base: None,
};

const IN_PLACE: &str = "exact with `dnsPolicy: None`; with another policy a warning, because Podman uses them in place of those of the host";

static DNS: Area = Area {
    api: "PodDNSConfig",
    title: None,
    rows: &[
        ours("nameservers", IN_PLACE),
        ours("searches", IN_PLACE),
        ours("options", "").each(&DNS_OPTION),
    ],
    base: None,
};

static DNS_OPTION: Area = Area {
    api: "PodDNSConfigOption",
    title: None,
    rows: &[ours("name", ""), ours("value", "")],
    base: None,
};

const EXPANDED: &str = "`$(NAME)` is replaced by the variable";
const AT_STDIN: &str = "Podman ignores it: nothing can be typed into a container";

/// A container of a pod.
pub(super) static CONTAINER: Area = Area {
    api: "Container",
    title: Some("Containers: `containers[]`"),
    rows: &[
        right("name", ""),
        right(
            "image",
            "name the registry: each host has its own `registries.conf`",
        ),
        right(
            "imagePullPolicy",
            "`:latest`, or no tag, only with `Always`",
        ),
        ours("command", EXPANDED),
        ours("args", EXPANDED),
        right("workingDir", "the image has to have the folder"),
        ours("env", "").each(&ENV),
        ours("envFrom", "`env` wins over it").each(&ENV_FROM),
        right("ports", "").each(&PORT),
        right("resources", "").of(&RESOURCES),
        right("securityContext", "").of(&CONTAINER_SECURITY),
        right("volumeMounts", "").each(&MOUNT),
        ours("lifecycle", "").of(&LIFECYCLE),
        ours("livenessProbe", "").of(&LIVENESS),
        ours("startupProbe", "as `livenessProbe`").of(&LIVENESS),
        ours("readinessProbe", "the workload is ready when it succeeds").of(&READINESS),
        ours("terminationMessagePath", MESSAGE),
        ours(
            "terminationMessagePolicy",
            "after a failure without a message, the last line of the output is reported under either policy",
        ),
        right("tty", ""),
        refused(
            "restartPolicy",
            "is for init containers only: the pod's restartPolicy holds for this one",
        ),
        refused(
            "volumeDevices",
            "the container would lack the device: a hostPath of type BlockDevice is a device of the host",
        ),
        warned(
            "resizePolicy",
            "Podman ignores it: a change of resources replaces the pod",
        ),
        warned_but("stdin", AT_STDIN, &["false"]),
        warned_but("stdinOnce", AT_STDIN, &["false"]),
    ],
    base: None,
};

/// An init container.
static INIT: Area = Area {
    api: "Container",
    title: Some("Init containers: `initContainers[]`, the other fields as of containers"),
    rows: &[
        ours("restartPolicy", "`Always`: a sidecar"),
        right("ports", "as of containers").each(&INIT_PORT),
        ours("lifecycle", "only of a sidecar").of(&LIFECYCLE),
        ours("livenessProbe", "only of a sidecar").of(&LIVENESS),
        ours("startupProbe", "only of a sidecar").of(&LIVENESS),
        ours("readinessProbe", "only of a sidecar").of(&READINESS),
    ],
    base: Some(&CONTAINER),
};

const PORT_NAME: &str = "at most 15 lower-case letters, digits and single `-`, a letter among them; another one is refused, as is one that the pod has twice";

static PORT: Area = Area {
    api: "ContainerPort",
    title: None,
    rows: &[
        right("containerPort", ""),
        right("protocol", ""),
        right("name", PORT_NAME),
        right("hostPort", "the policy limits it"),
        right("hostIP", ""),
    ],
    base: None,
};

static INIT_PORT: Area = Area {
    api: "ContainerPort",
    title: None,
    rows: &[right(
        "hostPort",
        "only of a sidecar; else a warning, because it is not published",
    )],
    base: Some(&PORT),
};

static ENV: Area = Area {
    api: "EnvVar",
    title: None,
    rows: &[
        right("name", ""),
        ours("value", EXPANDED),
        ours("valueFrom", "beside a `value` it is refused").of(&VALUE_FROM),
    ],
    base: None,
};

static VALUE_FROM: Area = Area {
    api: "EnvVarSource",
    title: None,
    rows: &[
        right("configMapKeyRef", "").of(&MAP_KEY),
        right("secretKeyRef", "").of(&SECRET_KEY),
        ours("fieldRef", "").of(&FIELD_REF),
        ours("resourceFieldRef", "").of(&RESOURCE_REF),
    ],
    base: None,
};

const MISSING: &str = "a missing object or key is refused at apply, unless it is optional";

static MAP_KEY: Area = Area {
    api: "ConfigMapKeySelector",
    title: None,
    rows: &[
        right("name", MISSING),
        right("key", MISSING),
        right("optional", MISSING),
    ],
    base: None,
};

static SECRET_KEY: Area = Area {
    api: "SecretKeySelector",
    title: None,
    rows: &[
        right("name", MISSING),
        right("key", MISSING),
        right("optional", MISSING),
    ],
    base: None,
};

/// A field of the pod, in a variable or a file.
pub(super) static FIELD_REF: Area = Area {
    api: "ObjectFieldSelector",
    title: None,
    rows: &[
        ours(
            "fieldPath",
            "name, namespace, UID, labels and annotations of the pod, and its service account; what only the host knows is refused",
        ),
        right("apiVersion", "`v1`"),
    ],
    base: None,
};

/// A resource of a container, in a variable or a file.
pub(super) static RESOURCE_REF: Area = Area {
    api: "ResourceFieldSelector",
    title: None,
    rows: &[
        ours(
            "resource",
            "limits and requests of `cpu`, `memory` and `ephemeral-storage`",
        ),
        ours("divisor", ""),
        ours("containerName", ""),
    ],
    base: None,
};

static ENV_FROM: Area = Area {
    api: "EnvFromSource",
    title: None,
    rows: &[
        right("configMapRef", "").of(&MAP_REF),
        right("secretRef", "").of(&SECRET_REF),
        ours("prefix", ""),
    ],
    base: None,
};

static MAP_REF: Area = Area {
    api: "ConfigMapEnvSource",
    title: None,
    rows: &[right("name", MISSING), right("optional", MISSING)],
    base: None,
};

static SECRET_REF: Area = Area {
    api: "SecretEnvSource",
    title: None,
    rows: &[right("name", MISSING), right("optional", MISSING)],
    base: None,
};

static RESOURCES: Area = Area {
    api: "ResourceRequirements",
    title: None,
    rows: &[
        right(
            "limits",
            "`cpu`, `memory`, and devices by name under a rule of the policy; `ephemeral-storage` is a warning; huge pages and other resources are refused",
        ),
        right(
            "requests",
            "a limit without a request is one; a pod that requests more than the whole host does not start there, and says so; no host is chosen by requests",
        ),
        refused("claims", NO_DEVICE),
    ],
    base: None,
};
