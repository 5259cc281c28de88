//! Finds out whether other members have a leader that this host does not hear.
//!
//! Shell. If a single link is cut, the two hosts at its ends do not hear each other, not even through a third host. One
//! of them may have no leader while all other members have one. Its administrator should then repair the link, and not
//! recover a cluster that works.

use std::{collections::BTreeSet, time::Duration};

use beemesh_protocol::HostId;
use futures::{StreamExt as _, stream};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    clock::backoff::Backoff,
    cluster::consensus::{Consensus, Role},
    context::Gateway,
};

/// How long to wait before asking. Most elections are over by then.
const LEADERLESS: Duration = Duration::from_secs(2);
/// Initial and maximum pause between two rounds of questions.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// A host answers at once, or waits for a majority that it does not reach.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Maximum number of hosts that are asked at the same time.
const ASKED_MAX: usize = 8;

/// Keeps `found` up to date: the leader that a reachable member hears while this host hears none.
pub(crate) async fn keep(gateway: Gateway, found: watch::Sender<Option<HostId>>) {
    let mut consensus = gateway.node.consensus();
    while consensus.wait_for(is_leaderless).await.is_ok() {
        let led = |consensus: &Consensus| !is_leaderless(consensus);
        let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
        let mut pause = LEADERLESS;
        while timeout(pause, consensus.wait_for(led)).await.is_err() {
            let leader = ask(&gateway).await;
            found.send_if_modified(|found| std::mem::replace(found, leader) != leader);
            pause = backoff.tried(Instant::now());
        }
        found.send_if_modified(|found| found.take().is_some());
    }
}

fn is_leaderless(consensus: &Consensus) -> bool {
    match consensus.role {
        Role::Leader | Role::Stopped => false,
        Role::Candidate | Role::Follower | Role::Learner => !consensus.quorum,
    }
}

/// Returns the leader from the first member that knows one.
async fn ask(gateway: &Gateway) -> Option<HostId> {
    let others: BTreeSet<_> = gateway.link.connected().borrow().iter().copied().collect();
    let asked = others.into_iter().filter(|host| *host != gateway.host);
    let answers = asked.map(|host| timeout(ANSWER_MAX, gateway.node.leader_of(host)));
    let mut answers = stream::iter(answers).buffer_unordered(ASKED_MAX);
    while let Some(answer) = answers.next().await {
        let leader = answer.ok().flatten();
        if let Some(leader) = leader.filter(|leader| *leader != gateway.host) {
            return Some(leader);
        }
    }
    None
}
