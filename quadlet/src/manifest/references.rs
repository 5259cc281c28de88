//! Objects that a pod refers to.
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::BTreeMap;

use beemesh_protocol::state::{Kind, Reference};
use k8s_openapi::api::core::v1::PodSpec;

/// The ConfigMaps, Secrets and claims of a pod, sorted. A reference is required if any of its places requires it.
///
/// A claim is optional: like Podman, a host makes an empty volume for a claim that no manifest describes.
pub(super) fn of(spec: &PodSpec) -> Vec<Reference> {
    let mut found: BTreeMap<(Kind, &str), bool> = BTreeMap::new();
    let mut uses = |kind, name, optional: Option<bool>| {
        let optional = optional.unwrap_or(kind == Kind::PersistentVolumeClaim);
        found
            .entry((kind, name))
            .and_modify(|known| *known &= optional)
            .or_insert(optional);
    };
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            uses(
                Kind::ConfigMap,
                source.name.as_str(),
                Some(source.optional == Some(true)),
            );
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            uses(Kind::Secret, name, Some(source.optional == Some(true)));
        }
        let projected = volume.projected.as_ref();
        for source in projected
            .and_then(|all| all.sources.as_ref())
            .into_iter()
            .flatten()
        {
            if let Some(from) = &source.config_map {
                let optional = Some(from.optional == Some(true));
                uses(Kind::ConfigMap, from.name.as_str(), optional);
            }
            if let Some(from) = &source.secret {
                let optional = Some(from.optional == Some(true));
                uses(Kind::Secret, from.name.as_str(), optional);
            }
        }
        if let Some(source) = &volume.persistent_volume_claim {
            uses(
                Kind::PersistentVolumeClaim,
                source.claim_name.as_str(),
                None,
            );
        }
    }
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        for source in container.env_from.iter().flatten() {
            if let Some(from) = &source.config_map_ref {
                uses(
                    Kind::ConfigMap,
                    from.name.as_str(),
                    Some(from.optional == Some(true)),
                );
            }
            if let Some(from) = &source.secret_ref {
                uses(
                    Kind::Secret,
                    from.name.as_str(),
                    Some(from.optional == Some(true)),
                );
            }
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|var| var.value_from.as_ref())
        {
            if let Some(from) = &source.config_map_key_ref {
                uses(
                    Kind::ConfigMap,
                    from.name.as_str(),
                    Some(from.optional == Some(true)),
                );
            }
            if let Some(from) = &source.secret_key_ref {
                uses(
                    Kind::Secret,
                    from.name.as_str(),
                    Some(from.optional == Some(true)),
                );
            }
        }
    }
    found
        .into_iter()
        .map(|((kind, name), optional)| Reference {
            kind,
            name: name.to_owned(),
            optional,
        })
        .collect()
}
