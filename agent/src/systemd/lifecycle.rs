//! What to ask systemd next, and what its answers mean.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes `now`. Input: orders, states and job results from
//! [`super`]. Output: when to reload, when to start the gateway again, words for a person.

mod silence;

use std::time::{Duration, Instant};

pub(crate) use silence::Silence;

const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Long enough to cost nothing, short enough that nobody who repaired the cause waits long.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Workloads come in bursts; after this long without one, a reload holds nobody up.
const QUIET: Duration = Duration::from_secs(2);
/// Who waits for a reload waits so long for others that will want one, too.
const COMPANY_MAX: Duration = Duration::from_secs(1);
/// A burst that does not end is interrupted.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// A gateway that ran this long did not fail because it was started: its next failure is a first one.
const STEADY_MIN: Duration = Duration::from_secs(60);

/// One failed start may be chance and two a slow host; the third comes within two seconds of the first.
const FAILED_STARTS_MAX: u32 = 3;
/// A gateway that was up this long did not fail for its image.
const WELL_MIN: Duration = Duration::from_secs(10);
/// Between two repairs of the storage: each reads every layer.
const REPAIR_PAUSE: Duration = Duration::from_secs(600);

/// How long to wait before another attempt, after this many in a row have failed.
pub(crate) fn pause(failures: u32) -> Duration {
    PAUSE_MIN
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(PAUSE_MAX)
}

/// Daemon-reloads: at most one runs, and one covers every change that was durable before it began. systemd does nothing
/// else while it reloads, so one is made when somebody waits for it and nobody else is about to, or when nothing has
/// changed for a while.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Reloads {
    /// Changes are numbered; this is the latest.
    asked: u64,
    /// The latest of a unit that systemd may have loaded.
    stale: u64,
    awaited: u64,
    /// Since when somebody has waited for a reload that has not begun.
    awaited_since: Option<Instant>,
    /// Orders under way that do not wait for a reload: most of them come to that.
    busy: usize,
    running: Option<u64>,
    loaded: u64,
    /// When the first change came that was not loaded then, and when the latest.
    since: Option<(Instant, Instant)>,
    failures: u32,
    trouble: String,
}

/// A change on disk that systemd must read; compares with what it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change(u64);

impl Reloads {
    /// A unit changed on disk that systemd may have loaded.
    pub(crate) fn stale(&mut self, now: Instant) {
        self.fresh(now);
        self.stale = self.asked;
    }

    /// A unit came that systemd runs by itself. It should read the links of `[Install]` all the same: until then nothing
    /// keeps the unit in its memory when it is stopped, and it would forget that it was.
    pub(crate) fn fresh(&mut self, now: Instant) {
        self.asked += 1;
        let first = self.since.map_or(now, |(first, _)| first);
        self.since = Some((first, now));
    }

    /// Somebody waits until systemd has read the latest change of a unit that it may have loaded, which is given.
    pub(crate) fn hurry(&mut self, now: Instant) -> Change {
        self.awaited = self.stale;
        if self.running.unwrap_or(self.loaded) < self.stale {
            self.awaited_since.get_or_insert(now);
        }
        Change(self.stale)
    }

    /// An order is under way, or goes on after its reload.
    pub(crate) fn order_begins(&mut self) {
        self.busy += 1;
    }

    /// It is done, or waits for a reload.
    pub(crate) fn order_ends(&mut self) {
        self.busy = self.busy.saturating_sub(1);
    }

    /// When a reload should begin.
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

    /// A reload begins.
    pub(crate) fn begin(&mut self) {
        self.running = Some(self.asked);
        self.since = None;
        self.awaited_since = None;
    }

    /// It ended; the error is words. `Some`: wait so long before the next one.
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

    /// Whether systemd has read the change.
    pub(crate) fn covers(&self, change: Change) -> bool {
        self.loaded >= change.0
    }

    /// Why the last reload failed; empty when it did not.
    pub(crate) fn trouble(&self) -> &str {
        &self.trouble
    }
}

/// Keeps the gateway's unit started. systemd restarts a gateway that ends; this starts one that systemd gave up on, or
/// whose start failed before it ran. One that was stopped on purpose is left alone.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Gateway {
    state: String,
    failures: u32,
    active_since: Option<Instant>,
    due: Option<Instant>,
    /// It was stopped here, to be started at once.
    renewed: bool,
}

impl Gateway {
    /// The unit's `ActiveState` is this now.
    pub(crate) fn observe(&mut self, active: &str, now: Instant) {
        // Told again is not stopped again: a start that failed before the unit left `inactive` stays due.
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
            // The stop is not an administrator's: a start that is due stays so.
            _ if self.renewed => {}
            // `inactive` is an administrator's stop; the rest is on its way to another state.
            _ => {
                self.forget_if_steady(now);
                self.due = None;
            }
        }
    }

    /// A start was refused or its job failed.
    pub(crate) fn fail(&mut self, now: Instant) {
        self.forget_if_steady(now);
        // The failed job and the failed unit are two messages about one failure.
        if self.due.is_none() {
            self.failures = self.failures.saturating_add(1);
            self.due = Some(now + pause(self.failures));
        }
    }

    /// When to start it again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It is being started.
    pub(crate) fn begin(&mut self) {
        self.due = None;
    }

    /// It is being stopped and started again.
    pub(crate) fn renew(&mut self) {
        self.renewed = true;
        self.due = None;
    }

    /// The connection to systemd is lost: nobody knows how far that has come.
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

/// Suspects Podman's storage when the gateway's unit keeps failing: after a power cut a layer of its image may be
/// empty, and then no restart helps. The repair looks before it touches anything, so a wrong suspicion costs only time.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Suspicion {
    restarts: u32,
    active_since: Option<Instant>,
    repaired_at: Option<Instant>,
}

impl Suspicion {
    /// The unit is `active` and systemd has restarted it so often (`NRestarts`) since it was last started by hand.
    /// Whether the storage should be repaired now.
    pub(crate) fn observe(&mut self, active: &str, restarts: u32, now: Instant) -> bool {
        // Podman calls a pod started whose program then cannot be executed: only one that stays up for a while is well.
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

    /// There is a sign of damage. Whether the storage should be repaired now, which is counted as done.
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

/// What came of a start or stop job. `result` is systemd's word in `JobRemoved`; `cause` is the unit's `Result` and
/// `status` its `StatusText` afterwards.
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
        // The first has changed its files and waits, and after it the second.
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
        // The last one has nobody to wait for.
        reloads.stale(at(5000));
        reloads.order_ends();
        reloads.hurry(at(5000));
        assert_eq!(reloads.due(at(5000)), Some(at(5000)));
    }

    #[test]
    fn what_nobody_waits_for_is_read_when_it_is_quiet() {
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
        // (what happens, at which second) in turn, and then: when it is due.
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
            // Stopped to be started: as long as systemd can be asked, that start is under way.
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
            // What is stopped later is an administrator's again.
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
            // It ran well.
            (604, "deactivating", 9, false),
            (605, "activating", 11, false),
            (606, "activating", 12, true),
            // Started by hand: systemd counts anew.
            (1400, "activating", 1, false),
            (1401, "activating", 4, true),
            // Up for a moment each time.
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
