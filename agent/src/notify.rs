//! The agent's notifications to systemd.
//!
//! Shell: writes to the notify socket, and does nothing if there is none.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service's status text, sent when it changes.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    status: String,
}

impl Notify {
    /// Reports that the agent has started.
    pub(crate) fn ready(&self) {
        send(&[NotifyState::Ready, NotifyState::Status(&self.status)]);
    }

    /// Shows `status` in `systemctl status`.
    pub(crate) fn status(&mut self, status: String) {
        if self.status != status {
            send(&[NotifyState::Status(&status)]);
            tracing::debug!(status, "status");
            self.status = status;
        }
    }

    /// Reports that the agent reloads its configuration; [`Notify::ready`] must follow.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot read the clock for systemd"),
        }
    }

    /// Reports that the agent is stopping.
    pub(crate) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// Reports to the watchdog that the agent's loop runs.
    pub(crate) fn alive(&self) {
        send(&[NotifyState::Watchdog]);
    }
}

/// How often the agent must call [`Notify::alive`]: twice in the interval that systemd allows.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
