//! When something is tried again that a host does by itself.
//!
//! Pure: no I/O, no clock. Input: when an attempt begins. Output: when the next one may, whatever came of the first. It counts
//! attempts, not failures, because what succeeds and changes nothing repeats as fast as what is refused: an entry of the log
//! wakes the loop that proposed it. After a time without an attempt the next one is at once again.

use std::time::Duration;

use tokio::time::Instant;

/// The pauses between attempts.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    /// When the next attempt may begin, and the pause before it.
    next: Option<(Instant, Duration)>,
}

impl Backoff {
    /// Pauses that double from `first` up to `most`.
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: None,
        }
    }

    /// For what a host proposes by itself: at most some seventy entries of the log in an hour.
    pub(crate) const fn of_proposals() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// When the next attempt may begin; in the past, or nothing, when it may begin now.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next.map(|(due, _)| due)
    }

    /// Whether an attempt may begin now.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        self.due().is_none_or(|due| due <= now)
    }

    /// An attempt begins now. How long to pause after it.
    pub(crate) fn tried(&mut self, now: Instant) -> Duration {
        let pause = match self.next {
            // Nothing was to be tried for that long: what follows is another matter.
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
