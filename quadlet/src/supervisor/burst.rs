//! Pure: detects that journald may have dropped lines of a workload's unit.
//!
//! journald drops lines of a unit that logs too many, and logs a message about this after the unit's next line. The
//! supervisor gets no event. But the processes that forward the containers' lines use processor time for each line.
//!
//! Input: the processor time of those processes at each look. Output: whether to search the journal for that message.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Processor time between two looks, in hundredths of a second, that some ten thousand lines need.
const TICKS: u64 = 20;
/// How long to search: journald counts lines over thirty seconds, and the unit may be silent for some time after that.
const WATCHED: Duration = Duration::from_secs(300);
/// Minimum time between two searches, each of which runs journalctl.
const SPACING: Duration = Duration::from_secs(40);

/// The processor times at the last look, and when to search.
#[derive(Debug, Default)]
pub(super) struct Burst {
    ticks: BTreeMap<u32, u64>,
    until: Option<Instant>,
    asked: Option<Instant>,
}

impl Burst {
    /// Takes the processor time of each process; returns whether to search the journal now.
    pub(super) fn seen(&mut self, ticks: BTreeMap<u32, u64>, now: Instant) -> bool {
        let before = |pid: &u32| self.ticks.get(pid).copied().unwrap_or_default();
        let is_burst = ticks
            .iter()
            .any(|(pid, ticks)| ticks.saturating_sub(before(pid)) >= TICKS);
        if is_burst {
            self.until = Some(now + WATCHED);
        }
        self.ticks = ticks;
        let is_watched = self.until.is_some_and(|until| now < until);
        let is_due = self.asked.is_none_or(|asked| now >= asked + SPACING);
        if is_watched && is_due {
            self.asked = Some(now);
        }
        is_watched && is_due
    }
}

/// The processor time in a process's `stat`, in hundredths of a second.
pub(super) fn ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may contain any characters.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_after_a_burst_journald_is_asked_and_not_often() {
        let began = Instant::now();
        let at = |second| began + Duration::from_secs(second);
        let mut burst = Burst::default();
        for (second, ticks, expected) in [
            (0, 1, false),
            (45, 10, false),
            (90, 60, true),
            (91, 60, false),
            (135, 61, true),
            (180, 61, true),
            (400, 62, false),
        ] {
            let found = burst.seen(BTreeMap::from([(7, ticks)]), at(second));
            assert_eq!(found, expected, "{second}");
        }
    }

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 300 0 0 0 12 30 0 0 20 0 1 0 500 1000 2";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (conmon"), None);
    }
}
