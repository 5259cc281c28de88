//! Finds out that this host is no member any more, which its own log does not say.
//!
//! Shell. Nobody sends it entries any more when it was removed while it was away, and hosts that were cut off by a recovery may
//! even elect a leader of their own. Whoever has no leader for a while asks the members, whose connections last too short to be seen,
//! and whoever is refused a stream as no member asks the one that refused it, and the others when that one cannot tell: it may have been
//! removed itself. A member that says that this host is none is believed: it has read that in the log.

use std::{collections::BTreeSet, time::Duration};

use beemesh_protocol::{ClusterId, HostId, mesh::Contact};
use futures::{StreamExt as _, stream};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    cluster::consensus::Metrics,
    context::Gateway,
    local::lifecycle::{Event, store::LifeError},
    membership::join::is_member,
};

/// Elections are over long before.
const LEADERLESS_MAX: Duration = Duration::from_secs(15);
/// Between two questions. Each costs the others a look at the log.
const PAUSE: Duration = Duration::from_secs(3);
/// The same for whoever expects to be removed now.
const LOOK: Duration = Duration::from_secs(1);
/// Members that are asked at once: one that is off answers within seconds, by an error.
const ASKED_MAX: usize = 8;

/// Asks whenever there is reason to, and remembers the answer that this host was removed.
pub(crate) async fn notice_removal(gateway: Gateway) {
    let mut view = gateway.node.state();
    let member = view.wait_for(|view| view.state.hosts().contains_key(&gateway.host));
    if member.await.is_err() {
        return;
    }
    let mut metrics = gateway.node.metrics();
    let mut estranged = gateway.link.estranged();
    while !gateway.life.now().is_removed() {
        let estranged: Option<BTreeSet<HostId>> = tokio::select! {
            hosts = estranged.wait_for(|hosts| !hosts.is_empty()) => match hosts {
                Ok(hosts) => Some(hosts.clone()),
                Err(_) => return,
            },
            true = leaderless(&mut metrics) => None,
            else => return,
        };
        if let Some(cluster) = is_stranger(&gateway, &estranged.unwrap_or_default()).await {
            let removed = Event::Removed { cluster, at: None };
            match gateway.life.happens(removed) {
                Ok(_) => return,
                // A change of the key finds that out itself.
                Err(LifeError::Forbidden(_)) => {}
                Err(error @ LifeError::Home(_)) => {
                    tracing::error!("{:#}", anyhow::Error::from(error));
                }
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

/// The cluster that this host is no member of any more, if a member says so. The `first` hosts are asked first, and the others when none of
/// them can tell.
async fn is_stranger(gateway: &Gateway, first: &BTreeSet<HostId>) -> Option<ClusterId> {
    let state = gateway.node.state().borrow().state.clone();
    let cluster = state.cluster()?;
    let others = state
        .hosts()
        .values()
        .filter(|host| host.id != gateway.host);
    let contacts = others.map(|host| Contact {
        host: host.id,
        addresses: host.addresses.clone(),
    });
    let (first, rest): (Vec<_>, Vec<_>) =
        contacts.partition(|contact| first.contains(&contact.host));
    for contacts in [first, rest] {
        let told = contacts
            .into_iter()
            .map(|contact| is_member(gateway, cluster, contact));
        let mut told = stream::iter(told).buffer_unordered(ASKED_MAX);
        while let Some(answer) = told.next().await {
            match answer {
                Some(true) => return None,
                Some(false) => return Some(cluster),
                None => {}
            }
        }
    }
    None
}

/// Waits until the log of this host or another member says that this host was removed.
pub(crate) async fn removal(gateway: &Gateway) {
    let mut view = gateway.node.state();
    loop {
        let known = view.wait_for(|view| view.state.is_without(gateway.host));
        if timeout(LOOK, known).await.is_ok_and(|known| known.is_ok())
            || gateway.life.now().is_removed()
            || is_stranger(gateway, &BTreeSet::new()).await.is_some()
        {
            return;
        }
    }
}
