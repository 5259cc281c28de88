//! Tests on real nodes: the voters follow the member list.

use std::collections::BTreeSet;

use beemesh_protocol::state::{Change, Command};
use tokio::task::JoinSet;

use super::*;
use crate::{
    cluster::{consensus::Consensus, state::DEMOTED_MS},
    raft::{
        Access, HEARTBEAT, VOTERS_MAX,
        tests::{Mesh, PATIENCE, commands, deadline, host, put},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_votes_when_it_has_caught_up_and_not_before() {
    let mesh = Mesh::founded(2).await;
    let leader = mesh.node(1);
    let token = vec![commands::token(1)];
    leader.propose(token, deadline()).await.unwrap();
    mesh.disk(2).set(Access::Wait);
    let duty = tokio::spawn(keep_membership(leader.clone()));
    let join = vec![commands::admit(host(2))];
    leader.propose(join, deadline()).await.unwrap();
    let mut consensus = leader.consensus();
    let learns = consensus.wait_for(|consensus| consensus.learners.contains(&host(2)));
    drop(tokio::time::timeout(PATIENCE, learns).await.unwrap());
    let early = consensus.wait_for(|consensus| {
        consensus.caught_up.contains(&host(2)) || consensus.voters.contains(&host(2))
    });
    let early = tokio::time::timeout(4 * HEARTBEAT, early).await.is_ok();
    assert!(!early, "it has nothing on its disk");
    mesh.disk(2).set(Access::Pass);
    let votes = consensus.wait_for(|consensus| consensus.voters.contains(&host(2)));
    drop(tokio::time::timeout(PATIENCE, votes).await.unwrap());
    duty.abort();
    mesh.close().await;
}

/// Starts this many hosts, which join one after the other.
pub(crate) async fn grown(count: u8) -> (Mesh, JoinSet<()>) {
    let mesh = Mesh::founded(count).await;
    let mut duties = JoinSet::new();
    for number in 1..=count {
        duties.spawn(keep_membership(mesh.node(number)));
    }
    let first = mesh.node(1);
    let token = vec![commands::token(count.into())];
    first.propose(token, deadline()).await.unwrap();
    for number in 2..=count {
        let join = vec![commands::admit(host(number))];
        first.propose(join, deadline()).await.unwrap();
    }
    (mesh, duties)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_voter_is_replaced_by_a_learner_and_learns_when_it_is_back() {
    let (mesh, mut duties) = grown(6).await;
    let full = |consensus: &Consensus| consensus.voters.len() == VOTERS_MAX;
    let mut consensus = mesh.node(1).consensus();
    let grown = consensus.wait_for(|consensus| full(consensus) && consensus.learners.len() == 1);
    let before = tokio::time::timeout(PATIENCE, grown).await.unwrap();
    let before = before.unwrap().clone();
    let spare = *before.learners.first().unwrap();
    let mut voters = before.voters.iter().copied();
    let lost = voters.find(|host| Some(*host) != before.leader && *host != self::host(1));
    let lost = lost.unwrap();
    mesh.stop(lost.0[0]).await;
    let swapped = |consensus: &Consensus| {
        full(consensus)
            && consensus.voters.contains(&spare)
            && consensus.learners == BTreeSet::from([lost])
    };
    let replaced = consensus.wait_for(swapped);
    drop(tokio::time::timeout(PATIENCE, replaced).await.unwrap());
    let last = put(&mesh.node(1), 1, 1).await;
    mesh.start(lost.0[0]).await;
    mesh.same(lost.0[0], last).await;
    assert!(swapped(&consensus.borrow()), "no host is lost now");
    duties.shutdown().await;
    mesh.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hosts_one_goes_on_alone_once_the_other_is_demoted() {
    let (mesh, mut duties) = grown(2).await;
    let votes = |count| move |consensus: &Consensus| consensus.voters.len() == count;
    let mut consensus = mesh.node(2).consensus();
    let both = consensus.wait_for(votes(2));
    drop(tokio::time::timeout(PATIENCE, both).await.unwrap());
    let demote = |left_ms| {
        let change = Change::DemoteHost { host: host(1) };
        vec![Command::unasked(now_ms() + left_ms - DEMOTED_MS, change)]
    };
    let node = mesh.node(2);
    // The host is not removed, so it votes again after some seconds.
    node.propose(demote(2_000), deadline()).await.unwrap();
    for count in [1, 2] {
        let change = consensus.wait_for(votes(count));
        drop(tokio::time::timeout(PATIENCE, change).await.unwrap());
    }
    // This host founded the cluster, and still leads unless it lost the leadership in the first part.
    node.propose(demote(DEMOTED_MS), deadline()).await.unwrap();
    let alone = consensus.wait_for(|consensus| consensus.voters == BTreeSet::from([host(2)]));
    drop(tokio::time::timeout(PATIENCE, alone).await.unwrap());
    mesh.stop(1).await;
    let gone = Change::RemoveHost { host: host(1) };
    let gone = vec![Command::unasked(now_ms(), gone)];
    node.propose(gone, deadline()).await.unwrap();
    let forgotten = consensus.wait_for(|consensus| !consensus.counts(host(1)));
    drop(tokio::time::timeout(PATIENCE, forgotten).await.unwrap());
    let _ = put(&node, 1, 1).await;
    duties.shutdown().await;
    mesh.close().await;
}
