//! Pauses between retries that double.
//!
//! Pure: no I/O, no clock, no randomness.

use std::time::Duration;

/// The pause after `times` doublings of `first`, at most `most`.
#[must_use]
pub fn doubled(first: Duration, most: Duration, times: u32) -> Duration {
    let factor = 2_u32.saturating_pow(times);
    first.saturating_mul(factor).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stop_growing() {
        let (first, most) = (Duration::from_millis(250), Duration::from_secs(30));
        let pauses = [0, 1, 2, 6, 7, 31, 32, u32::MAX];
        let pauses = pauses.map(|times| doubled(first, most, times).as_secs_f32());
        assert_eq!(pauses, [0.25, 0.5, 1.0, 16.0, 30.0, 30.0, 30.0, 30.0]);
        assert_eq!(doubled(first, Duration::MAX, u32::MAX), first * u32::MAX);
    }
}
