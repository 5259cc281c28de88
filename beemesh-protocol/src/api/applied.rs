//! What an apply or a deletion did.
//!
//! Pure, like its parent.

use serde::{Deserialize, Serialize};

use super::{Problem, Workload};

/// The response to `POST /v1/apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The manifest's name; empty if the file has nothing but objects that have no effect, such as a Namespace.
    pub manifest: String,
    /// The log index at which it was committed; with `dryRun`, the index of the state that was used.
    pub index: u64,
    /// Nothing was changed: the response shows what an apply would change.
    pub dry_run: bool,
    /// With `wait`: whether all requested pods of every workload were ready, for the time that [`crate::rollout`]
    /// requires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<bool>,
    /// The objects in document order, then those that the manifest no longer has.
    pub objects: Vec<AppliedObject>,
    /// Warnings about the manifest.
    pub warnings: Vec<Problem>,
    /// With `wait`: the present state of the manifest's workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Vec<Workload>>,
}

/// The effect of an apply on one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedObject {
    /// Its kind, such as `Pod` or `ConfigMap`.
    pub kind: String,
    /// `NAME` or `NAMESPACE_NAME`.
    pub name: String,
    /// The effect.
    pub action: Action,
    /// The new revision of a workload; 0 for other kinds and for removed workloads.
    pub revision: u64,
}

/// The effect of a change on an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// The object is new.
    Created,
    /// Its content changed, or that of an object it refers to.
    Updated,
    /// The object was the same before.
    Unchanged,
    /// The manifest no longer has it.
    Removed,
    /// The applied file does not contain it, and it stays: `prune` would remove it.
    Kept,
}

/// The response to a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// The log index at which it was committed.
    pub index: u64,
    /// The removed workloads.
    pub removed: Vec<String>,
    /// With `wait`: whether all hosts have removed the workloads completely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<bool>,
    /// With `wait`: hosts that still have a part of them, or are unreachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
}
