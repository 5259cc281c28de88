//! Pure: reads the probes and lifecycle hooks of a rendered pod, as the manifest has them.
//!
//! They stay in the YAML under their names in Kubernetes. Input: the bytes of a YAML of [`super::render`]. Output: the
//! fields of each container that a prober needs, without defaults.

use k8s_openapi::api::core::v1::{ContainerPort, EnvVar, Lifecycle, Probe};
use serde::Deserialize;

use super::BETWEEN;

/// The probes and hooks of one container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probed {
    /// Its name on the host, `POD-CONTAINER`.
    pub name: String,
    /// The `terminationGracePeriodSeconds` of its pod.
    pub grace: Option<i64>,
    /// The ports that probes and hooks refer to by name.
    pub ports: Vec<ContainerPort>,
    /// The variables that commands of probes refer to.
    pub env: Vec<EnvVar>,
    /// `startupProbe`.
    pub startup: Option<Probe>,
    /// `livenessProbe`.
    pub liveness: Option<Probe>,
    /// `readinessProbe`.
    pub readiness: Option<Probe>,
    /// `lifecycle`.
    pub lifecycle: Option<Lifecycle>,
}

impl Probed {
    /// Whether it has a probe or a hook.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        let probes = [&self.startup, &self.liveness, &self.readiness];
        probes.into_iter().any(Option::is_some) || self.lifecycle.is_some()
    }
}

#[derive(Deserialize)]
struct Document {
    metadata: Metadata,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    termination_grace_period_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(default)]
    ports: Option<Vec<ContainerPort>>,
    #[serde(default)]
    env: Option<Vec<EnvVar>>,
    #[serde(default)]
    startup_probe: Option<Probe>,
    #[serde(default)]
    liveness_probe: Option<Probe>,
    #[serde(default)]
    readiness_probe: Option<Probe>,
    #[serde(default)]
    lifecycle: Option<Lifecycle>,
}

/// The probes and hooks of all containers in a YAML of [`super::render`], in their order in the pod; empty for any
/// other file. Init containers have none.
#[must_use]
pub fn probed(yaml: &[u8]) -> Vec<Probed> {
    let text = str::from_utf8(yaml).unwrap_or_default();
    let pods = text.split(BETWEEN).filter_map(|text| {
        let Document { metadata, spec } = serde_json::from_str(text).ok()?;
        Some((metadata.name, spec?))
    });
    let containers = pods.flat_map(|(pod, spec)| {
        let grace = spec.termination_grace_period_seconds;
        spec.containers.into_iter().map(move |container| Probed {
            name: format!("{pod}-{}", container.name),
            grace,
            ports: container.ports.unwrap_or_default(),
            env: container.env.unwrap_or_default(),
            startup: container.startup_probe,
            liveness: container.liveness_probe,
            readiness: container.readiness_probe,
            lifecycle: container.lifecycle,
        })
    });
    containers.collect()
}
