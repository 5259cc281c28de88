//! The leader assigns pods to hosts, as in [`crate::controllers`], in spite of all faults.
//!
//! Some clusters have no seats, some have them from the beginning, and some get them while clients write and hosts
//! fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{HostId, peer::HostReport, state::Change};
use tokio::time::{Instant, sleep, sleep_until};

use super::{manifests::at, world::World};
use crate::{
    cluster::{
        consensus::Role,
        state::{ASSIGNED, State},
    },
    controllers::seats::{Seen, plan},
    raft::Node,
};

/// Minimum time between two rounds.
const LOOK: Duration = Duration::from_millis(20);
/// Maximum time between two rounds: a host's report does not wake the leader in this simulation.
const AGAIN: Duration = Duration::from_millis(500);

/// Proposes the leader's changes until this life of the host's gateway ends.
pub(super) async fn lead(world: Arc<World>, node: Node, host: HostId, life: u64) {
    let (mut view, mut consensus) = (node.state(), node.consensus());
    while world.lives(host, life) {
        let now = consensus.borrow_and_update().clone();
        let seen = Arc::clone(&view.borrow_and_update());
        let leads = now.role == Role::Leader && now.quorum && seen.applied >= now.committed;
        let mut due = None;
        if leads && seen.state.cluster().is_some() {
            let mut reachable = world.up();
            reachable.retain(|host| now.acknowledging.contains(host));
            let now_ms = world.clock_ms();
            let changes = changes(&world, &seen.state, &reachable, now_ms);
            if changes.is_empty() {
                due = Some(Instant::now() + AGAIN);
            } else {
                let commands = changes.into_iter().map(|change| at(now_ms, change));
                let deadline = Instant::now() + Duration::from_secs(2);
                // The next round plans failed changes again.
                let _ = node.propose(commands.collect(), deadline).await;
            }
        }
        sleep(LOOK).await;
        let changed = tokio::select! {
            changed = view.changed() => changed.is_ok(),
            changed = consensus.changed() => changed.is_ok(),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => true,
        };
        if !changed {
            return;
        }
    }
}

fn changes(world: &World, state: &State, reachable: &BTreeSet<HostId>, now_ms: u64) -> Vec<Change> {
    if state.level() < ASSIGNED {
        let raise = Change::RaiseLevel { level: ASSIGNED };
        return world.has_seats().then_some(raise).into_iter().collect();
    }
    let report = |host: &HostId| {
        let workloads = world.rig(*host).jobs().reports();
        let report = HostReport {
            workloads,
            ..HostReport::default()
        };
        (*host, Arc::new(report))
    };
    let reports: BTreeMap<HostId, Arc<HostReport>> = reachable.iter().map(report).collect();
    let seen = Seen {
        state,
        reports: &reports,
        reachable,
        lost: &BTreeSet::new(),
        now_ms,
    };
    plan(&seen).changes
}

/// Returns what is wrong with the placement. Each workload must have the requested number of pods, limited by the
/// number of hosts, on different hosts, and each Job must have ended.
pub(super) fn misplaced(state: &State) -> Option<String> {
    let counted = state.workloads().filter(|one| state.is_seated(one));
    counted.into_iter().find_map(|workload| {
        let seats = state.seats(&workload.name);
        let hosts: BTreeSet<HostId> = seats.iter().filter_map(|seat| seat.host).collect();
        if workload.job.is_some() {
            let over = !seats.is_empty() && seats.iter().all(|seat| seat.end.is_some());
            return (!over).then(|| format!("{}: not over: {seats:?}", workload.name));
        }
        let replicas = workload.object.replicas.unwrap_or(0);
        let asked = usize::try_from(replicas).unwrap_or(usize::MAX);
        let expected = asked.min(state.hosts().len());
        let fits = seats.len() == expected && hosts.len() == expected;
        let known = hosts.iter().all(|host| state.hosts().contains_key(host));
        (!fits || !known).then(|| format!("{}: {expected} of {seats:?}", workload.name))
    })
}
