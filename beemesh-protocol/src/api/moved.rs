//! Where a pod was before.
//!
//! Pure: types.

use serde::{Deserialize, Serialize};

/// The last move of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MovedFrom {
    /// The name of the host that had it before.
    pub host: String,
    /// Why it moved.
    pub why: MoveReason,
    /// When it moved, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Why a pod moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MoveReason {
    /// The cluster had given its host up.
    Lost,
    /// Its host was unreachable for as long as the workload says.
    Unreachable,
    /// Its host was drained.
    Drained,
    /// Its host no longer matched.
    Unfit,
}

impl MoveReason {
    /// The reason as a clause after the name of the host: `h2, which was lost`.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Lost => "which was lost",
            Self::Unreachable => "which was unreachable",
            Self::Drained => "which was drained",
            Self::Unfit => "which no longer matched",
        }
    }
}
