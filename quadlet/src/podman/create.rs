//! Creates the pod of a workload without starting it, and prepares its volumes.
//!
//! Podman starts all containers of a pod together and gives an `emptyDir` the mode of the first container's user. So the
//! pod of a workload that needs more is only created: then its volumes get the modes, groups and folders of Kubernetes,
//! and the supervisor starts the containers one by one.
//!
//! Observed on Podman 5.4 and 5.8:
//!
//! - A play with `start=false` and a service container is refused.
//! - An archive with an entry `.` sets the mode of a volume's root, and later starts keep that mode. It does not set the
//!   owner of the root.
//! - An archive that is sent to a container reaches the volume that is mounted at that path, also if the container was
//!   never started.
//! - A volume that was created before the play keeps the owner with which it was created.

use std::collections::BTreeMap;

use beemesh_protocol::percent;
use serde::Deserialize;
use serde_json::json;

use super::wire::{self, Call};
use super::{LOOK_TIME_MAX, PLAY_TIME_MAX, Played, Podman, PodmanError};
use crate::health::{Restart, holder_name};
use crate::render::probes::probed;
use crate::render::{self, PreparedVolume, Staged};

/// The mode of a folder of a volume that has no mode of its own.
const FOLDER_MODE: u32 = 0o777;
/// The mode of the folders above it.
const ABOVE_MODE: u32 = 0o755;
/// Bits of a file mode in an archive.
const MODE_BITS: u32 = 0o7777;

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
            if container.liveness.is_none() && container.startup.is_none() {
                continue;
            }
            let path = format!(
                "/libpod/containers/{}/update",
                percent::encode(&container.name)
            );
            let operation = format!("disable Podman's probes of container {}", container.name);
            let body = json!({ "no_healthcheck": true });
            let call = Call::post(operation, path).body(&body);
            self.wire.empty(call.within(LOOK_TIME_MAX)).await?;
        }
        Ok(())
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
            let user = self.image_user(&image).await?;
            let fault = user_fault(&user, must_not);
            errors.extend(fault.map(|fault| format!("container {name} cannot start: {fault}")));
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(PodmanError::Start { errors }),
        }
    }

    async fn image_user(&self, image: &str) -> Result<String, PodmanError> {
        let path = format!("/libpod/images/{}/json", percent::encode(image));
        let call = Call::get(format!("look for the user of image {image}"), path);
        let found: ImageUser = self.wire.json(call.within(LOOK_TIME_MAX)).await?;
        Ok(found.user)
    }

    /// Makes a volume that needs a group, and says whether it is new. A private volume of an earlier pod is replaced by
    /// an empty one.
    async fn make_volume(&self, volume: &PreparedVolume) -> Result<bool, PodmanError> {
        let name = &volume.name;
        let Some(group) = volume.gid else {
            return Ok(!volume.fresh);
        };
        if !volume.fresh {
            self.remove_volume(name).await?;
        }
        let call = Call::post(
            format!("make volume {name}"),
            "/libpod/volumes/create".to_owned(),
        );
        let owner = format!("uid=0,gid={group}");
        let options = match &volume.tmpfs {
            // The options name the owner.
            Some(options) => json!({ "type": "tmpfs", "device": "tmpfs", "o": options }),
            None => json!({ "o": owner }),
        };
        let body = json!({ "Name": name, "Options": options });
        match self
            .wire
            .empty(call.body(&body).within(LOOK_TIME_MAX))
            .await
        {
            // A claim keeps its data and its owner.
            Err(PodmanError::Refused { message, .. }) if message.contains("already exists") => {
                Ok(false)
            }
            made => made.map(|()| true),
        }
    }

    /// Gives the volumes of a created pod their modes and folders, through a container that mounts them all. That
    /// container stays if it keeps volumes in memory.
    async fn prepare(
        &self,
        pod: &str,
        yaml: &[u8],
        staged: &Staged,
        is_new: &[bool],
    ) -> Result<(), PodmanError> {
        if staged.volumes.is_empty() {
            return Ok(());
        }
        let name = render::pod_names(yaml).into_iter().next();
        let holder = holder_name(&name.unwrap_or_default());
        self.mount_all(pod, &holder, &staged.volumes).await?;
        if staged.is_in_memory() {
            let path = format!("/libpod/containers/{}/init", percent::encode(&holder));
            let call = Call::post(format!("mount the volumes of {holder}"), path);
            self.wire.empty(call.within(LOOK_TIME_MAX)).await?;
        }
        for (at, (volume, is_new)) in staged.volumes.iter().zip(is_new).enumerate() {
            self.prepare_one(&holder, at, volume, *is_new).await?;
        }
        match staged.is_in_memory() {
            true => Ok(()),
            false => self.remove_container(&holder).await,
        }
    }

    async fn prepare_one(
        &self,
        holder: &str,
        at: usize,
        volume: &PreparedVolume,
        is_new: bool,
    ) -> Result<(), PodmanError> {
        let mode = volume.mode.filter(|_| is_new);
        let mut folders = Vec::new();
        for path in folders_of(volume) {
            if is_new || !self.has_folder(holder, at, &path.0).await? {
                folders.push(path);
            }
        }
        if mode.is_none() && folders.is_empty() {
            return Ok(());
        }
        let operation = format!("prepare volume {}", volume.name);
        let archive =
            archive(mode, volume.gid, &folders).map_err(|error| PodmanError::Unreadable {
                operation: operation.clone(),
                reason: error.to_string(),
            })?;
        let path = archive_path(holder, &mount_point(at));
        let call = Call::put(operation, path).archive(archive);
        self.wire.empty(call.within(LOOK_TIME_MAX)).await
    }

    async fn has_folder(&self, holder: &str, at: usize, path: &str) -> Result<bool, PodmanError> {
        let path = format!("{}/{path}", mount_point(at));
        let call = Call::head(
            format!("look for {path} in container {holder}"),
            archive_path(holder, &path),
        );
        match self.wire.empty(call.within(LOOK_TIME_MAX)).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates a holder that mounts these volumes.
    async fn mount_all(
        &self,
        pod: &str,
        holder: &str,
        volumes: &[PreparedVolume],
    ) -> Result<(), PodmanError> {
        let containers = self.inside("look at the created pod", pod).await?;
        let mut found = None;
        for container in &containers {
            let Some(details) = self.inspect(&container.id).await? else {
                continue;
            };
            if details.container.role == crate::health::Role::Member {
                found = Some(details.image);
                break;
            }
        }
        let Some(image) = found else {
            return Err(PodmanError::Unplayed);
        };
        let mounts = volumes.iter().enumerate().map(|(at, volume)| {
            json!({ "Name": volume.name, "Dest": mount_point(at), "Options": ["nocopy"] })
        });
        let mounts: Vec<serde_json::Value> = mounts.collect();
        let call = Call::post(
            format!("make container {holder}"),
            "/libpod/containers/create".to_owned(),
        );
        let body = json!({
            "name": holder,
            "image": image,
            "pod": pod,
            "init": true,
            "entrypoint": ["/run/podman-init", "-P"],
            "command": [],
            "restart_policy": "no",
            "volumes": mounts,
        });
        self.wire
            .empty(call.body(&body).within(LOOK_TIME_MAX))
            .await
    }
}

