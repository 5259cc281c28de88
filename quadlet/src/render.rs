//! Renders one revision of a workload as a Quadlet: the text of its `.kube` file and the YAML that is played.
//!
//! Pure: no I/O, no clock, no randomness. The same revision gives the same bytes on every host, and the file on disk,
//! the play and the removal use those bytes.

mod containers;
mod normalise;
mod pinned;
pub mod probes;
mod singleton;
pub(crate) mod staged;
pub(crate) mod termination;
mod trial;

pub use crate::manifest::annotations::{BACKOFF_LIMIT, NON_ROOT, ROOT_IMAGE};
#[cfg(feature = "host")]
pub(crate) use containers::member_images;
pub use containers::{
    container_images, container_names, init_containers, member_names, stop_signals,
};
pub use pinned::{by_digest, with_images};
pub use singleton::{LEASE, RESTART_POLICY, needs_lease};
pub use staged::{
    INIT_ORDER, LateFolder, PreparedVolume, SIDECARS, START, SUPERVISOR, Staged, VOLUMES, staged,
};
pub use termination::{KEY as TERMINATION_MESSAGE, termination_messages};
pub use trial::{TRIAL, trial};

use std::collections::{BTreeMap, BTreeSet};

use beemesh_protocol::{
    ClusterId,
    state::{Kind, Object},
    workload::{is_pod_name, pod_name, workload_name, yaml_file},
};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    belongings::OURS,
    health::Restart,
    manifest::{Failover, Port, Room, ports_of, requests_of},
};

/// One revision of a workload, with the objects that it uses.
#[derive(Debug, Clone, Copy)]
pub struct Revision<'a> {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its number, for users.
    pub revision: u64,
    /// The log index that created it, which orders revisions.
    pub index: u64,
    /// The workload.
    pub object: &'a Object,
    /// The number of the pod among those of the workload on its host.
    pub number: u32,
    /// The ConfigMaps, Secrets and claims that it refers to, as far as they exist.
    pub uses: &'a [&'a Object],
}

/// A Quadlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The `.kube` file.
    pub kube: String,
    /// The file it names: JSON documents, which are YAML.
    pub yaml: Vec<u8>,
    /// The images that must exist before the play, without duplicates.
    pub images: Vec<Image>,
    /// The time that the containers have to end, in seconds.
    pub grace_seconds: u32,
}

/// An image of a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// Its reference in the manifest.
    pub reference: String,
    /// When to pull it.
    pub pull: Pull,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pull {
    /// Before each start.
    Always,
    /// If the host lacks it.
    IfNotPresent,
    /// Never: the host must have the image.
    Never,
}

/// Why a revision cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A required ConfigMap, Secret or claim is not in `uses`.
    #[error("{kind} `{name}` does not exist")]
    Missing {
        /// Its kind, as in YAML.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A ConfigMap or Secret lacks a required key.
    #[error("{kind} `{name}` has no key `{key}`")]
    MissingKey {
        /// Its kind, as in YAML.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// The stored object does not have the form that `manifest::parse` gives it.
    #[error("{kind} `{name}` is stored in a form that cannot be played: {reason}")]
    Malformed {
        /// Its kind, as in YAML.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it, as a message.
        reason: String,
    },
}

/// The data of a `.kube` file of Beemesh, from `[X-Beemesh]` and `Yaml=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quadlet {
    /// The name of its pod.
    pub workload: String,
    /// Its revision, for users.
    pub revision: u64,
    /// The log index of its revision, which orders revisions.
    pub index: u64,
    /// The cluster of the workload.
    pub cluster: ClusterId,
    /// The file name of its YAML, beside the `.kube` file.
    pub yaml: String,
    /// The format in which it was rendered: 1 by release 0.2.0 and before, 2 by 0.2.1, else [`FORMAT`].
    pub format: u32,
}

/// The format of [`render`]. It is raised when a new revision gets something that is safer than what a running workload
/// has.
///
/// 2: names of private volumes and secrets are unique, and files of ConfigMaps and Secrets do not mix with those of an
/// image.
/// 3: what Podman does in another way than Kubernetes is resolved in the YAML or left to the supervisor.
pub const FORMAT: u32 = 3;

/// Time limit, in seconds, for a start by systemd, which may have to pull images first.
const START_SECONDS: u32 = 900;

/// Time, in seconds, that Podman has to take a pod down, in addition to that of its containers.
const STOP_SECONDS: u32 = 60;

