//! Checks that a Secret has the keys of its type.
//!
//! Pure: no I/O, no clock, no randomness. What reads such a Secret expects these keys, and would fail without them only
//! when it runs.

use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::{field::Field, findings::Scope};

/// The types with keys of their own. One key of each list must be there.
const TYPES: [(&str, &[&[&str]]); 5] = [
    ("kubernetes.io/basic-auth", &[&["username", "password"]]),
    ("kubernetes.io/dockercfg", &[&[".dockercfg"]]),
    ("kubernetes.io/dockerconfigjson", &[&[".dockerconfigjson"]]),
    ("kubernetes.io/ssh-auth", &[&["ssh-privatekey"]]),
    ("kubernetes.io/tls", &[&["tls.crt"], &["tls.key"]]),
];

/// The types whose value is JSON, with its key.
const JSON: [(&str, &str); 2] = [
    ("kubernetes.io/dockercfg", ".dockercfg"),
    ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
];

/// The type that a controller of Kubernetes fills.
const TOKEN: &str = "kubernetes.io/service-account-token";

/// Checks a Secret.
pub(super) fn check(secret: &Secret, scope: &mut Scope<'_>) {
    let Some(kind) = secret.type_.as_deref() else {
        return;
    };
    let at = Field::default().key("type");
    if kind == TOKEN && value(secret, "token").is_none() {
        scope.not_done(
            &at,
            "there is no API server that makes the token: the Secret stays without one",
        );
    }
    let needed = TYPES.iter().find(|(name, _)| *name == kind);
    for keys in needed.into_iter().flat_map(|(_, needed)| *needed) {
        if keys.iter().all(|key| value(secret, key).is_none()) {
            let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
            let message = format!(
                "a Secret of type `{kind}` needs the key {}",
                keys.join(" or ")
            );
            scope.differs(&at, message);
        }
    }
    let json = JSON.iter().find(|(name, _)| *name == kind);
    let json = json.and_then(|(_, key)| Some((key, value(secret, key)?)));
    if let Some((key, bytes)) = json
        && serde_json::from_slice::<Value>(bytes).is_err()
    {
        scope.differs(&at, format!("the value of `{key}` is not JSON"));
    }
}

/// The value of a key. `stringData` wins.
fn value<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let text = secret.string_data.as_ref().and_then(|data| data.get(key));
    let bytes = || secret.data.as_ref().and_then(|data| data.get(key));
    text.map(String::as_bytes)
        .or_else(|| bytes().map(|bytes| bytes.0.as_slice()))
}
