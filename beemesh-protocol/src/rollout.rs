//! Decides whether a rollout has ended: the applied workloads run, and have run for long enough.
//!
//! Pure: no I/O, no clock. Input: the workloads at one moment, and the time of that moment. Output: whether the wait
//! for them is over. The gateway uses it for the API's `wait`, and the command line for `apply --wait`. One observation
//! of a ready pod is not enough, because a container that ends every second is ready in between.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    HostId,
    api::{Phase, Workload},
};

/// The shortest time for which the requested number of pods must be ready.
pub const STABLE: Duration = Duration::from_secs(2);

/// The longest delay of a report that a container ended. The wait includes it, so that the report of a container that
/// ends within [`STABLE`] arrives before the wait is over.
const WORD: Duration = Duration::from_millis(300);

/// The state of the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The rollout is not over yet. If no workload changes, it may be over at this time.
    Wait(Option<Duration>),
    /// All workloads run as requested.
    Done,
    /// Some workloads do not run as requested, and will not without a change from outside.
    Stuck,
}

/// A wait for workloads. All times count from one moment that the caller chooses.
#[derive(Debug, Clone, Default)]
pub struct Rollout {
    stable: Option<Duration>,
    /// For each workload whose rollout has ended: its last observed state, and since when that state has not changed.
    ended: BTreeMap<String, (Seen, Duration)>,
}

/// The properties of a workload that must not change during the wait.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    index: u64,
    settled: bool,
    hosts: Vec<(HostId, Phase, u32)>,
}

impl Rollout {
    /// Starts a wait. `stable` replaces [`STABLE`] and the `minReadySeconds` of the workloads.
    #[must_use]
    pub fn new(stable: Option<Duration>) -> Self {
        Self {
            stable,
            ended: BTreeMap::new(),
        }
    }

    /// Processes the state of all workloads at `now`.
    pub fn look<'a>(
        &mut self,
        now: Duration,
        workloads: impl IntoIterator<Item = &'a Workload>,
    ) -> Verdict {
        let before = std::mem::take(&mut self.ended);
        let (mut due, mut waits, mut stuck) = (now, false, false);
        for workload in workloads {
            if !workload.settled && !workload.stuck {
                waits = true;
                continue;
            }
            stuck |= !workload.settled;
            let seen = Seen::of(workload);
            let same = before.get(&workload.name).filter(|(was, _)| *was == seen);
            let since = same.map_or(now, |(_, since)| *since);
            due = due.max(since.saturating_add(self.must_last(workload)));
            self.ended.insert(workload.name.clone(), (seen, since));
        }
        match (waits, due > now, stuck) {
            (true, _, _) => Verdict::Wait(None),
            (false, true, _) => Verdict::Wait(Some(due)),
            (false, false, true) => Verdict::Stuck,
            (false, false, false) => Verdict::Done,
        }
    }

    /// How long the workload's state must not change. Only a pod that runs can still end.
    fn must_last(&self, workload: &Workload) -> Duration {
        let runs = workload.hosts.iter().any(|one| one.phase == Phase::Running);
        if workload.ready == 0 || !runs {
            return Duration::ZERO;
        }
        let asked = Duration::from_secs(workload.min_ready_seconds.into());
        self.stable.unwrap_or(STABLE.max(asked) + WORD)
    }
}

