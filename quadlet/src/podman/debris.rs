//! Removes what keeps a pod from being played again.
//!
//! Podman's database is durable at once and its storage is not: after a power cut the storage may still have containers
//! that the database knows no more of. No list shows them, taking the pod down does not find them, and their names are
//! taken. And Podman removes a service container only some time after its pod: one that a power cut or a shutdown has kept
//! is not taken down either.

use beemesh_protocol::percent;
use serde::Deserialize;

use super::wire::{self, Call};
use super::{DOWN_TIME_MAX, LOOK_TIME_MAX, Podman, PodmanError, absent_is_gone, service_container};
use crate::render;

/// What Podman calls the state of a container that only its storage knows, and the command of one that it made itself:
/// those of Buildah, which somebody may be working in, say `buildah`.
const STORAGE: &str = "storage";

/// Of `GET /libpod/containers/json?external=true`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    state: String,
    // `null` of a container without one.
    command: Option<Vec<String>>,
}

impl Podman {
    /// Removes what is left of containers of the names that a play of `yaml` needs, once its pod is taken down.
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

    /// Removes the service container of a play of `yaml`, once its pod is gone. None is a success.
    pub async fn remove_service_container(&self, yaml: &[u8]) -> Result<(), PodmanError> {
        // Nobody else's has the name that these bytes give.
        self.remove_container(&service_container(yaml)).await
    }

    /// Removes a container, running or not, also one that only the storage knows. No such container is a success.
    async fn remove_container(&self, name: &str) -> Result<(), PodmanError> {
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
