//! The content of objects before and after an apply, as YAML.
//!
//! Pure: no I/O, no clock, no randomness; the caller draws the key of the [`Mask`]. No value of a Secret leaves the
//! gateway. In its place is a keyed hash: without the key nobody can compute the hashes of guessed values.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use beemesh_protocol::{
    hex::Hex,
    peer::{Action, Effect},
    state::{Kind, Object},
};
use beemesh_quadlet::manifest::{as_written, is_workload, workload_name};
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::cluster::state::State;

/// The bytes of a hash that are shown: enough that two values of one request do not look equal by accident.
const SHOWN: usize = 6;

/// The bytes of a key: one block of SHA-256.
pub(super) const KEY_BYTES: usize = 64;

/// An object before and after an apply.
pub(super) type Versions = (Option<String>, Option<String>);

/// Replaces the values of Secrets.
pub(super) struct Mask(Hmac<Sha256>);

impl Mask {
    /// Creates the mask of one response. With the same key for two responses, values of both could be compared.
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Hmac::new(key.into()))
    }

    /// The hash of one value. It depends on where the value is, so that equal values of two places are not seen.
    fn hash(&self, place: [&str; 3], value: &[u8]) -> String {
        let mut mac = self.0.clone();
        for part in place {
            // Names have no NUL.
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.update(value);
        let hash = mac.finalize().into_bytes();
        format!("hmac-sha256:{}", Hex(&hash[..SHOWN]))
    }

    /// Replaces all values of a Secret. An equal value has an equal hash in `data` and in `stringData`.
    fn apply(&self, secret: &Object, body: &mut Value) {
        for field in ["data", "stringData"] {
            let values = body.get_mut(field).and_then(Value::as_object_mut);
            for (key, value) in values.into_iter().flatten() {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                let bytes = match field {
                    "data" => decoded(&text),
                    _ => text.into_bytes(),
                };
                let place = [secret.namespace.as_str(), &secret.name, key];
                *value = self.hash(place, &bytes).into();
            }
        }
    }
}

/// The value of a key of `data`; the text itself if it is not base64.
fn decoded(text: &str) -> Vec<u8> {
    let plain: String = text.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(plain);
    decoded.unwrap_or_else(|_| text.as_bytes().to_vec())
}

/// The versions of each object that a preview of an apply to the state `before` names.
pub(super) fn versions(
    manifest: &str,
    effects: &[Effect],
    objects: &[Object],
    before: &State,
    mask: &Mask,
) -> Result<Vec<Versions>, String> {
    let id = |object: &Object| (object.kind, workload_name(&object.namespace, &object.name));
    let new: BTreeMap<_, _> = objects.iter().map(|object| (id(object), object)).collect();
    let held = before.manifest(manifest);
    let held = held.iter().flat_map(|held| &held.objects);
    let held: BTreeMap<_, &Object> = held.map(|object| (id(object), object.as_ref())).collect();
    let of = |effect: &Effect| {
        let id = (effect.kind, effect.name.clone());
        // The apply also changes workloads of other manifests, which use an object of this one.
        let workload = || {
            let workload = before
                .workload(&effect.name)
                .filter(|_| is_workload(effect.kind));
            workload.map(|workload| workload.object.as_ref())
        };
        let old = match effect.action {
            Action::Created => None,
            _ => held.get(&id).copied().or_else(workload),
        };
        let new = match effect.action {
            Action::Removed => None,
            _ => new.get(&id).copied().or(old),
        };
        let text = |object: Option<&Object>| object.map(|one| yaml(one, mask)).transpose();
        Ok((text(old)?, text(new)?))
    };
    effects.iter().map(of).collect()
}

