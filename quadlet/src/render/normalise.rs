//! Normalises a workload and the objects that it uses into documents that share no object by accident with another
//! workload.
//!
//! Pure: no I/O, no clock, no randomness. Input: a [`Revision`]. Output: the ConfigMaps, Secrets and claims it uses,
//! then one Pod, each as JSON.
//!
//! Podman has no namespaces. A ConfigMap, a Secret, a claim and an `emptyDir` are volumes of the host. Their name is
//! that of the object or, for an `emptyDir`, that of the volume in the pod. Two workloads with an `emptyDir` called
//! `cache` would share its files. So each volume gets a name that no other workload has. The name of a ConfigMap or
//! Secret also contains the hash of its content ([`crate::belongings`]), because Podman does not delete the files of
//! removed keys from an existing volume. Every kind becomes a Pod, because Podman uses another name for the pod of a
//! Deployment, and cannot play a DaemonSet or Job as a unit.

mod defaults;
mod dns;
mod downward;
mod environment;
mod files;
mod identity;
mod memory;
mod mounts;
mod read_only;
mod stages;
mod termination;
mod variables;
mod volumes;

use std::collections::BTreeMap;

use beemesh_protocol::{
    state::{Kind, Object},
    workload::{WORKLOAD_BYTES_MAX, is_label, is_name, unit_name, workload_name},
};
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::{DaemonSet, Deployment},
        batch::v1::Job,
        core::v1::{Container, Pod, PodSpec, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use downward::Downward;
use volumes::View;

use super::{BACKOFF_LIMIT, RenderError, Revision, staged::PreparedVolume};
use crate::{
    belongings::Content,
    manifest::{Demand, Failover, Keys, demands, from_any, is_misread, kind_name, resources},
};

/// The default of `backoffLimit` in Kubernetes.
const BACKOFF_LIMIT_DEFAULT: i32 = 6;

/// Normalises a revision.
pub(crate) fn normalise(revision: &Revision<'_>) -> Result<Vec<Value>, RenderError> {
    let object = revision.object;
    if !is_name(&object.name) || !is_label(&object.namespace) {
        return Err(malformed(object, "its name is not a Kubernetes name"));
    }
    if workload_name(&object.namespace, &object.name).len() > WORKLOAD_BYTES_MAX {
        return Err(malformed(object, "its name is too long"));
    }
    let pod_name = revision.pod_name();
    needed_keys(revision)?;
    let template = template(object)?;
    let downward = Downward::of(revision, &template);
    let Template {
        mut metadata,
        mut spec,
        annotations,
    } = template;
    metadata.annotations = Some(annotations);
    let mut uses = Uses {
        revision,
        pod: &pod_name,
        documents: BTreeMap::new(),
        made: BTreeMap::new(),
        prepared: BTreeMap::new(),
    };
    environment::resolve(&mut uses, &downward, &mut spec)?;
    resources::settle(&mut spec);
    uses.volumes(&mut spec, &downward)?;
    defaults::fill(revision, &mut spec);
    identity::settle(&mut uses, &mut metadata, &mut spec)?;
    let is_singleton = Failover::of(object).singleton;
    stages::stage(&mut metadata, &mut spec, &uses.prepared, is_singleton);
    metadata.annotations = metadata.annotations.filter(|all| !all.is_empty());

    let labels = metadata.labels.get_or_insert_default();
    labels.extend([
        ("PODMAN_SYSTEMD_UNIT".to_owned(), unit_name(&pod_name)),
        ("beemesh.io/index".to_owned(), revision.index.to_string()),
        (
            "beemesh.io/revision".to_owned(),
            revision.revision.to_string(),
        ),
        ("beemesh.io/workload".to_owned(), pod_name.clone()),
    ]);
    metadata.name = Some(pod_name.clone());
    metadata.namespace = None;

    let mut documents = Vec::with_capacity(uses.documents.len() + 1);
    for (name, used) in &uses.documents {
        documents.push(renamed(used, name)?);
    }
    documents.extend(uses.made.into_values());
    let pod = Pod {
        metadata,
        spec: Some(spec),
        status: None,
    };
    documents.push(to_json(object, &pod)?);
    for document in &mut documents {
        document.sort_all_objects();
    }
    Ok(documents)
}

/// Checks that all required keys exist. Podman does not start a container with a variable whose key is missing, and
/// silently omits a file. Such a revision must therefore not replace one that runs.
fn needed_keys(revision: &Revision<'_>) -> Result<(), RenderError> {
    let namespace = &revision.object.namespace;
    let mut keys: BTreeMap<(Kind, String), Keys> = BTreeMap::new();
    for demand in demands(revision.object) {
        let Demand::Key(needed) = demand else {
            continue;
        };
        let has = |used: &&&Object| {
            used.kind == needed.kind && used.name == needed.name && used.namespace == *namespace
        };
        // A reference to a missing object is reported at its use.
        let Some(used) = revision.uses.iter().find(has) else {
            continue;
        };
        let known = keys.entry((needed.kind, needed.name.clone()));
        if !known.or_insert_with(|| Keys::of(used)).has(&needed) {
            return Err(RenderError::MissingKey {
                kind: kind_name(needed.kind),
                name: needed.name,
                key: needed.key,
            });
        }
    }
    Ok(())
}

/// The pod of a workload of any kind.
struct Template {
    /// The labels and annotations of the pod itself.
    metadata: ObjectMeta,
    spec: PodSpec,
    /// The annotations for Podman: those of the workload and of the pod, which win.
    annotations: BTreeMap<String, String>,
}

fn template(object: &Object) -> Result<Template, RenderError> {
    let mut failures_max = None;
    let (outer, template) = match object.kind {
        Kind::Pod => {
            let pod: Pod = from_body(object)?;
            let template = PodTemplateSpec {
                metadata: Some(pod.metadata),
                spec: pod.spec,
            };
            (ObjectMeta::default(), Some(template))
        }
        Kind::Deployment => {
            let deployment: Deployment = from_body(object)?;
            (
                deployment.metadata,
                deployment.spec.map(|spec| spec.template),
            )
        }
        Kind::DaemonSet => {
            let set: DaemonSet = from_body(object)?;
            (set.metadata, set.spec.map(|spec| spec.template))
        }
        Kind::Job => {
            let job: Job = from_body(object)?;
            let spec = job.spec.unwrap_or_default();
            let limit = spec.backoff_limit.unwrap_or(BACKOFF_LIMIT_DEFAULT);
            failures_max = Some((BACKOFF_LIMIT.to_owned(), limit.max(0).to_string()));
            (job.metadata, Some(spec.template))
        }
        Kind::ConfigMap | Kind::Secret | Kind::PersistentVolumeClaim => {
            return Err(malformed(object, "it is not a workload"));
        }
    };
    let template = template.unwrap_or_default();
    let spec = template
        .spec
        .ok_or_else(|| malformed(object, "it has no pod"))?;
    let inner = template.metadata.unwrap_or_default();
    let mut annotations = outer.annotations.unwrap_or_default();
    annotations.extend(inner.annotations.clone().unwrap_or_default());
    annotations.extend(failures_max);
    Ok(Template {
        metadata: ObjectMeta {
            labels: inner.labels,
            annotations: inner.annotations,
            ..ObjectMeta::default()
        },
        spec,
        annotations,
    })
}

fn containers(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
}

/// The objects that a workload uses, with their private names.
struct Uses<'a> {
    revision: &'a Revision<'a>,
    /// The name of the pod.
    pod: &'a str,
    documents: BTreeMap<String, &'a Object>,
    /// Documents that Beemesh makes, by their private names.
    made: BTreeMap<String, Value>,
    /// The volumes that the supervisor prepares, by their names in Podman.
    prepared: BTreeMap<String, PreparedVolume>,
}

