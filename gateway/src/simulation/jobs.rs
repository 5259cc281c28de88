//! Jobs on a simulated host: each attempt runs for a while, and then succeeds or fails.
//!
//! The test checks that no attempt is started twice. It also checks that a Job completes at most once in a cluster that
//! has had seats from the beginning, and at most once on each host in other clusters.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use beemesh_protocol::{HostId, ipc::UnitState};
use beemesh_quadlet::{
    health::{Report, Status},
    render::{is_installed, read_quadlet},
};
use tokio::time::sleep;

use super::{
    rig::Rig,
    world::{World, name},
};
use crate::workloads::plan::End;

/// A host's Jobs, which outlive its gateway.
#[derive(Default)]
pub(super) struct Jobs {
    /// The attempts that were started, by workload and log index.
    started: Mutex<BTreeSet<(String, u64)>>,
    /// The attempts that are running. A power cut ends them.
    running: Mutex<BTreeSet<(String, u64)>>,
    /// The ends that the gateway has recorded.
    ends: Mutex<BTreeMap<String, End>>,
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

    /// Simulates a power cut, which ends all running attempts.
    pub(super) fn power(&self) {
        self.running.lock().unwrap().clear();
    }

    /// Starts the attempt of this Quadlet. Fails if the attempt has run before.
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

    /// Ends the attempt. Returns true if it was still running.
    fn end(&self, workload: &str, index: u64) -> bool {
        let attempt = (workload.to_owned(), index);
        self.running.lock().unwrap().remove(&attempt)
    }

    /// Takes down the running attempts of the workload.
    pub(super) fn stop(&self, workload: &str) {
        let mut running = self.running.lock().unwrap();
        running.retain(|(other, _)| other != workload);
    }
}

/// Returns true if the unit belongs to a Job.
pub(super) fn is_job(unit: &UnitState) -> bool {
    // The unit of a singleton is not started at boot either, and has a condition.
    let is_single = || {
        unit.kube
            .lines()
            .any(|line| line.starts_with("ConditionPathExists="))
    };
    !unit.kube.is_empty() && !is_installed(&unit.kube) && !is_single()
}

impl World {
    /// Schedules the end of an attempt on this host, of the Job that log entry `made` created, unless it is ended
    /// before.
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
    /// Shows the end of an attempt in its unit, unless the unit belongs to another attempt by now.
    fn end_job(&self, workload: &str, index: u64, well: bool) {
        self.change(workload, |unit| {
            let Some(quadlet) = read_quadlet(&unit.kube).filter(|one| one.index == index) else {
                return;
            };
            let revision = quadlet.revision;
            if well {
                let restarts = 0;
                unit.status = Report::from(Status::Completed { revision, restarts }).line();
            } else {
                let reason = "code 3".into();
                (unit.active, unit.result) = ("failed".into(), "exit-code".into());
                unit.status = Report::from(Status::Ended { reason }).line();
            }
        });
    }
}
