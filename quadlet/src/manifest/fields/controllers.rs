//! Pods as objects, and the controllers of pods: Deployment, ReplicaSet, ReplicationController, DaemonSet and Job.
//!
//! Pure: constants.

use super::{
    Area, Row, idle,
    metadata::{MATCHES, OBJECT, SELECTOR, TEMPLATE},
    ours,
    pods::SPEC,
    refused_but, right, warned, warned_but,
};

pub(super) const API_VERSION: Row = right("apiVersion", "");
pub(super) const KIND: Row = right("kind", "");
pub(super) const METADATA: Row = right("metadata", "").of(&OBJECT);
pub(super) const STATUS: Row = idle("status", "written by Kubernetes; removed");

pub(super) static POD: Area = Area {
    api: "Pod",
    title: Some("Pod"),
    rows: &[
        API_VERSION,
        KIND,
        METADATA,
        ours(
            "spec",
            "the pod runs on every host that `nodeSelector` allows",
        )
        .of(&SPEC),
        STATUS,
    ],
    base: None,
};

pub(super) static DEPLOYMENT: Area = Area {
    api: "Deployment",
    title: Some("Deployment"),
    rows: &[
        API_VERSION,
        KIND,
        METADATA,
        right("spec", "").of(&DEPLOYMENT_SPEC),
        STATUS,
    ],
    base: None,
};

const REPLICAS: Row = ours(
    "replicas",
    "that many pods, spread over the hosts that match; more pods than hosts run side by side, but a pod with a claim, a host port or the network of its host has no other one beside it; without `replicas` every host that matches runs one",
);
const SELECTED: Row = right("selector", "").of(&SELECTOR);
const TEMPLATED: Row = right("template", "").of(&POD_TEMPLATE);
const MIN_READY: Row = ours(
    "minReadySeconds",
    "at least 2; a rollout and `beemesh apply --wait` wait for it",
);
const HISTORY: Row = ours(
    "revisionHistoryLimit",
    "`beemesh rollout history` lists them",
);
const UNAVAILABLE: Row = ours(
    "maxUnavailable",
    "1 by default; at least 1, and a share is rounded down",
);
const SURGE: &str = "a host replaces its pod where it is: no pod is added";

static DEPLOYMENT_SPEC: Area = Area {
    api: "DeploymentSpec",
    title: None,
    rows: &[
        REPLICAS,
        SELECTED,
        TEMPLATED,
        MIN_READY,
        ours("paused", "no host gets a new revision"),
        ours(
            "progressDeadlineSeconds",
            "after it the rollout has failed, and the hosts go back to the revision before it",
        ),
        HISTORY,
        right("strategy", "").of(&STRATEGY),
    ],
    base: None,
};

static STRATEGY: Area = Area {
    api: "DeploymentStrategy",
    title: None,
    rows: &[
        ours("type", "`Recreate` replaces all pods at once"),
        right("rollingUpdate", "").of(&ROLLING),
    ],
    base: None,
};

static ROLLING: Area = Area {
    api: "RollingUpdateDeployment",
    title: None,
    rows: &[warned_but("maxSurge", SURGE, &["25%", "0"]), UNAVAILABLE],
    base: None,
};

pub(super) static REPLICA_SET: Area = Area {
    api: "ReplicaSet",
    title: Some("ReplicaSet"),
    rows: &[
        API_VERSION,
        KIND,
        METADATA,
        right("spec", "").of(&REPLICA_SET_SPEC),
        STATUS,
    ],
    base: None,
};

const REPLACED: Row = ours(
    "template",
    "a change replaces the pods, with a warning: in Kubernetes only pods that are made later have it",
)
.of(&POD_TEMPLATE);

static REPLICA_SET_SPEC: Area = Area {
    api: "ReplicaSetSpec",
    title: None,
    rows: &[REPLICAS, SELECTED, REPLACED, MIN_READY],
    base: None,
};

