//! Files of ConfigMaps, of Secrets and about the pod itself in one volume, as Podman can mount them.
//!
//! Pure: no I/O, no clock, no randomness. Podman writes the keys of one ConfigMap or Secret into a volume as files in one
//! folder with one mode. So a volume with folders, with several modes or of several sources becomes private ConfigMaps,
//! or private Secrets if one source is a Secret: one with the files that are in the volume's own folder and have its
//! mode, and one for each mode with the others. The first is mounted at the place of the volume, and each file of the
//! others at its own path.

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::state::Kind;
use k8s_openapi::{
    ByteString,
    api::core::v1::{
        ConfigMap, ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Secret,
        SecretVolumeSource, Volume, VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Serialize;

use super::{
    RenderError, Uses,
    downward::{Amount, Downward},
    from_body, malformed,
    mounts::{folder, show},
    to_json,
};
use crate::{
    belongings::Content,
    manifest::{below, clean_path, is_misread, kind_name},
};

/// The mode of a file whose volume names none.
pub(super) const MODE: u32 = 0o644;

/// The most bytes in the files and mounts of one pod. Mounts multiply what a manifest says.
const POD_MAX: usize = 16 << 20;

/// What a mount of a file adds to the YAML, in bytes.
const MOUNT_BYTES: usize = 512;

/// What the files of a pod add to it.
#[derive(Default)]
pub(super) struct Made {
    /// The volumes, by their names in the pod.
    pub(super) volumes: BTreeMap<String, Volume>,
    /// The bytes that are spent.
    bytes: usize,
}

/// The files of a volume.
pub(super) struct Files {
    /// The name of the volume in the manifest.
    volume: String,
    /// The mode of files without one of their own.
    mode: u32,
    /// Whether a file is that of a Secret.
    secret: bool,
    /// The group of the files, unless that is root's.
    group: Option<u32>,
    files: BTreeMap<String, File>,
}

struct File {
    mode: u32,
    bytes: Vec<u8>,
}

/// Distinguishes a part of a volume from a ConfigMap or Secret of the manifest.
#[derive(Serialize)]
struct Part {
    part: u32,
}

/// The mode of a file in a volume of a pod with a group: Kubernetes lets the group read it.
pub(super) fn grouped(mode: u32, group: Option<u32>) -> u32 {
    match group {
        Some(_) => mode | 0o440,
        None => mode,
    }
}

/// The mode that Podman gives such a file. It gives the file to root's group, and the supervisor to the pod's. For a pod
/// without its supervisor others get the rights of the group; only the pod has the file.
pub(super) fn readable(mode: u32, group: Option<u32>) -> u32 {
    let mode = grouped(mode, group);
    match group {
        Some(_) => mode | ((mode >> 3) & 0o7),
        None => mode,
    }
}

pub(super) fn mode_or(mode: Option<i32>, default: u32) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(default)
}

/// Whether Podman alone makes the files as they are asked for.
fn is_flat(items: Option<&[KeyToPath]>, mode: Option<i32>) -> bool {
    let mode = mode_or(mode, MODE);
    items.unwrap_or_default().iter().all(|item| {
        item.path == clean_path(&item.path)
            && !item.path.contains('/')
            && mode_or(item.mode, mode) == mode
    })
}

impl Uses<'_> {
    /// The files of a volume that Podman cannot make of one ConfigMap or Secret; `None` for any other volume.
    pub(super) fn files(
        &self,
        volume: &Volume,
        group: Option<u32>,
        downward: &Downward,
    ) -> Result<Option<Files>, RenderError> {
        let mut files = Files {
            volume: volume.name.clone(),
            mode: MODE,
            secret: false,
            group,
            files: BTreeMap::new(),
        };
        if let Some(source) = &volume.config_map {
            if is_flat(source.items.as_deref(), source.default_mode) {
                return Ok(None);
            }
            files.mode = mode_or(source.default_mode, MODE);
            let optional = source.optional == Some(true);
            let items = source.items.as_deref();
            self.keys(&mut files, Kind::ConfigMap, &source.name, items, optional)?;
        } else if let Some(source) = &volume.secret {
            if is_flat(source.items.as_deref(), source.default_mode) {
                return Ok(None);
            }
            files.mode = mode_or(source.default_mode, MODE);
            let optional = source.optional == Some(true);
            let name = source.secret_name.as_deref().unwrap_or_default();
            self.keys(
                &mut files,
                Kind::Secret,
                name,
                source.items.as_deref(),
                optional,
            )?;
        } else if let Some(source) = &volume.downward_api {
            files.mode = mode_or(source.default_mode, MODE);
            self.downward(&mut files, source.items.as_deref(), downward)?;
        } else if let Some(source) = &volume.projected {
            files.mode = mode_or(source.default_mode, MODE);
            for source in source.sources.iter().flatten() {
                if let Some(from) = &source.config_map {
                    let optional = from.optional == Some(true);
                    let items = from.items.as_deref();
                    self.keys(&mut files, Kind::ConfigMap, &from.name, items, optional)?;
                }
                if let Some(from) = &source.secret {
                    let optional = from.optional == Some(true);
                    let items = from.items.as_deref();
                    self.keys(&mut files, Kind::Secret, &from.name, items, optional)?;
                }
                if let Some(from) = &source.downward_api {
                    self.downward(&mut files, from.items.as_deref(), downward)?;
                }
            }
        } else {
            return Ok(None);
        }
        files.mode = grouped(files.mode, group);
        for file in files.files.values_mut() {
            file.mode = grouped(file.mode, group);
        }
        self.paths(&files)?;
        Ok(Some(files))
    }

    /// Adds the keys of an object. As in Kubernetes, a later source wins.
    fn keys(
        &self,
        files: &mut Files,
        kind: Kind,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
    ) -> Result<(), RenderError> {
        files.secret |= kind == Kind::Secret;
        let Some(used) = self.find(kind, name) else {
            return match optional {
                true => Ok(()),
                false => Err(RenderError::Missing {
                    kind: kind_name(kind),
                    name: name.to_owned(),
                }),
            };
        };
        let mut data: BTreeMap<String, Vec<u8>> = match kind {
            Kind::Secret => {
                let secret: Secret = from_body(used)?;
                let data = secret.data.into_iter().flatten().map(bytes);
                let text = secret.string_data.into_iter().flatten();
                data.chain(text.map(|(key, text)| (key, text.into_bytes())))
                    .collect()
            }
            _ => {
                let map: ConfigMap = from_body(used)?;
                let data = map.data.into_iter().flatten();
                let data = data.map(|(key, text)| (key, text.into_bytes()));
                let binary = map.binary_data.into_iter().flatten().map(bytes);
                data.chain(binary).collect()
            }
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, bytes) in data {
                files.add(&key, None, bytes);
            }
            return Ok(());
        };
        for item in items {
            match data.get_mut(&item.key) {
                Some(bytes) => files.add(&item.path, item.mode, bytes.clone()),
                None if optional => {}
                None => {
                    return Err(RenderError::MissingKey {
                        kind: kind_name(kind),
                        name: name.to_owned(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Adds what the pod knows about itself.
    fn downward(
        &self,
        files: &mut Files,
        items: Option<&[DownwardAPIVolumeFile]>,
        downward: &Downward,
    ) -> Result<(), RenderError> {
        for item in items.unwrap_or_default() {
            let field = item
                .field_ref
                .as_ref()
                .map(|field| field.field_path.as_str());
            let asked = item.resource_field_ref.as_ref();
            let text = match (field, asked) {
                (Some("metadata.labels"), _) => Some(lines(downward.labels())),
                (Some("metadata.annotations"), _) => Some(lines(downward.annotations())),
                (Some(path), _) => downward.field(path),
                (None, Some(asked)) => match downward.resource("", asked) {
                    Some(Amount::Known(text)) => Some(text),
                    Some(Amount::OfHost) | None => None,
                },
                (None, None) => None,
            };
            let text = text.ok_or_else(|| {
                let what = field.or(asked.map(|asked| asked.resource.as_str()));
                let reason = format!(
                    "volume `{}` shows `{}`, which is not known before the pod runs",
                    files.volume,
                    what.unwrap_or_default()
                );
                malformed(self.revision.object, &reason)
            })?;
            files.add(&item.path, item.mode, text.into_bytes());
        }
        Ok(())
    }

    /// Checks that no file is a folder of another.
    fn paths(&self, files: &Files) -> Result<(), RenderError> {
        let all: BTreeSet<String> = files.files.keys().cloned().collect();
        for path in &all {
            if let Some(other) = below(path, &all) {
                let reason = format!(
                    "volume `{}` cannot have both files `{path}` and `{other}`: one is a folder of the other",
                    files.volume
                );
                return Err(malformed(self.revision.object, &reason));
            }
        }
        Ok(())
    }

    /// The mounts that show what `mount` asks for. Adds their volumes.
    pub(super) fn mount_files(
        &mut self,
        files: &Files,
        mount: &VolumeMount,
        made: &mut Made,
    ) -> Result<Vec<VolumeMount>, RenderError> {
        let folder = folder(mount).unwrap_or_default();
        if let Some(file) = files.files.get(&folder) {
            let content = [("0".to_owned(), &file.bytes)].into();
            let name = self.part(files, file.mode, content, made)?;
            return Ok(vec![at(mount, &name, "", Some("0".to_owned()))]);
        }
        let begin = match folder.as_str() {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let mut first: BTreeMap<String, &Vec<u8>> = BTreeMap::new();
        let mut others: BTreeMap<u32, Vec<(&str, &Vec<u8>)>> = BTreeMap::new();
        for (path, file) in &files.files {
            let Some(path) = path.strip_prefix(&begin) else {
                continue;
            };
            if file.mode == files.mode && !path.contains('/') {
                first.insert(path.to_owned(), &file.bytes);
            } else {
                others
                    .entry(file.mode)
                    .or_default()
                    .push((path, &file.bytes));
            }
        }
        let name = self.part(files, files.mode, first, made)?;
        let mut mounts = vec![at(mount, &name, "", None)];
        for (mode, others) in others {
            let numbered = others.iter().enumerate();
            let content = numbered.map(|(number, (_, bytes))| (number.to_string(), *bytes));
            let name = self.part(files, mode, content.collect(), made)?;
            for (number, (path, _)) in others.iter().enumerate() {
                mounts.push(at(mount, &name, path, Some(number.to_string())));
            }
        }
        Ok(mounts)
    }

    /// Adds a private ConfigMap or Secret with these files and its volume, and returns their name.
    fn part(
        &mut self,
        files: &Files,
        mode: u32,
        content: BTreeMap<String, &Vec<u8>>,
        made: &mut Made,
    ) -> Result<String, RenderError> {
        let object = self.revision.object;
        let sizes = content.values().map(|bytes| bytes.len() + MOUNT_BYTES);
        made.bytes = made.bytes.saturating_add(sizes.sum());
        if made.bytes > POD_MAX {
            let reason = format!(
                "the files of its volumes have more than {} MiB, all mounts together: mount fewer of them",
                POD_MAX >> 20
            );
            return Err(malformed(object, &reason));
        }
        let body = serde_json::to_vec(&content).unwrap_or_default();
        let named = Content {
            letter: if files.secret { 's' } else { 'c' },
            name: &files.volume,
            body: &body,
        };
        let name = named.private_name(self.pod, &Part { part: mode });
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        let mut volume = Volume {
            name: name.clone(),
            ..Volume::default()
        };
        self.prepare_files(&name, mode, files.group);
        let mode = i32::try_from(readable(mode, files.group)).ok();
        let document = if files.secret {
            volume.secret = Some(SecretVolumeSource {
                secret_name: Some(name.clone()),
                default_mode: mode,
                ..SecretVolumeSource::default()
            });
            let data = content.into_iter();
            let data = data.map(|(key, bytes)| (key, ByteString(bytes.clone())));
            let secret = Secret {
                metadata,
                data: Some(data.collect()),
                ..Secret::default()
            };
            to_json(object, &secret)?
        } else {
            volume.config_map = Some(ConfigMapVolumeSource {
                name: name.clone(),
                default_mode: mode,
                ..ConfigMapVolumeSource::default()
            });
            let mut map = ConfigMap {
                metadata,
                ..ConfigMap::default()
            };
            for (key, bytes) in content {
                match String::from_utf8(bytes.clone()) {
                    Ok(text) if !is_misread(&text) => {
                        map.data.get_or_insert_default().insert(key, text);
                    }
                    _ => {
                        let binary = map.binary_data.get_or_insert_default();
                        binary.insert(key, ByteString(bytes.clone()));
                    }
                }
            }
            to_json(object, &map)?
        };
        self.made.insert(name.clone(), document);
        made.volumes.insert(name.clone(), volume);
        Ok(name)
    }
}

impl Files {
    fn add(&mut self, path: &str, mode: Option<i32>, bytes: Vec<u8>) {
        let mode = mode_or(mode, self.mode);
        self.files.insert(clean_path(path), File { mode, bytes });
    }
}

fn bytes((key, ByteString(bytes)): (String, ByteString)) -> (String, Vec<u8>) {
    (key, bytes)
}

/// The mount of a volume at a path below that of `mount`.
fn at(mount: &VolumeMount, volume: &str, path: &str, sub_path: Option<String>) -> VolumeMount {
    let (place, options) = match mount.mount_path.split_once(':') {
        Some((place, options)) => (place, format!(":{options}")),
        None => (mount.mount_path.as_str(), String::new()),
    };
    let place = match path {
        "" => place.to_owned(),
        path => format!("{}/{path}", place.trim_end_matches('/')),
    };
    let mut made = VolumeMount {
        name: volume.to_owned(),
        mount_path: format!("{place}{options}"),
        sub_path,
        ..VolumeMount::default()
    };
    show(&mut made);
    made
}

/// Labels or annotations in the form of Kubernetes: `KEY="VALUE"`, one on each line.
fn lines(map: &BTreeMap<String, String>) -> String {
    let lines = map
        .iter()
        .map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A string in the notation of Go, which Kubernetes uses.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\0'..='\u{1f}' | '\u{7f}' => quoted.push_str(&format!("\\x{:02x}", u32::from(char))),
            _ if char != ' ' && (char.is_control() || char.is_whitespace()) => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}
