//! The end of a simulation: all faults end, and all hosts agree soon.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use harness::Op;
use tokio::time::{Instant, sleep, timeout};

use super::{
    super::{invariants::all_have_ended, leader::misplaced},
    AGREE_MAX, FLUSH, LATENCY, World, name,
};
use crate::raft::{Node, VOTERS_MAX};

impl World {
    /// Ends all faults. Then checks that all hosts agree soon, and that the clients' answers are consistent.
    pub(super) async fn mend(self: &Arc<Self>) {
        self.net.heal();
        self.net.set_latency(LATENCY);
        for machine in self.machines.values() {
            machine.disk.lock().unwrap().set_flush(FLUSH);
        }
        for host in self.hosts() {
            self.begin(host).await;
        }
        self.checks.calm(&self.up());
        self.say("mended");
        self.resume().await;
        self.let_all_run_it().await;
        if timeout(AGREE_MAX, self.agree()).await.is_err() {
            let up = self.net.up();
            let said = up
                .iter()
                .map(|(host, node, _)| (name(*host), node.consensus().borrow().clone()));
            let said: Vec<_> = said.collect();
            let wrong = self.last.lock().unwrap().clone();
            self.violated(format!(
                "no agreement after {AGREE_MAX:?}: {wrong:?}; {said:?}"
            ));
        }
        let history = self.history.lock().unwrap();
        self.say(&format!("{} answers", history.answered()));
        for what in history.violations() {
            self.violated(what);
        }
    }

    /// Lets each host read and write, and waits until all have applied the same entries.
    async fn agree(self: &Arc<Self>) {
        while self.members.load(Ordering::Relaxed) < self.machines.len() {
            self.join().await;
        }
        for host in self.hosts() {
            loop {
                let up = self.net.up();
                let Some((_, node, life)) = up.iter().find(|(up, ..)| *up == host) else {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let value = self.values.fetch_add(1, Ordering::Relaxed);
                let before = self.history.lock().unwrap().answered();
                for manifest in 0..3 {
                    let soon = Instant::now() + Duration::from_secs(5);
                    let read = Op::Read(0);
                    self.ask(host, node, *life, manifest, read, soon).await;
                }
                let (write, soon) = (Op::Write(value), Instant::now() + Duration::from_secs(5));
                self.ask(host, node, *life, 0, write, soon).await;
                if self.history.lock().unwrap().answered() == before + 4 {
                    break;
                }
            }
        }
        loop {
            let applied: BTreeSet<u64> = self
                .net
                .up()
                .iter()
                .map(|(_, node, _)| node.state().borrow().applied)
                .collect();
            let up = self.net.up();
            let wrong = up.iter().find_map(|(host, node, _)| {
                let view = Arc::clone(&node.state().borrow());
                let has_level = view.state.level() == self.level();
                let level = (!has_level).then(|| "another level".to_owned());
                let ended = all_have_ended(&view.state);
                let wanted = self.rig(*host).is_as_wanted(*host, &view);
                let single = self.is_single(&view.state);
                level
                    .or(misplaced(&view.state))
                    .or(ended)
                    .or(wanted.err())
                    .or(single)
            });
            let voters = self.machines.len().min(VOTERS_MAX);
            let voting = |node: &Node| node.consensus().borrow().voters.len() == voters;
            let voted = up.iter().all(|(_, node, _)| voting(node));
            if applied.len() == 1 && voted && wrong.is_none() {
                return;
            }
            *self.last.lock().unwrap() = wrong;
            sleep(Duration::from_millis(50)).await;
        }
    }
}
