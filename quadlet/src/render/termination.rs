//! The files into which containers write their termination messages.
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::BETWEEN;

/// The path of the file in a container that names no other.
pub(crate) const PATH: &str = "/dev/termination-log";

/// The name of the file in its volume.
pub const KEY: &str = "message";

/// The name of the volume in the pod. A manifest cannot write it, because of the point.
pub(crate) fn volume_name(container: &str) -> String {
    format!("{VOLUME}{container}")
}

/// What the name of such a volume begins with.
const VOLUME: &str = "termination.";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    volumes: Vec<Volume>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    name: String,
    config_map: ConfigMap,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigMap {
    name: String,
}

/// The containers in a YAML of [`render`](super::render()) that have a file for a termination message, as in the
/// manifest, and the names of the volumes with these files in Podman.
#[must_use]
pub fn termination_messages(yaml: &[u8]) -> BTreeMap<String, String> {
    let text = str::from_utf8(yaml).unwrap_or_default();
    let pods = text.split(BETWEEN).filter(|text| text.contains(VOLUME));
    let of = |volume: Volume| {
        let container = volume.name.strip_prefix(VOLUME)?.to_owned();
        Some((container, volume.config_map.name))
    };
    pods.filter_map(|text| serde_json::from_str::<Document>(text).ok())
        .flat_map(|pod| pod.spec.volumes)
        .filter_map(of)
        .collect()
}
