//! The files into which containers write their termination messages.
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::BETWEEN;

/// The path of the file in a container that names no other.
pub(crate) const PATH: &str = "/dev/termination-log";

/// The name of the file in its volume.
pub(crate) const KEY: &str = "message";

/// The name of the volume in the pod. A manifest cannot write it, because of the point.
pub(crate) fn volume_name(container: &str) -> String {
    format!("termination.{container}")
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: String,
    volume_mounts: Vec<Mount>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mount {
    name: String,
    mount_path: String,
}

/// The containers in a YAML of [`render`](super::render()) that have a file for a termination message, as in the
/// manifest, and the path of that file.
#[must_use]
pub fn termination_messages(yaml: &[u8]) -> BTreeMap<String, String> {
    let text = str::from_utf8(yaml).unwrap_or_default();
    let pods = text
        .split(BETWEEN)
        .filter(|text| text.contains("\"containers\""));
    let of = |container: Container| {
        let name = volume_name(&container.name);
        let mut mounts = container.volume_mounts.into_iter();
        let mount = mounts.find(|mount| mount.name == name)?;
        let path = mount.mount_path.split(':').next()?.to_owned();
        Some((container.name, path))
    };
    pods.filter_map(|text| serde_json::from_str::<Document>(text).ok())
        .flat_map(|pod| {
            pod.spec
                .init_containers
                .into_iter()
                .chain(pod.spec.containers)
        })
        .filter_map(of)
        .collect()
}
