//! Prepares the volumes of a pod that was only created: their modes, groups and folders.
//!
//! Observed on Podman 5.4 and 5.8:
//!
//! - An archive with an entry `.` sets the mode of a volume's root, and later starts keep that mode. It does not set the
//!   owner of the root.
//! - An archive that is sent to a container reaches the volume that is mounted at that path, also if the container was
//!   never started.
//! - A volume that was created before the play keeps the owner with which it was created.

use std::collections::BTreeMap;

use beemesh_protocol::percent;
use hyper014::body::HttpBody as _;
use serde::Deserialize;
use serde_json::json;

use super::wire::{self, Call};
use super::{LOOK_TIME_MAX, Podman, PodmanError};
use crate::health::{Role, holder_name};
use crate::render::{self, PreparedVolume, Staged};

/// The mode of a folder of a volume that has no mode of its own.
const FOLDER_MODE: u32 = 0o777;
/// The mode of the folders above it.
const ABOVE_MODE: u32 = 0o755;
/// Bits of a file mode in an archive.
const MODE_BITS: u32 = 0o7777;
/// The bit that gives new files the group of their folder.
const SET_GROUP: u32 = 0o2000;
/// Size of an entry's header in an archive.
const HEADER_BYTES: usize = 512;

impl Podman {
    /// Makes a volume that needs a group, and says whether it is new. A private volume of an earlier pod is replaced by
    /// an empty one.
    pub(super) async fn make_volume(&self, volume: &PreparedVolume) -> Result<bool, PodmanError> {
        let name = &volume.name;
        let Some(group) = volume.gid else {
            return Ok(!volume.fresh);
        };
        // Podman makes the volume, with its files.
        if volume.files {
            return Ok(true);
        }
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
    pub(super) async fn prepare(
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
        let image = self.an_image(pod).await?;
        self.create_holder(pod, &holder, &image, &staged.volumes)
            .await?;
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
        if volume.files {
            return self.prepare_files(holder, at, volume).await;
        }
        let is_new = is_new || self.is_unprepared(holder, at, volume).await?;
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
        let archive = archive(mode, volume.gid, &folders);
        let path = archive_path(holder, &mount_point(at));
        self.put(operation, path, archive).await
    }

    /// Gives the files of a ConfigMap or Secret their group and mode.
    async fn prepare_files(
        &self,
        holder: &str,
        at: usize,
        volume: &PreparedVolume,
    ) -> Result<(), PodmanError> {
        let operation = format!("prepare the files of volume {}", volume.name);
        let place = format!("{}/.", mount_point(at));
        let call = Call::get(operation.clone(), archive_path(holder, &place));
        let written = self.wire.bytes(call.within(LOOK_TIME_MAX)).await?;
        let path = archive_path(holder, &mount_point(at));
        self.put(operation, path, give_files(&written, volume))
            .await
    }

    /// Sends an archive to a path of a container.
    async fn put(
        &self,
        operation: String,
        path: String,
        archive: std::io::Result<Vec<u8>>,
    ) -> Result<(), PodmanError> {
        let archive = archive.map_err(|error| PodmanError::Unreadable {
            operation: operation.clone(),
            reason: error.to_string(),
        })?;
        let call = Call::put(operation, path).archive(archive);
        self.wire.empty(call.within(LOOK_TIME_MAX)).await
    }

    /// Returns true if a claim has its group but not its mode: an earlier preparation was interrupted.
    async fn is_unprepared(
        &self,
        holder: &str,
        at: usize,
        volume: &PreparedVolume,
    ) -> Result<bool, PodmanError> {
        let wanted = volume.mode.unwrap_or_default();
        let (Some(group), true) = (volume.gid, wanted & SET_GROUP != 0) else {
            return Ok(false);
        };
        let operation = format!("look at volume {}", volume.name);
        let path = format!("/libpod/volumes/{}/json", percent::encode(&volume.name));
        let call = Call::get(operation.clone(), path).within(LOOK_TIME_MAX);
        let found: FoundVolume = self.wire.json(call).await?;
        if found.group != group {
            return Ok(false);
        }
        let call = Call::get(operation.clone(), archive_path(holder, &mount_point(at)));
        // Only the first entry is read: the archive holds the whole volume.
        let mut body = self.wire.open(call.within(LOOK_TIME_MAX)).await?;
        let root = async {
            let mut bytes = Vec::new();
            while bytes.len() < HEADER_BYTES {
                let chunk = body.data().await?.ok()?;
                bytes.extend_from_slice(&chunk);
            }
            mode_of_root(&bytes)
        };
        let root = tokio::time::timeout(LOOK_TIME_MAX, root).await;
        match root.ok().flatten() {
            Some(mode) => Ok(mode & SET_GROUP == 0),
            None => Err(PodmanError::Unreadable {
                operation,
                reason: "the archive has no first entry".to_owned(),
            }),
        }
    }

    async fn has_folder(&self, holder: &str, at: usize, path: &str) -> Result<bool, PodmanError> {
        let path = format!("{}/{path}", mount_point(at));
        self.has_path(holder, &path).await
    }

    async fn has_path(&self, container: &str, path: &str) -> Result<bool, PodmanError> {
        let call = Call::head(
            format!("look for {path} in container {container}"),
            archive_path(container, path),
        );
        match self.wire.empty(call.within(LOOK_TIME_MAX)).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a folder in a container that does not run, unless it is there. The folders above it stay as they are.
    ///
    /// # Errors
    ///
    /// Podman refuses a call, or does not answer in time.
    pub async fn make_folder(&self, container: &str, path: &str) -> Result<(), PodmanError> {
        let operation = format!("make the folder {path} of container {container}");
        let mut place = String::from("/");
        let mut missing = path.split('/').filter(|part| !matches!(*part, "" | "."));
        let rest = loop {
            let Some(part) = missing.next() else {
                return Ok(());
            };
            let next = format!("{}/{part}", place.trim_end_matches('/'));
            if !self.has_path(container, &next).await? {
                break std::iter::once(part).chain(missing);
            }
            place = next;
        };
        let volume = PreparedVolume {
            mode: Some(ABOVE_MODE),
            folders: vec![rest.collect::<Vec<_>>().join("/")],
            ..PreparedVolume::default()
        };
        let archive = archive(None, None, &folders_of(&volume));
        self.put(operation, archive_path(container, &place), archive)
            .await
    }

    /// The image of a container of a pod.
    pub(super) async fn an_image(&self, pod: &str) -> Result<String, PodmanError> {
        for container in &self.inside("look at the created pod", pod).await? {
            let details = self.inspect(&container.id).await?;
            if let Some(details) = details.filter(|one| one.container.role == Role::Member) {
                return Ok(details.image);
            }
        }
        Err(PodmanError::Unplayed)
    }

    /// Creates a container that never ends by itself, and mounts these volumes.
    pub(super) async fn create_holder(
        &self,
        pod: &str,
        holder: &str,
        image: &str,
        volumes: &[PreparedVolume],
    ) -> Result<(), PodmanError> {
        let (mut named, mut of_host) = (Vec::new(), Vec::new());
        for (at, volume) in volumes.iter().enumerate() {
            let (name, place) = (&volume.name, mount_point(at));
            match PreparedVolume::is_of_host(name) {
                false => named.push(json!({ "Name": name, "Dest": place, "Options": ["nocopy"] })),
                true => of_host.push(json!({
                    "Type": "bind", "Source": name, "Destination": place, "Options": ["rbind"],
                })),
            }
        }
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
            // It has nothing to end, and needs no volume that its image asks for.
            "stop_timeout": 0,
            "image_volume_mode": "ignore",
            "volumes": named,
            "mounts": of_host,
        });
        self.wire
            .empty(call.body(&body).within(LOOK_TIME_MAX))
            .await
    }

