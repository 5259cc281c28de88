//! Names of the Podman volumes and secrets that workloads have, and whose a name is.
//!
//! Pure: no I/O, no clock, no randomness. Podman has one space of names for the whole host, and users choose the names of
//! workloads, namespaces and objects. What users choose holds lower-case letters, digits, `-` and `.`, and begins and ends
//! with a letter or a digit; a workload's name has one `_` more at most. So `__` stands between the parts of a name and
//! never in a part, and no user can write the part `OWN`:
//!
//! ```text
//! beemesh__OWN__WORKLOAD__e__VOLUME            an emptyDir of a workload
//! beemesh__OWN__WORKLOAD__c__CONFIGMAP__HASH   a ConfigMap as a workload sees it
//! beemesh__OWN__WORKLOAD__s__SECRET__HASH      the same of a Secret
//! beemesh__pvc__NAMESPACE__CLAIM               a claim, which all workloads of a namespace share; as in every release
//! ```
//!
//! `HASH` is the SHA-256 of all that determines the content. Podman writes the files of a ConfigMap or Secret into the
//! volume of that name, whatever is in it, so two contents must never meet in one. Release 0.2.0 wrote
//! `beemesh__WORKLOAD__…` with short hashes, so that a workload called `pvc` had the claims' prefix: of such names only
//! those count as leftovers that cannot be a claim's.

use beemesh_protocol::{
    hex::Hex,
    workload::{is_label, is_name},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// What the names of all volumes and secrets of Beemesh begin with.
pub const OURS: &str = "beemesh__";

/// Podman takes names of secrets up to this length. A volume's name is a folder's, which may have two bytes more.
const NAME_BYTES_MAX: usize = 253;

/// What the names of all volumes and secrets that belong to this workload alone begin with.
#[must_use]
pub fn private_prefix(workload: &str) -> String {
    format!("{OURS}OWN__{workload}__")
}

/// The volume of a workload's `emptyDir`.
pub(crate) fn empty_dir(workload: &str, volume: &str) -> String {
    format!("{}e__{volume}", private_prefix(workload))
}

/// The volume of a claim.
pub(crate) fn claim(namespace: &str, name: &str) -> String {
    format!("{OURS}pvc__{namespace}__{name}")
}

/// What becomes files or variables of a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    /// `c` for a ConfigMap, `s` for a Secret.
    pub(crate) letter: char,
    /// The object's name.
    pub(crate) name: &'a str,
    /// The object.
    pub(crate) body: &'a [u8],
}

impl Content<'_> {
    /// The volume or secret of this content, seen like `view`, of a workload. The object's name is there for people to
    /// read, so that a long one may be cut: the hash has it, too.
    pub(crate) fn private_name(&self, workload: &str, view: &impl Serialize) -> String {
        let begin = format!("{}{}__", private_prefix(workload), self.letter);
        let hash = self.hash(view);
        let room = NAME_BYTES_MAX.saturating_sub(begin.len() + "__".len() + hash.len());
        let shown: String = self.name.chars().take(room).collect();
        format!("{begin}{shown}__{hash}")
    }

    fn hash(&self, view: &impl Serialize) -> String {
        // A JSON text ends where it ends: what follows cannot be taken for a part of it.
        let head = serde_json::to_vec(&(self.letter, self.name, view)).unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(head);
        hash.update(self.body);
        Hex(&hash.finalize()).to_string()
    }
}

/// Whether a volume or secret of this name belongs to the workload alone, so that it goes when the workload does.
#[must_use]
pub fn belongs_to(name: &str, workload: &str) -> bool {
    name.starts_with(&private_prefix(workload)) || is_leftover(name, workload)
}

/// Whether release 0.2.0 has given the name to something of the workload alone.
fn is_leftover(name: &str, workload: &str) -> bool {
    let Some(rest) = name
        .strip_prefix(OURS)
        .and_then(|rest| rest.strip_prefix(workload))
        .and_then(|rest| rest.strip_prefix("__"))
    else {
        return false;
    };
    let parts: Vec<&str> = rest.split("__").collect();
    match parts.as_slice() {
        // The claim VOLUME of namespace `e` has this name, too.
        ["e", _] if workload == "pvc" => false,
        ["e", volume] => is_label(volume),
        ["c" | "s", object, hash] => is_name(object) && is_hex(hash, 12),
        ["c" | "s", object, hash, view] => is_name(object) && is_hex(hash, 12) && is_hex(view, 8),
        _ => false,
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
