//! Decides what to request from systemd next, and interprets its answers.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes `now`. Input: orders, states and job results from
//! [`super`]. Output: when to reload, when to start the gateway again, messages for the user.

mod silence;

use std::time::{Duration, Instant};

use beemesh_protocol::backoff::doubled;

pub(crate) use silence::Silence;

const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The retries cost nothing at this rate, and after a repair the administrator does not wait long.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Workloads change in bursts. A reload after this long without a change delays no other.
const QUIET: Duration = Duration::from_secs(2);
/// How long an order that needs a reload waits for other orders, so that one reload covers all of them.
const COMPANY_MAX: Duration = Duration::from_secs(1);
/// Reload after this time even if the burst continues.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// A gateway that ran for this long did not fail because of its start: its next failure counts as the first.
const STEADY_MIN: Duration = Duration::from_secs(60);

/// One failed start may be chance, and two a slow host. The third comes within two seconds of the first.
const FAILED_STARTS_MAX: u32 = 3;
/// A gateway that was active for this long did not fail because of its image.
const WELL_MIN: Duration = Duration::from_secs(10);
/// Pause between two repairs of the storage, because each one reads every layer.
const REPAIR_PAUSE: Duration = Duration::from_secs(600);

/// Returns the pause before another attempt after this number of failures in a row.
pub(crate) fn pause(failures: u32) -> Duration {
    doubled(PAUSE_MIN, PAUSE_MAX, failures.saturating_sub(1))
}

/// Schedules daemon-reloads. At most one runs, and it covers every change that was durable before it began. systemd
/// does nothing else during a reload. So one begins when an order waits for it and no other order is about to need one,
/// or when nothing has changed for a while.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Reloads {
    /// The number of the latest change.
    asked: u64,
    /// The number of the latest change of a unit that systemd may have loaded.
    stale: u64,
    awaited: u64,
    /// The time since which an order waits for a reload that has not begun.
    awaited_since: Option<Instant>,
    /// Running orders that do not wait for a reload yet. Most of them will.
    busy: usize,
    running: Option<u64>,
    loaded: u64,
    /// The times of the first and of the latest change that systemd has not read.
    since: Option<(Instant, Instant)>,
    failures: u32,
    trouble: String,
}

/// A change on disk that systemd must read. Its number is compared with the number that systemd has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change(u64);

impl Reloads {
    /// Records a change on disk of a unit that systemd may have loaded.
    pub(crate) fn stale(&mut self, now: Instant) {
        self.fresh(now);
        self.stale = self.asked;
    }

    /// Records a new unit, which systemd can start without a reload. It still needs one to read the links of
    /// `[Install]`. Until then nothing keeps a stopped unit in its memory, and systemd would forget that the unit was
    /// stopped.
    pub(crate) fn fresh(&mut self, now: Instant) {
        self.asked += 1;
        let first = self.since.map_or(now, |(first, _)| first);
        self.since = Some((first, now));
    }

    /// Requests a reload that covers the latest change of a unit that systemd may have loaded, and returns that change.
    pub(crate) fn hurry(&mut self, now: Instant) -> Change {
        self.awaited = self.stale;
        if self.running.unwrap_or(self.loaded) < self.stale {
            self.awaited_since.get_or_insert(now);
        }
        Change(self.stale)
    }

    /// Counts an order that begins, or that continues after its reload.
    pub(crate) fn order_begins(&mut self) {
        self.busy += 1;
    }

    /// Counts an order that has ended, or that waits for a reload.
    pub(crate) fn order_ends(&mut self) {
        self.busy = self.busy.saturating_sub(1);
    }

    /// Returns the time at which a reload should begin.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        if self.running.is_some() || self.loaded >= self.asked {
            return None;
        }
        if self.loaded < self.awaited {
            let company = self.awaited_since.filter(|_| self.busy > 0);
            return Some(company.map_or(now, |since| since + COMPANY_MAX));
        }
        let (first, latest) = self.since?;
        Some((latest + QUIET).min(first + UNREAD_MAX))
    }

    /// Records the start of a reload.
    pub(crate) fn begin(&mut self) {
        self.running = Some(self.asked);
        self.since = None;
        self.awaited_since = None;
    }

    /// Records the end of a reload. The error is a message for the user. Returns the pause before the next reload if
    /// this one failed.
    pub(crate) fn finish(&mut self, result: Result<(), String>, now: Instant) -> Option<Duration> {
        let covered = self.running.take();
        match result {
            Ok(()) => {
                self.loaded = covered.unwrap_or(self.loaded);
                self.failures = 0;
                self.trouble.clear();
                None
            }
            Err(trouble) => {
                self.since.get_or_insert((now, now));
                self.failures = self.failures.saturating_add(1);
                self.trouble = trouble;
                Some(pause(self.failures))
            }
        }
    }

    /// Returns true if systemd has read the change.
    pub(crate) fn covers(&self, change: Change) -> bool {
        self.loaded >= change.0
    }

    /// The reason why the last reload failed; empty if it succeeded.
    pub(crate) fn trouble(&self) -> &str {
        &self.trouble
    }
}

