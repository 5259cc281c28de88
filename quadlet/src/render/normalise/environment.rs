//! Normalises the environment of a pod's containers.
//!
//! Pure: no I/O, no clock, no randomness.

use beemesh_protocol::state::Kind;
use k8s_openapi::api::core::v1::{Container, EnvVar};

use super::{RenderError, Uses};

impl Uses<'_> {
    /// Replaces the names in variables' sources, and omits variables whose optional source does not exist.
    pub(super) fn environment(&mut self, container: &mut Container) -> Result<(), RenderError> {
        let mut kept = Vec::new();
        for mut from in container.env_from.take().unwrap_or_default() {
            if let Some(source) = &mut from.config_map_ref {
                match self.private(
                    Kind::ConfigMap,
                    &source.name,
                    source.optional == Some(true),
                    None,
                )? {
                    Some(name) => source.name = name,
                    None => from.config_map_ref = None,
                }
            }
            if let Some(source) = &mut from.secret_ref {
                match self.private(
                    Kind::Secret,
                    &source.name,
                    source.optional == Some(true),
                    None,
                )? {
                    Some(name) => source.name = name,
                    None => from.secret_ref = None,
                }
            }
            if from.config_map_ref.is_some() || from.secret_ref.is_some() {
                kept.push(from);
            }
        }
        container.env_from = (!kept.is_empty()).then_some(kept);
        let mut kept = Vec::new();
        for var in container.env.take().unwrap_or_default() {
            kept.extend(self.variable(var)?);
        }
        container.env = (!kept.is_empty()).then_some(kept);
        Ok(())
    }

    fn variable(&mut self, mut var: EnvVar) -> Result<Option<EnvVar>, RenderError> {
        let Some(from) = &mut var.value_from else {
            return Ok(Some(var));
        };
        if let Some(source) = &mut from.config_map_key_ref {
            match self.private(
                Kind::ConfigMap,
                &source.name,
                source.optional == Some(true),
                None,
            )? {
                Some(name) => source.name = name,
                None => return Ok(None),
            }
        }
        if let Some(source) = &mut from.secret_key_ref {
            match self.private(
                Kind::Secret,
                &source.name,
                source.optional == Some(true),
                None,
            )? {
                Some(name) => source.name = name,
                None => return Ok(None),
            }
        }
        // Podman has no namespaces, so it does not know that of the pod.
        if from
            .field_ref
            .as_ref()
            .is_some_and(|field| field.field_path == "metadata.namespace")
        {
            var.value = Some(self.revision.object.namespace.clone());
            var.value_from = None;
        }
        Ok(Some(var))
    }
}
