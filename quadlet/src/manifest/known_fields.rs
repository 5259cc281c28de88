//! Finds the known fields of a type at a path of its input, and the one that a misspelt key may mean.
//!
//! Pure: no I/O, no clock, no randomness. A type names its fields only to the deserializer that reads it. So this
//! module reads the input once more, with a deserializer that remembers them.

use std::cell::Cell;

use serde::{
    de::{
        DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Value};

use super::{field::Step, typed::from_any};

/// The least similarity of a misspelt key and the field that it may mean. 1 means equal, 0 means nothing in common.
const SIMILAR: f64 = 0.7;

/// The field of `T` at `path` of `input` that `key` may be a misspelling of.
pub(super) fn nearest<T: DeserializeOwned>(
    input: &Value,
    path: &[Step],
    key: &str,
) -> Option<&'static str> {
    let known = Cell::new(None);
    let reader = Reader {
        value: input,
        path: Some(path),
        known: &known,
    };
    // A later value may have the wrong type. By then the fields are known, or there is nothing to suggest.
    drop(from_any::<T>(reader));
    let key = key.to_ascii_lowercase();
    let likeness =
        |field: &str| strsim::normalized_damerau_levenshtein(&key, &field.to_ascii_lowercase());
    let likely = known.get()?.iter().map(|field| (likeness(field), *field));
    likely
        .filter(|(likeness, _)| *likeness >= SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, field)| field)
}

/// Reads a value and remembers the fields of the struct at the end of `path`.
struct Reader<'a> {
    value: &'a Value,
    /// The rest of the path; `None` outside of it.
    path: Option<&'a [Step]>,
    known: &'a Cell<Option<&'static [&'static str]>>,
}

impl<'a> Reader<'a> {
    fn child(&self, value: &'a Value, is_next: impl Fn(&Step) -> bool) -> Self {
        let rest = self.path.and_then(<[Step]>::split_first);
        Reader {
            value,
            path: rest.filter(|(step, _)| is_next(step)).map(|(_, rest)| rest),
            known: self.known,
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_str(text),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_i64(value),
                (_, Some(value), _) => visitor.visit_u64(value),
                (.., Some(value)) => visitor.visit_f64(value),
                _ => Err(Error::custom("no number")),
            },
            Value::Array(items) => {
                let item = |(index, value)| self.child(value, |step| *step == Step::Index(index));
                visitor.visit_seq(SeqDeserializer::new(items.iter().enumerate().map(item)))
            }
            Value::Object(entries) => {
                let entry = |(key, value): (&String, _)| {
                    let is_next = |step: &Step| matches!(step, Step::Key(next) if next == key);
                    (key.clone(), self.child(value, is_next))
                };
                visitor.visit_map(MapDeserializer::new(entries.iter().map(entry)))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.path.is_some_and(<[Step]>::is_empty) {
            self.known.set(Some(fields));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map enum
        identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Reader<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Step {
        Step::Key(name.to_owned())
    }

    #[test]
    fn a_misspelt_field_is_recognized_where_it_stands() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"imge": "a", "ports": [{"hostport": 1}]}]}});
        let container = [key("spec"), key("containers"), Step::Index(1)];
        let port = [&container[..], &[key("ports"), Step::Index(0)]].concat();
        for (path, key, expected) in [
            (&container[..], "imge", Some("image")),
            (&container, "Command", Some("command")),
            (&container, "readynessProbe", Some("readinessProbe")),
            (&container, "nodeSelector", None),
            (&port, "hostport", Some("hostPort")),
            (&container[..1], "containrs", Some("containers")),
            (&container[..0], "metdata", Some("metadata")),
            (&[Step::Index(7)], "image", None),
        ] {
            assert_eq!(nearest::<Pod>(&pod, path, key), expected, "{path:?} {key}");
        }
        let replicas = json!({"spec": {"replcas": 1}});
        let found = nearest::<Deployment>(&replicas, &[key("spec")], "replcas");
        assert_eq!(found, Some("replicas"));
    }

    #[test]
    fn a_value_of_the_wrong_type_ends_the_search_without_a_suggestion() {
        let pod = json!({"spec": {"containers": 7, "volumes": [{"nme": 1}]}});
        let volume = [key("spec"), key("volumes"), Step::Index(0)];
        assert_eq!(nearest::<Pod>(&pod, &volume, "nme"), None);
        assert_eq!(nearest::<Pod>(&json!(null), &[], "x"), None);
    }
}
