//! Turns a new host into a cluster of one.
//!
//! Shell.

use std::{collections::BTreeSet, env::consts::ARCH, time::Duration};

use anyhow::anyhow;
use beemesh_protocol::{
    ClusterId, HostId,
    ipc::Welcome,
    state::{Change, Command, Host},
};
use tokio::time::{Instant, sleep};

use crate::{
    agent_link::Link,
    clock::{backoff::Backoff, now_ms},
    cluster::{
        consensus::{Consensus, Role},
        labels,
    },
    controllers,
    raft::Node,
};

/// A cluster of one commits in milliseconds; this is the limit for a slow disk.
const FOUND_MAX: Duration = Duration::from_secs(30);

/// Turns a host that is in no cluster into a cluster of one, which works at once.
///
/// A host without a log is new. A host that has a log, is the only voter and the leader, and has applied all entries
/// without finding a cluster, was stopped between Raft's first entry and the first command.
pub(crate) async fn found(node: Node, link: Link, host: HostId) {
    let alone = BTreeSet::from([host]);
    let mut consensus = node.consensus();
    let in_no_cluster = |consensus: &Consensus| {
        consensus.role == Role::Leader
            && consensus.voters == alone
            && consensus.applied == consensus.last_log
    };
    if !node.is_pristine() && consensus.wait_for(in_no_cluster).await.is_err() {
        return;
    }
    let Some(welcome) = link.welcomed().await else {
        return;
    };
    let mut backoff = Backoff::of_proposals();
    while node.state().borrow().state.cluster().is_none() {
        let pause = backoff.tried(Instant::now());
        match found_once(&node, host, &welcome).await {
            Ok(cluster) => {
                tracing::info!(%cluster, "founded a cluster of this one host");
                controllers::begin(&node, Instant::now() + FOUND_MAX).await;
            }
            Err(error) => {
                tracing::error!("found a cluster: {error:#}");
                sleep(pause).await;
            }
        }
    }
}

async fn found_once(node: &Node, host: HostId, welcome: &Welcome) -> anyhow::Result<ClusterId> {
    let mut cluster = [0; 16];
    getrandom::fill(&mut cluster)
        .map_err(|error| anyhow!("create a random cluster id: {error}"))?;
    let change = Change::Found {
        cluster: ClusterId(cluster),
        host: Host {
            id: host,
            name: welcome.name.clone(),
            addresses: welcome.addresses.clone(),
            labels: labels::of_machine(ARCH),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        },
    };
    let command = Command::unasked(now_ms(), change);
    node.found(command, Instant::now() + FOUND_MAX).await?;
    Ok(ClusterId(cluster))
}