/// Answer of `GET /libpod/images/NAME/json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageUser {
    #[serde(default)]
    user: String,
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

fn mount_point(at: usize) -> String {
    format!("/v/{at}")
}

fn archive_path(container: &str, path: &str) -> String {
    let query = wire::query(&[("path", path), ("copyUIDGID", "false")]);
    format!(
        "/libpod/containers/{}/archive{query}",
        percent::encode(container)
    )
}

/// The folders of a volume and the folders above them, each with its mode, the upper ones first.
fn folders_of(volume: &PreparedVolume) -> Vec<(String, u32)> {
    let mut all = BTreeMap::new();
    for path in &volume.folders {
        let mut above = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !above.is_empty() {
                above.push('/');
            }
            above.push_str(part);
            all.entry(above.clone()).or_insert(ABOVE_MODE);
        }
        all.insert(above, volume.mode.unwrap_or(FOLDER_MODE));
    }
    all.into_iter().collect()
}

/// An archive that sets the mode of a volume's root and makes folders in it.
fn archive(
    mode: Option<u32>,
    group: Option<u32>,
    folders: &[(String, u32)],
) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    if let Some(mode) = mode {
        let mut root = folder(mode, group);
        // The library writes no path that names its own folder.
        if let Some((first, _)) = root.as_old_mut().name.split_first_mut() {
            *first = b'.';
        }
        root.set_cksum();
        archive.append(&root, std::io::empty())?;
    }
    for (path, mode) in folders {
        archive.append_data(&mut folder(*mode, group), path, std::io::empty())?;
    }
    archive.into_inner()
}

fn folder(mode: u32, group: Option<u32>) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(group.unwrap_or_default().into());
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode & MODE_BITS);
    header.set_size(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn an_archive_sets_the_mode_of_the_root_and_of_each_folder() {
        let volume = PreparedVolume {
            mode: Some(0o2777),
            folders: vec!["a/b".into()],
            ..PreparedVolume::default()
        };
        let bytes = archive(volume.mode, Some(2000), &folders_of(&volume)).unwrap();
        let mut read = tar::Archive::new(bytes.as_slice());
        let entries = read.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert!(header.entry_type().is_dir());
            assert_eq!(header.gid().unwrap(), 2000);
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            (path, header.mode().unwrap())
        });
        let entries: Vec<(String, u32)> = entries.collect();
        let expected = [(".", 0o2777), ("a", 0o755), ("a/b", 0o2777)];
        let expected = expected.map(|(path, mode)| (path.to_owned(), mode));
        assert_eq!(entries, expected);
    }
}
