//! Volumes of pods, and their mounts in containers.
//!
//! Pure: constants.

use super::{
    Area, ours,
    pods::{FIELD_REF, RESOURCE_REF},
    refused_but, refused_elsewhere, right,
};

const NO_SUCH: &str = "no host has a driver for it";
const FILE_MODE: &str = "0 to 0777, octal as in `0644`";
const MISSING: &str = "a missing object or key is refused at apply, unless it is optional";
const RULE: &str = "needs a rule of the policy";

pub(super) static VOLUME: Area = Area {
    api: "Volume",
    title: Some("Volumes: `volumes[]`"),
    rows: &[
        right("name", ""),
        right("configMap", "").of(&CONFIG_MAP),
        right("secret", "").of(&SECRET),
        ours("projected", "").of(&PROJECTED),
        ours("downwardAPI", "").of(&DOWNWARD),
        ours("emptyDir", "").of(&EMPTY_DIR),
        right("hostPath", "").of(&HOST_PATH),
        right("image", "").of(&IMAGE),
        ours(
            "persistentVolumeClaim",
            "a volume of each host: pods on two hosts share no data",
        )
        .of(&CLAIM),
        refused_elsewhere("awsElasticBlockStore", NO_SUCH),
        refused_elsewhere("azureDisk", NO_SUCH),
        refused_elsewhere("azureFile", NO_SUCH),
        refused_elsewhere("cephfs", NO_SUCH),
        refused_elsewhere("cinder", NO_SUCH),
        refused_elsewhere("csi", NO_SUCH),
        refused_elsewhere("ephemeral", NO_SUCH),
        refused_elsewhere("fc", NO_SUCH),
        refused_elsewhere("flexVolume", NO_SUCH),
        refused_elsewhere("flocker", NO_SUCH),
        refused_elsewhere("gcePersistentDisk", NO_SUCH),
        refused_elsewhere("gitRepo", NO_SUCH),
        refused_elsewhere("glusterfs", NO_SUCH),
        refused_elsewhere("iscsi", NO_SUCH),
        refused_elsewhere("nfs", NO_SUCH),
        refused_elsewhere("photonPersistentDisk", NO_SUCH),
        refused_elsewhere("portworxVolume", NO_SUCH),
        refused_elsewhere("quobyte", NO_SUCH),
        refused_elsewhere("rbd", NO_SUCH),
        refused_elsewhere("scaleIO", NO_SUCH),
        refused_elsewhere("storageos", NO_SUCH),
        refused_elsewhere("vsphereVolume", NO_SUCH),
    ],
    base: None,
};

static CONFIG_MAP: Area = Area {
    api: "ConfigMapVolumeSource",
    title: None,
    rows: &[
        right("name", MISSING),
        right("optional", MISSING),
        right("defaultMode", FILE_MODE),
        ours("items", "").each(&ITEM),
    ],
    base: None,
};

static SECRET: Area = Area {
    api: "SecretVolumeSource",
    title: None,
    rows: &[
        right("secretName", MISSING),
        right("optional", MISSING),
        right("defaultMode", FILE_MODE),
        ours("items", "").each(&ITEM),
    ],
    base: None,
};

static ITEM: Area = Area {
    api: "KeyToPath",
    title: None,
    rows: &[
        right("key", MISSING),
        ours("path", "with folders"),
        ours("mode", FILE_MODE),
    ],
    base: None,
};

static PROJECTED: Area = Area {
    api: "ProjectedVolumeSource",
    title: None,
    rows: &[
        ours("defaultMode", FILE_MODE),
        ours("sources", "").each(&PROJECTION),
    ],
    base: None,
};

static PROJECTION: Area = Area {
    api: "VolumeProjection",
    title: None,
    rows: &[
        ours("configMap", "").of(&CONFIG_MAP_PROJECTION),
        ours("secret", "").of(&SECRET_PROJECTION),
        ours("downwardAPI", "").of(&DOWNWARD_PROJECTION),
        refused_elsewhere(
            "serviceAccountToken",
            "there is no API server that makes tokens",
        ),
        refused_elsewhere(
            "clusterTrustBundle",
            "there is no API server that keeps bundles: use a configMap",
        ),
    ],
    base: None,
};

static CONFIG_MAP_PROJECTION: Area = Area {
    api: "ConfigMapProjection",
    title: None,
    rows: &[
        ours("name", MISSING),
        ours("optional", MISSING),
        ours("items", "").each(&ITEM),
    ],
    base: None,
};

static SECRET_PROJECTION: Area = Area {
    api: "SecretProjection",
    title: None,
    rows: &[
        ours("name", MISSING),
        ours("optional", MISSING),
        ours("items", "").each(&ITEM),
    ],
    base: None,
};

static DOWNWARD_PROJECTION: Area = Area {
    api: "DownwardAPIProjection",
    title: None,
    rows: &[ours("items", "").each(&DOWNWARD_FILE)],
    base: None,
};

static DOWNWARD: Area = Area {
    api: "DownwardAPIVolumeSource",
    title: None,
    rows: &[
        ours("defaultMode", FILE_MODE),
        ours("items", "").each(&DOWNWARD_FILE),
    ],
    base: None,
};

static DOWNWARD_FILE: Area = Area {
    api: "DownwardAPIVolumeFile",
    title: None,
    rows: &[
        ours("path", "with folders"),
        ours("mode", FILE_MODE),
        ours("fieldRef", "").of(&FIELD_REF),
        ours("resourceFieldRef", "").of(&RESOURCE_REF),
    ],
    base: None,
};

static EMPTY_DIR: Area = Area {
    api: "EmptyDirVolumeSource",
    title: None,
    rows: &[
        ours("medium", "on disk or `Memory`; huge pages are refused"),
        ours(
            "sizeLimit",
            "of `Memory`; a warning on disk, where nothing limits the size",
        ),
    ],
    base: None,
};

static HOST_PATH: Area = Area {
    api: "HostPathVolumeSource",
    title: None,
    rows: &[
        right("path", RULE),
        right(
            "type",
            "a rule of the policy allows the path; Podman does not check `File`, so that is a warning",
        ),
    ],
    base: None,
};

static IMAGE: Area = Area {
    api: "ImageVolumeSource",
    title: None,
    rows: &[right("reference", ""), right("pullPolicy", "")],
    base: None,
};

static CLAIM: Area = Area {
    api: "PersistentVolumeClaimVolumeSource",
    title: None,
    rows: &[ours("claimName", ""), ours("readOnly", "")],
    base: None,
};

pub(super) static MOUNT: Area = Area {
    api: "VolumeMount",
    title: None,
    rows: &[
        right("name", ""),
        right(
            "mountPath",
            "also `PATH:OPTIONS` of Podman, under a rule of the policy",
        ),
        right("readOnly", ""),
        ours("subPath", ""),
        ours("subPathExpr", ""),
        right(
            "mountPropagation",
            "`Bidirectional` only of privileged containers",
        ),
        refused_but(
            "recursiveReadOnly",
            "file systems that are mounted below the volume would stay writable: only `Disabled` and `IfPossible` are supported",
            &["Disabled", "IfPossible"],
        ),
    ],
    base: None,
};
