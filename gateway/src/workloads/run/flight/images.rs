//! The images of a revision: which ones its pod runs, and which ones it ran before.
//!
//! Shell. A reference such as `app:latest` may stand for another image today than it did when the revision was ready. A
//! return to a revision therefore names its images by their contents: by the ID if the host still has the image, and
//! otherwise by the digest of its registry.

use std::collections::BTreeMap;

use beemesh_protocol::{
    hex::Hex,
    state::{Object, RESOLVED_MAX, ResolvedImage, ResolvedImages},
};
use beemesh_quadlet::{
    podman::PodmanError,
    render::{self, by_digest, with_images},
};

use super::{Flight, StepError};
use crate::{cluster::state::Workload, workloads::plan::Work};

impl Flight {
    /// The workload with the images that this revision ran before, if it must run those. Also returns a message about the
    /// images that are gone.
    pub(super) async fn with_pinned_images(
        &self,
        workload: &Workload,
        index: u64,
        object: &Object,
    ) -> Result<(Option<Object>, String), StepError> {
        let state = &self.view.state;
        let pinned = state.pinned_images(workload, index);
        if pinned.is_empty() {
            return Ok((None, String::new()));
        }
        let (mut images, mut gone) = (BTreeMap::new(), Vec::new());
        for image in pinned {
            match self.pinned(image).await? {
                Some(by_contents) => {
                    images.insert(image.reference.clone(), by_contents);
                }
                None => gone.push(image.reference.as_str()),
            }
        }
        let gone = gone.join(", ");
        match gone.as_str() {
            "" => {}
            // The pod of a revision that failed is worse than what the reference stands for today.
            gone if index != workload.index => {
                let words = format!(
                    "runs {gone} as it is now: the image that this revision ran before is gone from this host"
                );
                return Ok((Some(with_images(object, &images)), words));
            }
            gone => return Err(StepError::Gone(gone.to_owned())),
        }
        Ok((Some(with_images(object, &images)), String::new()))
    }

    /// The name of this image by its contents; `None` if this host cannot get it.
    async fn pinned(&self, image: &ResolvedImage) -> Result<Option<String>, PodmanError> {
        if let Some(id) = &image.id {
            let id = Hex(id).to_string();
            if self.podman.image_exists(&id).await? {
                return Ok(Some(id));
            }
        }
        let digest = image.digest.as_ref();
        Ok(digest.map(|digest| by_digest(&image.reference, digest)))
    }

    /// The images that the pod of the latest revision runs, if they are to be recorded at the end of its rollout.
    pub(super) async fn resolved_images(&self, yaml: &[u8]) -> ResolvedImages {
        let state = &self.view.state;
        let workload = state.workload(self.place().0);
        let rolls = workload.is_some_and(|workload| {
            let index = self.work.index();
            state.rollout(&workload.name).is_some()
                && workload.index == index
                && state.pinned_images(workload, index).is_empty()
        });
        let runs = !matches!(self.work, Work::Persist(_) | Work::Remove(_));
        if !rolls || !runs {
            return ResolvedImages::default();
        }
        match self.resolve(yaml).await {
            Ok(images) => images,
            Err(error) => {
                tracing::warn!(workload = self.workload, %error, "the digests of its images are not recorded");
                ResolvedImages::default()
            }
        }
    }

    async fn resolve(&self, yaml: &[u8]) -> Result<ResolvedImages, PodmanError> {
        let containers = match self.podman.inspect_pod(&self.workload).await? {
            Some((_, containers)) => containers,
            None => Vec::new(),
        };
        // Init containers may be gone, and an image volume has no container.
        let all = render::images(yaml).into_iter();
        let mut of: BTreeMap<String, String> = all
            .map(|image| (image.reference.clone(), image.reference))
            .collect();
        for (container, reference) in render::container_images(yaml) {
            let name = format!("{}-{container}", self.workload);
            let played = containers.iter().find(|one| one.container.name == name);
            if let Some(played) = played {
                of.insert(reference, played.image.clone());
            }
        }
        let mut images = Vec::new();
        for (reference, id) in of.into_iter().take(RESOLVED_MAX) {
            let Some(stored) = self.podman.stored_image(&id).await? else {
                continue;
            };
            images.push(ResolvedImage {
                reference,
                id: Some(stored.id),
                digest: stored.digest,
            });
        }
        Ok(ResolvedImages(images))
    }
}
