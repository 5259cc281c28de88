//! Detects that this host is no longer a member when its own log does not say so.
//!
//! Shell. A host that was removed while it was unreachable receives no more log entries, and hosts that a recovery cut
//! off may even elect a leader among themselves. A host therefore asks in two cases. If it has had no leader for a
//! while, it asks the members; their connections to it are too short-lived to be observed. If a member refuses a stream
//! because this host is not a member, it asks that member first, and the others when that one cannot tell, because it
//! may have been removed itself. This host accepts the answer that it is not a member, because the other host has read
//! that in the log.

use std::{collections::BTreeSet, time::Duration};

use beemesh_protocol::{ClusterId, HostId, mesh::Contact};
use futures::{StreamExt as _, stream};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    cluster::consensus::Consensus,
    context::Gateway,
    local::lifecycle::{Event, store::LifeError},
    membership::join::is_member,
};

/// Elections are over long before.
const LEADERLESS_MAX: Duration = Duration::from_secs(15);
/// Pause between two questions. Each one makes the others read their log.
const PAUSE: Duration = Duration::from_secs(3);
/// Pause between two checks of a host that expects its removal.
const LOOK: Duration = Duration::from_secs(1);
/// Maximum number of members that are asked at the same time. A question to a host that is off fails within seconds.
const ASKED_MAX: usize = 8;

/// Asks when there is a reason to, and records that this host was removed.
pub(crate) async fn notice_removal(gateway: Gateway) {
    let mut view = gateway.node.state();
    let member = view.wait_for(|view| view.state.hosts().contains_key(&gateway.host));
    if member.await.is_err() {
        return;
    }
    let mut consensus = gateway.node.consensus();
    let mut estranged = gateway.link.estranged();
    while !gateway.life.now().is_removed() {
        let estranged: Option<BTreeSet<HostId>> = tokio::select! {
            hosts = estranged.wait_for(|hosts| !hosts.is_empty()) => match hosts {
                Ok(hosts) => Some(hosts.clone()),
                Err(_) => return,
            },
            true = leaderless(&mut consensus) => None,
            else => return,
        };
        if let Some(cluster) = is_stranger(&gateway, &estranged.unwrap_or_default()).await {
            let removed = Event::Removed { cluster, at: None };
            match gateway.life.happens(removed) {
                Ok(_) => return,
                // A key change detects its outcome itself.
                Err(LifeError::Forbidden(_)) => {}
                Err(error @ LifeError::Home(_)) => {
                    tracing::error!("{:#}", anyhow::Error::from(error));
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// Waits until this host has had no leader for long; returns `false` when consensus has ended.
async fn leaderless(consensus: &mut watch::Receiver<Consensus>) -> bool {
    let led = |consensus: &Consensus| consensus.leader.is_some() && consensus.quorum;
    while consensus
        .wait_for(|consensus| !led(consensus))
        .await
        .is_ok()
    {
        if timeout(LEADERLESS_MAX, consensus.wait_for(led))
            .await
            .is_err()
        {
            return true;
        }
    }
    false
}

/// Returns the cluster of which this host is no longer a member, if a member says so. Asks the hosts in `first` before
/// the others, and the others only if none of `first` can tell.
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
