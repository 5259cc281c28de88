//! Tests on real nodes: a host leaves a cluster and returns.

use std::collections::BTreeSet;

use beemesh_protocol::{ClusterId, state::TokenRecord};

use super::*;
use crate::{
    controllers::voters::tests::grown,
    raft::{
        Wanted,
        tests::{PATIENCE, deadline, host},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_host_comes_back_when_raft_has_let_it_go_and_not_before() {
    let (mesh, mut duties) = grown(2).await;
    let mut consensus = mesh.node(1).consensus();
    let both = consensus.wait_for(|consensus| consensus.voters.len() == 2);
    drop(tokio::time::timeout(PATIENCE, both).await.unwrap());
    // From now on no task updates Raft's members.
    duties.shutdown().await;
    let node = mesh.node(1);
    let secret = [9; 32];
    let token = TokenRecord {
        id: [9; 8],
        secret_hash: Sha256::digest(secret).into(),
        expires_ms: u64::MAX,
        uses: 1,
    };
    let changes = [
        Change::PutToken(token),
        Change::RemoveHost { host: host(2) },
    ];
    for change in changes {
        let command = Command::unasked(1, change);
        node.propose(vec![command], deadline()).await.unwrap();
    }
    let ask = |token| {
        let request = JoinRequest {
            cluster: ClusterId([1; 16]),
            token,
            secret,
            name: "h2".into(),
            addresses: Vec::new(),
            replace: None,
        };
        admit(&node, host(2), request, None)
    };
    assert_eq!(ask(NO_TOKEN).await, JoinAnswer::Stranger);
    let early = ask([9; 8]).await;
    assert!(
        matches!(&early, JoinAnswer::Refused { reason } if reason.contains("being removed")),
        "{early:?}"
    );
    let wanted = Wanted {
        hosts: BTreeSet::from([host(1)]),
        demoted: BTreeSet::new(),
    };
    node.reconcile_members(&wanted).await.unwrap();
    let alone = consensus.wait_for(|consensus| !consensus.counts(host(2)));
    drop(tokio::time::timeout(PATIENCE, alone).await.unwrap());
    for token in [[9; 8], NO_TOKEN] {
        let late = ask(token).await;
        assert!(matches!(late, JoinAnswer::Admitted { .. }), "{late:?}");
    }
    mesh.close().await;
}
