//! The kinds that a manifest may have, and the kinds as which the replicated state carries them.
//!
//! Pure: no I/O, no clock, no randomness. A ReplicaSet and a ReplicationController are carried as a Deployment, with a
//! label that names the kind of the manifest. So hosts of earlier releases, which stop at a kind that they do not know,
//! run them too. A Namespace and a ServiceAccount are checked and not carried.

use std::borrow::Cow;

use beemesh_protocol::state::{Kind, Object};
use serde_json::{Map, Value, json};

/// The label of a carried Deployment that names its kind in the manifest. No manifest can set it.
const LABEL: &str = "beemesh.io/kind";

/// A kind in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// A kind that is carried as it is.
    Own(Kind),
    ReplicaSet,
    ReplicationController,
    Namespace,
    ServiceAccount,
}

impl Written {
    /// All kinds, in the order of the documentation.
    pub(super) const ALL: [Self; 11] = [
        Self::Own(Kind::Pod),
        Self::Own(Kind::Deployment),
        Self::ReplicaSet,
        Self::ReplicationController,
        Self::Own(Kind::DaemonSet),
        Self::Own(Kind::Job),
        Self::Own(Kind::ConfigMap),
        Self::Own(Kind::Secret),
        Self::Own(Kind::PersistentVolumeClaim),
        Self::Namespace,
        Self::ServiceAccount,
    ];

    /// The kind with this name, if Beemesh accepts it.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Own(kind) => kind_name(kind),
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
        }
    }

    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::Own(Kind::Deployment | Kind::DaemonSet) | Self::ReplicaSet => "apps/v1",
            Self::Own(Kind::Job) => "batch/v1",
            Self::Own(Kind::Pod | Kind::ConfigMap | Kind::Secret | Kind::PersistentVolumeClaim)
            | Self::ReplicationController
            | Self::Namespace
            | Self::ServiceAccount => "v1",
        }
    }

    /// The kind in the replicated state; `None` if the object is not kept.
    pub(super) fn carried(self) -> Option<Kind> {
        match self {
            Self::Own(kind) => Some(kind),
            Self::ReplicaSet | Self::ReplicationController => Some(Kind::Deployment),
            Self::Namespace | Self::ServiceAccount => None,
        }
    }

    /// Gives an object of this kind the form in which it is carried.
    pub(super) fn carry(self, object: &mut Value) {
        if !matches!(self, Self::ReplicaSet | Self::ReplicationController) {
            return;
        }
        name(object, Self::Own(Kind::Deployment));
        if let Some(metadata) = entries(object, "metadata")
            && let Some(labels) = metadata
                .entry("labels")
                .or_insert_with(|| json!({}))
                .as_object_mut()
        {
            labels.insert(LABEL.to_owned(), self.name().into());
        }
        if self == Self::ReplicationController
            && let Some(spec) = entries(object, "spec")
        {
            let selector = match spec.remove("selector") {
                Some(labels) => json!({ "matchLabels": labels }),
                None => json!({}),
            };
            spec.insert("selector".to_owned(), selector);
        }
    }

    /// Gives a carried object of this kind the form of the manifest again.
    fn restore(self, object: &mut Value) {
        name(object, self);
        if let Some(metadata) = entries(object, "metadata") {
            let labels = metadata.get_mut("labels").and_then(Value::as_object_mut);
            let is_empty = labels.is_some_and(|labels| {
                labels.remove(LABEL);
                labels.is_empty()
            });
            if is_empty {
                metadata.remove("labels");
            }
        }
        if self == Self::ReplicationController
            && let Some(spec) = entries(object, "spec")
            && let Some(mut selector) = spec.remove("selector")
            && let Some(labels) = selector.get_mut("matchLabels").map(Value::take)
        {
            spec.insert("selector".to_owned(), labels);
        }
    }
}

/// Returns true if objects of this kind run containers.
#[must_use]
pub fn is_workload(kind: Kind) -> bool {
    match kind {
        Kind::Pod | Kind::Deployment | Kind::DaemonSet | Kind::Job => true,
        Kind::ConfigMap | Kind::Secret | Kind::PersistentVolumeClaim => false,
    }
}

