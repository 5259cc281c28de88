//! Sends the agent the status of this host.
//!
//! Shell: a loop that waits for changes. Its only decision, [`report_of`], is pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use beemesh_protocol::{
    HostId,
    ipc::{HostRole, Report},
    peer::{HostReport, Phase},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    agent_link::Link,
    cluster::{
        consensus::{Consensus, Role},
        placement,
        reports::is_in_trouble,
        state::State,
    },
    local::lifecycle::Life,
    raft::Node,
};

/// Minimum time between two reads of the replicated state and the state of Raft, which every commit changes. After a quiet time the
/// first read is at once.
const PACE: Duration = Duration::from_millis(50);

/// Sends the agent the status that it shows on D-Bus and in `systemctl status beemesh-agent`.
///
/// `mine` is the report of this host, and `life` its membership.
pub(crate) async fn tell_report(
    node: Node,
    link: Link,
    mut mine: watch::Receiver<Arc<HostReport>>,
    mut life: watch::Receiver<Life>,
) {
    let host = node.host();
    let mut view = node.state();
    let mut consensus = node.consensus();
    let mut told = None;
    loop {
        let report = {
            let view = view.borrow_and_update();
            let consensus = consensus.borrow_and_update();
            let mut report = report_of(host, &view.state, &consensus, &mine.borrow_and_update());
            if life.borrow_and_update().is_removed() {
                report.role = HostRole::Removed;
            }
            report
        };
        if told.as_ref() != Some(&report) {
            link.report(report.clone());
            told = Some(report);
        }
        sleep(PACE).await;
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = consensus.changed() => changed,
            changed = mine.changed() => changed,
            changed = life.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// The report for the agent.
fn report_of(host: HostId, state: &State, consensus: &Consensus, mine: &HostReport) -> Report {
    let wanted = state
        .workloads()
        .filter(|workload| placement::is_on(state, workload, host));
    // A workload is well if all its pods on this host are.
    let mut phases: BTreeMap<&str, bool> = BTreeMap::new();
    for one in &mine.workloads {
        let well = matches!(one.phase, Phase::Running | Phase::Succeeded);
        let well = well && one.healthy == one.total && !is_in_trouble(one);
        *phases.entry(&one.workload).or_insert(true) &= well;
    }
    let (mut workloads, mut healthy) = (0, 0);
    for workload in wanted {
        workloads += 1;
        healthy += u32::from(phases.get(workload.name.as_str()) == Some(&true));
    }
    let leader = consensus.leader.filter(|_| consensus.quorum);
    Report {
        role: role_of(state, consensus),
        leader,
        leader_name: leader
            .and_then(|leader| state.hosts().get(&leader))
            .map(|host| host.name.clone())
            .unwrap_or_default(),
        hosts: u32::try_from(state.hosts().len()).unwrap_or(u32::MAX),
        workloads,
        healthy,
    }
}

/// The role of this host in its cluster.
fn role_of(state: &State, consensus: &Consensus) -> HostRole {
    match consensus.role {
        _ if state.cluster().is_none() => HostRole::Joining,
        Role::Leader => HostRole::Leader,
        Role::Follower => HostRole::Follower,
        Role::Candidate => HostRole::Candidate,
        Role::Learner => HostRole::Learner,
        Role::Stopped => HostRole::Stopped,
    }
}