pub(super) static REPLICATION_CONTROLLER: Area = Area {
    api: "ReplicationController",
    title: Some("ReplicationController"),
    rows: &[
        API_VERSION,
        KIND,
        METADATA,
        right("spec", "").of(&REPLICATION_CONTROLLER_SPEC),
        STATUS,
    ],
    base: None,
};

static REPLICATION_CONTROLLER_SPEC: Area = Area {
    api: "ReplicationControllerSpec",
    title: None,
    rows: &[REPLICAS, right("selector", MATCHES), REPLACED, MIN_READY],
    base: None,
};

pub(super) static DAEMON_SET: Area = Area {
    api: "DaemonSet",
    title: Some("DaemonSet"),
    rows: &[
        API_VERSION,
        KIND,
        METADATA,
        right("spec", "").of(&DAEMON_SET_SPEC),
        STATUS,
    ],
    base: None,
};

static DAEMON_SET_SPEC: Area = Area {
    api: "DaemonSetSpec",
    title: None,
    rows: &[
        SELECTED,
        TEMPLATED,
        MIN_READY,
        HISTORY,
        right("updateStrategy", "").of(&UPDATE),
    ],
    base: None,
};

static UPDATE: Area = Area {
    api: "DaemonSetUpdateStrategy",
    title: None,
    rows: &[
        warned_but(
            "type",
            "an update replaces the pods: `beemesh rollout pause` holds it back",
            &["RollingUpdate"],
        ),
        right("rollingUpdate", "").of(&DAEMON_ROLLING),
    ],
    base: None,
};

static DAEMON_ROLLING: Area = Area {
    api: "RollingUpdateDaemonSet",
    title: None,
    rows: &[warned_but("maxSurge", SURGE, &["0"]), UNAVAILABLE],
    base: None,
};

static POD_TEMPLATE: Area = Area {
    api: "PodTemplateSpec",
    title: None,
    rows: &[
        right("metadata", "").of(&TEMPLATE),
        right("spec", "").of(&SPEC),
    ],
    base: None,
};

pub(super) static JOB: Area = Area {
    api: "Job",
    title: Some("Job"),
    rows: &[
        API_VERSION,
        KIND,
        METADATA,
        ours(
            "spec",
            "one run in the cluster; with the annotation `beemesh.io/every-host: \"true\"` one on each host",
        )
        .of(&JOB_SPEC),
        STATUS,
    ],
    base: None,
};

const ONCE: &str = "Podman ignores it: one host runs it once";
const NO_INDEX: &str = "Podman ignores it: a run has no index";

static JOB_SPEC: Area = Area {
    api: "JobSpec",
    title: None,
    rows: &[
        right("template", "`restartPolicy` is `Never` or `OnFailure`").of(&POD_TEMPLATE),
        ours("backoffLimit", ""),
        warned(
            "activeDeadlineSeconds",
            "Podman ignores it: the Job is not ended",
        ),
        warned("backoffLimitPerIndex", NO_INDEX),
        warned_but("completionMode", NO_INDEX, &["NonIndexed"]),
        warned_but("completions", ONCE, &["1"]),
        warned("maxFailedIndexes", NO_INDEX),
        warned_but("parallelism", ONCE, &["1"]),
        warned(
            "podFailurePolicy",
            "Podman ignores it: backoffLimit alone counts failures",
        ),
        right(
            "podReplacementPolicy",
            "the next attempt starts when the pod before it has ended",
        ),
        warned(
            "successPolicy",
            "Podman ignores it: the Job succeeds when all its containers do",
        ),
        refused_but(
            "suspend",
            "Podman ignores it, so the Job would run: apply it when it is to run",
            &["false"],
        ),
        warned(
            "ttlSecondsAfterFinished",
            "Podman ignores it: delete it by name",
        ),
        refused_but(
            "managedBy",
            "no other controller runs here, so the Job would run: remove the field",
            &["kubernetes.io/job-controller"],
        ),
        idle("manualSelector", "a Job needs no selector"),
        SELECTED,
    ],
    base: None,
};
