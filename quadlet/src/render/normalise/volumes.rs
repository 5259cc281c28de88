//! Normalises the volumes of a pod: each gets a name that no other workload has, and a source that Podman can play.
//!
//! Pure: no I/O, no clock, no randomness. Podman mounts an `emptyDir` in memory for each container apart and without its
//! size limit, so such a volume becomes a claim of a tmpfs that belongs to the workload.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::state::Kind;
use k8s_openapi::{
    api::core::v1::{
        EmptyDirVolumeSource, KeyToPath, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource,
        PodSpec, Volume,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Serialize;

use super::{
    RenderError, Uses, containers,
    downward::Downward,
    files::{self, Files, Made, grouped, mode_or, readable},
    memory, mounts, read_only, to_json,
};
use crate::{
    belongings,
    render::staged::{CLAIM_DEVICE, CLAIM_OPTIONS, CLAIM_TYPE, PreparedVolume, TMPFS},
};

/// The mode of an `emptyDir`.
const MODE_EMPTY: u32 = 0o777;

/// The mode of an `emptyDir` of a pod with a group for its volumes: new files get that group.
const MODE_EMPTY_GROUP: u32 = 0o2777;

/// The mode of a new claim of such a pod.
const MODE_CLAIM_GROUP: u32 = 0o2775;

/// How the mounts of a volume are written.
pub(super) enum Plan {
    /// As in the manifest.
    Plain,
    /// Files of one ConfigMap or Secret.
    Shown,
    /// Files that Podman makes of several.
    Files(Files),
    /// A folder that is empty at first.
    Empty {
        /// The name of the volume in the pod.
        name: String,
        /// The name of the volume in Podman.
        volume: String,
    },
    /// A folder or file of the host, by its path.
    Host(String),
    /// A claim.
    Claim {
        /// The name of the volume in Podman.
        volume: String,
        /// Whether containers may only read it.
        read_only: bool,
    },
}

/// What the pod says about all of its volumes.
struct Pod {
    /// The group of the volumes.
    group: Option<u32>,
    /// The memory that its containers may use together.
    memory: Option<u64>,
    /// The volumes that a container mounts.
    mounted: BTreeSet<String>,
}

impl Pod {
    fn of(spec: &mut PodSpec) -> Self {
        let context = spec.security_context.as_ref();
        let group = context.and_then(|context| context.fs_group);
        Self {
            group: group.and_then(|group| u32::try_from(group).ok()),
            memory: memory::limit(spec),
            mounted: containers(spec)
                .flat_map(|one| mounts::volumes(one))
                .collect(),
        }
    }
}

impl Uses<'_> {
    /// Replaces the volumes and their mounts.
    pub(super) fn volumes(
        &mut self,
        spec: &mut PodSpec,
        downward: &Downward,
    ) -> Result<(), RenderError> {
        let pod = Pod::of(spec);
        let mut plans = BTreeMap::new();
        let mut volumes = Vec::new();
        for mut volume in spec.volumes.take().unwrap_or_default() {
            let name = volume.name.clone();
            if let Some(files) = self.files(&volume, pod.group, downward)? {
                plans.insert(name, Plan::Files(files));
                continue;
            }
            self.source(&mut volume, pod.group)?;
            plans.insert(name, self.plan(&mut volume, &pod)?);
            volumes.push(volume);
        }
        let mut made = Made::default();
        // What containers that start earlier may have put into a volume.
        let mut written = BTreeSet::new();
        for container in spec.init_containers.iter_mut().flatten() {
            let mounted = mounts::volumes(container);
            self.mounts(container, &plans, &written, &mut made)?;
            written.extend(mounted);
        }
        for container in &mut spec.containers {
            self.mounts(container, &plans, &written, &mut made)?;
        }
        volumes.extend(made.volumes.into_values());
        for container in containers(spec) {
            volumes.extend(self.termination(container)?);
        }
        spec.volumes = (!volumes.is_empty()).then_some(volumes);
        read_only::close(spec);
        if let Some(group) = pod.group {
            let context = spec.security_context.get_or_insert_default();
            let groups = context.supplemental_groups.get_or_insert_default();
            if !groups.contains(&i64::from(group)) {
                groups.push(i64::from(group));
            }
        }
        Ok(())
    }

    /// Replaces the name in a volume's source. A volume without a source, or whose optional source does not exist, is
    /// empty.
    fn source(&mut self, volume: &mut Volume, group: Option<u32>) -> Result<(), RenderError> {
        if let Some(source) = &mut volume.config_map {
            let mode = mode_or(source.default_mode, files::MODE);
            let optional = source.optional == Some(true);
            let view = View::of(&source.items, source.default_mode, optional);
            source.default_mode = default_mode(source.default_mode, group);
            match self.private(Kind::ConfigMap, &source.name, optional, view)? {
                Some(name) => {
                    self.prepare_files(&name, mode, group);
                    source.name = name;
                }
                None => volume.config_map = None,
            }
        }
        if let Some(source) = &mut volume.secret {
            let mode = mode_or(source.default_mode, files::MODE);
            let optional = source.optional == Some(true);
            let view = View::of(&source.items, source.default_mode, optional);
            source.default_mode = default_mode(source.default_mode, group);
            let name = source.secret_name.as_deref().unwrap_or_default();
            match self.private(Kind::Secret, name, optional, view)? {
                Some(name) => {
                    self.prepare_files(&name, mode, group);
                    source.secret_name = Some(name);
                }
                None => volume.secret = None,
            }
        }
        if let Some(source) = &mut volume.persistent_volume_claim {
            source.claim_name = self.claim(&source.claim_name);
        }
        let named = Volume {
            name: volume.name.clone(),
            ..Volume::default()
        };
        if *volume == named {
            volume.empty_dir = Some(EmptyDirVolumeSource::default());
        }
        Ok(())
    }

    /// Decides how a volume is mounted, and what the supervisor prepares of it.
    fn plan(&mut self, volume: &mut Volume, pod: &Pod) -> Result<Plan, RenderError> {
        if volume.config_map.is_some() || volume.secret.is_some() {
            return Ok(Plan::Shown);
        }
        let is_mounted = pod.mounted.contains(&volume.name);
        if let Some(source) = &volume.persistent_volume_claim {
            let volume = source.claim_name.clone();
            if let (Some(group), true) = (pod.group, is_mounted) {
                // Kubernetes gives all files of the volume to the group. Podman cannot, so one that exists stays as it
                // is: others may rely on its files.
                let prepared = self.prepare(&volume);
                (prepared.mode, prepared.gid) = (Some(MODE_CLAIM_GROUP), Some(group));
                prepared.fresh = true;
            }
            return Ok(Plan::Claim {
                volume,
                read_only: source.read_only == Some(true),
            });
        }
        if let Some(source) = &volume.host_path {
            return Ok(Plan::Host(source.path.clone()));
        }
        let Some(source) = &volume.empty_dir else {
            return Ok(Plan::Plain);
        };
        let in_memory = source.medium.as_deref() == Some("Memory");
        let (name, podman) = match in_memory && is_mounted {
            true => (volume.name.clone(), self.memory(volume, pod)?),
            false => {
                let name = belongings::empty_dir(self.pod, &volume.name);
                volume.name.clone_from(&name);
                (name.clone(), name)
            }
        };
        if is_mounted {
            let prepared = self.prepare(&podman);
            prepared.gid = pod.group;
            prepared.mode = Some(mode(pod.group));
        }
        Ok(Plan::Empty {
            name,
            volume: podman,
        })
    }

    /// Turns an `emptyDir` in memory into a claim, and returns the name of its volume.
    fn memory(&mut self, volume: &mut Volume, pod: &Pod) -> Result<String, RenderError> {
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|dir| memory::bytes(dir.size_limit.as_ref()?));
        let size = limit.into_iter().chain(pod.memory).min();
        let name = belongings::memory(self.pod, &volume.name, size, pod.group);
        let size = size.map(|size| format!("size={size},"));
        let owner = pod.group.map(|group| format!(",uid=0,gid={group}"));
        let options = format!(
            "{}mode={:04o}{}",
            size.unwrap_or_default(),
            mode(pod.group),
            owner.unwrap_or_default()
        );
        let annotations = [
            (CLAIM_DEVICE, TMPFS),
            (CLAIM_OPTIONS, &options),
            (CLAIM_TYPE, TMPFS),
        ];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                annotations: Some(annotations.into()),
                ..ObjectMeta::default()
            },
            ..PersistentVolumeClaim::default()
        };
        let claim = to_json(self.revision.object, &claim)?;
        self.made.insert(name.clone(), claim);
        *volume = Volume {
            name: volume.name.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        };
        Ok(name)
    }

    /// The name of a claim's volume, which all workloads of its namespace share.
    fn claim(&mut self, name: &str) -> String {
        let volume = belongings::claim(&self.revision.object.namespace, name);
        if let Some(used) = self.find(Kind::PersistentVolumeClaim, name) {
            self.documents.insert(volume.clone(), used);
        }
        volume
    }

    /// Gives the files of a ConfigMap or Secret to a group.
    pub(super) fn prepare_files(&mut self, volume: &str, mode: u32, group: Option<u32>) {
        if group.is_some() {
            let prepared = self.prepare(volume);
            (prepared.mode, prepared.gid) = (Some(grouped(mode, group)), group);
            prepared.files = true;
        }
    }

    /// What the supervisor prepares of the volume with this name in Podman.
    pub(super) fn prepare(&mut self, volume: &str) -> &mut PreparedVolume {
        let prepared = self.prepared.entry(volume.to_owned());
        prepared.or_insert_with(|| PreparedVolume {
            name: volume.to_owned(),
            ..PreparedVolume::default()
        })
    }
}

/// The mode of the files of a volume, as it is written unless the group changes it.
fn default_mode(mode: Option<i32>, group: Option<u32>) -> Option<i32> {
    let written = u32::try_from(mode?).ok()?;
    i32::try_from(readable(written, group)).ok()
}

/// The mode of an `emptyDir`.
fn mode(group: Option<u32>) -> u32 {
    match group {
        Some(_) => MODE_EMPTY_GROUP,
        None => MODE_EMPTY,
    }
}

/// Distinguishes volumes that show one ConfigMap or Secret in different ways. Podman would write both into one volume.
#[derive(Serialize)]
pub(super) struct View {
    items: Option<Vec<KeyToPath>>,
    mode: Option<i32>,
    optional: bool,
}

impl View {
    /// `None` if the volume shows all keys unchanged.
    fn of(items: &Option<Vec<KeyToPath>>, mode: Option<i32>, optional: bool) -> Option<Self> {
        (items.is_some() || mode.is_some()).then(|| Self {
            items: items.clone(),
            mode,
            optional,
        })
    }
}
