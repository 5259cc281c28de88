//! Tells the agent who the members are, and says when it is not the agent of this host.
//!
//! Shell: each of the two is a loop that waits for a change and passes it on.

use std::collections::BTreeSet;

use beemesh_protocol::{HostId, ipc::Member};
use tokio::sync::watch;

use crate::{
    agent_link::Link,
    context::Gateway,
    local::files::{Home, Joining},
};

/// Tells the agent who the members are, and `removed` whether this host was one. While a join is under way the members are
/// the ones that the admission named; a host that was removed has none. `served` hears of them, too.
pub(crate) async fn tell_members(
    gateway: Gateway,
    home: Home,
    mut joining: Option<Joining>,
    removed: watch::Sender<bool>,
    served: watch::Sender<Option<BTreeSet<HostId>>>,
) {
    let Gateway {
        host, node, link, ..
    } = gateway;
    let mut view = node.state();
    let mut is_removed = removed.subscribe();
    let mut told: Option<Vec<Member>> = None;
    loop {
        let state = view.borrow_and_update().state.clone();
        if state.hosts().contains_key(&host) && joining.is_some() {
            match home.joined() {
                Ok(()) => joining = None,
                Err(error) => tracing::error!(%error, "the end of the join cannot be remembered"),
            }
        }
        if joining.is_none() && state.is_without(host) {
            removed.send_if_modified(|removed| !std::mem::replace(removed, true));
        }
        let gone = *is_removed.borrow_and_update();
        let members = match &joining {
            Some(joining) => joining.members.iter().cloned().map(Into::into).collect(),
            None if gone => Vec::new(),
            None => state.members(),
        };
        if gone && told.as_ref() != Some(&members) {
            tracing::warn!("this host was removed from its cluster; its workloads stay as units");
        }
        if told.as_ref() != Some(&members) {
            served.send_replace(Some(members.iter().map(|member| member.host).collect()));
            link.members(members.clone());
            told = Some(members);
        }
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = is_removed.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Says loudly when the agent is not the one this gateway's folder belongs to: the mesh would speak under another name.
pub(crate) async fn check_identity(link: Link, host: HostId) {
    let mut welcome = link.welcome();
    loop {
        if let Some(agent) = welcome
            .borrow_and_update()
            .as_ref()
            .map(|welcome| welcome.host)
            && agent != host
        {
            tracing::error!(
                %agent, folder = %host,
                "the agent has another identity than the gateway's folder: restore /var/lib/beemesh/agent/identity, or \
                 remove the gateway's folder and join again"
            );
        }
        if welcome.changed().await.is_err() {
            return;
        }
    }
}
