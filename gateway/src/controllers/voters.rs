//! Keeps Raft's membership equal to the member list.
//!
//! Shell: a loop that acts only on the leader. [`Wanted`] says which hosts should vote, and Raft decides on the steps.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    clock::{backoff::Backoff, now_ms},
    cluster::consensus::Role,
    raft::{Node, Wanted},
};

/// How often a temporary demotion is checked.
const DEMOTED_PAUSE: Duration = Duration::from_secs(1);
/// The pause before a failed change is retried, as when a member is down or lags behind.
const MEMBERSHIP_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause. An attempt may cost a log entry, and a host that has returned should not wait long.
const MEMBERSHIP_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Minimum time between two rounds, because every commit changes the replicated state and the state of Raft. The first round after a
/// quiet time starts at once.
const PACE: Duration = Duration::from_millis(50);

/// While this host leads, changes Raft's membership to match the member list, one change at a time.
pub(crate) async fn keep_membership(node: Node) {
    let mut view = node.state();
    let mut consensus = node.consensus();
    let mut backoff = Backoff::new(MEMBERSHIP_PAUSE, MEMBERSHIP_PAUSE_MAX);
    let (mut wanted, mut failed) = (Wanted::default(), false);
    loop {
        let leads = consensus.borrow_and_update().role == Role::Leader;
        let now = Wanted::of(&view.borrow_and_update().state, now_ms());
        // The backoff paces retries of a failed change; another change is made at once.
        failed &= wanted == now;
        wanted = now;
        if leads && (!failed || backoff.allows(Instant::now())) {
            let changed = node.reconcile_members(&wanted).await;
            failed = changed.is_err();
            if let Err(error) = changed {
                let pause = backoff.tried(Instant::now());
                tracing::debug!(%error, ?pause, "membership not changed now");
            }
        }
        let due = match (leads, failed) {
            (true, true) => backoff.due(),
            (true, false) if !wanted.demoted.is_empty() => Some(Instant::now() + DEMOTED_PAUSE),
            _ => None,
        };
        sleep(PACE).await;
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = consensus.changed() => changed,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
