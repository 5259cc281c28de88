//! Turns one YAML document into one typed object, and reports every value of the wrong type.
//!
//! Pure: no I/O, no clock, no randomness.

use k8s_openapi::{Metadata, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{
    Serialize,
    de::{DeserializeOwned, Deserializer},
};
use serde_json::Value;
use serde_path_to_error::Track;

use super::{
    field::{Field, Step, cut},
    findings::Scope,
    known_fields::nearest,
    outline::KEY_MAX,
};

/// The largest number of values of the wrong type that are listed of one object; each costs one more pass.
const WRONG_MAX: usize = 16;

/// The largest number of unknown fields of one object for which a known field is suggested; each costs one more pass.
const SUGGESTIONS_MAX: usize = 16;

/// The annotation in which kubectl keeps the last applied object: as long as the object itself, and of no use to
/// Beemesh.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Converts YAML to JSON as Kubernetes does. A value without a JSON form is reported and left out.
pub(super) fn to_json(yaml: serde_yaml::Value, field: &Field, scope: &mut Scope<'_>) -> Value {
    use serde_yaml::Value as Yaml;
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => value.into(),
            (_, Some(value), _) => value.into(),
            (.., Some(value)) if value.is_finite() => value.into(),
            _ => {
                scope.unreadable(field.clone(), format!("{number} is not a finite number"));
                Value::Null
            }
        },
        Yaml::Sequence(items) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| to_json(item, &field.index(index), scope))
            .collect(),
        Yaml::Mapping(entries) => {
            let mut map = serde_json::Map::new();
            for (key, value) in entries {
                match key {
                    Yaml::String(key) if key.len() <= KEY_MAX => {
                        let value = to_json(value, &field.key(&key), scope);
                        map.insert(key, value);
                    }
                    Yaml::String(key) => {
                        scope.wrong(field, format!("the key `{}` is too long", cut(&key)))
                    }
                    Yaml::Bool(key) => {
                        scope.wrong(field, format!("the key {key} is not a string: quote it"))
                    }
                    Yaml::Number(key) => {
                        scope.wrong(field, format!("the key {key} is not a string: quote it"))
                    }
                    Yaml::Null | Yaml::Sequence(_) | Yaml::Mapping(_) | Yaml::Tagged(_) => {
                        scope.wrong(field, "a key is not a string");
                    }
                }
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => {
            let tag = cut(&tagged.tag.to_string());
            scope.unreadable(
                field.clone(),
                format!("the YAML tag `{tag}` is not allowed here"),
            );
            Value::Null
        }
    }
}

/// Reads a typed object; `None` if nothing of it can be read. A value of the wrong type is reported and left out, so
/// that the rest is still checked.
pub(super) fn read<T>(mut json: Value, scope: &mut Scope<'_>) -> Option<T>
where
    T: DeserializeOwned + Serialize + Metadata<Ty = ObjectMeta>,
{
    if let Some(entries) = json.as_object_mut() {
        entries.remove("status");
    }
    octal_modes(&mut json);
    for _ in 0..WRONG_MAX {
        let mut track = Track::new();
        let reader = serde_path_to_error::Deserializer::new(&json, &mut track);
        let error = match from_any::<T>(reader) {
            Ok(mut object) => {
                let kept = serde_json::to_value(&object).ok()?;
                let mut suggestions = 0;
                let mut suggest = |field: &Field, key: &str| {
                    suggestions += 1;
                    let holder = field.steps();
                    (suggestions <= SUGGESTIONS_MAX).then(|| nearest::<T>(&json, holder, key))?
                };
                unknown(&json, &kept, &Field::default(), &mut suggest, scope);
                tidy(object.metadata_mut());
                return Some(object);
            }
            Err(error) => error,
        };
        let field = Field::from(&track.path());
        let entry = field.entry();
        let found = field.steps().last();
        let is_mode = matches!(found, Some(Step::Key(key)) if is_mode(key));
        scope.wrong(&field, wrong_type(&error.to_string(), is_mode));
        scope.unread.push(entry.clone());
        if !remove(&mut json, &entry) {
            return None;
        }
    }
    None
}

/// Reads a typed object from any source. The types of Kubernetes are so large that code for each of them and each source
/// would take minutes to build.
pub(crate) fn from_any<'de, T: DeserializeOwned>(
    source: impl Deserializer<'de>,
) -> Result<T, erased_serde::Error> {
    let mut source = <dyn erased_serde::Deserializer<'_>>::erase(source);
    erased_serde::deserialize(&mut source)
}

/// The meaning of the words that kubectl reads as truth values of YAML 1.1.
fn truth(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "y" | "yes" | "on" | "true" => Some(true),
        "n" | "no" | "off" | "false" => Some(false),
        _ => None,
    }
}

