//! Creates the pod of a workload without starting it, and prepares its volumes.
//!
//! Podman starts all containers of a pod together and gives an `emptyDir` the mode of the first container's user. So the
//! pod of a workload that needs more is only created: then its volumes get the modes, groups and folders of Kubernetes,
//! and the supervisor starts the containers one by one.
//!
//! Observed on Podman 5.4 and 5.8:
//!
//! - A play with `start=false` and a service container is refused.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::percent;
use serde::Deserialize;
use serde_json::json;

use super::wire::{self, Call, null_is_empty};
use super::{LOOK_TIME_MAX, PLAY_TIME_MAX, Played, Podman, PodmanError};
use crate::health::Restart;
use crate::render::probes::probed;
use crate::render::{self, Staged};

impl Podman {
    /// Creates the containers of a workload's YAML and prepares its volumes. No container is started.
    ///
    /// Podman does not roll back a failed play: after an error call [`Podman::down`] and [`Podman::remove_strays`] with
    /// the same bytes.
    ///
    /// # Errors
    ///
    /// Podman refuses a call, or does not answer in time.
    pub(super) async fn create(&self, yaml: &[u8], staged: &Staged) -> Result<Played, PodmanError> {
        let mut is_new = Vec::with_capacity(staged.volumes.len());
        for volume in &staged.volumes {
            is_new.push(self.make_volume(volume).await?);
        }
        let query = wire::query(&[("start", "false")]);
        let call = Call::post("create the pod", format!("/libpod/play/kube{query}"));
        let report: wire::PlayReport = self
            .wire
            .json(call.yaml(yaml).within(PLAY_TIME_MAX))
            .await?;
        let Some(pod) = report.pods.into_iter().next() else {
            return Err(PodmanError::Unplayed);
        };
        if !pod.container_errors.is_empty() {
            return Err(PodmanError::Start {
                errors: pod.container_errors,
            });
        }
        self.prepare(&pod.id, yaml, staged, &is_new).await?;
        self.leave_to_supervisor(yaml, staged).await?;
        if render::needs_lease(yaml) && !staged.is_in_memory() {
            // Podman restarts none of its containers: without a holder the pod would stop with the last of them.
            let name = render::pod_names(yaml).into_iter().next();
            let image = self.an_image(&pod.id).await?;
            self.make_holder(&name.unwrap_or_default(), &image).await?;
        }
        self.ignore_health_of_images(yaml).await;
        // A pod that is not prepared has no network yet, so the supervisor can tell it from this one.
        self.start_infra(&pod.id).await?;
        Ok(Played {
            pod: pod.id,
            service: report.service,
        })
    }

    /// Disables what the supervisor does in place of Podman: Podman would start an init container again after its success,
    /// and run the probes of the others.
    async fn leave_to_supervisor(&self, yaml: &[u8], staged: &Staged) -> Result<(), PodmanError> {
        let pod = render::pod_names(yaml)
            .into_iter()
            .next()
            .unwrap_or_default();
        for name in &staged.init {
            if !staged.sidecars.contains(name) {
                self.set_restart(&format!("{pod}-{name}"), Restart::Never)
                    .await?;
            }
        }
        for container in probed(yaml) {
            if container.liveness.is_some() || container.startup.is_some() {
                self.disable_probes(&container.name).await?;
            }
        }
        Ok(())
    }

    async fn disable_probes(&self, container: &str) -> Result<(), PodmanError> {
        let path = format!("/libpod/containers/{}/update", percent::encode(container));
        let operation = format!("disable Podman's probes of container {container}");
        let body = json!({ "no_healthcheck": true });
        let call = Call::post(operation, path).body(&body);
        self.wire.empty(call.within(LOOK_TIME_MAX)).await
    }

    /// Disables the health checks that containers have from their images: Kubernetes ignores them.
    /// A container keeps the check if Podman does not answer: it runs, and must not be taken down for that.
    pub(super) async fn ignore_health_of_images(&self, yaml: &[u8]) {
        let own = probed(yaml).into_iter();
        let own = own.filter(|one| one.liveness.is_some() || one.startup.is_some());
        let own: BTreeSet<String> = own.map(|one| one.name).collect();
        let mut known: BTreeMap<String, bool> = BTreeMap::new();
        for (container, image) in render::member_images(yaml) {
            if own.contains(&container) {
                continue;
            }
            if let Err(error) = self.ignore_health_of(&container, image, &mut known).await {
                tracing::warn!(container, %error, "the health check of its image is not disabled");
            }
        }
    }

