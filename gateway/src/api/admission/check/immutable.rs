//! Refuses a change of an immutable ConfigMap or Secret.
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use beemesh_protocol::state::{Kind, Object};
use beemesh_quadlet::manifest::Problem;
use serde::Deserialize;

use super::{Check, title};

/// The largest number of changed keys in a message.
const KEYS_SHOWN_MAX: usize = 3;

/// A ConfigMap or Secret in canonical form.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    immutable: bool,
    data: BTreeMap<String, String>,
    binary_data: BTreeMap<String, String>,
    string_data: BTreeMap<String, String>,
}

impl Written {
    fn of(object: &Object) -> Self {
        serde_json::from_slice(&object.body).unwrap_or_default()
    }

    /// The value of each key, in the notation of a Secret's `data`. `stringData` wins over `data`.
    fn values(self, kind: Kind) -> BTreeMap<String, String> {
        let encoded = |(key, text): (String, String)| (key, STANDARD.encode(text));
        let mut values = self.binary_data;
        match kind {
            Kind::ConfigMap => values.extend(self.data.into_iter().map(encoded)),
            _ => values.extend(self.data),
        }
        values.extend(self.string_data.into_iter().map(encoded));
        values
    }
}

impl Check<'_> {
    /// Checks that the content of no immutable object changes, and that it stays immutable.
    pub(super) fn immutable(&mut self) {
        for (object, place) in self.manifest.objects.iter().zip(&self.manifest.places) {
            let (kind, namespace) = (object.kind, &object.namespace);
            if !matches!(kind, Kind::ConfigMap | Kind::Secret) {
                continue;
            }
            let before = self.around.state.object(kind, namespace, &object.name);
            let Some((_, before)) = before.filter(|(_, before)| before.hash != object.hash) else {
                continue;
            };
            if let Some((field, reason)) = changes(before, object) {
                self.verdict.held.push(Problem {
                    document: place.document,
                    line: place.line,
                    field: field.to_owned(),
                    message: format!(
                        "{} is immutable, and {reason}: give the new content another name",
                        title(object)
                    ),
                });
            }
        }
    }
}

/// The field that must not change, and how it does.
fn changes(before: &Object, after: &Object) -> Option<(&'static str, String)> {
    let (old, new) = (Written::of(before), Written::of(after));
    if !old.immutable {
        return None;
    }
    if !new.immutable {
        return Some(("immutable", "it stays so".to_owned()));
    }
    let (old, new) = (old.values(before.kind), new.values(after.kind));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changed: Vec<_> = keys
        .into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("`{key}`"))
        .collect();
    let shown = changed.get(..KEYS_SHOWN_MAX).unwrap_or(&changed).join(", ");
    let more = match changed.len() > KEYS_SHOWN_MAX {
        true => format!(" and {} more", changed.len() - KEYS_SHOWN_MAX),
        false => String::new(),
    };
    (!changed.is_empty()).then(|| ("data", format!("its content changes: {shown}{more}")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{applied, state, verdict};

    #[test]
    fn the_content_of_an_immutable_object_stays() {
        let map = |more: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  namespace: shop\n{more}\n"
            )
        };
        let secret =
            |more: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{more}\n");
        let base = map("immutable: true\ndata: {a: x, b: y}");
        let secret_base = secret("immutable: true\ndata: {a: eA==}");
        let free = map("data: {a: x}");
        let rest = "give the new content another name";
        for (before, after, expected) in [
            (&base, base.clone(), None),
            (
                &base,
                map("immutable: true\nbinaryData: {b: eQ==}\ndata: {a: x}"),
                None,
            ),
            (
                &base,
                base.replace("  name: c", "  name: c\n  labels: {d: e}"),
                None,
            ),
            (&free, map("immutable: true\ndata: {a: z}"), None),
            (
                &base,
                map("immutable: true\ndata: {a: z, c: y}"),
                Some("data: ConfigMap shop_c is immutable, and its content changes: `a`, `b`, `c`"),
            ),
            (
                &base,
                map("data: {a: x, b: y}"),
                Some("immutable: ConfigMap shop_c is immutable, and it stays so"),
            ),
            (
                &base,
                map("immutable: false\ndata: {a: x, b: y}"),
                Some("immutable: ConfigMap shop_c is immutable, and it stays so"),
            ),
            (
                &secret_base,
                secret("immutable: true\nstringData: {a: x}"),
                None,
            ),
            (
                &secret_base,
                secret("immutable: true\nstringData: {a: y}"),
                Some("data: Secret s is immutable, and its content changes: `a`"),
            ),
        ] {
            let mut known = state();
            applied(&mut known, 3, before);
            let [wrong, held, warnings] = verdict(&known, &after);
            let expected = expected.map(|words| format!("1:1 {words}: {rest}"));
            assert_eq!(held, Vec::from_iter(expected), "{after}");
            assert_eq!((wrong, warnings), (vec![], vec![]), "{after}");
        }
    }
}