impl Uses<'_> {
    /// The private name of a ConfigMap or Secret; `None` if it is optional and does not exist.
    fn private(
        &mut self,
        kind: Kind,
        name: &str,
        optional: bool,
        view: Option<View>,
    ) -> Result<Option<String>, RenderError> {
        let Some(used) = self.find(kind, name) else {
            return match optional {
                true => Ok(None),
                false => Err(RenderError::Missing {
                    kind: kind_name(kind),
                    name: name.to_owned(),
                }),
            };
        };
        let content = Content {
            letter: match kind {
                Kind::Secret => 's',
                _ => 'c',
            },
            name,
            body: &used.body,
        };
        let private = content.private_name(self.pod, &view);
        self.documents.insert(private.clone(), used);
        Ok(Some(private))
    }
}

impl<'a> Uses<'a> {
    fn find(&self, kind: Kind, name: &str) -> Option<&'a Object> {
        let namespace = &self.revision.object.namespace;
        let mut uses = self.revision.uses.iter().copied();
        uses.find(|used| used.kind == kind && used.name == name && &used.namespace == namespace)
    }
}

/// An object that a workload uses, with its private name.
fn renamed(object: &Object, name: &str) -> Result<Value, RenderError> {
    let mut json: Value = from_body(object)?;
    let metadata = json.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.ok_or_else(|| malformed(object, "it has no metadata"))?;
    metadata.insert("name".to_owned(), name.into());
    metadata.remove("namespace");
    encode(&mut json, object.kind);
    Ok(json)
}

/// Encodes the texts of a ConfigMap or Secret that Podman cannot read.
fn encode(json: &mut Value, kind: Kind) {
    let (from, to) = match kind {
        Kind::ConfigMap => ("data", "binaryData"),
        Kind::Secret => ("stringData", "data"),
        _ => return,
    };
    let texts = json.get_mut(from).and_then(Value::as_object_mut);
    let Some(texts) = texts.filter(|texts| texts.values().any(is_text_misread)) else {
        return;
    };
    let misread: Vec<String> = texts
        .iter()
        .filter(|(_, text)| is_text_misread(text))
        .map(|(key, _)| key.clone())
        .collect();
    let encoded = misread.into_iter().filter_map(|key| {
        let Value::String(text) = texts.remove(&key)? else {
            return None;
        };
        let bytes = serde_json::to_value(ByteString(text.into_bytes())).ok()?;
        Some((key, bytes))
    });
    let encoded: Vec<(String, Value)> = encoded.collect();
    let object = json.as_object_mut();
    let all = object.map(|object| {
        object
            .entry(to)
            .or_insert_with(|| Value::Object(Map::new()))
    });
    if let Some(all) = all.and_then(Value::as_object_mut) {
        all.extend(encoded);
    }
}

fn is_text_misread(text: &Value) -> bool {
    text.as_str().is_some_and(is_misread)
}

fn from_body<T: DeserializeOwned>(object: &Object) -> Result<T, RenderError> {
    let mut body = serde_json::Deserializer::from_slice(&object.body);
    from_any(&mut body).map_err(|error| malformed(object, &error.to_string()))
}

fn to_json(object: &Object, value: &impl Serialize) -> Result<Value, RenderError> {
    serde_json::to_value(value).map_err(|error| malformed(object, &error.to_string()))
}

fn malformed(object: &Object, reason: &str) -> RenderError {
    RenderError::Malformed {
        kind: kind_name(object.kind),
        name: object.name.clone(),
        reason: reason.to_owned(),
    }
}
