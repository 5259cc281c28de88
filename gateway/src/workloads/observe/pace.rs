//! Decides how often reports are sent.
//!
//! Pure: the caller passes the time. After a quiet time the first report is sent at once, and then at most one message
//! in [`PAUSE_MIN`]. While only `applied` changes, as it does with each commit of a burst, the pauses grow up to
//! [`APPLIED_PAUSE_MAX`].

use std::time::Duration;

use tokio::time::Instant;

/// The minimum time between two messages: shorter than a user notices.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest time that this adds for a caller that waits until an entry is applied.
const APPLIED_PAUSE_MAX: Duration = Duration::from_millis(320);

/// When the last message was sent, and how long the next one waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    last: Option<Instant>,
    pause: Duration,
}

impl Pace {
    /// Creates the state before the first message.
    pub(super) fn new() -> Self {
        Self {
            last: None,
            pause: PAUSE_MIN,
        }
    }

    /// The earliest time of the next message; `None` means at once. `only_applied`: only the applied log index has
    /// changed.
    pub(super) fn due(&self, only_applied: bool) -> Option<Instant> {
        let pause = if only_applied { self.pause } else { PAUSE_MIN };
        self.last.map(|last| last + pause)
    }

    /// Records that a message is sent.
    pub(super) fn sent(&mut self, only_applied: bool, now: Instant) {
        let burst = only_applied
            && self
                .last
                .is_some_and(|last| now.duration_since(last) < 2 * APPLIED_PAUSE_MAX);
        self.pause = if burst {
            (self.pause * 2).min(APPLIED_PAUSE_MAX)
        } else {
            PAUSE_MIN
        };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_commits_slows_down_and_anything_else_does_not_wait_for_its_end() {
        let begun = Instant::now();
        let mut pace = Pace::new();
        assert_eq!(pace.due(true), None);
        pace.sent(true, begun);
        let mut now = begun;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let due = pace.due(true).unwrap();
            pauses.push((due - now).as_millis());
            pace.sent(true, due);
            now = due;
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 320, 320]);
        assert_eq!(pace.due(false), Some(now + PAUSE_MIN));
        pace.sent(false, now + PAUSE_MIN);
        assert_eq!(pace.due(true), Some(now + 2 * PAUSE_MIN));
        let later = now + Duration::from_secs(5);
        pace.sent(true, later);
        assert_eq!(pace.due(true), Some(later + PAUSE_MIN));
    }
}