/// Time, in seconds, that a container has to end if its pod does not set one.
const GRACE_SECONDS: i64 = 30;

/// Renders one revision.
pub fn render(revision: &Revision<'_>) -> Result<Rendered, RenderError> {
    let documents = normalise::normalise(revision)?;
    let pod = documents.last().unwrap_or(&Value::Null);
    let grace = pod["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(GRACE_SECONDS);
    let grace_seconds = u32::try_from(grace.max(0)).unwrap_or(u32::MAX);
    let quadlet = Quadlet::of(revision);
    Ok(Rendered {
        kube: quadlet.text(grace_seconds, Begin::of(revision.object)),
        images: images_of(&documents),
        yaml: yaml_text(&documents).into_bytes(),
        grace_seconds,
    })
}

impl Revision<'_> {
    /// The name of its pod.
    pub(crate) fn pod_name(&self) -> String {
        let workload = workload_name(&self.object.namespace, &self.object.name);
        pod_name(&workload, self.number)
    }

    /// What the pod calls itself, and its host name: `NAME`, or `NAME-NUMBER` beside other pods.
    pub(crate) fn name(&self) -> String {
        match self.number {
            0 => self.object.name.clone(),
            number => format!("{}-{number}", self.object.name),
        }
    }
}

/// What starts the unit of a workload after a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// systemd.
    Boot,
    /// The gateway, because a Job that has run must not run again.
    Gateway,
    /// The gateway, and nothing but Beemesh: it is a singleton.
    Beemesh,
}

impl Begin {
    fn of(object: &Object) -> Self {
        match object.kind {
            Kind::Job => Self::Gateway,
            _ if Failover::of(object).singleton => Self::Beemesh,
            _ => Self::Boot,
        }
    }
}

/// The section by which every boot starts a unit.
const INSTALL: &str = "[Install]\nWantedBy=multi-user.target default.target\n\n";

/// What a Quadlet says about hosts without Beemesh.
const PLAIN: &str = "It is a plain Quadlet: without Beemesh, Podman plays it.";

impl Quadlet {
    fn of(revision: &Revision<'_>) -> Self {
        let workload = revision.pod_name();
        Self {
            yaml: yaml_file(&workload, revision.index),
            workload,
            revision: revision.revision,
            index: revision.index,
            cluster: revision.cluster,
            format: FORMAT,
        }
    }

    /// The text of the `.kube` file. Every value in it is a number or a name of letters, digits, `-`, `_` and `.`, so
    /// systemd expands none of it.
    fn text(&self, grace_seconds: u32, begin: Begin) -> String {
        let stop_seconds = grace_seconds.saturating_add(STOP_SECONDS);
        let Self {
            workload,
            revision,
            index,
            cluster,
            yaml,
            format,
        } = self;
        let install = if begin == Begin::Boot { INSTALL } else { "" };
        let (plain, condition) = match begin {
            Begin::Boot | Begin::Gateway => (PLAIN, ""),
            Begin::Beemesh => (singleton::HEAD, singleton::CONDITION),
        };
        format!(
            "\
# Written by Beemesh, which replaces it with the next revision. {plain}
[Unit]
Description={workload} (Beemesh workload)
Wants=podman.socket
# podman-restart.service starts containers that were left over; the pod is made anew after it.
After=podman.socket podman-restart.service
{condition}
[Kube]
Yaml={yaml}

[Service]
Restart=on-failure
# Images may have to be pulled.
TimeoutStartSec={START_SECONDS}
# What the containers have to end, and {STOP_SECONDS} s for Podman.
TimeoutStopSec={stop_seconds}

{install}[X-Beemesh]
Workload={workload}
Revision={revision}
Index={index}
Cluster={cluster}
Format={format}
"
        )
    }
}

/// Whether every boot starts the unit of this `.kube` file.
#[must_use]
pub fn is_installed(kube: &str) -> bool {
    kube.lines().any(|line| line.trim() == "[Install]")
}

