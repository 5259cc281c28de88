//! The clients, which write and read manifests through all hosts.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use beemesh_protocol::{HostId, peer::Outcome, state::Change};
use harness::{Chance, Op};
use tokio::time::{Instant, sleep};

use super::{
    super::{
        manifests::{at, change, content},
        pods::{WEB, applied, describe, drawn},
    },
    MANIFESTS, World,
};
use crate::{
    cluster::state::{ROLLED, State},
    raft::{Node, ProposeError},
};

impl World {
    /// Makes one request after the other until the simulation is over.
    pub(super) async fn client(self: Arc<Self>, mut chance: Chance) {
        while !self.over.load(Ordering::Relaxed) {
            sleep(chance.millis(0, 300)).await;
            let up = self.net.up();
            let Some((host, node, life)) = chance.pick(&up) else {
                continue;
            };
            let manifest = usize::try_from(chance.below(MANIFESTS)).unwrap_or(0);
            let deadline = Instant::now() + chance.millis(200, 5000);
            let op = match chance.below(10) {
                0 => Op::Write(0),
                1..5 => Op::Write(self.values.fetch_add(1, Ordering::Relaxed)),
                _ => Op::Read(0),
            };
            self.ask(*host, node, *life, manifest, op, deadline).await;
        }
    }

    pub(super) async fn ask(
        &self,
        host: HostId,
        node: &Node,
        life: u64,
        manifest: usize,
        op: Op,
        deadline: Instant,
    ) {
        let call = self.history.lock().unwrap().call(manifest, op);
        let done = match op {
            Op::Write(content) => {
                let jump = self.chance(|chance| chance.below(1 << 40));
                let command = at(jump, change(manifest, content));
                match node.propose(vec![command], deadline).await {
                    // The manifest did not exist, so the delete acts like a read.
                    Ok(done) if matches!(done[0].outcome, Outcome::Refused(_)) => Some(Op::Read(0)),
                    Ok(_) => Some(op),
                    Err(ProposeError::NoQuorum { .. }) => {
                        self.history.lock().unwrap().refuse(call);
                        None
                    }
                    Err(_) => None,
                }
            }
            Op::Read(_) => {
                let read = node.read_index(deadline).await;
                let view = Arc::clone(&node.state().borrow());
                read.ok().map(|()| Op::Read(content(&view, manifest)))
            }
        };
        // A client whose gateway has ended got no answer.
        if let Some(op) = done.filter(|_| self.net.lives(host, life)) {
            self.history.lock().unwrap().answer(call, op);
        }
    }

    /// Changes the workload that is rolled out, pauses its rollouts and undoes its revisions, until the simulation is
    /// over.
    pub(super) async fn user(self: Arc<Self>, mut chance: Chance) {
        let hosts = u64::try_from(self.machines.len()).unwrap_or(u64::MAX);
        while !self.is_over() {
            sleep(chance.millis(100, 6000)).await;
            let up = self.net.up();
            let Some((_, node, _)) = chance.pick(&up) else {
                continue;
            };
            let state = node.state().borrow().state.clone();
            if state.level() < ROLLED {
                continue;
            }
            let change = self.wish(&mut chance, &state, hosts);
            self.propose(node, change).await;
        }
    }

    fn wish(&self, chance: &mut Chance, state: &State, hosts: u64) -> Change {
        let content = self.values.fetch_add(1, Ordering::Relaxed);
        let workload = WEB.to_owned();
        let Some(present) = state.workload(WEB) else {
            return drawn(chance, content, hosts);
        };
        match chance.below(16) {
            0..8 => drawn(chance, content, hosts),
            8 => applied((*present.object).clone()),
            9 | 10 => {
                let revision = chance
                    .pick(state.revisions(WEB))
                    .map_or(1, |one| one.number);
                let policy = None;
                Change::Undo {
                    workload,
                    revision,
                    policy,
                }
            }
            11 | 12 => {
                let paused = true;
                Change::PauseRollout { workload, paused }
            }
            13 | 14 => {
                let paused = false;
                Change::PauseRollout { workload, paused }
            }
            _ => Change::DeleteWorkload { workload },
        }
    }

    /// Lets a rollout go on that the user has paused, in most runs.
    pub(super) async fn resume(&self) {
        let up = self.net.up();
        if !self.lags() || self.chance(|chance| chance.below(4)) == 0 {
            return;
        }
        let Some((_, node, _)) = self.chance(|chance| chance.pick(&up).cloned()) else {
            return;
        };
        let change = Change::PauseRollout {
            workload: WEB.to_owned(),
            paused: false,
        };
        self.propose(&node, change).await;
    }

    async fn propose(&self, node: &Node, change: Change) {
        let said = match &change {
            Change::Apply { objects, .. } => describe(&objects[0]),
            other => format!("{other:?}"),
        };
        let soon = Instant::now() + Duration::from_secs(2);
        let done = node.propose(vec![at(self.clock_ms(), change)], soon).await;
        let index = done.ok().map(|done| done[0].index);
        self.say(&format!("entry {index:?}: {said}"));
    }
}
