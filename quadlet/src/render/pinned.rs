//! Replaces the images of a workload by those that it ran before.
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::BTreeMap;

use beemesh_protocol::{
    hex::Hex,
    state::{Kind, Object},
};
use serde_json::{Value, json};

/// The policy for an image that is named by its contents.
const IF_NOT_PRESENT: &str = "IfNotPresent";

/// The workload with other images: `images` has the new one of each reference. The host pulls a replaced image only if it
/// lacks it. A body that is no JSON stays as it is.
#[must_use]
pub fn with_images(object: &Object, images: &BTreeMap<String, String>) -> Object {
    let mut object = object.clone();
    let Ok(mut body) = serde_json::from_slice::<Value>(&object.body) else {
        return object;
    };
    let pod = match object.kind {
        Kind::Pod => body.get_mut("spec"),
        _ => body.pointer_mut("/spec/template/spec"),
    };
    let Some(pod) = pod else {
        return object;
    };
    for list in ["initContainers", "containers"] {
        let containers = pod.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            replace(container, ("image", "imagePullPolicy"), images);
        }
    }
    let volumes = pod.get_mut("volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        if let Some(image) = volume.get_mut("image") {
            replace(image, ("reference", "pullPolicy"), images);
        }
    }
    object.body = body.to_string().into_bytes();
    object
}

fn replace(user: &mut Value, (key, policy): (&str, &str), images: &BTreeMap<String, String>) {
    let reference = user.get(key).and_then(Value::as_str);
    if let Some(image) = reference.and_then(|reference| images.get(reference)) {
        user[key] = json!(image);
        user[policy] = json!(IF_NOT_PRESENT);
    }
}

/// The reference of an image by the digest of its manifest, in the repository of `reference`.
#[must_use]
pub fn by_digest(reference: &str, digest: &[u8; 32]) -> String {
    let name = reference
        .split_once('@')
        .map_or(reference, |(name, _)| name);
    // A colon before the last slash belongs to the port of the registry.
    let tag = name
        .rfind(':')
        .filter(|colon| !name[*colon..].contains('/'));
    let repository = tag.map_or(name, |colon| &name[..colon]);
    format!("{repository}@sha256:{}", Hex(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_takes_the_place_of_a_tag() {
        let digest = "ab".repeat(32);
        for (reference, repository) in [
            ("app", "app"),
            ("app:latest", "app"),
            ("r.example:5000/team/app", "r.example:5000/team/app"),
            ("r.example:5000/team/app:1.2", "r.example:5000/team/app"),
            ("r.example/app:1@sha256:cd", "r.example/app"),
            ("r.example/app@sha256:cd", "r.example/app"),
        ] {
            let expected = format!("{repository}@sha256:{digest}");
            assert_eq!(by_digest(reference, &[0xab; 32]), expected, "{reference}");
        }
    }

    #[test]
    fn every_use_of_a_reference_is_replaced() {
        let spec = json!({
            "initContainers": [{"name": "i", "image": "a:1", "imagePullPolicy": "Always"}],
            "containers": [{"name": "c", "image": "a:1"}, {"name": "d", "image": "b:1"}],
            "volumes": [{"name": "v", "image": {"reference": "a:1", "pullPolicy": "Never"}}, {"name": "w"}],
        });
        let new = json!({
            "initContainers": [{"name": "i", "image": "id", "imagePullPolicy": "IfNotPresent"}],
            "containers": [{"name": "c", "image": "id", "imagePullPolicy": "IfNotPresent"}, {"name": "d", "image": "b:1"}],
            "volumes": [{"name": "v", "image": {"reference": "id", "pullPolicy": "IfNotPresent"}}, {"name": "w"}],
        });
        for (kind, wrapped) in [
            (
                Kind::Pod,
                (|spec| json!({"spec": spec})) as fn(Value) -> Value,
            ),
            (
                Kind::Deployment,
                |spec| json!({"spec": {"template": {"spec": spec}}}),
            ),
        ] {
            let object = Object {
                kind,
                namespace: "default".into(),
                name: "a".into(),
                body: wrapped(spec.clone()).to_string().into_bytes(),
                hash: [0; 32],
                references: Vec::new(),
                replicas: None,
                selector: BTreeMap::new(),
            };
            let images = BTreeMap::from([("a:1".to_owned(), "id".to_owned())]);
            let replaced = with_images(&object, &images);
            let body: Value = serde_json::from_slice(&replaced.body).unwrap();
            assert_eq!(body, wrapped(new.clone()), "{kind:?}");
            assert_eq!(with_images(&object, &BTreeMap::new()).body, object.body);
        }
    }
}
