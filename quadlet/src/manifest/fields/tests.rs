//! Compares the tables with the types of the API, by the names that each type gives its deserializer.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{
        ConfigMap, Namespace, PersistentVolumeClaim, Pod, ReplicationController, Secret,
        ServiceAccount,
    },
};
use serde::{
    Deserialize,
    de::{
        DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{Error, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{Area, State, Written, table};

/// A type: its fields, and the type of each field that has fields itself.
#[derive(Default)]
struct Known {
    fields: &'static [&'static str],
    inner: BTreeMap<&'static str, &'static str>,
}

type Types = RefCell<BTreeMap<&'static str, Known>>;

/// Gives a type a value for each of its fields, and remembers the names. A type is entered once.
#[derive(Clone, Copy)]
struct Walker<'a> {
    types: &'a Types,
    /// The type and field that the value is of.
    at: Option<(&'static str, &'static str)>,
    /// A text that the type around accepts.
    text: &'static str,
}

impl<'de> Deserializer<'de> for Walker<'_> {
    type Error = Error;

    /// Of the types that do not say what they expect, all accept a number.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i64(0)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut types = self.types.borrow_mut();
        if let Some((holder, field)) = self.at {
            types.entry(holder).or_default().inner.insert(field, name);
        }
        let is_new = types.get(name).is_none_or(|known| known.fields.is_empty());
        types.entry(name).or_default().fields = fields;
        drop(types);
        visitor.visit_map(Entries {
            walker: self,
            name,
            left: if is_new { fields } else { &[] },
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text = match name {
            "Time" | "MicroTime" => "2026-01-01T00:00:00Z",
            _ => self.text,
        };
        visitor.visit_newtype_struct(Walker { text, ..self })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(One(Some(self)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(One(Some(self)))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(true)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

/// The fields of a type.
struct Entries<'a> {
    walker: Walker<'a>,
    name: &'static str,
    left: &'static [&'static str],
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        // The values of these two are given for an object, and only texts elsewhere.
        while let [first, rest @ ..] = self.left {
            if !["apiVersion", "kind"].contains(first) {
                break;
            }
            self.left = rest;
        }
        let Some(first) = self.left.first() else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Error> = first.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let [field, rest @ ..] = self.left else {
            return Err(Error::custom("no field is left"));
        };
        self.left = rest;
        seed.deserialize(Walker {
            at: Some((self.name, field)),
            ..self.walker
        })
    }
}

/// One item of a list, or one entry of a map.
struct One<'a>(Option<Walker<'a>>);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0
            .take()
            .map(|walker| seed.deserialize(walker))
            .transpose()
    }
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.0.map(|walker| seed.deserialize(walker)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.0.take() {
            Some(walker) => seed.deserialize(walker),
            None => Err(Error::custom("no entry is left")),
        }
    }
}

/// All types below `T`.
fn walk<'de, T: Deserialize<'de>>(types: &Types) {
    let walker = Walker {
        types,
        at: None,
        text: "AAAA",
    };
    drop(T::deserialize(walker).expect("each type accepts the values"));
}

fn types() -> BTreeMap<&'static str, Known> {
    let types = Types::default();
    walk::<Pod>(&types);
    walk::<Deployment>(&types);
    walk::<ReplicaSet>(&types);
    walk::<ReplicationController>(&types);
    walk::<DaemonSet>(&types);
    walk::<Job>(&types);
    walk::<ConfigMap>(&types);
    walk::<Secret>(&types);
    walk::<PersistentVolumeClaim>(&types);
    walk::<Namespace>(&types);
    walk::<ServiceAccount>(&types);
    types.into_inner()
}

/// What is wrong with the tables.
#[derive(Default)]
struct Faults {
    found: BTreeSet<String>,
    seen: BTreeSet<usize>,
}

impl Faults {
    fn check(&mut self, area: &'static Area, types: &BTreeMap<&'static str, Known>) {
        if !self.seen.insert(std::ptr::from_ref(area).addr()) {
            return;
        }
        let name = area.api;
        let Some(known) = types.get(name) else {
            self.found.insert(format!("{name}: no type has this name"));
            return;
        };
        if area.base.is_some_and(|base| base.api != name) {
            self.found
                .insert(format!("{name}: its base is of another type"));
        }
        for (index, row) in area.rows.iter().enumerate() {
            if !known.fields.contains(&row.field) {
                self.found
                    .insert(format!("{name}.{}: the type has no such field", row.field));
            }
            if area.rows[..index]
                .iter()
                .any(|other| other.field == row.field)
            {
                self.found
                    .insert(format!("{name}.{}: is in two rows", row.field));
            }
            if matches!(row.state, State::Idle) && row.note.is_empty() {
                self.found.insert(format!(
                    "{name}.{}: why it has no effect is missing",
                    row.field
                ));
            }
        }
        for field in known.fields {
            let Some(row) = area.row(field) else {
                self.found.insert(format!("{name}.{field}: is in no row"));
                continue;
            };
            let whole = !matches!(row.state, State::Right | State::Ours(_));
            match (row.inner(), known.inner.get(field)) {
                _ if whole => {}
                (None, None) => {}
                (None, Some(inner)) => {
                    self.found.insert(format!(
                        "{name}.{field}: the fields of {inner} are in no row"
                    ));
                }
                (Some(inner), of) if of != Some(&inner.api) => {
                    self.found
                        .insert(format!("{name}.{field}: is no {}", inner.api));
                }
                (Some(inner), _) => self.check(inner, types),
            }
        }
    }
}

#[test]
fn every_field_of_the_api_is_in_a_row_and_every_row_names_a_field() {
    let types = types();
    assert!(types.len() > 100, "the walk ended early: {}", types.len());
    for (name, fields) in [("Container", 24), ("PodSpec", 40), ("Volume", 30)] {
        assert!(types[name].fields.len() >= fields, "{name}");
    }
    let mut faults = Faults::default();
    for kind in Written::ALL {
        faults.check(table(kind), &types);
    }
    let found: Vec<_> = faults.found.into_iter().collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_field_without_a_row_and_a_row_without_a_field_are_found() {
    static SHORT: Area = Area {
        api: "VolumeMount",
        title: None,
        rows: &[super::right("nme", "")],
        base: None,
    };
    let mut faults = Faults::default();
    faults.check(&SHORT, &types());
    assert_eq!(faults.found.len(), 8, "{:?}", faults.found);
    assert!(
        faults
            .found
            .contains("VolumeMount.nme: the type has no such field")
    );
    assert!(faults.found.contains("VolumeMount.subPath: is in no row"));
}

#[test]
fn messages_say_what_to_know_and_states_have_them() {
    let text = super::tables();
    for words in [
        "| `enableServiceLinks` | no effect |",
        "`containers[]`",
        "| refused |",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    assert!(
        !text.contains("| refused |  |") && !text.contains("| warning |  |"),
        "{text}"
    );
}
