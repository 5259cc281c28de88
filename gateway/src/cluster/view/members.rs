//! Whether a member can leave the cluster, and the workloads that it still has.
//!
//! Pure, like its parent.

use std::{collections::BTreeSet, sync::Arc};

use beemesh_protocol::{
    HostId,
    peer::{HostReport, WorkloadReport},
    state::{Assignment, Place},
    workload::pod_name,
};

use super::{Scene, names_of, sentence};
use crate::cluster::{
    placement::{self, seats},
    state::{LOSES, Workload, claims},
};

impl Scene {
    /// The workloads for which a drain at log index `index` still waits: workloads that the host has, and replicas that
    /// are not yet rolled out on another host. Messages such as `web on h1`.
    pub(crate) fn leaving(&self, host: HostId, index: u64) -> Vec<String> {
        let report = self.reports.get(&host);
        let told = report.filter(|report| report.applied >= index);
        let Some(report) = told.filter(|_| self.reachable.contains(&host)) else {
            return vec![format!("a report from {}", self.name(host))];
        };
        let on = |workload: &str, host| format!("{workload} on {}", self.name(host));
        // A workload that stays on the host, such as a Job that has begun there, does not move.
        let keeps = |one: &WorkloadReport| {
            let number = one.number;
            let found = self.state.workload(&one.workload);
            let place = Place { host, number };
            found.is_some_and(|found| placement::runs(&self.state, found, place).is_some())
        };
        let left = report.workloads.iter().filter(|one| !keeps(one));
        let mut waiting: Vec<_> = left
            .map(|one| on(&pod_name(&one.workload, one.number), host))
            .collect();
        for workload in self.state.workloads() {
            let late = self.moved(workload, host, index).into_iter();
            let late = late.filter(|to| to.host == host || !self.arrived(*to, workload));
            waiting.extend(late.map(|to| on(&pod_name(&workload.name, to.number), to.host)));
        }
        waiting.dedup();
        waiting
    }

    /// The workloads that stay on a drained host, such as `ledger stops, and waits for h2, which has its claim data`.
    pub(crate) fn leaves(&self, host: HostId) -> Vec<String> {
        let name = self.name(host);
        let (state, there) = (&self.state, self.there());
        let held = seats::held(state, host).into_iter();
        let held = held.filter_map(|(workload, _)| {
            let why = there.held(workload, host)?;
            Some(format!("{} stops, and {why}", workload.name))
        });
        let jobs = self.attempts(host);
        let jobs = jobs.map(|job| format!("{job} runs to its end on {name}"));
        let drained = self
            .state
            .hosts()
            .get(&host)
            .is_some_and(|host| host.drained);
        held.chain(jobs).filter(|_| drained).collect()
    }

    /// Whether a pod stays on a drained host, stopped, because the host has its data.
    pub(crate) fn leaves_data(&self, host: HostId) -> bool {
        let hosts = self.state.hosts();
        let drained = hosts.get(&host).is_some_and(|host| host.drained);
        let mut held = seats::held(&self.state, host).into_iter();
        drained && held.any(|(workload, _)| claims(&workload.object).next().is_some())
    }

    /// The names of the Jobs with an attempt on this host that has not ended.
    fn attempts(&self, host: HostId) -> impl Iterator<Item = &str> {
        let jobs = self.state.workloads().filter(|one| one.job.is_some());
        let under_way = jobs.filter(move |job| {
            let runs = placement::runs(&self.state, job, Place::first(host));
            runs.is_some_and(|runs| !runs.ended)
        });
        under_way.map(|job| job.name.as_str())
    }

    /// The places to which replicas of a workload were assigned since the host was drained at log index `index`. Includes
    /// those of the host itself while it has a replica that can move.
    fn moved(&self, workload: &Workload, host: HostId, index: u64) -> BTreeSet<Place> {
        let object = &workload.object;
        if object.replicas.is_none() {
            return BTreeSet::new();
        }
        if !self.state.is_seated(workload) {
            let mut before = self.state.hosts().clone();
            if let Some(host) = before.get_mut(&host) {
                host.drained = false;
            }
            let had = placement::ranked(&workload.name, object, &before).contains(&host);
            return if had {
                self.wanted(workload)
            } else {
                BTreeSet::new()
            };
        }
        let there = self.there();
        let seats = self.state.seats(&workload.name).iter();
        let late = seats.filter(|seat| match seat.host {
            Some(has) if has == host => there.held(workload, host).is_none(),
            _ => seat.index > index,
        });
        late.filter_map(Assignment::place).collect()
    }

    /// The unreachable voters among those that are left without the host, and whether the others are a quorum.
    fn missing_without(&self, host: HostId) -> (Vec<HostId>, bool) {
        let left = self.consensus.voters.iter().filter(|one| **one != host);
        let voters: BTreeSet<HostId> = left.copied().collect();
        let missing: Vec<_> = voters.difference(&self.reachable).copied().collect();
        let has_quorum = 2 * missing.len() < voters.len();
        (missing, has_quorum)
    }

