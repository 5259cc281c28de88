//! Pure: detects probes that hang.
//!
//! Podman 5.4 sets no time limit for a probe, and a container whose probe hangs keeps its health. Podman sends an event
//! after each run of a probe, so a probe without events may hang. The supervisor then asks whether a run is in
//! progress, and kills it if it exceeds its time limit. Podman counts that as a failure and acts on it. While events
//! arrive, the supervisor asks nothing.
//!
//! Input: containers, the events of their probes, the time. Output: the [`Probe`] requests to carry out, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::podman::Schedule;

/// Extra time for a probe: systemd starts it up to a second late, and Podman needs a moment to run it.
const SLACK: Duration = Duration::from_millis(1500);
/// Minimum time between two requests for the runs of a probe without events.
const LOOK_SPACING: Duration = Duration::from_secs(10);

/// A request about the probe of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
    /// List the runs of it that have not ended.
    Look(String),
    /// Kill these runs if they have not ended.
    End(String, Vec<String>),
}

/// The probes of a pod's containers, by container id.
#[derive(Debug, Default)]
pub(super) struct Probes {
    watched: BTreeMap<String, Watched>,
}

#[derive(Debug)]
struct Watched {
    schedule: Schedule,
    due: Instant,
    /// The runs that had not ended at the last request.
    running: Vec<String>,
}

impl Probes {
    /// Sets the containers that run and have probes.
    pub(super) fn watch(&mut self, schedules: &BTreeMap<String, Schedule>, now: Instant) {
        self.watched.retain(|id, _| schedules.contains_key(id));
        for (id, schedule) in schedules {
            let watched = self.watched.entry(id.clone()).or_insert_with(|| Watched {
                schedule: *schedule,
                due: now + schedule.interval + SLACK,
                running: Vec::new(),
            });
            watched.schedule = *schedule;
        }
    }

    /// Records an event of the container's probe.
    pub(super) fn heard(&mut self, id: &str, now: Instant) {
        if let Some(watched) = self.watched.get_mut(id) {
            watched.due = now + watched.schedule.interval + SLACK;
            watched.running.clear();
        }
    }

    /// Records the runs that have not ended.
    pub(super) fn running(&mut self, id: &str, sessions: Vec<String>, now: Instant) {
        let Some(watched) = self.watched.get_mut(id) else {
            return;
        };
        watched.due = now
            + match sessions.is_empty() {
                true => watched.schedule.interval.max(LOOK_SPACING),
                false => watched.schedule.timeout,
            };
        watched.running = sessions;
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.watched.values().map(|watched| watched.due).min()
    }

    /// The requests that are due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Probe> {
        let mut probes = Vec::new();
        for (id, watched) in &mut self.watched {
            if watched.due > now {
                continue;
            }
            // The answer sets another time.
            watched.due = now + watched.schedule.interval.max(LOOK_SPACING);
            let running = std::mem::take(&mut watched.running);
            probes.push(match running.is_empty() {
                true => Probe::Look(id.clone()),
                false => Probe::End(id.clone(), running),
            });
        }
        probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_probe_that_hangs_is_ended() {
        let seconds = Duration::from_secs;
        let began = Instant::now();
        let at = |millis: u64| began + Duration::from_millis(millis);
        let schedule = Schedule {
            interval: seconds(5),
            timeout: seconds(2),
        };
        let all = BTreeMap::from([("a".to_owned(), schedule)]);
        let look = || vec![Probe::Look("a".into())];
        let mut probes = Probes::default();
        probes.watch(&all, at(0));
        assert_eq!(probes.wake_at(), Some(at(6500)));
        probes.heard("a", at(5000));
        probes.watch(&all, at(6000));
        assert_eq!(probes.due(at(6500)), []);
        // There is no event, and a run is in progress.
        assert_eq!(probes.due(at(11_500)), look());
        probes.running("a", vec!["s".into()], at(11_600));
        assert_eq!(probes.due(at(13_500)), []);
        let end = Probe::End("a".into(), vec!["s".into()]);
        assert_eq!(probes.due(at(13_600)), [end]);
        assert_eq!(probes.due(at(13_700)), []);
        // The run ended in time.
        probes.heard("a", at(14_000));
        assert_eq!(probes.due(at(20_500)), look());
        probes.running("a", vec!["t".into()], at(20_500));
        probes.heard("a", at(21_000));
        assert_eq!(probes.due(at(22_500)), []);
        // No run is in progress: the first one is not due yet.
        assert_eq!(probes.due(at(27_500)), look());
        probes.running("a", vec![], at(27_500));
        assert_eq!(probes.wake_at(), Some(at(37_500)));
        probes.watch(&BTreeMap::new(), at(28_000));
        assert_eq!(probes.wake_at(), None);
    }
}
