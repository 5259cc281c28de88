//! Normalises the volumes of a pod and their mounts: each volume gets a name that no other workload has.
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::state::Kind;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, KeyToPath, PodSpec, Volume, VolumeMount};
use serde::Serialize;

use super::{RenderError, Uses, containers};
use crate::belongings;

impl Uses<'_> {
    /// Replaces the names of the volumes, in their sources and mounts.
    pub(super) fn volumes(&mut self, spec: &mut PodSpec) -> Result<(), RenderError> {
        let mut empty = BTreeMap::new();
        let mut shown = BTreeSet::new();
        for volume in spec.volumes.iter_mut().flatten() {
            self.volume(volume)?;
            if volume.config_map.is_some() || volume.secret.is_some() {
                shown.insert(volume.name.clone());
            }
            if volume.empty_dir.is_some() {
                let name = belongings::empty_dir(self.workload, &volume.name);
                empty.insert(std::mem::replace(&mut volume.name, name.clone()), name);
            }
        }
        for container in containers(spec) {
            for mount in container.volume_mounts.iter_mut().flatten() {
                if let Some(name) = empty.get(&mount.name) {
                    mount.name.clone_from(name);
                }
                if shown.contains(&mount.name) {
                    show(mount);
                }
            }
        }
        Ok(())
    }

    /// Replaces the name in a volume's source. A volume without a source, or whose optional source does not exist, is
    /// empty.
    fn volume(&mut self, volume: &mut Volume) -> Result<(), RenderError> {
        if let Some(source) = &mut volume.config_map {
            let optional = source.optional == Some(true);
            let view = View::of(&source.items, source.default_mode, optional);
            match self.private(Kind::ConfigMap, &source.name, optional, view)? {
                Some(name) => source.name = name,
                None => volume.config_map = None,
            }
        }
        if let Some(source) = &mut volume.secret {
            let optional = source.optional == Some(true);
            let view = View::of(&source.items, source.default_mode, optional);
            let name = source.secret_name.as_deref().unwrap_or_default();
            match self.private(Kind::Secret, name, optional, view)? {
                Some(name) => source.secret_name = Some(name),
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

    /// The name of a claim's volume, which all workloads of its namespace share.
    fn claim(&mut self, name: &str) -> String {
        let volume = belongings::claim(&self.revision.object.namespace, name);
        if let Some(used) = self.find(Kind::PersistentVolumeClaim, name) {
            self.documents.insert(volume.clone(), used);
        }
        volume
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

/// Makes the mount of a ConfigMap or Secret read-only, as in Kubernetes, and hides the files that the image has there.
/// Podman writes the files again with each play, as root. Before 5.6.1 it follows any symbolic link that it finds in
/// their place (CVE-2025-9566), so neither a container nor an image may put one there. `kube play` takes mount options
/// after the path.
fn show(mount: &mut VolumeMount) {
    mount.read_only = Some(true);
    let (path, options) = match mount.mount_path.split_once(':') {
        Some((path, options)) => (path, options),
        None => (mount.mount_path.as_str(), ""),
    };
    let ours = ["", "ro", "rw", "copy", "nocopy"];
    let options = options.split(',').filter(|option| !ours.contains(option));
    let options: Vec<&str> = options.chain(["nocopy"]).collect();
    mount.mount_path = format!("{path}:{}", options.join(","));
}
