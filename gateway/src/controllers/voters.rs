//! Keeps the members that Raft counts equal to the member list.
//!
//! Shell: a loop that acts only on the host that leads. [`Wanted`] says who should vote, and Raft decides on the steps.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    clock::{backoff::Backoff, now_ms},
    cluster::consensus::Role,
    raft::{Node, Wanted},
};

/// A member that is demoted for a while is looked at after this pause.
const DEMOTED_PAUSE: Duration = Duration::from_secs(1);
/// A member that cannot be added or promoted now, because it is down or behind, is tried again after this pause.
const MEMBERSHIP_PAUSE: Duration = Duration::from_millis(200);
/// The pause grows up to this: an attempt may be an entry of the log, and the next one may find its host there.
const MEMBERSHIP_PAUSE_MAX: Duration = Duration::from_secs(5);
/// At most one look in this time at a state and metrics that every commit changes; the first after a quiet time is at once.
const PACE: Duration = Duration::from_millis(50);

/// While this host leads, brings Raft's membership to the member list, one change at a time.
pub(crate) async fn keep_membership(node: Node) {
    let mut view = node.state();
    let mut metrics = node.metrics();
    let mut backoff = Backoff::new(MEMBERSHIP_PAUSE, MEMBERSHIP_PAUSE_MAX);
    let (mut wanted, mut failed) = (Wanted::default(), false);
    loop {
        let leads = metrics.borrow_and_update().role == Role::Leader;
        let now = Wanted::of(&view.borrow_and_update().state, now_ms());
        // What failed is tried again by the back-off alone, and something else at once.
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
            changed = metrics.changed() => changed,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
