//! Pure: the part of the supervisor that obeys the lease of a singleton: without enough of it nothing of the pod runs.

use std::time::{Duration, Instant};

use super::hung::Probes;
use super::{Effect, PAUSE_MIN, Phase, SeenPod, Sight, Status, Supervisor, WAIT_STEP};
use crate::health::{Container, Run};
use crate::lease::{KILL_AT, STOP_AT};

/// How long the containers have to end when the lease ends: then they are killed.
const YIELD_TIME_MAX: Duration = STOP_AT.saturating_sub(KILL_AT);
/// Interval of looks while the supervisor waits for the lease. Its begin is an event, too.
const LEASE_STEP: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Handles a look of a singleton that may not run now; `None` if the workload is no singleton or has its lease.
    pub(super) fn without_lease(&mut self, sight: &Sight, now: Instant) -> Option<Vec<Effect>> {
        let left = sight.lease?;
        let pod = sight.pod.as_ref();
        // The pod of somebody else is left alone.
        if pod.is_some_and(|pod| pod.labels.is_none()) {
            return None;
        }
        if sight.released {
            return Some(self.ends_with_beemesh());
        }
        let runs = pod.is_some_and(is_alive);
        (left <= STOP_AT).then(|| self.waits_for_lease(runs, now))
    }

    /// The lease ends: ends what ran at the last look, or looks for what runs.
    pub(super) fn lease_ends(&mut self, now: Instant) -> Vec<Effect> {
        if self.pod.as_ref().is_some_and(is_alive) {
            return self.waits_for_lease(true, now);
        }
        if self.looked_at.is_none() {
            return self.look();
        }
        // The pod of an earlier revision may run until the gateway has replaced it, which may take long.
        self.look_at = None;
        vec![Effect::Look]
    }

    /// The lease is back: the next look plays the pod.
    pub(super) fn lease_begins(&mut self, now: Instant) -> Vec<Effect> {
        self.look_at = Some(now);
        Vec::new()
    }

    fn waits_for_lease(&mut self, runs: bool, now: Instant) -> Vec<Effect> {
        self.phase = Phase::Looking;
        self.pod = None;
        self.prober = None;
        self.probes = Probes::default();
        self.posting.clear();
        // The pod did not go away by itself, and the host is not in trouble.
        self.plays.clear();
        self.trouble_since = None;
        self.unstarted_since = None;
        self.refusals = 0;
        self.pause = PAUSE_MIN;
        self.look_at = Some(now + if runs { WAIT_STEP } else { LEASE_STEP });
        let revision = self.persisted.map_or(0, |persisted| persisted.revision);
        let mut effects = self.say_starting(revision, "waits for its lease");
        effects.extend(runs.then_some(Effect::Yield {
            within: YIELD_TIME_MAX,
        }));
        effects
    }

    /// Beemesh is being removed from the host. Nothing else renews the lease or obeys it.
    fn ends_with_beemesh(&mut self) -> Vec<Effect> {
        let reason = "Beemesh is being removed from this host, and a singleton runs only with it";
        self.phase = Phase::Ended;
        let report = self.of_pod(Status::Failed {
            reason: reason.to_owned(),
        });
        vec![
            Effect::Say(report.cleaned()),
            Effect::Down,
            Effect::Exit(super::EXIT_BEYOND_REPAIR),
        ]
    }
}

/// Returns true if a container of the manifest has a process.
fn is_alive(pod: &SeenPod) -> bool {
    let has_process =
        |one: &Container| matches!(one.run, Run::Running | Run::Paused | Run::Stopping);
    let mut containers = pod.containers.iter();
    containers.any(|one| one.role.is_in_manifest() && has_process(one))
}