/// The `.kube` file without the section by which a boot starts the unit.
#[must_use]
pub fn uninstalled(kube: &str) -> String {
    let mut text = String::with_capacity(kube.len());
    let mut skips = false;
    for line in kube.lines() {
        if line.starts_with('[') {
            skips = line.trim() == "[Install]";
        }
        if !skips {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Parses a `.kube` file of [`render`]; returns `None` for any other file.
#[must_use]
pub fn read_quadlet(kube: &str) -> Option<Quadlet> {
    let value = |section: &str, key: &str| {
        let mut lines = kube
            .lines()
            .skip_while(|line| line.trim() != section)
            .skip(1);
        lines
            .by_ref()
            .take_while(|line| !line.starts_with('['))
            .find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.trim()))
    };
    let workload = value("[X-Beemesh]", "Workload")?;
    let quadlet = Quadlet {
        workload: workload.to_owned(),
        revision: value("[X-Beemesh]", "Revision")?.parse().ok()?,
        index: value("[X-Beemesh]", "Index")?.parse().ok()?,
        cluster: value("[X-Beemesh]", "Cluster")?.parse().ok()?,
        yaml: value("[Kube]", "Yaml")?.to_owned(),
        format: value("[X-Beemesh]", "Format").map_or(Some(1), |format| format.parse().ok())?,
    };
    let is_ours = is_pod_name(workload) && quadlet.yaml == yaml_file(workload, quadlet.index);
    is_ours.then_some(quadlet)
}

/// Writes JSON documents with `---` between them, in a form that a YAML 1.1 parser reads as the same data.
fn yaml_text(documents: &[Value]) -> String {
    let mut text = String::new();
    for document in documents {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        // In JSON these characters occur in strings only. YAML does not allow some of them unescaped, and folds the
        // line separators.
        for char in format!("{document:#}\n").chars() {
            match char {
                '\u{7f}'..='\u{9f}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{feff}'
                | '\u{fffe}'
                | '\u{ffff}' => {
                    text.push_str(&format!("\\u{:04x}", u32::from(char)));
                }
                _ => text.push(char),
            }
        }
    }
    text
}

/// The separator between two documents in a YAML of [`render`]. It occurs nowhere else in it.
const BETWEEN: &str = "\n---\n";

/// The documents of a YAML of [`render`]; empty for any other file.
fn documents(yaml: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(yaml).unwrap_or_default();
    let documents = text.split(BETWEEN).map(serde_json::from_str);
    documents.collect::<Result<_, _>>().unwrap_or_default()
}

/// The images of a YAML of [`render`], sorted; empty for any other file.
#[must_use]
pub fn images(yaml: &[u8]) -> Vec<Image> {
    images_of(&documents(yaml))
}

/// The host ports of a YAML of [`render`].
#[must_use]
pub fn ports(yaml: &[u8]) -> Vec<Port> {
    let text = str::from_utf8(yaml).unwrap_or_default();
    // Most workloads have no host port, and a host has thousands of workloads.
    if !text.contains("\"hostPort\"") && !text.contains("\"hostNetwork\"") {
        return Vec::new();
    }
    text.split(BETWEEN).flat_map(ports_of).collect()
}

/// What the pod of a YAML of [`render`] requests of its host.
#[must_use]
pub fn requests(yaml: &[u8]) -> Room {
    let text = str::from_utf8(yaml).unwrap_or_default();
    let pod = text.rsplit(BETWEEN).next().unwrap_or_default();
    if !pod.contains("\"resources\"") {
        return Room::default();
    }
    let pod = serde_json::from_str::<Pod>(pod).unwrap_or_default();
    pod.spec.as_ref().map(requests_of).unwrap_or_default()
}

/// The fields that are read back from a pod. The other fields are dropped, because the supervisor reads it and has
/// little memory.
#[derive(Deserialize)]
struct Document {
    metadata: Metadata,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    containers: Vec<Named>,
    #[serde(default, rename = "initContainers")]
    init: Vec<Named>,
    #[serde(default, rename = "restartPolicy")]
    restart: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    image: String,
    #[serde(default, rename = "workingDir")]
    working_dir: Option<String>,
    lifecycle: Option<Lifecycle>,
}

#[derive(Deserialize)]
struct Lifecycle {
    #[serde(default, rename = "stopSignal")]
    stop_signal: Option<String>,
}

/// The pods of a YAML. A claim beside them has a `spec`, too, and no containers.
fn pods(yaml: &[u8]) -> impl Iterator<Item = (Metadata, Spec)> {
    let text = str::from_utf8(yaml).unwrap_or_default();
    let documents = text.split(BETWEEN);
    documents.filter_map(|text| {
        let Document { metadata, spec } = serde_json::from_str(text).ok()?;
        let spec = spec.filter(|spec| !spec.containers.is_empty())?;
        Some((metadata, spec))
    })
}

/// The rules by which the containers of a pod are restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `spec.restartPolicy`.
    pub restart: Restart,
    /// The pod ends after more failures than this; `None` if their number is not limited.
    pub failures_max: Option<u32>,
}

