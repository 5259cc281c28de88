//! The policy that manifests are checked by, as the HTTP API shows and takes it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The answer to `GET /v1/policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Counts up with every change; 0 is the default, which nobody has set.
    pub version: u64,
    /// The log index that set it; 0 for the default.
    pub index: u64,
    /// When that was, in milliseconds since 1970; 0 for the default.
    pub set_at_ms: u64,
    /// Each rule and its value.
    pub rules: Map<String, Value>,
    /// The same as YAML with one rule on each line, as `PUT /v1/policy` takes it.
    pub document: String,
}

/// The answer to `PUT /v1/policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySet {
    /// The log index of the change.
    pub index: u64,
    /// The policy's version now; the one before when it had these rules already.
    pub version: u64,
}
