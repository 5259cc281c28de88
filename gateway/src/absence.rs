//! Finds out that this host was removed from its cluster while it was away.
//!
//! Shell. Its own log cannot tell, for nobody sends it entries any more: a host that reaches members and yet has no leader for a
//! while asks them. One that says that this host is no member is believed: it has read that in the log.

use std::time::Duration;

use beemesh_protocol::{ClusterId, state::Host};
use tokio::{sync::watch, time::timeout};

use crate::{api::Gateway, home::Home, raft::Metrics};

/// Elections are over long before.
const LEADERLESS_MAX: Duration = Duration::from_secs(15);

/// Asks whenever there is reason to, and remembers the answer that this host is `removed`.
pub(crate) async fn notice_removal(gateway: Gateway, home: Home, removed: watch::Sender<bool>) {
    let mut metrics = gateway.node.metrics();
    let led = |metrics: &Metrics| metrics.leader.is_some() && metrics.quorum;
    while metrics.wait_for(|metrics| !led(metrics)).await.is_ok() {
        if timeout(LEADERLESS_MAX, metrics.wait_for(led)).await.is_ok() {
            continue;
        }
        if *removed.borrow() {
            return;
        }
        let Some(cluster) = is_stranger(&gateway).await else {
            continue;
        };
        match home.set_removed(cluster) {
            Ok(()) => {
                removed.send_replace(true);
                return;
            }
            Err(error) => tracing::error!(%error, "the removal cannot be remembered"),
        }
    }
}

/// The cluster that this host is no member of any more, if a member that can be reached says so.
async fn is_stranger(gateway: &Gateway) -> Option<ClusterId> {
    let view = gateway.node.state().borrow().clone();
    let cluster = view.state.cluster()?;
    let connected = gateway.link.connected().borrow().clone();
    let others = view.state.hosts().values();
    let others = others.filter(|host| host.id != gateway.host && connected.contains(&host.id));
    let others: Vec<&Host> = others.collect();
    for member in others {
        match gateway.joiner.is_member(cluster, member).await {
            Some(true) => return None,
            Some(false) => return Some(cluster),
            None => {}
        }
    }
    None
}
