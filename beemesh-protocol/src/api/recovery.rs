//! Messages between `beemesh-agent recover` and the gateway of its host.
//!
//! Pure: types only.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, HostId};

/// The response to `GET /v1/recovery`: the state with which a cluster of this one host would begin, and the data that
/// it may lack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// The cluster that the recovery would end on this host; absent if the host is in no cluster.
    pub cluster: Option<ClusterId>,
    /// The text that `POST /v1/recovery` must repeat: the first digits of the cluster's id.
    pub confirm: String,
    /// The answering host's name.
    pub host: String,
    /// Why recovery is impossible now, as a message; absent if it is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// The term of the last entry in this host's log.
    pub last_term: u64,
    /// The index of that entry. Other hosts may have committed later entries.
    pub last_index: u64,
    /// The last index that this host knows to be committed.
    pub committed: u64,
    /// The last index that this host has applied.
    pub applied: u64,
    /// Names of the voters.
    pub voters: Vec<String>,
    /// The members that the recovery would remove, by name.
    pub cut_off: Vec<CutOff>,
}

/// A member that a recovery removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    /// Its identity key.
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

/// The answer to `POST /v1/recovery`: the recovery is durable, and the gateway restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovering {
    /// The new cluster.
    pub cluster: ClusterId,
}