    async fn ignore_health_of(
        &self,
        container: &str,
        image: String,
        known: &mut BTreeMap<String, bool>,
    ) -> Result<(), PodmanError> {
        let has_check = match known.get(&image) {
            Some(has_check) => *has_check,
            None => {
                let found = self.image(&image).await?.has_check();
                *known.entry(image).or_insert(found)
            }
        };
        match has_check {
            true => self.disable_probes(container).await,
            false => Ok(()),
        }
    }

    async fn start_infra(&self, pod: &str) -> Result<(), PodmanError> {
        let containers = self.inside("look at the created pod", pod).await?;
        for container in &containers {
            let details = self.inspect(&container.id).await?;
            let role = details.map(|details| details.container.role);
            if role == Some(crate::health::Role::Infra) {
                return self.start(&container.id).await;
            }
        }
        Err(PodmanError::Unplayed)
    }

    /// Checks the users of images: Kubernetes refuses to run as root where `runAsNonRoot` is set, and Podman would run a
    /// container with a group alone as root.
    pub(super) async fn check_users(&self, yaml: &[u8]) -> Result<(), PodmanError> {
        let (non_root, root) = (render::non_root(yaml), render::root_image(yaml));
        let mut errors = Vec::new();
        for (name, image) in render::container_images(yaml) {
            let must_not = non_root.contains(&name);
            if !must_not && !root.contains(&name) {
                continue;
            }
            let user = self.image(&image).await?.user;
            let fault = user_fault(&user, must_not);
            errors.extend(fault.map(|fault| format!("container {name} cannot start: {fault}")));
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(PodmanError::Start { errors }),
        }
    }

    async fn image(&self, name: &str) -> Result<Image, PodmanError> {
        let path = format!("/libpod/images/{}/json", percent::encode(name));
        let call = Call::get(format!("look at image {name}"), path);
        self.wire.json(call.within(LOOK_TIME_MAX)).await
    }
}

/// Answer of `GET /libpod/images/NAME/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    #[serde(default)]
    user: String,
    #[serde(default, rename = "Healthcheck")]
    check: Option<Check>,
}

/// The health check of an image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default, deserialize_with = "null_is_empty")]
    test: Vec<String>,
}

impl Image {
    /// Returns true if Podman would run a health check in a container of the image.
    fn has_check(&self) -> bool {
        let test = self.check.as_ref().and_then(|check| check.test.first());
        test.is_some_and(|kind| kind != "NONE")
    }
}

/// Why a container may not run as the user of its image: `runAsNonRoot` is set (`must_not`), or `runAsGroup` alone.
fn user_fault(user: &str, must_not: bool) -> Option<String> {
    let user = user.split(':').next().unwrap_or_default();
    let is_root = user.is_empty() || user == "root" || user.parse() == Ok(0_u32);
    match (must_not, is_root, user.parse::<u32>()) {
        (true, true, _) => {
            Some("runAsNonRoot is set, and its image runs as root: set runAsUser".to_owned())
        }
        (true, false, Err(_)) => Some(format!(
            "runAsNonRoot is set, and its image has the user `{user}`, of whom the number is not known: set runAsUser"
        )),
        (false, false, _) => Some(format!(
            "runAsGroup is set alone, with which Podman runs it as root and not as the user `{user}` of its image: set runAsUser"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_of_an_image_is_known() {
        for (text, has_check) in [
            (r#"{"User":"app"}"#, false),
            (r#"{"Healthcheck":{"Test":["CMD-SHELL","true"]}}"#, true),
            (r#"{"Healthcheck":{"Test":["NONE"]}}"#, false),
            (r#"{"Healthcheck":{"Test":null}}"#, false),
        ] {
            let image: Image = serde_json::from_str(text).unwrap();
            assert_eq!(image.has_check(), has_check, "{text}");
        }
    }

    #[test]
    fn an_image_may_not_decide_that_a_container_is_root() {
        for (user, must_not, is_fault) in [
            ("", true, true),
            ("0", true, true),
            ("root:wheel", true, true),
            ("app", true, true),
            ("1001:0", true, false),
            ("", false, false),
            ("0:0", false, false),
            ("1001", false, true),
            ("app", false, true),
        ] {
            assert_eq!(
                user_fault(user, must_not).is_some(),
                is_fault,
                "{user} {must_not}"
            );
        }
    }
}