    /// Makes the folders of volumes that a container of a pod needs, of which the containers before it made none.
    ///
    /// # Errors
    ///
    /// Podman refuses a call, or does not answer in time.
    pub async fn make_folders(
        &self,
        pod: &str,
        volumes: &[PreparedVolume],
    ) -> Result<(), PodmanError> {
        if volumes.is_empty() {
            return Ok(());
        }
        let holder = holder_name(&format!("{pod}-_late"));
        // One of a supervisor that died meanwhile.
        self.remove_container(&holder).await?;
        let image = self.an_image(pod).await?;
        self.create_holder(pod, &holder, &image, volumes).await?;
        for (at, volume) in volumes.iter().enumerate() {
            self.prepare_one(&holder, at, volume, false).await?;
        }
        self.remove_container(&holder).await
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

/// Answer of `GET /libpod/volumes/NAME/json`. An archive does not tell the group of a volume's root.
#[derive(Deserialize)]
struct FoundVolume {
    #[serde(default, rename = "GID")]
    group: u32,
}

/// The mode of the first entry of an archive.
fn mode_of_root(bytes: &[u8]) -> Option<u32> {
    let header = tar::Header::from_byte_slice(bytes.get(..HEADER_BYTES)?);
    header.mode().ok()
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

/// The files of an archive, with the mode and the group of a volume. They are all in one folder.
fn give_files(written: &[u8], volume: &PreparedVolume) -> std::io::Result<Vec<u8>> {
    let mut given = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(written).entries()? {
        let entry = entry?;
        let mut header = entry.header().clone();
        let path = entry.path()?.into_owned();
        let Some(name) = path.file_name().filter(|_| header.entry_type().is_file()) else {
            continue;
        };
        header.set_uid(0);
        header.set_gid(volume.gid.unwrap_or_default().into());
        header.set_mode(
            volume
                .mode
                .unwrap_or_else(|| header.mode().unwrap_or_default())
                & MODE_BITS,
        );
        given.append_data(&mut header, name, entry)?;
    }
    given.into_inner()
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
    fn files_get_the_group_and_the_mode_of_their_volume() {
        let mut written = tar::Builder::new(Vec::new());
        written
            .append_data(&mut folder(0o755, None), "v", std::io::empty())
            .unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o444);
        header.set_size(5);
        written
            .append_data(&mut header, "v/key-1", &b"value"[..])
            .unwrap();
        let volume = PreparedVolume {
            mode: Some(0o440),
            gid: Some(2000),
            files: true,
            ..PreparedVolume::default()
        };
        let given = give_files(&written.into_inner().unwrap(), &volume).unwrap();
        let mut read = tar::Archive::new(given.as_slice());
        let entries = read.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let header = entry.header();
            let (gid, mode) = (header.gid().unwrap(), header.mode().unwrap());
            let mut content = String::new();
            std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
            (path, gid, mode, content)
        });
        let entries: Vec<_> = entries.collect();
        let expected = ("key-1".to_owned(), 2000, 0o440, "value".to_owned());
        assert_eq!(entries, [expected]);
    }

    #[test]
    fn an_archive_sets_the_mode_of_the_root_and_of_each_folder() {
        let volume = PreparedVolume {
            mode: Some(0o2777),
            folders: vec!["a/b".into()],
            ..PreparedVolume::default()
        };
        let bytes = archive(volume.mode, Some(2000), &folders_of(&volume)).unwrap();
        assert_eq!(mode_of_root(&bytes), Some(0o2777));
        assert_eq!(mode_of_root(&bytes[..500]), None);
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
