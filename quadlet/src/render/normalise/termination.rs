//! Gives a container the file for its termination message.
//!
//! Pure: no I/O, no clock, no randomness. The file is that of a private ConfigMap, writable by any user of the container.
//! A container that says nothing about its termination message gets none, because the mount would cost every workload
//! time, unless its command, its arguments or its variables contain the path of the file.

use k8s_openapi::{
    api::core::v1::{ConfigMap, ConfigMapVolumeSource, Container, Volume, VolumeMount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{RenderError, Uses, to_json};
use crate::{
    belongings::Content,
    manifest::clean_path,
    render::termination::{KEY, PATH, volume_name},
};

/// What distinguishes the ConfigMap from one of the manifest.
const VIEW: [&str; 1] = ["termination message"];

/// Any user may write the message.
const MODE: i32 = 0o666;

impl Uses<'_> {
    /// Mounts the file, and returns its volume.
    pub(super) fn termination(
        &mut self,
        container: &mut Container,
    ) -> Result<Option<Volume>, RenderError> {
        let path = container.termination_message_path.as_deref();
        if path.is_none()
            && container.termination_message_policy.is_none()
            && !speaks_of_it(container)
        {
            return Ok(None);
        }
        let path = path
            .filter(|path| !path.is_empty())
            .unwrap_or(PATH)
            .to_owned();
        let mounts = container.volume_mounts.get_or_insert_default();
        let mut mounted = mounts.iter().map(|mount| clean_path(&mount.mount_path));
        let place = clean_path(&path);
        if mounted.any(|mounted| mounted == place) {
            return Ok(None);
        }
        let content = Content {
            letter: 'c',
            name: &container.name,
            body: b"",
        };
        let name = content.private_name(self.pod, &VIEW);
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            data: Some([(KEY.to_owned(), String::new())].into()),
            ..ConfigMap::default()
        };
        let map = to_json(self.revision.object, &map)?;
        self.made.insert(name.clone(), map);
        let volume = volume_name(&container.name);
        mounts.push(VolumeMount {
            name: volume.clone(),
            mount_path: format!("{path}:nocopy"),
            sub_path: Some(KEY.to_owned()),
            ..VolumeMount::default()
        });
        Ok(Some(Volume {
            name: volume,
            config_map: Some(ConfigMapVolumeSource {
                name,
                default_mode: Some(MODE),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        }))
    }
}

/// Returns true if the container's program will probably write to the file of a container that names no other.
fn speaks_of_it(container: &Container) -> bool {
    let words = container.command.iter().chain(&container.args).flatten();
    let variables = container.env.iter().flatten();
    let values = variables.filter_map(|variable| variable.value.as_ref());
    words.chain(values).any(|text| text.contains(PATH))
}
