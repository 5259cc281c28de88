//! What the reference of an image stands for on this host.

use beemesh_protocol::{hex, percent};
use serde::Deserialize;

use super::wire::{Call, null_is_empty};
use super::{LOOK_TIME_MAX, Podman, PodmanError};

/// An image in the storage of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredImage {
    /// The hash of its configuration, which Podman calls its ID.
    pub id: [u8; 32],
    /// The digest of the manifest by which a registry has it, for all platforms if there is one; `None` if unknown.
    pub digest: Option<[u8; 32]>,
}

/// Answer of `GET /libpod/images/NAME/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedImage {
    id: String,
    #[serde(default)]
    digest: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    repo_digests: Vec<String>,
}

impl InspectedImage {
    fn stored(&self) -> Option<StoredImage> {
        let all = self.repo_digests.iter();
        let all = all.filter_map(|one| one.rsplit_once('@').map(|(_, digest)| digest));
        // Podman keeps the digest of the list of platforms beside that of this platform.
        let mut all: Vec<&str> = all.collect();
        all.sort_by_key(|digest| *digest == self.digest);
        Some(StoredImage {
            id: sha256(&self.id)?,
            digest: all.first().and_then(|digest| sha256(digest)),
        })
    }
}

/// A hash with or without the name of its algorithm.
fn sha256(text: &str) -> Option<[u8; 32]> {
    hex::decode(text.strip_prefix("sha256:").unwrap_or(text))
}

impl Podman {
    /// The image with this reference or ID; `None` if the host lacks it.
    ///
    /// # Errors
    ///
    /// Podman does not answer.
    pub async fn stored_image(&self, reference: &str) -> Result<Option<StoredImage>, PodmanError> {
        let path = format!("/libpod/images/{}/json", percent::encode(reference));
        let call = Call::get(format!("look for image {reference}"), path).within(LOOK_TIME_MAX);
        match self.wire.json::<InspectedImage>(call).await {
            Ok(image) => Ok(image.stored()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_for_all_platforms_wins() {
        let (id, own, all) = ("ab".repeat(32), "cd".repeat(32), "ef".repeat(32));
        let read = |json: String| {
            let image: InspectedImage = serde_json::from_str(&json).unwrap();
            image.stored()
        };
        let digests = format!(r#"["r.example/a@sha256:{own}","r.example/a@sha256:{all}"]"#);
        let both = format!(r#"{{"Id":"{id}","Digest":"sha256:{own}","RepoDigests":{digests}}}"#);
        let stored = |digest| StoredImage {
            id: [0xab; 32],
            digest,
        };
        assert_eq!(read(both), Some(stored(Some([0xef; 32]))));
        let one = format!(
            r#"{{"Id":"sha256:{id}","Digest":"sha256:{own}","RepoDigests":["localhost/a@sha256:{own}"]}}"#
        );
        assert_eq!(read(one), Some(stored(Some([0xcd; 32]))));
        let none = format!(r#"{{"Id":"{id}","Digest":"sha256:{own}","RepoDigests":null}}"#);
        assert_eq!(read(none), Some(stored(None)));
        assert_eq!(read(r#"{"Id":"short"}"#.to_owned()), None);
    }
}
