//! ConfigMaps, Secrets and claims.
//!
//! Pure: constants.

use super::{
    Area, advised,
    controllers::{API_VERSION, KIND, METADATA, STATUS},
    ours, refused, right, warned, warned_but,
};

const IMMUTABLE: &str = "a change of the data, or back to `false`, is refused (409)";

pub(super) static CONFIG_MAP: Area = Area {
    api: "ConfigMap",
    title: Some("ConfigMap"),
    rows: &[
        API_VERSION,
        KIND,
        METADATA,
        right("data", "a change replaces the pods that use it"),
        right("binaryData", "a change replaces the pods that use it"),
        ours("immutable", IMMUTABLE),
    ],
    base: None,
};

pub(super) static SECRET: Area = Area {
    api: "Secret",
    title: Some("Secret"),
    rows: &[
        API_VERSION,
        KIND,
        METADATA,
        right("data", "a change replaces the pods that use it"),
        right("stringData", "wins over `data`"),
        right("type", "one that lacks the keys of its type is refused"),
        ours("immutable", IMMUTABLE),
    ],
    base: None,
};

pub(super) static CLAIM: Area = Area {
    api: "PersistentVolumeClaim",
    title: Some("PersistentVolumeClaim"),
    rows: &[
        API_VERSION,
        KIND,
        METADATA,
        right("spec", "").of(&CLAIM_SPEC),
        STATUS,
    ],
    base: None,
};

static CLAIM_SPEC: Area = Area {
    api: "PersistentVolumeClaimSpec",
    title: None,
    rows: &[
        right("resources", "").of(&CLAIM_RESOURCES),
        warned_but(
            "accessModes",
            "each host has a volume of its own for the claim: pods on two hosts share no data",
            &[r#"["ReadWriteOnce"]"#, r#"["ReadWriteOncePod"]"#],
        ),
        warned(
            "storageClassName",
            "hosts have no storage classes: the claim is a volume of Podman on the disk of its host",
        ),
        warned(
            "volumeAttributesClassName",
            "hosts have no classes of volumes: the claim is a volume of Podman on the disk of its host",
        ),
        refused(
            "dataSource",
            "the volume would start empty: copy the data into it, and remove the field",
        ),
        refused(
            "dataSourceRef",
            "the volume would start empty: copy the data into it, and remove the field",
        ),
        warned(
            "selector",
            "Podman ignores it: the volume is made by Podman, not chosen",
        ),
        warned_but(
            "volumeMode",
            "Podman ignores it: the volume is a folder",
            &["Filesystem"],
        ),
        warned(
            "volumeName",
            "Podman ignores it: the volume is made by Podman, not chosen",
        ),
    ],
    base: None,
};

const SIZE: &str = "the size is not limited: the volume can take as much as its host has";

static CLAIM_RESOURCES: Area = Area {
    api: "VolumeResourceRequirements",
    title: None,
    rows: &[advised("requests", SIZE, &[]), advised("limits", SIZE, &[])],
    base: None,
};