impl Default for Rules {
    /// The default of Kubernetes.
    fn default() -> Self {
        Self {
            restart: Restart::Always,
            failures_max: None,
        }
    }
}

/// The containers with `runAsNonRoot` and without `runAsUser` in a YAML of [`render`], as the manifest names them. None
/// of them may start if its image runs as root, or names its user by a word, of which nothing tells that it is not root.
#[must_use]
pub fn non_root(yaml: &[u8]) -> Vec<String> {
    listed(yaml, NON_ROOT)
}

/// The containers with `runAsGroup` and without `runAsUser` in a YAML of [`render`], as the manifest names them. None of
/// them may start if its image runs as a user other than root, because Podman would run it as root.
#[must_use]
pub fn root_image(yaml: &[u8]) -> Vec<String> {
    listed(yaml, ROOT_IMAGE)
}

/// The names in an annotation of a pod.
fn listed(yaml: &[u8], annotation: &str) -> Vec<String> {
    let lists = pods(yaml).filter_map(|(metadata, _)| {
        let list = metadata.annotations.get(annotation)?;
        Some(list.split(',').map(str::to_owned).collect::<Vec<_>>())
    });
    lists.flatten().filter(|name| !name.is_empty()).collect()
}

/// The rules of the pod in a YAML of [`render`].
#[must_use]
pub fn rules(yaml: &[u8]) -> Rules {
    let pod = pods(yaml).find(|(_, spec)| !spec.containers.is_empty());
    let Some((metadata, spec)) = pod else {
        return Rules::default();
    };
    let maps = [&metadata.annotations, &metadata.labels];
    let limit = maps.into_iter().find_map(|map| map.get(BACKOFF_LIMIT));
    Rules {
        restart: match singleton::restart_policy(&metadata, &spec) {
            "Never" => Restart::Never,
            "OnFailure" => Restart::OnFailure,
            _ => Restart::Always,
        },
        failures_max: limit.and_then(|limit| limit.parse().ok()),
    }
}

/// The names of the secrets in a YAML of [`render`].
#[cfg(feature = "host")]
pub(crate) fn secret_names(yaml: &[u8]) -> Vec<String> {
    let documents = documents(yaml).into_iter();
    let secrets = documents.filter(|document| document["kind"] == "Secret");
    let names = secrets.map(|secret| secret["metadata"]["name"].as_str().map(str::to_owned));
    names.flatten().collect()
}

/// The names of the pods in a YAML of [`render`].
#[cfg(feature = "host")]
pub(crate) fn pod_names(yaml: &[u8]) -> Vec<String> {
    pods(yaml).map(|(pod, _)| pod.name).collect()
}

fn images_of(documents: &[Value]) -> Vec<Image> {
    let mut images = BTreeSet::new();
    let mut uses = |reference: &Value, policy: &Value| {
        let pull = match policy.as_str() {
            Some("Always") => Pull::Always,
            Some("Never") => Pull::Never,
            Some(_) | None => Pull::IfNotPresent,
        };
        if let Some(reference) = reference.as_str() {
            images.insert(Image {
                reference: reference.to_owned(),
                pull,
            });
        }
    };
    for document in documents
        .iter()
        .filter(|document| document["kind"] == "Pod")
    {
        let spec = &document["spec"];
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                uses(&container["image"], &container["imagePullPolicy"]);
            }
        }
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            uses(
                &volume["image"]["reference"],
                &volume["image"]["pullPolicy"],
            );
        }
    }
    images.into_iter().collect()
}

/// The names of the Podman volumes and secrets that a YAML of [`render`] uses. Others that [belong
/// to](crate::belongings::belongs_to) the workload are left from another revision.
#[must_use]
pub fn volumes(yaml: &[u8]) -> BTreeSet<String> {
    let documents = documents(yaml);
    let objects = documents
        .iter()
        .filter(|document| document["kind"] != "Pod");
    let named = objects.map(|document| &document["metadata"]["name"]);
    let volumes = documents
        .iter()
        .flat_map(|document| document["spec"]["volumes"].as_array());
    let volumes = volumes.flatten().map(
        |volume| match &volume["persistentVolumeClaim"]["claimName"] {
            Value::Null => &volume["name"],
            claim => claim,
        },
    );
    named
        .chain(volumes)
        .filter_map(Value::as_str)
        .filter(|name| name.starts_with(OURS))
        .map(str::to_owned)
        .collect()
}
