//! Decides when to restart a gateway whose unit is active but which does not connect to the agent.
//!
//! Pure: no I/O, no clock; the caller passes `now`. Input: the unit's state and whether the gateway is connected to the
//! agent. Output: when to stop the unit and start it again.

use std::time::{Duration, Instant};

use beemesh_protocol::backoff::doubled;

/// A gateway connects within a second of its start; a host that has just booted, or whose disk is slow, gets more.
const SILENCE_MIN: Duration = Duration::from_secs(20);
/// If restarts do not help, an administrator must look. Retries at this rate may still help.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Podman may report a pod as running after its only program has exited. The unit's main process belongs to the service
/// container, which Podman's cleanup stops. The cleanup can be killed, or run while the pod is still starting. systemd
/// then sees an active unit for ever.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Silence {
    since: Option<Instant>,
    /// The number of restarts in a row for this reason.
    renewals: u32,
}

impl Silence {
    /// Handles the unit's `ActiveState` and whether the gateway is connected.
    pub(crate) fn observe(&mut self, active: &str, connected: bool, now: Instant) {
        if connected {
            *self = Self::default();
        } else if active == "active" {
            self.since.get_or_insert(now);
        } else {
            self.since = None;
        }
    }

    /// The time at which to restart the unit.
    pub(crate) fn due(&self) -> Option<Instant> {
        let wait = doubled(SILENCE_MIN, SILENCE_MAX, self.renewals);
        self.since.map(|since| since + wait)
    }

    /// Records a restart. Returns true if it is a repeated one, because the last restart did not help.
    pub(crate) fn begin(&mut self) -> bool {
        self.since = None;
        let again = self.renewals > 0;
        self.renewals = self.renewals.saturating_add(1);
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_gateway_is_restarted_after_growing_pauses() {
        let zero = Instant::now();
        let at = |seconds: u64| zero + Duration::from_secs(seconds);
        let mut silence = Silence::default();
        // The second, the state, whether the gateway is connected and restarted, and then the time at which a restart
        // is due.
        for (second, active, connected, renewed, due) in [
            (0, "activating", false, false, None),
            (1, "active", false, false, Some(21)),
            (2, "active", false, false, Some(21)),
            (3, "active", true, false, None),
            (90, "active", false, false, Some(110)),
            (91, "deactivating", false, false, None),
            (92, "active", false, false, Some(112)),
            (112, "active", false, true, None),
            (113, "active", false, false, Some(153)),
            (153, "active", false, true, None),
            (154, "active", false, false, Some(234)),
            (155, "active", true, false, None),
            (156, "active", false, false, Some(176)),
        ] {
            silence.observe(active, connected, at(second));
            if renewed {
                assert_eq!(silence.begin(), second == 153, "at {second} s");
            }
            assert_eq!(silence.due(), due.map(at), "at {second} s");
        }
        (0..40).for_each(|_| {
            silence.begin();
        });
        silence.observe("active", false, zero);
        assert_eq!(silence.due(), Some(zero + SILENCE_MAX));
    }
}
