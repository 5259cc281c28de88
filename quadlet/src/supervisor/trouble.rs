//! Pure: the part of the supervisor that handles failures of Podman: it tries again, has the storage repaired, or ends.

use std::time::Instant;

use super::{Effect, Failure, PAUSE_MAX, REFUSALS_MAX, Status, Supervisor, TROUBLE_TIME_MAX};

impl Supervisor {
    /// Handles a look that failed.
    pub(super) fn blind(&mut self, failure: Failure, now: Instant) -> Vec<Effect> {
        self.looked_at = Some(now);
        let wait = match failure {
            // A pod that ran at the last look continues to run.
            Failure::Damaged(_) if !self.ready => return self.failed(failure, now),
            Failure::Damaged(wait)
            | Failure::Passing(wait)
            | Failure::Refused(wait)
            | Failure::Hopeless(wait) => wait,
        };
        self.look_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        if !self.ready && self.in_trouble_for_long(now) {
            return self.leave_to_systemd(wait);
        }
        let revision = self.persisted.map_or(0, |persisted| persisted.revision);
        self.say_status(Status::Waiting { revision, wait })
    }

    /// Handles a play, or the first start of a container, that failed.
    pub(super) fn failed(&mut self, failure: Failure, now: Instant) -> Vec<Effect> {
        self.look_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let too_long = self.in_trouble_for_long(now);
        let revision = self.persisted.map_or(0, |persisted| persisted.revision);
        match failure {
            Failure::Hopeless(reason) if self.repaired => {
                self.end(format!("{reason} (Podman's storage was repaired before)"))
            }
            Failure::Hopeless(reason) => self.end(reason),
            Failure::Damaged(reason) if self.repaired => self.end(format!(
                "{reason} (Podman's storage was repaired without success)"
            )),
            Failure::Damaged(reason) => {
                self.repaired = true;
                self.look_at = None;
                let mut effects =
                    self.say_starting(revision, &format!("repairing Podman's storage: {reason}"));
                effects.push(Effect::Repair);
                effects
            }
            Failure::Refused(reason) => {
                self.refusals += 1;
                if too_long || self.refusals >= REFUSALS_MAX {
                    return self.leave_to_systemd(reason);
                }
                self.say_starting(revision, &format!("{reason}; trying again"))
            }
            Failure::Passing(reason) if too_long => self.leave_to_systemd(reason),
            Failure::Passing(reason) => self.say_status(Status::Waiting {
                revision,
                wait: reason,
            }),
        }
    }

    /// Handles the end of a repair.
    pub(super) fn after_repair(
        &mut self,
        outcome: Result<(), String>,
        now: Instant,
    ) -> Vec<Effect> {
        match outcome {
            Ok(()) => {
                self.trouble_since = Some(now);
                self.look()
            }
            Err(reason) => self.leave_to_systemd(format!(
                "Podman's storage is damaged and was not repaired: {reason}"
            )),
        }
    }

    fn in_trouble_for_long(&mut self, now: Instant) -> bool {
        now >= *self.trouble_since.get_or_insert(now) + TROUBLE_TIME_MAX
    }
}