/// Keeps the gateway's unit started. systemd restarts a gateway that exits. This starts one whose restarts systemd has
/// given up, or whose start failed before it ran. It does not start one that an administrator stopped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Gateway {
    state: String,
    failures: u32,
    active_since: Option<Instant>,
    due: Option<Instant>,
    /// The agent has stopped the unit and starts it again.
    renewed: bool,
}

impl Gateway {
    /// Handles the unit's `ActiveState`.
    pub(crate) fn observe(&mut self, active: &str, now: Instant) {
        // A repeated state is no new stop: if a start failed before the unit left `inactive`, the next start stays due.
        if self.state == active {
            return;
        }
        self.state = active.to_owned();
        match active {
            "active" | "reloading" | "refreshing" => {
                self.active_since.get_or_insert(now);
                self.due = None;
                self.renewed = false;
            }
            "failed" => self.fail(now),
            // The agent caused this stop, not an administrator, so a due start stays due.
            _ if self.renewed => {}
            // An administrator's stop, or a transition to another state.
            _ => {
                self.forget_if_steady(now);
                self.due = None;
            }
        }
    }

    /// Records that systemd refused a start or that its job failed.
    pub(crate) fn fail(&mut self, now: Instant) {
        self.forget_if_steady(now);
        // A failed job and a failed unit are two reports of one failure.
        if self.due.is_none() {
            self.failures = self.failures.saturating_add(1);
            self.due = Some(now + pause(self.failures));
        }
    }

    /// The time of the next start.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Records the beginning of a start.
    pub(crate) fn begin(&mut self) {
        self.due = None;
    }

    /// Records the beginning of a stop and a start by the agent.
    pub(crate) fn renew(&mut self) {
        self.renewed = true;
        self.due = None;
    }

    /// Handles the loss of the connection to systemd, after which the progress of a restart is unknown.
    pub(crate) fn lose(&mut self, now: Instant) {
        if self.renewed {
            self.fail(now);
        }
    }

    fn forget_if_steady(&mut self, now: Instant) {
        if self
            .active_since
            .take()
            .is_some_and(|since| now.duration_since(since) >= STEADY_MIN)
        {
            self.failures = 0;
        }
    }
}

/// Suspects Podman's storage if the gateway's unit keeps failing: a power cut may have emptied a layer of its image,
/// and then no restart helps. The repair checks the storage before it changes anything, so a wrong suspicion costs only
/// time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Suspicion {
    restarts: u32,
    active_since: Option<Instant>,
    repaired_at: Option<Instant>,
}

impl Suspicion {
    /// Handles the unit's `ActiveState` and `NRestarts`, which counts systemd's restarts since the last manual start.
    /// Returns true if the storage should be repaired now.
    pub(crate) fn observe(&mut self, active: &str, restarts: u32, now: Instant) -> bool {
        // Podman reports a pod as started even if its program cannot be executed. So only a unit that stays active for
        // a while is sound.
        let was_well = match (active, self.active_since) {
            ("active", None) => {
                self.active_since = Some(now);
                false
            }
            ("active", Some(_)) | (_, None) => false,
            (_, Some(since)) => {
                self.active_since = None;
                now.duration_since(since) >= WELL_MIN
            }
        };
        if was_well || restarts < self.restarts {
            self.restarts = restarts;
            return false;
        }
        let suspect = restarts - self.restarts >= FAILED_STARTS_MAX && self.arises(now);
        if suspect {
            self.restarts = restarts;
        }
        suspect
    }

    /// Handles a sign of damage. Returns true if the storage should be repaired now, and records the repair.
    pub(crate) fn arises(&mut self, now: Instant) -> bool {
        let rested = self
            .repaired_at
            .is_none_or(|at| now.duration_since(at) >= REPAIR_PAUSE);
        if rested {
            self.repaired_at = Some(now);
        }
        rested
    }
}