/// The name of the kind in YAML, of objects that are carried as they are; [`kind_of`] knows the others.
#[must_use]
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Pod => "Pod",
        Kind::Deployment => "Deployment",
        Kind::DaemonSet => "DaemonSet",
        Kind::Job => "Job",
        Kind::ConfigMap => "ConfigMap",
        Kind::Secret => "Secret",
        Kind::PersistentVolumeClaim => "PersistentVolumeClaim",
    }
}

/// The kind of an object in its manifest.
#[must_use]
pub fn kind_of(object: &Object) -> &'static str {
    match object.kind {
        Kind::Deployment => carried(&object.body).map_or("Deployment", |(kind, _)| kind.name()),
        kind => kind_name(kind),
    }
}

/// Returns true if Kubernetes keeps the pods of this workload when its template changes: a ReplicaSet or ReplicationController
/// only counts them.
#[must_use]
pub fn only_counts(object: &Object) -> bool {
    object.kind == Kind::Deployment && carried(&object.body).is_some()
}

/// The canonical JSON of an object in the form of its manifest.
pub fn as_written(body: &[u8]) -> Cow<'_, [u8]> {
    let Some((kind, mut object)) = carried(body) else {
        return Cow::Borrowed(body);
    };
    kind.restore(&mut object);
    object.sort_all_objects();
    Cow::Owned(object.to_string().into_bytes())
}

/// The object and its kind in the manifest, if it is carried as another kind.
fn carried(body: &[u8]) -> Option<(Written, Value)> {
    // Nearly every object is carried as it is, and to read it takes longer than this search.
    let quoted = format!("\"{LABEL}\"");
    let may = body
        .windows(quoted.len())
        .any(|bytes| bytes == quoted.as_bytes());
    let object: Value = may.then(|| serde_json::from_slice(body).ok())??;
    let label = object.get("metadata")?.get("labels")?.get(LABEL)?;
    let kind = Written::from_name(label.as_str()?)?;
    let is_carried = matches!(kind, Written::ReplicaSet | Written::ReplicationController);
    (is_carried && object.get("kind")? == "Deployment").then_some((kind, object))
}

/// Writes the name and the version of a kind into an object.
fn name(object: &mut Value, kind: Written) {
    if let Some(object) = object.as_object_mut() {
        object.insert("apiVersion".to_owned(), kind.api_version().into());
        object.insert("kind".to_owned(), kind.name().into());
    }
}

fn entries<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    object.get_mut(key).and_then(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(kind: Written, written: &Value) -> Value {
        let mut object = written.clone();
        kind.carry(&mut object);
        let body = object.to_string().into_bytes();
        let back: Value = serde_json::from_slice(&as_written(&body)).unwrap();
        assert_eq!(&back, written);
        object
    }

    #[test]
    fn a_carried_object_is_a_deployment_and_gets_its_form_back() {
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"labels": {"a": "b"}, "name": "web"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}}});
        assert_eq!(
            there_and_back(Written::ReplicaSet, &set),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"a": "b", LABEL: "ReplicaSet"}, "name": "web"},
                "spec": {"selector": {"matchLabels": {"a": "b"}}}})
        );
        let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"},
            "spec": {"replicas": 2, "selector": {"a": "b"}}});
        assert_eq!(
            there_and_back(Written::ReplicationController, &controller),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {LABEL: "ReplicationController"}, "name": "web"},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}}})
        );
        let without = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"}, "spec": {"replicas": 2}});
        there_and_back(Written::ReplicationController, &without);
    }

    #[test]
    fn an_object_that_is_carried_as_it_is_keeps_its_bytes() {
        for body in [
            r#"{"kind":"Deployment","metadata":{"annotations":{"beemesh.io/kind":"ReplicaSet"},"name":"web"}}"#,
            r#"{"kind":"Deployment","metadata":{"labels":{"beemesh.io/kind":"Pod"},"name":"web"}}"#,
            r#"{"kind":"Pod","metadata":{"labels":{"beemesh.io/kind":"ReplicaSet"},"name":"web"}}"#,
            r#"{"kind":"Pod","metadata":{"name":"web"}}"#,
            "\"beemesh.io/kind\"",
        ] {
            assert_eq!(as_written(body.as_bytes()), body.as_bytes(), "{body}");
        }
    }
}
