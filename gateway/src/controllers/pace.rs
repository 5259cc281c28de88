//! Limits how often the same change is proposed.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes the time. The first proposal of a change is made at once.
//! Each repetition follows a pause that doubles, whether the proposal succeeded or not. So two controllers that undo
//! each other's changes, or a change that is always refused, cost only a few log entries in an hour.

use std::{collections::BTreeMap, time::Duration};

use beemesh_protocol::{backoff::doubled, state::Change};
use tokio::time::Instant;

/// The pause after the first proposal.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// What a change is about: the workload, its pod, and the revision or attempt. Another revision is another subject.
type Subject = (String, u32, u64);

/// Records the proposals of each subject.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    times: BTreeMap<Subject, (u32, Instant)>,
}

impl Pace {
    /// Removes the changes that may not be proposed yet, and records the others as proposed. Returns the recorded
    /// changes, and when the next removed one may be proposed.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        changes: Vec<Change>,
    ) -> (Vec<Change>, Option<Instant>) {
        self.times
            .retain(|_, (times, last)| *last + pause(*times).saturating_mul(2) > now);
        let mut due = None;
        let mut held = BTreeMap::new();
        let changes = changes.into_iter().filter(|change| {
            let Some(subject) = subject(change) else {
                return true;
            };
            let until = self
                .times
                .get(&subject)
                .map(|(times, last)| *last + pause(*times));
            match until.filter(|until| *until > now) {
                Some(until) => {
                    due = Some(due.map_or(until, |due: Instant| due.min(until)));
                    false
                }
                None => {
                    held.insert(subject, now);
                    true
                }
            }
        });
        let changes = changes.collect();
        for (subject, now) in held {
            let (times, last) = self.times.entry(subject).or_insert((0, now));
            (*times, *last) = (times.saturating_add(1), now);
        }
        (changes, due)
    }
}

fn subject(change: &Change) -> Option<Subject> {
    match change {
        Change::Assign {
            workload,
            ordinal,
            index,
            ..
        }
        | Change::EndJob {
            workload,
            ordinal,
            index,
            ..
        } => Some((workload.clone(), *ordinal, *index)),
        // Another step of a rollout is about other pods.
        Change::Roll {
            workload,
            to,
            hosts,
            numbers,
            ..
        } => {
            let bytes = hosts.iter().flat_map(|host| host.0.first_chunk::<4>());
            let hosts = bytes.fold(0, |sum, first| sum ^ u32::from_be_bytes(*first));
            let step = numbers
                .iter()
                .fold(hosts, |sum, number| sum.rotate_left(1) ^ number);
            Some((workload.clone(), step, *to))
        }
        Change::EndRollout {
            workload, index, ..
        } => Some((workload.clone(), u32::MAX, *index)),
        _ => None,
    }
}

fn pause(times: u32) -> Duration {
    doubled(PAUSE_MIN, PAUSE_MAX, times.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_again_and_again_is_proposed_ever_more_rarely() {
        let begin = Instant::now();
        let change = |index| Change::Assign {
            workload: "web".into(),
            ordinal: 0,
            index,
            from: None,
            host: None,
        };
        let mut pace = Pace::default();
        let mut proposed = Vec::new();
        let mut now = 0;
        while now < 3600 {
            let at = begin + Duration::from_secs(now);
            let (taken, due) = pace.take(at, vec![change(5)]);
            if taken.is_empty() {
                now = (due.unwrap() - begin).as_secs();
            } else {
                proposed.push(now);
                now += 1;
            }
        }
        assert_eq!(proposed[..5], [0, 1, 3, 7, 15]);
        assert!(proposed.len() < 18, "{proposed:?}");
        let at = begin + Duration::from_secs(3600);
        let (taken, _) = pace.take(at, vec![change(5), change(6), change(6)]);
        assert_eq!(taken.len(), 2, "another revision");
        let later = at + Duration::from_secs(7200);
        assert_eq!(pace.take(later, vec![]), (vec![], None));
        assert!(pace.times.is_empty(), "it is forgotten");
    }
}
