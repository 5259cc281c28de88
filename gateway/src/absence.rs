//! Finds out that this host is no member any more, which its own log does not say.
//!
//! Shell. Nobody sends it entries any more when it was removed while it was away, and hosts that were cut off by a recovery may
//! even elect a leader of their own. Whoever reaches members and has no leader for a while asks them, and whoever is refused a stream
//! as no member asks the one that refused it. A member that says that this host is none is believed: it has read that in the log.

use std::{collections::BTreeSet, time::Duration};

use beemesh_protocol::{ClusterId, HostId, mesh::Contact};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{api::Gateway, home::Home, raft::Metrics};

/// Elections are over long before.
const LEADERLESS_MAX: Duration = Duration::from_secs(15);
/// Between two questions. Each costs the others a look at the log.
const PAUSE: Duration = Duration::from_secs(3);

/// Asks whenever there is reason to, and remembers the answer that this host is `removed`.
pub(crate) async fn notice_removal(gateway: Gateway, home: Home, removed: watch::Sender<bool>) {
    let mut view = gateway.node.state();
    let member = view.wait_for(|view| view.state.hosts().contains_key(&gateway.host));
    if member.await.is_err() {
        return;
    }
    let mut metrics = gateway.node.metrics();
    let mut estranged = gateway.link.estranged();
    while !*removed.borrow() {
        let ask = tokio::select! {
            hosts = estranged.wait_for(|hosts| !hosts.is_empty()) => match hosts {
                Ok(hosts) => hosts.clone(),
                Err(_) => return,
            },
            lost = leaderless(&mut metrics) => {
                if !lost {
                    return;
                }
                BTreeSet::clone(&gateway.link.connected().borrow())
            }
        };
        if let Some(cluster) = is_stranger(&gateway, &ask).await {
            match home.set_removed(cluster) {
                Ok(()) => {
                    removed.send_replace(true);
                    return;
                }
                Err(error) => tracing::error!(%error, "the removal cannot be remembered"),
            }
        }
        sleep(PAUSE).await;
    }
}

/// Waits until there has been no leader for long; `false` when consensus has ended.
async fn leaderless(metrics: &mut watch::Receiver<Metrics>) -> bool {
    let led = |metrics: &Metrics| metrics.leader.is_some() && metrics.quorum;
    while metrics.wait_for(|metrics| !led(metrics)).await.is_ok() {
        if timeout(LEADERLESS_MAX, metrics.wait_for(led))
            .await
            .is_err()
        {
            return true;
        }
    }
    false
}

/// The cluster that this host is no member of any more, if one of these members says so.
async fn is_stranger(gateway: &Gateway, ask: &BTreeSet<HostId>) -> Option<ClusterId> {
    let view = gateway.node.state().borrow().clone();
    let cluster = view.state.cluster()?;
    let others = view.state.hosts().values();
    for member in others.filter(|host| host.id != gateway.host && ask.contains(&host.id)) {
        let contact = Contact {
            host: member.id,
            addresses: member.addresses.clone(),
        };
        match gateway.joiner.is_member(cluster, contact).await {
            Some(true) => return None,
            Some(false) => return Some(cluster),
            None => {}
        }
    }
    None
}
