//! The variables of one container, and texts that refer to them.
//!
//! Pure: no I/O, no clock, no randomness.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceFieldSelector;

use crate::manifest::expansion::{self, Piece};

/// The longest text that the kernel passes to a program, with the name and a zero byte.
pub(super) const TEXT_MAX: usize = (128 << 10) - 1;

/// The value of a variable.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// It may be read by everyone who may read the pod.
    Plain(String),
    /// That of a key of a Secret.
    Secret {
        name: String,
        key: String,
        bytes: Vec<u8>,
    },
    /// Made of values of Secrets.
    Made(Vec<u8>),
    /// A resource of the host.
    OfHost(ResourceFieldSelector),
}

/// Why a text cannot be expanded.
pub(super) enum Fault<'a> {
    /// It refers to a resource of the host.
    OfHost(&'a str),
    /// The result is too long.
    TooLong,
}

impl Value {
    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Secret { bytes, .. } | Self::Made(bytes) => bytes.len(),
            Self::OfHost(_) => 0,
        }
    }
}

/// The variables of a container, in the order of their first places.
#[derive(Debug, Default)]
pub(super) struct Variables {
    names: Vec<String>,
    values: BTreeMap<String, Value>,
}

impl Variables {
    pub(super) fn set(&mut self, name: String, value: Value) {
        if self.values.insert(name.clone(), value).is_none() {
            self.names.push(name);
        }
    }

    /// The value of a text with references. A reference to no variable stays as it is.
    pub(super) fn expand<'t>(&self, text: &'t str) -> Result<Value, Fault<'t>> {
        let pieces = expansion::pieces(text);
        if let [Piece::Variable(name)] = pieces.as_slice()
            && let Some(value @ Value::Secret { .. }) = self.values.get(*name)
        {
            return Ok(value.clone());
        }
        let mut whole = Vec::with_capacity(text.len());
        let mut is_secret = false;
        for piece in pieces {
            match piece {
                Piece::Text(text) => whole.extend(text.bytes()),
                Piece::Variable(name) => match self.values.get(name) {
                    Some(Value::Plain(value)) => whole.extend(value.bytes()),
                    Some(Value::Secret { bytes, .. } | Value::Made(bytes)) => {
                        whole.extend(bytes);
                        is_secret = true;
                    }
                    Some(Value::OfHost(_)) => return Err(Fault::OfHost(name)),
                    None => whole.extend(format!("$({name})").bytes()),
                },
            }
            if whole.len() > TEXT_MAX {
                return Err(Fault::TooLong);
            }
        }
        Ok(match is_secret {
            true => Value::Made(whole),
            false => Value::Plain(String::from_utf8_lossy(&whole).into_owned()),
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The variables with their values, in order.
    pub(super) fn into_pairs(mut self) -> impl Iterator<Item = (String, Value)> {
        self.names.into_iter().filter_map(move |name| {
            let value = self.values.remove(&name)?;
            Some((name, value))
        })
    }
}

impl FromIterator<(String, Value)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(pairs: I) -> Self {
        let mut variables = Self::default();
        for (name, value) in pairs {
            variables.set(name, value);
        }
        variables
    }
}
