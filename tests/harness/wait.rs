//! Waiting for a state, with a bound.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The pause between two looks at a state. Each look runs commands on hosts, so a shorter pause would only load them.
const PAUSE: Duration = Duration::from_millis(100);

/// Seconds, for readable time limits.
#[must_use]
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Calls `look` until it returns `Ok`, and returns that. The `Err` says what was seen instead.
///
/// # Panics
/// If `bound` has passed; the message has the last `Err`.
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
