//! The place of volumes on the host.

use std::path::PathBuf;

use beemesh_protocol::percent;
use serde::Deserialize;

use super::wire::Call;
use super::{LOOK_TIME_MAX, Podman, PodmanError};

/// Answer of `GET /libpod/volumes/NAME/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedVolume {
    mountpoint: PathBuf,
}

impl Podman {
    /// The folder of the host with the content of a volume that is no mount of its own.
    ///
    /// # Errors
    ///
    /// There is no such volume, or Podman does not answer.
    pub async fn volume_folder(&self, name: &str) -> Result<PathBuf, PodmanError> {
        let path = format!("/libpod/volumes/{}/json", percent::encode(name));
        let call = Call::get(format!("look for volume {name}"), path);
        let volume: InspectedVolume = self.wire.json(call.within(LOOK_TIME_MAX)).await?;
        Ok(volume.mountpoint)
    }
}
