//! Normalises the mounts of a container.
//!
//! Pure: no I/O, no clock, no randomness. `kube play` reads mount options after the path: `PATH:OPTION,OPTION`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::{RenderError, Uses, files::Made, volumes::Plan};
use crate::{
    belongings,
    render::staged::{LateFolder, PreparedVolume},
};

/// The mode of a folder that is made in a folder of the host.
const MODE_HOST: u32 = 0o755;

/// The names of the volumes that a container mounts.
pub(super) fn volumes(container: &Container) -> Vec<String> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts.map(|mount| mount.name.clone()).collect()
}

impl Uses<'_> {
    /// Normalises the mounts of a container. Containers that start before it may have `written` into some volumes. Adds
    /// the volumes that are `made` for the mounts.
    pub(super) fn mounts(
        &mut self,
        container: &mut Container,
        plans: &BTreeMap<String, Plan>,
        written: &BTreeSet<String>,
        made: &mut Made,
    ) -> Result<(), RenderError> {
        let name = container.name.clone();
        let mut mounts = Vec::new();
        for mut mount in container.volume_mounts.take().unwrap_or_default() {
            let is_written = written.contains(&mount.name);
            // Podman knows no such words, and does without one what they ask for.
            mount.mount_propagation = mount
                .mount_propagation
                .filter(|word| !matches!(word.as_str(), "" | "None"));
            let volume = match plans.get(&mount.name) {
                Some(Plan::Files(files)) => {
                    mounts.extend(self.mount_files(files, &mount, made)?);
                    continue;
                }
                Some(Plan::Shown) => {
                    show(&mut mount);
                    None
                }
                Some(Plan::Empty { name, volume }) => {
                    mount.name.clone_from(name);
                    // Podman would copy what the image has there, with its mode.
                    set_options(&mut mount, &["copy", "nocopy"], "nocopy");
                    Some(volume)
                }
                Some(Plan::Claim { volume, read_only }) => {
                    if *read_only {
                        mount.read_only = Some(true);
                    }
                    // Podman would copy what the image has there into an empty volume.
                    set_options(&mut mount, &["copy", "nocopy"], "nocopy");
                    Some(volume)
                }
                Some(Plan::Host(path)) => Some(path),
                Some(Plan::Plain) | None => None,
            };
            if let (Some(volume), Some(folder)) = (volume, folder(&mount)) {
                self.folder(volume, folder, is_written.then_some(&name));
            }
            mounts.push(mount);
        }
        container.volume_mounts = (!mounts.is_empty()).then_some(mounts);
        Ok(())
    }

    /// Asks for a folder of a volume, which Podman does not make. It is made only when the container `late` starts if
    /// another may make it, or a file of that name, before.
    fn folder(&mut self, volume: &str, folder: String, late: Option<&String>) {
        let is_claim = belongings::is_claim(volume);
        let prepared = self.prepare(volume);
        if is_claim && prepared.mode.is_none() {
            // Podman gives an empty volume to its first user, and does not if there is a folder in it.
            (prepared.mode, prepared.fresh) = (Some(0o777), true);
        }
        if PreparedVolume::is_of_host(volume) && prepared.mode.is_none() {
            (prepared.mode, prepared.fresh) = (Some(MODE_HOST), true);
        }
        match late {
            None => insert(&mut prepared.folders, folder),
            Some(container) => {
                let late = LateFolder {
                    container: container.clone(),
                    folder,
                };
                insert(&mut prepared.late, late);
            }
        }
    }
}

/// Adds an entry to a sorted list that lacks it.
fn insert<T: Ord>(list: &mut Vec<T>, entry: T) {
    if let Err(place) = list.binary_search(&entry) {
        list.insert(place, entry);
    }
}

/// The folder of the volume that a mount shows, without parts that mean nothing; `None` for the whole volume.
pub(super) fn folder(mount: &VolumeMount) -> Option<String> {
    let parts = mount.sub_path.as_deref()?.split('/');
    let parts: Vec<&str> = parts.filter(|part| !matches!(*part, "" | ".")).collect();
    Some(parts.join("/")).filter(|folder| !folder.is_empty())
}

/// Makes the mount of a ConfigMap or Secret read-only, as in Kubernetes, and hides the files that the image has there.
/// Podman writes the files again with each play, as root. Before 5.6.1 it follows any symbolic link that it finds in
/// their place (CVE-2025-9566), so neither a container nor an image may put one there.
pub(super) fn show(mount: &mut VolumeMount) {
    mount.read_only = Some(true);
    set_options(mount, &["ro", "rw", "copy", "nocopy"], "nocopy");
}

/// Replaces the options `out` of a mount by `option`.
fn set_options(mount: &mut VolumeMount, out: &[&str], option: &str) {
    let (path, options) = match mount.mount_path.split_once(':') {
        Some((path, options)) => (path, options),
        None => (mount.mount_path.as_str(), ""),
    };
    let options = options.split(',');
    let options = options.filter(|one| !one.is_empty() && !out.contains(one));
    let options: Vec<&str> = options.chain([option]).collect();
    mount.mount_path = format!("{path}:{}", options.join(","));
}