    /// Whether the voters that are left without the host, and that are reachable, are a quorum.
    pub(crate) fn has_quorum_without(&self, host: HostId) -> bool {
        self.missing_without(host).1
    }

    /// Checks whether a user may say that the host is lost; the error is a message.
    pub(crate) fn can_be_lost(&self, host: HostId) -> Result<(), String> {
        if self.state.level() < LOSES {
            return Err(
                "the cluster does not give up hosts yet: all hosts must have run Beemesh 0.5.0 or later for ten minutes"
                    .to_owned(),
            );
        }
        if host == self.host || self.reachable.contains(&host) {
            return Err(format!("{} is reachable", self.name(host)));
        }
        let mut others = self.reports.iter();
        let reaches = |(other, report): &(&HostId, &Arc<HostReport>)| {
            let unreached = report.unreached.as_ref();
            let is_there = **other != host && self.reachable.contains(*other);
            is_there && unreached.is_some_and(|hosts| !hosts.contains(&host))
        };
        match others.find(reaches) {
            Some((other, _)) => Err(format!(
                "{} is reachable from {}",
                self.name(host),
                self.name(*other)
            )),
            None => Ok(()),
        }
    }

    /// Checks whether the cluster can work without the host, and the host without the cluster; the error is a message. The voters that
    /// are left must be a quorum: otherwise no change could be committed, not even the removal.
    pub(crate) fn can_go(&self, host: HostId) -> Result<(), String> {
        if host == self.host {
            return Err(format!(
                "{} cannot remove itself: ask another member",
                self.name(host)
            ));
        }
        // A host that was removed keeps its containers running, and another host would start the Job again.
        let job = self.attempts(host).find(|job| {
            let mut seats = self.state.seats(job).iter();
            seats.any(|seat| seat.host == Some(host))
        });
        if let Some(job) = job.filter(|_| self.reachable.contains(&host)) {
            return Err(format!(
                "{} runs the job {job} and would continue it while another host starts it again: wait for its end, or delete it",
                self.name(host)
            ));
        }
        let (missing, has_quorum) = self.missing_without(host);
        if has_quorum {
            return Ok(());
        }
        let missing = names_of(&self.state, missing.iter());
        let be = if missing.len() == 1 { "is" } else { "are" };
        Err(format!(
            "without {} the cluster would have no quorum: {} {be} unreachable; bring it back, or remove it first",
            self.name(host),
            sentence(&missing),
        ))
    }
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::{peer::Phase, state::Change};

    use super::super::tests::{changed, h, report, scene, with, with_job};

    #[test]
    fn a_drain_waits_for_what_leaves_and_for_what_arrives_elsewhere() {
        let mut scene = scene();
        let drain = Change::DrainHost {
            host: h(2),
            drained: true,
        };
        changed(&mut scene, 7, drain);
        assert_eq!(scene.leaving(h(2), 7), ["a report from h2"]);
        with(&mut scene, 2, 7, vec![report("web", 5, Phase::Removing, 0)]);
        assert_eq!(scene.leaving(h(2), 7), ["web on h2"]);
        with(&mut scene, 2, 7, vec![]);
        assert!(scene.leaving(h(2), 7).is_empty());
        scene.reachable.remove(&h(2));
        assert_eq!(scene.leaving(h(2), 7), ["a report from h2"]);
    }

    #[test]
    fn a_host_that_runs_a_job_does_not_go_before_its_end() {
        let mut scene = with_job();
        let assign = Change::Assign {
            workload: "job".into(),
            ordinal: 0,
            index: 8,
            from: None,
            host: Some(h(2)),
        };
        changed(&mut scene, 9, assign);
        let refused = scene.can_go(h(2)).unwrap_err();
        assert!(refused.contains("h2 runs the job job"), "{refused}");
        assert!(scene.can_go(h(3)).is_ok(), "another");
        scene.reachable.remove(&h(2));
        assert!(scene.can_go(h(2)).is_ok(), "it is lost");
        scene.reachable.insert(h(2));
        let end = Change::EndJob {
            workload: "job".into(),
            ordinal: 0,
            index: 9,
            succeeded: true,
            reason: String::new(),
            again: false,
        };
        changed(&mut scene, 10, end);
        assert!(scene.can_go(h(2)).is_ok());
    }

    #[test]
    fn a_host_goes_when_a_majority_of_the_voters_is_left() {
        let all = scene();
        assert!(all.can_go(h(1)).is_err(), "itself");
        assert!(all.can_go(h(2)).is_ok() && all.can_go(h(3)).is_ok());
        let mut lost = all;
        lost.reachable.remove(&h(3));
        assert!(lost.can_go(h(3)).is_ok(), "who is lost can go");
        let refused = lost.can_go(h(2)).unwrap_err();
        assert!(refused.contains("h3 is unreachable"), "{refused}");
        lost.consensus.voters.remove(&h(2));
        lost.consensus.voters.remove(&h(3));
        assert!(lost.can_go(h(2)).is_ok(), "a learner");
    }
}
