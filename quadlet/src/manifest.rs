//! Reads a YAML file into checked objects, or into every problem it has.
//!
//! Pure: no I/O, no clock, no randomness. Input: the bytes a user sent. Output: [`Object`]s in canonical form, as they
//! are replicated, hashed and played. Time and memory are bounded whatever the bytes are.

mod admission;
mod demands;
pub(crate) use demands::ports_of;
pub use demands::{Demand, Demanded, KeyOf, Keys, Port, Protocol, demands};
mod documents;
mod field;
mod findings;
mod ignored;
mod known_fields;
mod mounts;
pub(crate) mod names;
pub use beemesh_protocol::workload::{is_name, workload_name};
mod outline;
mod pod;
pub mod policy;
pub(crate) mod quantity;
mod ranges;
mod references;
pub(crate) mod resources;
mod typed;
mod values;

use beemesh_protocol::state::{Kind, Object};
use policy::Rules;
use serde::{Deserialize, Serialize};

/// A longer file is refused unread: it is replicated as one log entry.
pub const BYTES_MAX: usize = 1 << 20;

/// Documents in one file.
pub const DOCUMENTS_MAX: usize = 64;

/// Something in a manifest that is wrong, or that will not be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The document, counted from 1; 0 is the file as a whole.
    pub document: u32,
    /// The line in the file, counted from 1; 0 is unknown.
    pub line: u32,
    /// The field, as in `spec.containers[0].image`; empty is the document as a whole.
    pub field: String,
    /// What is wrong, and what to do where that is not plain.
    pub message: String,
}

/// Where an object stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The document, counted from 1.
    pub document: u32,
    /// The line it begins on, counted from 1.
    pub line: u32,
}

/// A file that was accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its objects, in document order.
    pub objects: Vec<Object>,
    /// One per object.
    pub places: Vec<Place>,
    /// What each needs of others, one list per object.
    pub demands: Vec<Vec<Demanded>>,
    /// What was accepted but will not be done.
    pub warnings: Vec<Problem>,
}

/// Reads a file: every object of it, or every problem.
///
/// `strict` makes a problem of whatever would not be done: a kind that nobody plays, a field that Podman ignores.
///
/// # Errors
///
/// Every problem of the file.
pub fn parse(yaml: &[u8], strict: bool) -> Result<Manifest, Vec<Problem>> {
    parse_under(yaml, strict, None)
}

/// The same under the policy of a cluster: what it refuses is a problem of the file, too.
///
/// # Errors
///
/// Every problem of the file.
pub fn parse_under(
    yaml: &[u8],
    strict: bool,
    rules: Option<&Rules>,
) -> Result<Manifest, Vec<Problem>> {
    if yaml.len() > BYTES_MAX {
        let message = format!(
            "the file has {} bytes, at most {BYTES_MAX} are accepted",
            yaml.len()
        );
        return Err(of_file(0, message));
    }
    read(yaml, strict, rules)
}

fn of_file(line: u32, message: String) -> Vec<Problem> {
    vec![Problem {
        document: 0,
        line,
        field: String::new(),
        message,
    }]
}

fn read(yaml: &[u8], strict: bool, rules: Option<&Rules>) -> Result<Manifest, Vec<Problem>> {
    let text = match std::str::from_utf8(yaml) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let before = yaml.iter().take(error.valid_up_to());
            let lines = before.filter(|byte| **byte == b'\n').count();
            return Err(of_file(
                u32::try_from(lines).unwrap_or(0) + 1,
                "not UTF-8 text".to_owned(),
            ));
        }
    };
    documents::read(text, strict, rules)
}

/// Reads objects again that were read before, by their canonical JSON: all of one manifest, or every problem.
///
/// # Errors
///
/// They are not what [`parse_under`] would accept, but for the length of the file that they came in.
pub fn reread(bodies: &[&[u8]], rules: Option<&Rules>) -> Result<Manifest, Vec<Problem>> {
    let mut list = br#"{"apiVersion":"v1","kind":"List","items":["#.to_vec();
    list.extend(bodies.join(&b","[..]));
    list.extend(b"]}");
    read(&list, false, rules)
}

/// Whether objects of this kind run.
#[must_use]
pub fn is_workload(kind: Kind) -> bool {
    match kind {
        Kind::Pod | Kind::Deployment | Kind::DaemonSet | Kind::Job => true,
        Kind::ConfigMap | Kind::Secret | Kind::PersistentVolumeClaim => false,
    }
}

/// The kind as YAML writes it.
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

/// The kind that YAML writes so, if Beemesh keeps it.
#[must_use]
pub fn kind_from_name(name: &str) -> Option<Kind> {
    [
        Kind::Pod,
        Kind::Deployment,
        Kind::DaemonSet,
        Kind::Job,
        Kind::ConfigMap,
        Kind::Secret,
        Kind::PersistentVolumeClaim,
    ]
    .into_iter()
    .find(|kind| kind_name(*kind) == name)
}
