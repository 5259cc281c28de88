//! How hosts become members.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use beemesh_protocol::{
    ClusterId, HostId,
    peer::{Committed, Outcome},
    state::Change,
};
use tokio::time::{Instant, sleep};

use super::{super::manifests::at, AGREE_MAX, World, name};
use crate::{
    cluster::state::{ASSIGNED, ROLLED},
    controllers::level::raise,
    raft::{
        Node,
        tests::commands::{admit, member, token},
    },
};

impl World {
    /// Forms one cluster of the first hosts.
    pub(super) async fn form(self: &Arc<Self>) {
        for host in self.hosts() {
            self.begin(host).await;
        }
        let up = self.net.up();
        let mut hosts = self.hosts();
        hosts.truncate(self.members.load(Ordering::Relaxed));
        let soon = Instant::now() + Duration::from_secs(5);
        let (cluster, host) = (ClusterId([1; 16]), member(hosts[0]));
        let found = at(0, Change::Found { cluster, host });
        up[0].1.found(found, soon).await.expect("a cluster");
        // The token has one use for each host that joins, so no admission may count twice.
        let mut joins = vec![token(self.machines.len() - 1)];
        joins.extend(hosts[1..].iter().map(|host| admit(*host)));
        if self.begins_with_seats() {
            joins.push(at(0, raise(ASSIGNED)));
        }
        if self.level() >= ROLLED {
            joins.push(at(0, raise(ROLLED)));
        }
        let joined = up[0].1.propose(joins, soon).await.expect("members");
        let refused = |one: &&Committed| matches!(one.outcome, Outcome::Refused(_));
        assert_eq!(joined.iter().find(refused), None);
        let wanted: BTreeSet<HostId> = hosts.iter().copied().collect();
        let there = |node: &Node| node.consensus().borrow().voters == wanted;
        while !up[..hosts.len()].iter().all(|(_, node, _)| there(node)) {
            assert!(self.begun.elapsed() < AGREE_MAX, "not all hosts vote");
            sleep(Duration::from_millis(20)).await;
        }
        self.say("formed");
    }

    /// Admits the next host, if any. Returns true if that has succeeded.
    pub(super) async fn join(&self) -> bool {
        let next = self.members.load(Ordering::Relaxed);
        let (Some(host), up) = (self.hosts().get(next).copied(), self.net.up()) else {
            return true;
        };
        let Some((_, node, _)) = self.chance(|chance| chance.pick(&up).cloned()) else {
            return false;
        };
        let soon = Instant::now() + Duration::from_secs(5);
        let Ok(admitted) = node.propose(vec![admit(host)], soon).await else {
            return false;
        };
        if let Outcome::Refused(why) = &admitted[0].outcome {
            self.violated(format!("{} is not admitted: {why:?}", name(host)));
        }
        // It gets what all hosts run.
        self.checks.trouble(host, true);
        self.say(&format!("{} is admitted", name(host)));
        self.members.store(next + 1, Ordering::Relaxed);
        true
    }
}
