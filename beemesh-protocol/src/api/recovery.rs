//! What `beemesh-agent recover` and the gateway of its host say to each other.
//!
//! Pure: shapes only.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, HostId};

/// The answer to `GET /v1/recovery`: what a cluster of this one host would begin with, and what it may lack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// The cluster that would end on this host; absent while it is in none.
    pub cluster: Option<ClusterId>,
    /// What `POST /v1/recovery` must repeat: the first digits of the cluster's id.
    pub confirm: String,
    /// The answering host's name.
    pub host: String,
    /// Why there can be no recovery now, in words for a person; absent when there can be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// The term in which the last entry of this host's log was written.
    pub last_term: u64,
    /// Its index. Other hosts may have agreed on more.
    pub last_index: u64,
    /// The last index that this host knows to be committed.
    pub committed: u64,
    /// The last index it has applied.
    pub applied: u64,
    /// Names of the hosts that vote.
    pub voters: Vec<String>,
    /// The members that would be none any more, by name.
    pub cut_off: Vec<CutOff>,
}

/// A member that a recovery cuts off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    /// Its name.
    pub name: String,
    /// Its key.
    pub id: HostId,
    /// Whether the answering host reaches it now.
    pub reachable: bool,
}

/// The body of `POST /v1/recovery`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryBody {
    /// [`Recovery::confirm`], or the whole id of the cluster.
    pub confirm: String,
}

/// The answer to `POST /v1/recovery`: it is decided, and the gateway begins again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovering {
    /// The new cluster.
    pub cluster: ClusterId,
}
