//! The policy that manifests are checked against, in the form of the HTTP API.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The response to `GET /v1/policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// The number of changes so far; 0 is the default policy.
    pub version: u64,
    /// The log index of the latest change; 0 for the default.
    pub index: u64,
    /// When it was set, in milliseconds since 1970; 0 for the default.
    pub set_at_ms: u64,
    /// Each rule and its value.
    pub rules: Map<String, Value>,
    /// The same rules as YAML with one rule on each line, as `PUT /v1/policy` reads it.
    pub document: String,
}

/// The response to `PUT /v1/policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySet {
    /// The log index of the change.
    pub index: u64,
    /// The policy's version after the request. It is unchanged if the policy already had these rules.
    pub version: u64,
}
