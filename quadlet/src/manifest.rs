//! Parses a YAML file into checked objects, or into all its problems.
//!
//! Pure: no I/O, no clock, no randomness. Input: the bytes that a user sent. Output: [`Object`]s in canonical form, in
//! which Beemesh replicates, hashes and plays them. Time and memory are bounded for any input.

mod admission;
pub(crate) mod annotations;
mod block;
pub(crate) use block::is_misread;
mod combined;
mod demands;
pub(crate) use demands::ports_of;
pub use demands::{Demand, Demanded, KeyOf, Keys, Port, Protocol, demands};
pub(crate) use requests::of as requests_of;
pub use requests::{Beyond, Cores, Room};
mod scheduling;
pub use scheduling::{HostTerm, Labels, Operator, PodTerm, Requirement, Scheduling, Spread};
mod documents;
pub(crate) mod environment;
pub(crate) mod expansion;
mod failover;
mod field;
pub mod fields;
mod findings;
mod identity;
pub(crate) use identity::{RunAs, fully_qualified, sysctl_name};
mod kinds;
pub use kinds::{as_written, is_workload, kind_name, kind_of, only_counts};
mod known_fields;
mod mounts;
pub(crate) mod names;
pub use beemesh_protocol::workload::{is_name, workload_name};
mod object_name;
mod outline;
mod pod;
pub(crate) use pod::is_sidecar;
pub mod policy;
pub(crate) mod quantity;
mod ranges;
mod references;
mod requests;
pub(crate) mod resources;
mod secrets;
mod selectors;
mod stopped;
pub use failover::{DATA, Failover, RESCHEDULE_AFTER, Reschedule, SINGLETON, asks_to_be_single};
pub use stopped::{STOPPED, is_stopped};
pub mod timestamp;
mod typed;
pub(crate) use typed::from_any;
mod values;
mod versions;
mod volumes;
pub(crate) use volumes::{below, clean_path};

use beemesh_protocol::state::Object;
use findings::Findings;
use policy::Rules;
use serde::{Deserialize, Serialize};

/// The largest file in bytes. A larger one is refused unread, because a manifest is replicated as one log entry.
pub const BYTES_MAX: usize = 1 << 20;

/// The largest number of documents in one file.
pub const DOCUMENTS_MAX: usize = 64;

/// A fault of a manifest, or a part of it that has no effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The document, counted from 1; 0 means the whole file.
    pub document: u32,
    /// The line in the file, counted from 1; 0 means unknown.
    pub line: u32,
    /// The field, as in `spec.containers[0].image`; empty means the whole document.
    pub field: String,
    /// What is wrong, and what to do about it unless that is obvious.
    pub message: String,
}

/// The position of an object in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The document, counted from 1.
    pub document: u32,
    /// The line it begins on, counted from 1.
    pub line: u32,
}

/// A file that passed all checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its objects, in document order.
    pub objects: Vec<Object>,
    /// The position of each object.
    pub places: Vec<Place>,
    /// The demands of each object, one list per object.
    pub demands: Vec<Vec<Demanded>>,
    /// Warnings about parts that have no effect.
    pub warnings: Vec<Problem>,
}

/// Parses a file into all its objects, or into all its problems.
///
/// `strict` turns warnings about parts without effect into problems: a kind that Beemesh does not support, or a field
/// that Podman ignores.
///
/// # Errors
///
/// Every problem of the file.
pub fn parse(yaml: &[u8], strict: bool) -> Result<Manifest, Vec<Problem>> {
    parse_under(yaml, strict, None)
}

/// Parses a file like [`parse`] and also checks it against the policy of a cluster: a violation is a problem of the
/// file.
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
    read(yaml, Findings::new(strict), rules)
}

fn of_file(line: u32, message: String) -> Vec<Problem> {
    vec![Problem {
        document: 0,
        line,
        field: String::new(),
        message,
    }]
}

fn read(yaml: &[u8], findings: Findings, rules: Option<&Rules>) -> Result<Manifest, Vec<Problem>> {
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
    documents::read(text, findings, rules)
}

/// Parses objects again from the canonical JSON of an earlier parse: all objects of one manifest, or all problems.
///
/// That parse may be of an earlier release. Fields that mean something else here than in Kubernetes are therefore no
/// problems.
///
/// # Errors
///
/// [`parse_under`] would refuse the objects. The limit on the length of a file does not apply.
pub fn reread(bodies: &[&[u8]], rules: Option<&Rules>) -> Result<Manifest, Vec<Problem>> {
    let mut list = br#"{"apiVersion":"v1","kind":"List","items":["#.to_vec();
    let written: Vec<_> = bodies.iter().map(|body| as_written(body)).collect();
    list.extend(written.join(&b","[..]));
    list.extend(b"]}");
    read(&list, Findings::of_admitted(), rules)
}
