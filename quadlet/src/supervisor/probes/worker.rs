//! Pure: the schedule and the counts of one probe of a running container.

use std::time::{Duration, Instant};

use super::spec::Probe;
use super::{Failing, Fault, Kind, Outcome};

/// The pause before the second run that does not count. It doubles with each further one.
const EAGER_PAUSE_MIN: Duration = Duration::from_millis(250);

/// A result that changes what the probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// It has succeeded as often as its threshold.
    Passed,
    /// It has failed as often as its threshold.
    Failed(Fault),
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) probe: Probe,
    /// Consecutive failures that count.
    pub(super) failures: u32,
    successes: u32,
    /// How the last run failed.
    fault: Option<Fault>,
    /// The next run that counts.
    next: Instant,
    /// The next run that does not count, while the probe has not succeeded yet.
    eager: Option<Instant>,
    eager_pause: Duration,
    is_eager: bool,
    running: Option<Running>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    began: Instant,
    counts: bool,
}

impl Worker {
    /// A probe that may run `from` then on. Its first run that counts is at this share of a period later. An eager
    /// probe runs before, too.
    pub(super) fn new(probe: Probe, from: Instant, share: f64, is_eager: bool) -> Self {
        Self {
            next: from + probe.period.mul_f64(share),
            eager: is_eager.then_some(from),
            eager_pause: EAGER_PAUSE_MIN,
            is_eager,
            failures: 0,
            successes: 0,
            fault: None,
            running: None,
            probe,
        }
    }

    /// When it runs next; `None` while it runs.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        match self.running {
            Some(_) => None,
            None => Some(self.eager.map_or(self.next, |eager| eager.min(self.next))),
        }
    }

    /// Begins a run if one is due. Returns whether it counts if it fails.
    pub(super) fn begin(&mut self, now: Instant) -> Option<bool> {
        if self.wake_at().is_none_or(|at| at > now) {
            return None;
        }
        let counts = self.next <= now;
        if counts {
            self.next = now + self.probe.period;
        }
        self.eager = None;
        self.running = Some(Running { began: now, counts });
        Some(counts)
    }

    pub(super) fn finish(&mut self, outcome: &Outcome, now: Instant) -> Option<Ended> {
        let Running { began, counts } = self.running.take()?;
        match outcome {
            Outcome::Success | Outcome::Warning(_) => {
                self.failures = 0;
                self.fault = None;
                self.is_eager = false;
                self.successes = self.successes.saturating_add(1);
                self.next = began + self.probe.period;
                (self.successes >= self.probe.success_threshold).then_some(Ended::Passed)
            }
            Outcome::Failure(fault) => {
                self.successes = 0;
                self.fault = Some(fault.clone());
                self.hurry(now);
                self.failures = self.failures.saturating_add(u32::from(counts));
                let is_over = counts && self.failures >= self.probe.failure_threshold;
                is_over.then(|| Ended::Failed(fault.clone()))
            }
            Outcome::Unknown(_) => {
                self.hurry(now);
                None
            }
        }
    }

    fn hurry(&mut self, now: Instant) {
        if self.is_eager {
            self.eager = Some(now + self.eager_pause);
            self.eager_pause = (self.eager_pause * 2).min(self.probe.period);
        }
    }

    pub(super) fn failing(&self, kind: Kind) -> Option<Failing> {
        let fault = self.fault.clone()?;
        Some(Failing {
            kind,
            failures: self.failures,
            threshold: self.probe.failure_threshold,
            fault,
        })
    }
}