/// An object as its manifest has it, with sorted keys.
fn yaml(object: &Object, mask: &Mask) -> Result<String, String> {
    let mut body: Value = serde_json::from_slice(&as_written(&object.body))
        .map_err(|error| format!("the object `{}` is damaged: {error}", object.name))?;
    if object.kind == Kind::Secret {
        mask.apply(object, &mut body);
    }
    body.sort_all_objects();
    serde_yaml::to_string(&body).map_err(|error| format!("`{}` as YAML: {error}", object.name))
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::{
        peer::Outcome,
        state::{Change, Command},
    };
    use beemesh_quadlet::manifest::parse;

    use super::*;

    /// Applies a manifest, and returns the versions of each object that it names.
    fn apply(state: &mut State, name: &str, yaml: &str, key: u8) -> Vec<(String, Versions)> {
        let objects = parse(yaml.as_bytes(), false).expect(yaml).objects;
        let before = state.clone();
        let change = Change::Apply {
            manifest: name.into(),
            objects: objects.clone(),
            policy: None,
            keep: false,
            if_index: None,
        };
        let Outcome::Applied(effects) = state.apply(3, &Command::unasked(1, change)) else {
            panic!("{yaml}");
        };
        let mask = Mask::new(&[key; KEY_BYTES]);
        let versions = versions(name, &effects, &objects, &before, &mask).unwrap();
        let names = effects.into_iter().map(|effect| effect.name);
        names.zip(versions).collect()
    }

    fn config(name: &str, value: &str) -> String {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{z: x, a: {value}}}\n---\n"
        )
    }

    fn secret(data: &str) -> String {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{data}\n")
    }

    /// The hash of the key `a` in the text of a Secret.
    fn hash(text: &Option<String>) -> String {
        let text = text.as_deref().unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("  a: hmac-sha256:"));
        let hash = line.unwrap_or_else(|| panic!("{text}")).to_owned();
        assert_eq!(hash.len(), 12, "{text}");
        hash
    }

    #[test]
    fn each_object_has_what_is_there_and_what_would_be_there() {
        let mut state = State::default();
        let text = |value: &str| {
            Some(format!(
                "apiVersion: v1\ndata:\n  a: {value}\n  z: x\nkind: ConfigMap\nmetadata:\n  name: c\n  namespace: default\n"
            ))
        };
        let named = |versions| ("c".to_owned(), versions);
        let both = config("c", "one") + &config("d", "one");
        let first = apply(&mut state, "m", &both, 1);
        assert_eq!(first[0], named((None, text("one"))));
        let user = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: 'localhost/a:1', \
                    envFrom: [{configMapRef: {name: c}}]}]}\n";
        apply(&mut state, "other", user, 1);
        let second = apply(&mut state, "m", &config("c", "two"), 1);
        assert_eq!(second[0], named((text("one"), text("two"))));
        let (name, (before, after)) = &second[1];
        assert_eq!((name.as_str(), before.is_some(), after), ("d", true, &None));
        // The workload that uses the object rolls out, and is the same.
        let (name, (before, after)) = &second[2];
        assert_eq!((name.as_str(), before), ("p", after));
        assert!(
            before.as_deref().unwrap().contains("kind: Pod"),
            "{before:?}"
        );
    }

    #[test]
    fn a_replica_set_has_the_form_of_its_manifest() {
        let set = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: a, image: 'localhost/a:1'}]}}}\n";
        let made = apply(&mut State::default(), "m", set, 1);
        let text = made[0].1.1.as_deref().unwrap();
        assert!(
            text.contains("kind: ReplicaSet\n") && !text.contains("beemesh.io"),
            "{text}"
        );
    }

    #[test]
    fn values_of_secrets_are_compared_and_not_told() {
        let mut state = State::default();
        let first = apply(&mut state, "m", &secret("data: {a: c2VzYW1l}"), 1);
        let (None, after) = &first[0].1 else {
            panic!("{first:?}")
        };
        let sesame = hash(after);
        for word in ["sesame", "c2VzYW1l"] {
            assert!(!after.as_deref().unwrap().contains(word), "{after:?}");
        }
        // The same value in another notation.
        let same = apply(&mut state, "m", &secret("stringData: {a: sesame}"), 1);
        assert_eq!(
            (hash(&same[0].1.0), hash(&same[0].1.1)),
            (sesame.clone(), sesame.clone())
        );
        let other = apply(&mut state, "m", &secret("stringData: {a: poppy}"), 1);
        assert_eq!(hash(&other[0].1.0), sesame);
        assert_ne!(hash(&other[0].1.1), sesame);
        // Another response has another key, and another place another hash.
        let again = apply(&mut state, "m", &secret("stringData: {a: sesame}"), 2);
        assert_ne!(hash(&again[0].1.1), sesame);
        let mask = Mask::new(&[1; KEY_BYTES]);
        assert_eq!(
            mask.hash(["default", "s", "a"], b"sesame"),
            format!("hmac-sha256:{sesame}")
        );
        assert_ne!(
            mask.hash(["default", "s", "a"], b"sesame"),
            mask.hash(["default", "s", "b"], b"sesame")
        );
    }
}
