//! Takes pods down.
//!
//! Wherever Podman takes the name of a pod, it also takes the beginning of the id of another pod. A workload may be named `a`
//! or `db`: if it has no pod, such a call would act on a pod of another workload, on the gateway, or on a stranger's. So pods
//! are found by their exact name, and removed by their id.

use std::collections::BTreeMap;

use beemesh_protocol::percent;

use super::inspect::InspectedPod;
use super::wire::{self, Call};
use super::{DOWN_TIME_MAX, LOOK_TIME_MAX, Podman, PodmanError, absent_is_gone, service_container};
use crate::render;

impl Podman {
    /// Takes down the objects of `yaml`: its pod, service container and secrets, but not its volumes. An object that
    /// does not exist counts as taken down.
    pub async fn down(&self, yaml: &[u8]) -> Result<(), PodmanError> {
        let signals = render::stop_signals(yaml);
        let names = render::pod_names(yaml);
        if names.iter().any(|name| may_be_id(name)) {
            for name in &names {
                self.remove_named(name, &signals).await?;
            }
            return self.remove_rest(yaml).await;
        }
        for name in &names {
            if let Some(id) = self.pod_id(name).await? {
                self.end(&id, &signals).await?;
            }
        }
        let call = Call::delete("take the pod down", "/libpod/play/kube".to_owned());
        let report: wire::PlayReport = self
            .wire
            .json(call.yaml(yaml).within(DOWN_TIME_MAX))
            .await?;
        let errors: Vec<String> = report.down_errors();
        for pod in report.removed_pods() {
            let operation = format!("look for pod {pod}");
            if self
                .bounded(&operation, self.client.pods().get(pod).exists())
                .await?
            {
                let errors = if errors.is_empty() {
                    vec![format!("pod {pod} is still there")]
                } else {
                    errors.clone()
                };
                return Err(PodmanError::Down { errors });
            }
        }
        Ok(())
    }

    /// Removes a pod with its containers, running or not, no matter which YAML made it. If there is no such pod, the
    /// call succeeds.
    pub async fn remove_pod(&self, name: &str) -> Result<(), PodmanError> {
        self.remove_named(name, &BTreeMap::new()).await
    }

    async fn remove_named(
        &self,
        name: &str,
        signals: &BTreeMap<String, String>,
    ) -> Result<(), PodmanError> {
        let Some(id) = self.pod_id(name).await? else {
            return Ok(());
        };
        self.end(&id, signals).await?;
        let path = format!("/libpod/pods/{id}?force=true");
        let call = Call::delete(format!("remove pod {name}"), path).within(DOWN_TIME_MAX);
        absent_is_gone(self.wire.empty(call).await)
    }

    /// Removes the service container and the secrets of a play of `yaml`.
    async fn remove_rest(&self, yaml: &[u8]) -> Result<(), PodmanError> {
        self.remove_container(&service_container(yaml)).await?;
        for secret in render::secret_names(yaml) {
            self.remove_secret(&secret).await?;
        }
        Ok(())
    }

    /// The id of the pod of exactly this name; `None` if there is none.
    pub(super) async fn pod_id(&self, name: &str) -> Result<Option<String>, PodmanError> {
        let operation = format!("look for pod {name}");
        let path = format!("/libpod/pods/{}/json", percent::encode(name));
        let call = Call::get(operation, path).within(LOOK_TIME_MAX);
        match self.wire.json::<InspectedPod>(call).await {
            Ok(found) => Ok((found.name == name).then_some(found.id)),
            Err(error) if error.is_not_found() => Ok(None),
            // A part of the pod is missing or damaged, or the name is the beginning of several ids: a list is reliable.
            Err(PodmanError::Refused { .. }) => Ok(self.pod(name).await?.map(|pod| pod.id)),
            Err(error) => Err(error),
        }
    }
}

/// Returns true if the name of a pod may be the beginning of an id.
fn may_be_id(name: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.bytes().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_hexadecimal_digits_may_be_an_id() {
        for (name, expected) in [
            ("a", true),
            ("db", true),
            ("c0ffee", true),
            ("web", false),
            ("db-1", false),
            ("a.b", false),
        ] {
            assert_eq!(may_be_id(name), expected, "{name}");
        }
    }
}
