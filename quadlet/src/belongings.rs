//! Names of the Podman volumes and secrets of workloads, and the owner of each name.
//!
//! Pure: no I/O, no clock, no randomness. Podman has one name space for the whole host, and users choose the names of
//! workloads, namespaces and objects. A user's name consists of lower-case letters, digits, `-` and `.`, and begins and
//! ends with a letter or a digit. A workload's name may also contain one `_`. So `__` separates the parts of a name and
//! never occurs within a part, and no user can write the part `OWN`:
//!
//! ```text
//! beemesh__OWN__WORKLOAD__e__VOLUME            an emptyDir of a workload
//! beemesh__OWN__WORKLOAD__m__VOLUME__OPTIONS   an emptyDir in memory, with its size and group
//! beemesh__OWN__WORKLOAD__c__CONFIGMAP__HASH   a ConfigMap as a workload sees it
//! beemesh__OWN__WORKLOAD__s__SECRET__HASH      a Secret as a workload sees it
//! beemesh__pvc__NAMESPACE__CLAIM               a claim of a namespace, in every release
//! ```
//!
//! `WORKLOAD` is the name of a pod, which may end in `__` and a number beside other pods of its workload. No part after it
//! is a number, so the names of one pod are never those of another one.
//!
//! `HASH` is the SHA-256 of all input that determines the content. Podman writes the files of a ConfigMap or Secret
//! into the volume of that name without looking at the volume's content, so two contents must never share a volume.
//! Release 0.2.0 wrote `beemesh__WORKLOAD__…` with short hashes, so the names of a workload called `pvc` began with the
//! prefix of claims. Of such names, only those that cannot belong to a claim count as leftovers.

use beemesh_protocol::{
    hex::Hex,
    workload::{is_label, is_name},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The prefix of the names of all volumes and secrets of Beemesh.
pub const OURS: &str = "beemesh__";

/// The longest secret name that Podman accepts. A volume's name is a folder name, which may have two bytes more.
const NAME_BYTES_MAX: usize = 253;

/// The prefix of the names of all volumes and secrets that belong to this workload alone.
#[must_use]
pub fn private_prefix(workload: &str) -> String {
    format!("{OURS}OWN__{workload}__")
}

/// The volume of a workload's `emptyDir`.
pub(crate) fn empty_dir(workload: &str, volume: &str) -> String {
    format!("{}e__{volume}", private_prefix(workload))
}

/// The volume of a workload's `emptyDir` in memory. Podman keeps the options of a volume that exists, so a volume with
/// other options has another name. Both are at most 20 digits, so the name is never too long.
pub(crate) fn memory(
    workload: &str,
    volume: &str,
    size: Option<u64>,
    group: Option<u32>,
) -> String {
    let size = size.map_or_else(|| "max".to_owned(), |size| size.to_string());
    let group = group.map_or_else(String::new, |group| format!("-{group}"));
    format!("{}m__{volume}__{size}{group}", private_prefix(workload))
}

/// The prefix of the names of all volumes of claims.
const CLAIMS: &str = "beemesh__pvc__";

/// The volume of a claim.
pub(crate) fn claim(namespace: &str, name: &str) -> String {
    format!("{CLAIMS}{namespace}__{name}")
}

/// `true` for the volume of a claim.
pub(crate) fn is_claim(volume: &str) -> bool {
    volume.starts_with(CLAIMS)
}

/// Content that Podman turns into files or variables of a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    /// `c` for a ConfigMap, `s` for a Secret.
    pub(crate) letter: char,
    pub(crate) name: &'a str,
    pub(crate) body: &'a [u8],
}

impl Content<'_> {
    /// The volume or secret of a workload that holds this content, seen through `view`. The object's name only helps
    /// people who read the list, so the function may cut a long one: the hash covers the whole name.
    pub(crate) fn private_name(&self, workload: &str, view: &impl Serialize) -> String {
        let begin = format!("{}{}__", private_prefix(workload), self.letter);
        let hash = self.hash(view);
        let room = NAME_BYTES_MAX.saturating_sub(begin.len() + "__".len() + hash.len());
        let shown: String = self.name.chars().take(room).collect();
        format!("{begin}{shown}__{hash}")
    }

    fn hash(&self, view: &impl Serialize) -> String {
        // The JSON text marks its own end, so the bytes after it cannot be read as a part of it.
        let head = serde_json::to_vec(&(self.letter, self.name, view)).unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(head);
        hash.update(self.body);
        Hex(&hash.finalize()).to_string()
    }
}

/// Returns true if a volume or secret of this name belongs to this pod alone. It is then removed with the pod.
#[must_use]
pub fn belongs_to(name: &str, pod: &str) -> bool {
    let own = name.strip_prefix(&private_prefix(pod));
    own.is_some_and(|rest| !is_of_another_pod(rest)) || is_leftover(name, pod)
}

/// Returns true if this rest of a name, behind the name of a pod, begins with the number of another pod of the workload.
fn is_of_another_pod(rest: &str) -> bool {
    let number = rest.split_once("__").map(|(number, _)| number);
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether release 0.2.0 gave this name to a volume or secret that belonged to the workload alone.
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
