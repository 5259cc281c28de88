//! Keeps a root file system that is read-only free of folders that are not.
//!
//! Pure: no I/O, no clock, no randomness. Podman mounts a writable tmpfs at `/run`, `/tmp` and `/var/tmp` of each
//! container, and no field prevents it. Only a mount of a host's folder takes its place, so a container with
//! `readOnlyRootFilesystem` gets an empty one there, which hides what its image has. Podman makes mount points below it
//! in that folder, so each place has a folder of its own.

use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, PodSpec, Volume, VolumeMount};

use super::containers;
use crate::manifest::clean_path;

/// The folder of the hosts with the empty folders.
const EMPTY: &str = "/var/lib/beemesh/empty";

/// The places, and the name of the folder that is mounted there.
const PLACES: [(&str, &str); 3] = [("/run", "run"), ("/tmp", "tmp"), ("/var/tmp", "var-tmp")];

/// Mounts the empty folders.
pub(super) fn close(spec: &mut PodSpec) {
    let mut used = [false; PLACES.len()];
    for container in containers(spec) {
        let context = container.security_context.as_ref();
        if context.and_then(|context| context.read_only_root_filesystem) != Some(true) {
            continue;
        }
        for ((place, folder), used) in PLACES.iter().zip(&mut used) {
            if !is_mounted(container, place) {
                *used = true;
                container
                    .volume_mounts
                    .get_or_insert_default()
                    .push(VolumeMount {
                        name: name(folder),
                        mount_path: (*place).to_owned(),
                        read_only: Some(true),
                        ..VolumeMount::default()
                    });
            }
        }
    }
    for ((_, folder), _) in PLACES.iter().zip(used).filter(|(_, used)| *used) {
        spec.volumes.get_or_insert_default().push(Volume {
            name: name(folder),
            host_path: Some(HostPathVolumeSource {
                path: format!("{EMPTY}/{folder}"),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            ..Volume::default()
        });
    }
}

/// The name of the volume in the pod. A manifest cannot write it, because of the point.
fn name(folder: &str) -> String {
    format!("empty.{folder}")
}

/// Whether the container mounts a volume at this place or at a folder above it.
fn is_mounted(container: &Container, place: &str) -> bool {
    let mounts = container.volume_mounts.iter().flatten();
    let mut paths = mounts.map(|mount| clean_path(&mount.mount_path));
    paths.any(|path| place == path || place.starts_with(&format!("{path}/")))
}
