//! Where a pod was before its present host.
//!
//! Pure: types.

/// The last move of a pod to another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The name of the host that had it before.
    pub from: String,
    /// Why it moved.
    pub why: MoveReason,
    /// When it moved, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Why a pod moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
