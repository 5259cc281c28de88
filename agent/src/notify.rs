//! What systemd is told about the agent.
//!
//! Shell: writes to the notify socket, and does nothing when there is none.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service's status text, sent when it changes.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    status: String,
}

impl Notify {
    /// The agent is up.
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

    /// The agent reads its configuration again; [`Notify::ready`] must follow.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot read the clock for systemd"),
        }
    }

    /// The agent ends.
    pub(crate) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// The agent's loop turns.
    pub(crate) fn alive(&self) {
        send(&[NotifyState::Watchdog]);
    }
}

/// How often systemd wants [`Notify::alive`]: twice within what it tolerates.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
