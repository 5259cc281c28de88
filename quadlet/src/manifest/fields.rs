//! Every field of the API types that a manifest may have, and what it means here.
//!
//! Pure: no I/O, no clock, no randomness. The tables are the one place that says of a field whether it is right, right
//! by Beemesh's doing, refused, a warning, or without effect. Admission takes its warnings and refusals from them, and
//! `docs/kubernetes.md` its tables. A test walks the API types and fails if a field is in no row. Checks of values are
//! in other modules.

mod controllers;
mod data;
mod handlers;
mod metadata;
mod page;
mod pods;
mod scheduling;
mod security;
#[cfg(test)]
mod tests;
mod unkept;
mod volumes;

use beemesh_protocol::state::Kind;
use serde_json::{Value, json};

use super::{field::Field, findings::Scope, kinds::Written};

pub use page::tables;

/// The fields of one API type, in the places where they mean the same.
#[derive(Debug)]
struct Area {
    /// The name of the type in the API.
    api: &'static str,
    /// The heading of its table in the documentation; `None` if its fields are listed with those of the type around it.
    title: Option<&'static str>,
    rows: &'static [Row],
    /// The rows for all other fields of the type.
    base: Option<&'static Self>,
}

impl Area {
    fn row(&self, field: &str) -> Option<&'static Row> {
        let own = self.rows.iter().find(|row| row.field == field);
        own.or_else(|| self.base.and_then(|base| base.row(field)))
    }
}

/// One field.
#[derive(Debug)]
struct Row {
    field: &'static str,
    state: State,
    /// What the documentation adds to the state and its message.
    note: &'static str,
    /// The type of its value, unless the row speaks of all that is in the value.
    parts: Option<&'static Area>,
    /// `true` for a list of that type.
    is_list: bool,
}

/// What a field means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What Kubernetes says, and Podman alone does it.
    Right,
    /// What Kubernetes says, by Beemesh's doing; and the first version of Podman that does it alone.
    Ours(Option<&'static str>),
    /// The object is refused: without the field it would do something wrong.
    Refused(Said),
    /// A warning: the field has no effect. With `--strict` the object is refused.
    Warned(Said),
    /// A warning, also with `--strict`: every object of the kind has the field, and it has less effect than in
    /// Kubernetes.
    Advised(Said),
    /// No effect, and none is to be expected on a host of Beemesh.
    Idle,
}

/// The message about a field, and the values that it is not about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    /// Empty if another module has the message.
    words: &'static str,
    harmless: &'static [&'static str],
}

const fn row(field: &'static str, state: State, note: &'static str) -> Row {
    Row {
        field,
        state,
        note,
        parts: None,
        is_list: false,
    }
}

const fn right(field: &'static str, note: &'static str) -> Row {
    row(field, State::Right, note)
}

const fn ours(field: &'static str, note: &'static str) -> Row {
    row(field, State::Ours(None), note)
}

const fn ours_until(field: &'static str, podman: &'static str, note: &'static str) -> Row {
    row(field, State::Ours(Some(podman)), note)
}

const fn idle(field: &'static str, note: &'static str) -> Row {
    row(field, State::Idle, note)
}

const fn refused(field: &'static str, words: &'static str) -> Row {
    refused_but(field, words, &[])
}

const fn refused_but(
    field: &'static str,
    words: &'static str,
    harmless: &'static [&'static str],
) -> Row {
    row(field, State::Refused(Said { words, harmless }), "")
}

/// A field that another module refuses.
const fn refused_elsewhere(field: &'static str, note: &'static str) -> Row {
    Row {
        note,
        ..refused(field, "")
    }
}

const fn warned(field: &'static str, words: &'static str) -> Row {
    warned_but(field, words, &[])
}

const fn warned_but(
    field: &'static str,
    words: &'static str,
    harmless: &'static [&'static str],
) -> Row {
    row(field, State::Warned(Said { words, harmless }), "")
}

const fn advised(
    field: &'static str,
    words: &'static str,
    harmless: &'static [&'static str],
) -> Row {
    row(field, State::Advised(Said { words, harmless }), "")
}

impl Row {
    /// The value is of this type.
    const fn of(mut self, area: &'static Area) -> Self {
        self.parts = Some(area);
        self
    }

    /// The value is a list of this type.
    const fn each(mut self, area: &'static Area) -> Self {
        self.is_list = true;
        self.of(area)
    }

    /// The type of the value, if the row leaves its fields to their own rows.
    fn inner(&self) -> Option<&'static Area> {
        match self.state {
            State::Right | State::Ours(_) => self.parts,
            State::Refused(_) | State::Warned(_) | State::Advised(_) | State::Idle => None,
        }
    }
}

/// The table of a kind.
fn table(kind: Written) -> &'static Area {
    match kind {
        Written::Own(Kind::Pod) => &controllers::POD,
        Written::Own(Kind::Deployment) => &controllers::DEPLOYMENT,
        Written::ReplicaSet => &controllers::REPLICA_SET,
        Written::ReplicationController => &controllers::REPLICATION_CONTROLLER,
        Written::Own(Kind::DaemonSet) => &controllers::DAEMON_SET,
        Written::Own(Kind::Job) => &controllers::JOB,
        Written::Own(Kind::ConfigMap) => &data::CONFIG_MAP,
        Written::Own(Kind::Secret) => &data::SECRET,
        Written::Own(Kind::PersistentVolumeClaim) => &data::CLAIM,
        Written::Namespace => &unkept::NAMESPACE,
        Written::ServiceAccount => &unkept::SERVICE_ACCOUNT,
    }
}

/// Reports the fields of an object that are refused or have no effect.
pub(super) fn check(kind: Written, object: &Value, scope: &mut Scope<'_>) {
    fields(table(kind), object, &Field::default(), scope);
}

fn fields(area: &Area, value: &Value, at: &Field, scope: &mut Scope<'_>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        // Another module reports a field that the type does not have.
        let Some(row) = area.row(key).filter(|_| is_set(value)) else {
            continue;
        };
        let at = at.key(key);
        match row.state {
            State::Right | State::Ours(_) | State::Idle => {}
            State::Refused(said) if said.is_about(value) => {
                scope.refuse(at.clone(), said.words);
            }
            State::Warned(said) if said.is_about(value) => scope.not_done(&at, said.words),
            State::Advised(said) if said.is_about(value) => scope.advise(&at, said.words),
            State::Refused(_) | State::Warned(_) | State::Advised(_) => {}
        }
        let Some(inner) = row.inner() else { continue };
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    fields(inner, item, &at.index(index), scope);
                }
            }
            value => fields(inner, value, &at, scope),
        }
    }
}

/// Whether a value differs from that of a missing field.
fn is_set(value: &Value) -> bool {
    ![json!(null), json!([]), json!({}), json!("")].contains(value)
}

impl Said {
    /// Whether this module has a message about the value.
    fn is_about(&self, value: &Value) -> bool {
        let text = match value {
            Value::Object(entries) => match entries.get("type") {
                Some(Value::String(text)) => text.clone(),
                Some(_) | None => return !self.words.is_empty(),
            },
            Value::String(text) => text.clone(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
        };
        !self.words.is_empty() && !self.harmless.contains(&text.as_str())
    }
}
