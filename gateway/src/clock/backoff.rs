//! Paces operations that a host repeats by itself.
//!
//! Pure: no I/O, no clock. Input: the time when an attempt starts. Output: the earliest time of the next attempt,
//! whether the first one succeeded or not. It counts attempts instead of failures, because an attempt that succeeds and
//! changes nothing would otherwise repeat as fast as one that is refused: the log entry wakes the loop that proposed
//! it. After a time without attempts, the next one may start at once.

use std::time::Duration;

use tokio::time::Instant;

/// The pauses between attempts.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    /// The earliest time of the next attempt, and the pause before it.
    next: Option<(Instant, Duration)>,
}

impl Backoff {
    /// Creates a backoff whose pauses double from `first` up to `most`.
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: None,
        }
    }

    /// Creates a backoff for proposals that a host makes by itself: at most about seventy log entries in an hour.
    pub(crate) const fn of_proposals() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// Returns the earliest time of the next attempt. In the past or `None` if it may start now.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next.map(|(due, _)| due)
    }

    /// Returns true if an attempt may start now.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        self.due().is_none_or(|due| due <= now)
    }

    /// Records that an attempt starts now, and returns the pause after it.
    pub(crate) fn tried(&mut self, now: Instant) -> Duration {
        let pause = match self.next {
            // No attempt was due for that long, so this one starts a new series.
            Some((due, _)) if now >= due + self.most => self.first,
            Some((_, pause)) => (pause * 2).min(self.most),
            None => self.first,
        };
        self.next = Some((now + pause, pause));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_up_to_the_most_and_begin_again_after_a_quiet_time() {
        let begun = Instant::now();
        let mut backoff = Backoff::new(seconds(1), seconds(10));
        let mut now = begun;
        assert!(backoff.allows(now));
        for pause in [1, 2, 4, 8, 10, 10] {
            assert_eq!(backoff.tried(now), seconds(pause));
            assert!(!backoff.allows(now + seconds(pause) - Duration::from_millis(1)));
            now += seconds(pause);
            assert!(backoff.allows(now));
        }
        now += seconds(9);
        assert_eq!(backoff.tried(now), seconds(10), "not quiet for long enough");
        now += seconds(20);
        assert_eq!(backoff.tried(now), seconds(1));
    }

    #[test]
    fn an_hour_of_attempts_that_lead_nowhere_is_some_seventy() {
        let begun = Instant::now();
        let mut backoff = Backoff::of_proposals();
        let (mut now, mut tries) = (begun, 0);
        while now < begun + seconds(3600) {
            now += backoff.tried(now);
            tries += 1;
        }
        assert!((60..=70).contains(&tries), "{tries}");
    }
}
