//! Gives a pod that names all its name servers exactly the `/etc/resolv.conf` that Kubernetes gives it.
//!
//! Pure: no I/O, no clock, no randomness. Podman sends the queries for `dnsConfig.nameservers` through its own server,
//! which knows the names of the host's other pods, too. With `dnsPolicy: None` nothing but the manifest decides, so the
//! file is a private ConfigMap. With any other policy the file has addresses and domains of the host: there Podman
//! writes it.

use k8s_openapi::{
    api::core::v1::{ConfigMap, ConfigMapVolumeSource, PodDNSConfig, PodSpec, Volume, VolumeMount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{RenderError, Uses, containers, to_json};
use crate::belongings::Content;

const FILE: &str = "resolv.conf";
const PATH: &str = "/etc/resolv.conf";

/// What distinguishes the ConfigMap with the file from one of the manifest.
const MADE: &str = "made";

/// Adds the file to a pod with `dnsPolicy: None`. A container may write it, as in Kubernetes, unless its root is
/// read-only.
pub(super) fn settle(uses: &mut Uses<'_>, spec: &mut PodSpec) -> Result<(), RenderError> {
    if spec.dns_policy.as_deref() != Some("None") {
        return Ok(());
    }
    let text = text(spec.dns_config.as_ref());
    let content = Content {
        letter: 'c',
        name: FILE,
        body: text.as_bytes(),
    };
    let name = content.private_name(uses.pod, &MADE);
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        data: Some([(FILE.to_owned(), text)].into()),
        ..ConfigMap::default()
    };
    let json = to_json(uses.revision.object, &map)?;
    uses.made.insert(name.clone(), json);
    for container in containers(spec) {
        let mounts = container.volume_mounts.get_or_insert_default();
        let path = |mount: &VolumeMount| mount.mount_path.split(':').next() == Some(PATH);
        if mounts.iter().any(path) {
            continue;
        }
        let context = container.security_context.as_ref();
        let read_only = context.and_then(|context| context.read_only_root_filesystem);
        mounts.push(VolumeMount {
            name: name.clone(),
            mount_path: format!("{PATH}:nocopy"),
            sub_path: Some(FILE.to_owned()),
            read_only: read_only.filter(|read_only| *read_only),
            ..VolumeMount::default()
        });
    }
    let volumes = spec.volumes.get_or_insert_default();
    volumes.push(Volume {
        name: name.clone(),
        config_map: Some(ConfigMapVolumeSource {
            name,
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    });
    Ok(())
}

fn text(config: Option<&PodDNSConfig>) -> String {
    let config = config.cloned().unwrap_or_default();
    let mut text = String::new();
    let searches = config.searches.unwrap_or_default();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in config.nameservers.into_iter().flatten() {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let options = config.options.into_iter().flatten().map(|option| {
        let name = option.name.unwrap_or_default();
        match option.value {
            Some(value) => format!("{name}:{value}"),
            None => name,
        }
    });
    let options: Vec<String> = options.collect();
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}
