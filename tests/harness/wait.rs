//! Waiting for a state, with a bound.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a state is looked at. Each look runs commands on hosts, so a shorter pause would only load them.
const PAUSE: Duration = Duration::from_millis(100);

/// Seconds, for readable bounds.
#[must_use]
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Looks until `look` answers `Ok`, and returns that. The `Err` says what was seen instead.
///
/// # Panics
/// When `bound` has passed, with the last thing seen.
#[track_caller]
pub fn wait_for<T, E: std::fmt::Display>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if begun.elapsed() > bound => {
                panic!("waited {bound:?} for {what}; last seen: {seen}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