/// serde's message, and advice.
fn wrong_type(message: &str, is_mode: bool) -> String {
    let number = ["i32", "i64"].into_iter().find_map(|kind| {
        let found = message.strip_suffix(kind)?.strip_suffix(", expected ")?;
        let text = found.strip_prefix("invalid type: string \"");
        let value = found.strip_prefix("invalid value: integer `");
        text.and_then(|text| text.strip_suffix('"'))
            .or_else(|| value.and_then(|value| value.strip_suffix('`')))
    });
    match number {
        Some(found) if is_mode => {
            let found = cut(found);
            return format!("`{found}` is not a file mode: use 0 to 0777 with the digits 0 to 7");
        }
        Some(found) if found.parse::<i64>().is_err() && found.parse::<f64>().is_err() => {
            return format!("`{}` is text: write a whole number", cut(found));
        }
        Some(found)
            if message.starts_with("invalid value") || found.len() > i64::MAX.to_string().len() =>
        {
            return format!("{} is too large or too small", cut(found));
        }
        Some(found) => return format!("`{}` is text: write it without quotes", cut(found)),
        None => {}
    }
    let word = message
        .strip_prefix("invalid type: string \"")
        .and_then(|rest| rest.strip_suffix("\", expected a boolean"));
    if let Some((word, means)) = word.and_then(|word| Some((word, truth(word)?))) {
        return format!("`{word}` is text, as in YAML 1.2: write `{means}` without quotes");
    }
    let help = match message {
        _ if !message.ends_with("expected a string") => "",
        _ if message.contains(": integer")
            || message.contains(": floating point")
            || message.contains(": boolean") =>
        {
            ": quote it"
        }
        _ => "",
    };
    format!("{}{help}", cut(message))
}

/// Removes an entry from its mapping.
fn remove(json: &mut Value, entry: &Field) -> bool {
    let Some((Step::Key(last), path)) = entry.steps().split_last() else {
        return false;
    };
    let holder = path.iter().try_fold(json, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(*index),
    });
    holder
        .and_then(Value::as_object_mut)
        .is_some_and(|entries| entries.remove(last).is_some())
}

/// Reports keys of the input that the typed object did not keep: they would have no effect.
fn unknown(
    input: &Value,
    kept: &Value,
    field: &Field,
    suggest: &mut dyn FnMut(&Field, &str) -> Option<&'static str>,
    scope: &mut Scope<'_>,
) {
    match (input, kept) {
        (Value::Object(input), Value::Object(kept)) => {
            for (key, value) in input {
                match kept.get(key) {
                    Some(kept) => unknown(value, kept, &field.key(key), suggest, scope),
                    None if value.is_null() => {}
                    None => {
                        let meant = suggest(field, key);
                        let meant = meant
                            .map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
                        let message = format!("unknown field `{}`{meant}", cut(key));
                        scope.wrong(&field.key(key), message);
                    }
                }
            }
        }
        (Value::Array(input), Value::Array(kept)) => {
            for (index, (value, kept)) in input.iter().zip(kept).enumerate() {
                unknown(value, kept, &field.index(index), suggest, scope);
            }
        }
        _ => {}
    }
}

/// Converts file modes to numbers. They are written in octal; YAML 1.1 reads `0644` as octal and YAML 1.2 does not.
fn octal_modes(json: &mut Value) {
    let pod = match json.pointer("/spec/template").is_some() {
        true => "/spec/template/spec/volumes",
        false => "/spec/volumes",
    };
    let mut left: Vec<&mut Value> = json.pointer_mut(pod).into_iter().collect();
    while let Some(value) = left.pop() {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    match value.as_str().filter(|_| is_mode(key)) {
                        Some(text) => {
                            if let Some(mode) = octal(text) {
                                *value = mode.into();
                            }
                        }
                        None => left.push(value),
                    }
                }
            }
            Value::Array(items) => left.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn is_mode(key: &str) -> bool {
    key == "defaultMode" || key == "mode"
}

fn octal(text: &str) -> Option<u32> {
    text.strip_prefix('0')
        .and_then(|digits| u32::from_str_radix(digits, 8).ok())
}

/// Removes the metadata that a user does not write, so that the output of `kubectl get -o yaml` can be applied.
fn tidy(metadata: &mut ObjectMeta) {
    let written = std::mem::take(metadata);
    *metadata = ObjectMeta {
        name: written.name,
        namespace: Some(match written.namespace {
            Some(namespace) if !namespace.is_empty() => namespace,
            Some(_) | None => "default".to_owned(),
        }),
        labels: written.labels.filter(|labels| !labels.is_empty()),
        annotations: written.annotations.and_then(|mut annotations| {
            annotations.remove(LAST_APPLIED);
            (!annotations.is_empty()).then_some(annotations)
        }),
        ..ObjectMeta::default()
    };
}
