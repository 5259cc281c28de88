//! Times as texts of Kubernetes' API.
//!
//! Pure.

use k8s_openapi::jiff::Timestamp;

/// The time as `2026-11-30T12:00:00Z` (RFC 3339); `at_ms` is in milliseconds since 1970. A time that no calendar has is
/// the beginning of 1970.
#[must_use]
pub fn rfc3339(at_ms: u64) -> String {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_kubernetes_writes_it() {
        assert_eq!(rfc3339(1_764_504_000_999), "2025-11-30T12:00:00Z");
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00Z");
    }
}
