//! Removes leftovers that prevent Podman from playing a pod again.
//!
//! Podman's database is durable at once and its storage is not. After a power cut the storage may still have containers
//! that the database has forgotten. A list of containers does not show them, taking the pod down does not find them,
//! and they block their names. Podman also removes a service container only some time after its pod. A service
//! container that survives through a power cut or a shutdown is not taken down either.

use beemesh_protocol::percent;
use serde::Deserialize;

use super::wire::{self, Call};
use super::{DOWN_TIME_MAX, LOOK_TIME_MAX, Podman, PodmanError, absent_is_gone, service_container};
use crate::render;

/// Podman's name for the state of a container that only its storage knows. Podman also reports it as the command of
/// such a container, if Podman itself made it. Buildah's containers have the command `buildah`, and a user may be
/// working in one.
const STORAGE: &str = "storage";

/// Answer of `GET /libpod/containers/json?external=true`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    state: String,
    // `null` for a container without a command.
    command: Option<Vec<String>>,
}

impl Podman {
    /// Removes leftover containers with the names that a play of `yaml` needs. Call it after the pod is taken down.
    pub async fn remove_strays(&self, yaml: &[u8]) -> Result<(), PodmanError> {
        self.remove_service_container(yaml).await?;
        for Listed { id, names, .. } in self.strays(yaml).await? {
            tracing::warn!(
                containers = ?names,
                "removing containers that only Podman's storage knows, as a power cut may leave them"
            );
            self.remove_container(&id).await?;
        }
        Ok(())
    }

    /// Removes the service container of a play of `yaml`. Call it after the pod is removed. If there is no such
    /// container, the call succeeds.
    pub async fn remove_service_container(&self, yaml: &[u8]) -> Result<(), PodmanError> {
        // Only a play of exactly these bytes makes a container of this name.
        self.remove_container(&service_container(yaml)).await
    }

    /// Removes a container, running or not, even if only the storage knows it. If there is no such container, the call
    /// succeeds.
    pub async fn remove_container(&self, name: &str) -> Result<(), PodmanError> {
        let path = format!(
            "/libpod/containers/{}?force=true&ignore=true",
            percent::encode(name)
        );
        let call = Call::delete(format!("remove container {name}"), path);
        absent_is_gone(self.wire.empty(call.within(DOWN_TIME_MAX)).await)
    }

    async fn strays(&self, yaml: &[u8]) -> Result<Vec<Listed>, PodmanError> {
        let query = wire::query(&[("all", "true"), ("external", "true")]);
        let path = format!("/libpod/containers/json{query}");
        let call = Call::get("list what the storage has", path).within(LOOK_TIME_MAX);
        let names = render::container_names(yaml);
        let mut listed: Vec<Listed> = self.wire.json(call).await?;
        listed.retain(|container| is_stray(container, &names));
        Ok(listed)
    }
}

fn is_stray(container: &Listed, names: &[String]) -> bool {
    let command = container.command.as_deref();
    container.state == STORAGE
        && command.is_some_and(|words| words == [STORAGE])
        && container.names.iter().any(|name| names.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_podman_left_under_our_names_is_removed() {
        let ours = ["web-first".to_owned(), "web-main".to_owned()];
        for (listed, expected) in [
            (
                r#"{"Id":"1","Names":["web-main"],"State":"storage","Command":["storage"]}"#,
                true,
            ),
            (
                r#"{"Id":"2","Names":["web-first"],"State":"storage","Command":["storage"]}"#,
                true,
            ),
            (
                r#"{"Id":"3","Names":["web-main"],"State":"storage","Command":["buildah"]}"#,
                false,
            ),
            (
                r#"{"Id":"4","Names":["other-main"],"State":"storage","Command":["storage"]}"#,
                false,
            ),
            (
                r#"{"Id":"5","Names":["web-main"],"State":"exited","Command":["storage"]}"#,
                false,
            ),
            (
                r#"{"Id":"6","Names":["web-main"],"State":"running","Command":null}"#,
                false,
            ),
        ] {
            let container: Listed = serde_json::from_str(listed).expect("as Podman writes it");
            assert_eq!(is_stray(&container, &ours), expected, "{listed}");
        }
    }
}
