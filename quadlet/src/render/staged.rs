//! The annotations by which a rendered pod asks the supervisor of its workload to start the containers one by one, and
//! their reading.
//!
//! Pure: no I/O, no clock, no randomness. Podman's YAML cannot say everything that a manifest says. Where it cannot, the
//! pod has the annotation [`START`]. Podman then only creates the containers, and the supervisor prepares the volumes and
//! starts the containers in order. A pod without the annotation is started by Podman.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BETWEEN, pods};
use crate::health::{Container, Role};
pub use crate::manifest::annotations::{INIT_ORDER, SIDECARS, START, SUPERVISOR, VOLUMES};

/// The annotation of a claim with the mount options of its volume, as Podman names it.
pub(crate) const CLAIM_OPTIONS: &str = "volume.podman.io/mount-options";

/// The annotation of a claim with the type of its volume, as Podman names it.
pub(crate) const CLAIM_TYPE: &str = "volume.podman.io/type";

/// The annotation of a claim with the device of its volume, as Podman names it.
pub(crate) const CLAIM_DEVICE: &str = "volume.podman.io/device";

/// The type of a volume in memory.
pub(crate) const TMPFS: &str = "tmpfs";

/// How the containers of a pod are to be started. Names of containers are those of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staged {
    /// The volumes to prepare before any container starts.
    pub volumes: Vec<PreparedVolume>,
    /// The init containers and sidecars, in the order of their start.
    pub init: Vec<String>,
    /// Those of `init` that go on running beside the containers.
    pub sidecars: BTreeSet<String>,
    /// The other containers, in the manifest's order.
    pub containers: Vec<String>,
    /// The working directories of those that have one in the manifest. Podman starts none whose image lacks it.
    pub working_dirs: BTreeMap<String, String>,
}

impl Staged {
    /// Tells the init containers and sidecars of a workload's pod from its other containers.
    pub fn give_roles(&self, workload: &str, containers: &mut [Container]) {
        for container in containers {
            let name = container.name.strip_prefix(workload);
            let Some(name) = name.and_then(|name| name.strip_prefix('-')) else {
                continue;
            };
            if container.role != Role::Member {
                continue;
            }
            if self.sidecars.contains(name) {
                container.role = Role::Sidecar;
            } else if self.init.iter().any(|one| one == name) {
                container.role = Role::Init;
            }
        }
    }

    /// The volumes of which this container needs a folder that others may make before, each with these folders alone.
    #[must_use]
    pub fn late_folders(&self, container: &str) -> Vec<PreparedVolume> {
        let of = |volume: &PreparedVolume| {
            let late = volume.late.iter().filter(|one| one.container == container);
            let folders: Vec<String> = late.map(|one| one.folder.clone()).collect();
            (!folders.is_empty()).then(|| PreparedVolume {
                name: volume.name.clone(),
                mode: volume.mode,
                gid: volume.gid,
                folders,
                ..PreparedVolume::default()
            })
        };
        self.volumes.iter().filter_map(of).collect()
    }

    /// Whether a volume is lost when no container has it mounted.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.volumes.iter().any(|volume| volume.tmpfs.is_some())
    }
}

/// What a volume must have before the first container starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedVolume {
    /// The name of the volume in Podman, or the path of a folder of the host.
    pub name: String,
    /// The mode of its root folder, unless that stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The group of its root folder, unless that stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Whether mode and group are for a new volume only: one that exists may hold data that others rely on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// True for the files of a ConfigMap or Secret. Mode and group are those of its files.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files: bool,
    /// Folders that must exist in it, relative to its root. One that is missing is made with `mode`, or 0777 without
    /// it, and missing folders above it with 0755.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<String>,
    /// Folders that must exist when a container starts. Other containers start before it and may make them, or files of
    /// their names. One that is missing is made like `folders`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<LateFolder>,
    /// The mount options if the volume is in memory. It is lost when no container has it mounted.
    #[serde(skip)]
    pub tmpfs: Option<String>,
}

impl PreparedVolume {
    /// Whether a volume of this name is a folder of the host, and no volume of Podman.
    #[must_use]
    pub fn is_of_host(name: &str) -> bool {
        name.starts_with('/')
    }
}

/// A folder of a volume that a container needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LateFolder {
    /// The container, as in the manifest.
    pub container: String,
    /// The folder, relative to the volume's root.
    pub folder: String,
}

/// How the containers of the pod in a YAML of [`render`](super::render()) are to be started; `None` if Podman starts
/// them.
#[must_use]
pub fn staged(yaml: &[u8]) -> Option<Staged> {
    let (metadata, spec) = pods(yaml).next()?;
    let annotation = |key: &str| metadata.annotations.get(key).map(String::as_str);
    if annotation(START) != Some(SUPERVISOR) {
        return None;
    }
    let names = |key: &str| {
        let names = annotation(key).unwrap_or_default().split(',');
        names.filter(|name| !name.is_empty()).map(str::to_owned)
    };
    let sidecars: BTreeSet<String> = names(SIDECARS).collect();
    let all = spec.init.iter().chain(&spec.containers);
    let working_dirs = all.filter_map(|one| Some((one.name.clone(), one.working_dir.clone()?)));
    let working_dirs = working_dirs.filter(|(_, folder)| !folder.is_empty());
    let working_dirs = working_dirs.collect();
    let init = match annotation(INIT_ORDER) {
        Some(_) => names(INIT_ORDER).collect(),
        None => spec.init.into_iter().map(|init| init.name).collect(),
    };
    let containers = spec.containers.into_iter().map(|container| container.name);
    let mut volumes: Vec<PreparedVolume> = annotation(VOLUMES)
        .and_then(|list| serde_json::from_str(list).ok())
        .unwrap_or_default();
    let tmpfs = in_memory(yaml);
    for volume in &mut volumes {
        volume.tmpfs = tmpfs.get(&volume.name).cloned();
    }
    Some(Staged {
        volumes,
        init,
        containers: containers.filter(|name| !sidecars.contains(name)).collect(),
        sidecars,
        working_dirs,
    })
}

/// The volumes in memory among the claims of a YAML, with their mount options.
fn in_memory(yaml: &[u8]) -> BTreeMap<String, String> {
    let text = str::from_utf8(yaml).unwrap_or_default();
    let of = |document: &str| {
        let claim: Value = serde_json::from_str(document).ok()?;
        let annotations = &claim["metadata"]["annotations"];
        (annotations[CLAIM_TYPE] == TMPFS).then_some(())?;
        let options = annotations[CLAIM_OPTIONS].as_str().unwrap_or_default();
        let name = claim["metadata"]["name"].as_str()?;
        Some((name.to_owned(), options.to_owned()))
    };
    let claims = text.split(BETWEEN).filter(|text| text.contains(CLAIM_TYPE));
    claims.filter_map(of).collect()
}