/// The result of a start or stop job, as a message if it failed. `result` is systemd's word in `JobRemoved`. `cause` is
/// the unit's `Result`, and `status` its `StatusText`, after the job.
pub(crate) fn job_outcome(
    verb: &str,
    unit: &str,
    result: &str,
    cause: &str,
    status: &str,
) -> Result<(), String> {
    if result == "done" {
        return Ok(());
    }
    let mut why = match result {
        "canceled" => "another job took its place".to_owned(),
        "timeout" => "it took too long".to_owned(),
        "dependency" => {
            format!("a unit it depends on did not start (`systemctl list-dependencies {unit}`)")
        }
        "failed" => match cause {
            "" | "success" => "it failed".to_owned(),
            _ => format!("it failed with `{cause}`"),
        },
        other => format!("its job ended as `{other}`"),
    };
    if !status.is_empty() {
        why = format!("{why}, saying \"{status}\"");
    }
    Err(format!(
        "{verb} {unit}: {why}; `journalctl -u {unit}` on this host has more"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stop_growing() {
        let seconds: Vec<_> = [0, 1, 2, 3, 7, 8, u32::MAX]
            .map(|failures| pause(failures).as_secs_f32())
            .to_vec();
        assert_eq!(seconds, [0.25, 0.25, 0.5, 1.0, 16.0, 30.0, 30.0]);
    }

    #[test]
    fn one_reload_covers_all_that_was_asked_before_it_began_and_nothing_later() {
        let mut reloads = Reloads::default();
        let now = Instant::now();
        reloads.stale(now);
        reloads.stale(now);
        let first = reloads.hurry(now);
        assert_eq!(reloads.due(now), Some(now));
        reloads.begin();
        reloads.stale(now);
        let late = reloads.hurry(now);
        assert_eq!(reloads.due(now), None, "one at a time");
        assert_eq!(reloads.finish(Ok(()), now), None);
        assert_eq!(
            [first, late].map(|change| reloads.covers(change)),
            [true, false]
        );
        assert_eq!(reloads.due(now), Some(now), "the late one has its own");
        let broken = || Err("bus is gone".to_owned());
        for failures in [1, 2] {
            reloads.begin();
            assert_eq!(reloads.finish(broken(), now), Some(pause(failures)));
            assert_eq!(
                (reloads.covers(late), reloads.due(now), reloads.trouble()),
                (false, Some(now), "bus is gone")
            );
        }
        reloads.begin();
        assert_eq!(reloads.finish(Ok(()), now), None);
        assert_eq!(
            (reloads.covers(late), reloads.due(now), reloads.trouble()),
            (true, None, "")
        );
        let nothing_new = reloads.hurry(now);
        assert!(reloads.covers(nothing_new));
    }

    #[test]
    fn orders_of_one_burst_share_a_reload_and_wait_for_each_other_no_longer_than_a_bound() {
        let mut reloads = Reloads::default();
        let zero = Instant::now();
        let at = |millis: u64| zero + Duration::from_millis(millis);
        reloads.hurry(zero);
        for _ in 0..3 {
            reloads.order_begins();
        }
        // The first order has changed its files and waits, and after it the second.
        reloads.stale(at(100));
        reloads.order_ends();
        let first = reloads.hurry(at(100));
        assert_eq!(reloads.due(at(100)), Some(at(100) + COMPANY_MAX));
        reloads.stale(at(300));
        reloads.order_ends();
        let second = reloads.hurry(at(300));
        assert_eq!(reloads.due(at(300)), Some(at(100) + COMPANY_MAX));
        reloads.begin();
        assert_eq!(reloads.finish(Ok(()), at(1200)), None);
        assert!(reloads.covers(first) && reloads.covers(second));
        // The last order has no other to wait for.
        reloads.stale(at(5000));
        reloads.order_ends();
        reloads.hurry(at(5000));
        assert_eq!(reloads.due(at(5000)), Some(at(5000)));
    }

    #[test]
    fn a_reload_without_waiters_runs_when_it_is_quiet() {
        let mut reloads = Reloads::default();
        let zero = Instant::now();
        let at = |seconds: u64| zero + Duration::from_secs(seconds);
        reloads.fresh(zero);
        let change = reloads.hurry(zero);
        assert!(reloads.covers(change), "a new unit keeps nobody waiting");
        assert_eq!(reloads.due(zero), Some(zero + QUIET));
        reloads.fresh(at(1));
        assert_eq!(reloads.due(at(1)), Some(at(1) + QUIET));
        reloads.fresh(at(29));
        assert_eq!(reloads.due(at(29)), Some(zero + UNREAD_MAX));
        reloads.begin();
        assert_eq!(reloads.finish(Err("no".to_owned()), at(30)), Some(pause(1)));
        assert_eq!(reloads.due(at(30)), Some(at(30) + QUIET), "it failed");
        reloads.begin();
        reloads.finish(Ok(()), at(33));
        assert_eq!(reloads.due(at(33)), None);
    }

    #[test]
    fn a_failed_gateway_is_started_again_and_a_stopped_one_is_not() {
        let zero = Instant::now();
        let at = |seconds: u64| zero + Duration::from_secs(seconds);
        // Events with the second at which each happens, and then the time at which the start is due.
        for (story, due) in [
            (&[("inactive", 0)][..], None),
            (
                &[
                    ("activating", 0),
                    ("active", 1),
                    ("deactivating", 2),
                    ("inactive", 3),
                ],
                None,
            ),
            (&[("failed", 5)], Some(at(5) + pause(1))),
            (&[("job", 5), ("failed", 6)], Some(at(5) + pause(1))),
            (
                &[
                    ("failed", 5),
                    ("begin", 6),
                    ("activating", 6),
                    ("failed", 7),
                ],
                Some(at(7) + pause(2)),
            ),
            (&[("failed", 5), ("inactive", 6)], None),
            (
                &[("failed", 5), ("active", 6), ("failed", 7)],
                Some(at(7) + pause(2)),
            ),
            (
                &[("failed", 5), ("active", 6), ("failed", 66)],
                Some(at(66) + pause(1)),
            ),
            (
                &[
                    ("failed", 5),
                    ("active", 6),
                    ("active", 40),
                    ("deactivating", 66),
                    ("failed", 66),
                ],
                Some(at(66) + pause(1)),
            ),
            // Stopped for a restart: while systemd can be reached, the start is in progress.
            (
                &[
                    ("active", 0),
                    ("renew", 1),
                    ("deactivating", 1),
                    ("inactive", 2),
                ],
                None,
            ),
            (
                &[
                    ("active", 0),
                    ("renew", 1),
                    ("deactivating", 1),
                    ("lose", 2),
                    ("inactive", 3),
                ],
                Some(at(2) + pause(1)),
            ),
            (
                &[("active", 0), ("renew", 1), ("job", 2), ("inactive", 3)],
                Some(at(2) + pause(1)),
            ),
            // A later stop is an administrator's again.
            (
                &[
                    ("active", 0),
                    ("renew", 1),
                    ("inactive", 2),
                    ("active", 3),
                    ("lose", 4),
                    ("inactive", 5),
                ],
                None,
            ),
        ] {
            let mut gateway = Gateway::default();
            for &(what, second) in story {
                match what {
                    "job" => gateway.fail(at(second)),
                    "begin" => gateway.begin(),
                    "renew" => gateway.renew(),
                    "lose" => gateway.lose(at(second)),
                    active => gateway.observe(active, at(second)),
                }
            }
            assert_eq!(gateway.due(), due, "{story:?}");
        }
    }

    #[test]
    fn a_job_that_is_not_done_says_unit_cause_and_where_to_look() {
        let end = "; `journalctl -u web.service` on this host has more";
        for (result, cause, status, words) in [
            ("failed", "success", "", "it failed"),
            (
                "failed",
                "exit-code",
                "failed: no image",
                "it failed with `exit-code`, saying \"failed: no image\"",
            ),
            ("timeout", "timeout", "", "it took too long"),
            ("canceled", "success", "", "another job took its place"),
            (
                "dependency",
                "success",
                "",
                "a unit it depends on did not start (`systemctl list-dependencies web.service`)",
            ),
            ("skipped", "success", "", "its job ended as `skipped`"),
        ] {
            let expected = Err(format!("start web.service: {words}{end}"));
            assert_eq!(
                job_outcome("start", "web.service", result, cause, status),
                expected
            );
        }
        assert_eq!(
            job_outcome("start", "web.service", "done", "success", ""),
            Ok(())
        );
    }

    #[test]
    fn a_gateway_that_keeps_failing_makes_the_storage_suspect_once_in_a_while() {
        let mut suspicion = Suspicion::default();
        let start = Instant::now();
        for (seconds, active, restarts, repair) in [
            (0, "activating", 0, false),
            (1, "activating", 2, false),
            (2, "activating", 3, true),
            (3, "activating", 9, false),
            (4, "active", 9, false),
            // The gateway ran well.
            (604, "deactivating", 9, false),
            (605, "activating", 11, false),
            (606, "activating", 12, true),
            // A manual start resets systemd's counter.
            (1400, "activating", 1, false),
            (1401, "activating", 4, true),
            // The unit is active for a moment each time.
            (2401, "active", 5, false),
            (2402, "deactivating", 5, false),
            (2402, "activating", 6, false),
            (2403, "active", 6, false),
            (2404, "activating", 7, true),
        ] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(
                suspicion.observe(active, restarts, now),
                repair,
                "at {seconds} s"
            );
        }
    }
}
