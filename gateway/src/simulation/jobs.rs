//! Jobs on a simulated host: each attempt runs for a while, and ends well or not.
//!
//! Held is that no attempt is started twice, and that a Job completes at most once, on any host, where its cluster has had seats
//! from the beginning; elsewhere once on each host.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use beemesh_protocol::{HostId, ipc::UnitState, peer::WorkloadReport};
use beemesh_quadlet::{
    health::{Status, format},
    render::{is_installed, read_quadlet},
};
use tokio::time::sleep;

use super::{
    rig::Rig,
    world::{World, name},
};
use crate::workloads::plan::End;

/// What a host knows of its Jobs, over all that happens to its gateway.
#[derive(Default)]
pub(super) struct Jobs {
    /// The attempts that were started, by workload and log index.
    started: Mutex<BTreeSet<(String, u64)>>,
    /// Those of them that run, since the host has power.
    running: Mutex<BTreeSet<(String, u64)>>,
    /// Ends that the gateway has kept.
    ends: Mutex<BTreeMap<String, End>>,
    /// What the gateway said last.
    reports: Mutex<Vec<WorkloadReport>>,
}

impl Jobs {
    pub(super) fn ends(&self) -> BTreeMap<String, End> {
        self.ends.lock().unwrap().clone()
    }

    pub(super) fn keep(&self, workload: &str, end: End) {
        self.ends.lock().unwrap().insert(workload.to_owned(), end);
    }

    pub(super) fn forget(&self, workload: &str) {
        self.ends.lock().unwrap().remove(workload);
    }

    pub(super) fn say(&self, reports: Vec<WorkloadReport>) {
        *self.reports.lock().unwrap() = reports;
    }

    pub(super) fn reports(&self) -> Vec<WorkloadReport> {
        self.reports.lock().unwrap().clone()
    }

    /// The power is gone, and with it what ran.
    pub(super) fn power(&self) {
        self.running.lock().unwrap().clear();
    }

    /// The attempt of this Quadlet is to run. The error is that it has run before.
    pub(super) fn start(&self, workload: &str, index: u64) -> Result<bool, ()> {
        let attempt = (workload.to_owned(), index);
        if self.running.lock().unwrap().contains(&attempt) {
            return Ok(false);
        }
        if !self.started.lock().unwrap().insert(attempt.clone()) {
            return Err(());
        }
        let mut running = self.running.lock().unwrap();
        running.retain(|(other, _)| other != workload);
        running.insert(attempt);
        Ok(true)
    }

    /// Whether the attempt still ran when it was to end.
    fn end(&self, workload: &str, index: u64) -> bool {
        let attempt = (workload.to_owned(), index);
        self.running.lock().unwrap().remove(&attempt)
    }

    /// What runs of the workload is taken down.
    pub(super) fn stop(&self, workload: &str) {
        let mut running = self.running.lock().unwrap();
        running.retain(|(other, _)| other != workload);
    }
}

/// Whether the unit is one of a Job.
pub(super) fn is_job(unit: &UnitState) -> bool {
    !unit.kube.is_empty() && !is_installed(&unit.kube)
}

impl World {
    /// An attempt that was started on this host, of the Job that entry `made` made, ends by itself if nothing ends it before.
    pub(super) fn begun(self: &Arc<Self>, host: HostId, workload: &str, index: u64, made: u64) {
        let (world, workload) = (Arc::clone(self), workload.to_owned());
        let (time, well) = self.chance(|chance| (chance.millis(10, 4000), chance.below(3) > 0));
        tokio::spawn(async move {
            sleep(time).await;
            let rig = world.rig(host);
            if rig.jobs().end(&workload, index) {
                rig.end_job(&workload, index, well);
                if well {
                    world.completed(host, workload, made);
                }
            }
        });
    }

    fn completed(&self, host: HostId, workload: String, made: u64) {
        self.say(&format!(
            "{workload} of entry {made} completes on {}",
            name(host)
        ));
        let mut completed = self.completed.lock().unwrap();
        let hosts = completed.entry((workload, made)).or_default();
        if hosts.contains(&host) || (!hosts.is_empty() && self.begins_with_seats()) {
            let words = format!("the job of entry {made} completes again on {}", name(host));
            self.violated(words);
        }
        hosts.push(host);
    }
}

impl Rig {
    /// Shows the end of an attempt, unless the unit is another one's by now.
    fn end_job(&self, workload: &str, index: u64, well: bool) {
        self.change(workload, |unit| {
            let Some(quadlet) = read_quadlet(&unit.kube).filter(|one| one.index == index) else {
                return;
            };
            let revision = quadlet.revision;
            if well {
                let restarts = 0;
                unit.status = format(&Status::Completed { revision, restarts });
            } else {
                let reason = "code 3".into();
                (unit.active, unit.result) = ("failed".into(), "exit-code".into());
                unit.status = format(&Status::Ended { reason });
            }
        });
    }
}
