//! Objects before and after an apply.
//!
//! Pure, like its parent.

use serde::{Deserialize, Serialize};

use super::{AppliedObject, Problem};

/// The response to `POST /v1/apply?dryRun=true&diff=true`: what an apply would change, with the content of the objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// The manifest's name; empty if the file has nothing but objects that have no effect.
    pub manifest: String,
    /// The log index of the state that was used.
    pub index: u64,
    /// Always true.
    pub dry_run: bool,
    /// The objects in the order of [`super::Applied::objects`].
    pub objects: Vec<ComparedObject>,
    /// Warnings about the manifest.
    pub warnings: Vec<Problem>,
}

/// An object before and after an apply.
///
/// Both texts are YAML of the canonical form. They have no value of a Secret, but `hmac-sha256:` and twelve hexadecimal
/// digits, which depend on the value and on a key of this response: equal digits of one key of the Secret, before and
/// after, are an equal value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComparedObject {
    /// The effect of the apply.
    #[serde(flatten)]
    pub effect: AppliedObject,
    /// The object that the cluster has; `None` if it has none.
    pub before: Option<String>,
    /// The object that the cluster would have; `None` if the apply would remove it.
    pub after: Option<String>,
}
