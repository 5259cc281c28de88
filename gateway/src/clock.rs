//! The wall clock of this host, and the pauses between retries.

pub(crate) mod backoff;

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the wall clock in milliseconds since 1970, as commands contain it.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