impl Seen {
    fn of(workload: &Workload) -> Self {
        let hosts = workload.hosts.iter();
        Self {
            index: workload.index,
            settled: workload.settled,
            hosts: hosts.map(|one| (one.id, one.phase, one.restarts)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::WorkloadHost;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn workload(name: &str, settled: bool, hosts: &[(Phase, u32)]) -> Workload {
        let on = |(n, (phase, restarts)): (u8, &(Phase, u32))| WorkloadHost {
            host: format!("h{n}"),
            id: HostId([n; 32]),
            phase: *phase,
            revision: 1,
            healthy: 1,
            total: 1,
            restarts: *restarts,
            message: String::new(),
            reachable: true,
            containers: Vec::new(),
            moved: None,
            pod: String::new(),
        };
        let counts = |one: &&(Phase, u32)| matches!(one.0, Phase::Running | Phase::Succeeded);
        Workload {
            name: name.into(),
            namespace: "default".into(),
            kind: "Pod".into(),
            manifest: name.into(),
            revision: 1,
            index: 9,
            applied_at_ms: 0,
            settled,
            stuck: false,
            stopped: false,
            asked: u32::try_from(hosts.len()).unwrap(),
            ready: u32::try_from(hosts.iter().filter(counts).count()).unwrap(),
            reason: String::new(),
            rollout: None,
            min_ready_seconds: 0,
            hosts: (1..).zip(hosts).map(on).collect(),
            identity: None,
            object: None,
        }
    }

    fn running(restarts: u32) -> Workload {
        workload(
            "web",
            true,
            &[(Phase::Running, 0), (Phase::Running, restarts)],
        )
    }

    #[test]
    fn ready_is_not_done_before_it_has_lasted() {
        let mut rollout = Rollout::new(None);
        let starting = workload("web", false, &[(Phase::Running, 0), (Phase::Starting, 0)]);
        for (now, web, verdict) in [
            (0, starting.clone(), Verdict::Wait(None)),
            (500, running(0), Verdict::Wait(Some(at(2800)))),
            (2799, running(0), Verdict::Wait(Some(at(2800)))),
            // One ready observation does not count: between two, the workload was not ready or was restarted.
            (2800, starting, Verdict::Wait(None)),
            (3000, running(1), Verdict::Wait(Some(at(5300)))),
            (4000, running(2), Verdict::Wait(Some(at(6300)))),
            (6300, running(2), Verdict::Done),
        ] {
            assert_eq!(rollout.look(at(now), [&web]), verdict, "at {now} ms");
        }
    }

    #[test]
    fn its_author_asks_for_longer_and_the_caller_for_less() {
        let slow = Workload {
            min_ready_seconds: 30,
            ..running(0)
        };
        let one = Workload {
            min_ready_seconds: 1,
            ..running(0)
        };
        for (stable, web, due) in [
            (None, &slow, Some(30_300)),
            (None, &one, Some(2300)),
            (Some(at(0)), &slow, None),
        ] {
            let verdict = Rollout::new(stable).look(at(0), [web]);
            let expected = due.map_or(Verdict::Done, |due| Verdict::Wait(Some(at(due))));
            assert_eq!(verdict, expected);
        }
        let both = [&slow, &workload("job", true, &[(Phase::Succeeded, 0)])];
        let verdict = Rollout::new(None).look(at(0), both);
        assert_eq!(verdict, Verdict::Wait(Some(at(30_300))));
    }

    #[test]
    fn what_cannot_change_by_itself_is_not_waited_for() {
        let stuck = |hosts: &[(Phase, u32)]| Workload {
            stuck: true,
            ..workload("web", false, hosts)
        };
        for (web, verdict) in [
            (workload("none", true, &[]), Verdict::Done),
            (
                workload("job", true, &[(Phase::Succeeded, 0)]),
                Verdict::Done,
            ),
            (stuck(&[]), Verdict::Stuck),
            (stuck(&[(Phase::Failed, 0)]), Verdict::Stuck),
            // The running pods may still fail repeatedly, which would be a better reason to report.
            (
                stuck(&[(Phase::Running, 0), (Phase::Failed, 0)]),
                Verdict::Wait(Some(STABLE + WORD)),
            ),
        ] {
            assert_eq!(Rollout::new(None).look(at(0), [&web]), verdict, "{web:?}");
        }
        let mut rollout = Rollout::new(None);
        let three = stuck(&[(Phase::Running, 0)]);
        let due = STABLE + WORD;
        assert_eq!(rollout.look(at(0), [&three]), Verdict::Wait(Some(due)));
        assert_eq!(rollout.look(due, [&three]), Verdict::Stuck);
        assert_eq!(Rollout::new(None).look(at(0), []), Verdict::Done);
    }
}
