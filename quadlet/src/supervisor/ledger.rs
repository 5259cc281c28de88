//! Pure: counts how often each container of a pod ended, and says when it is started again.
//!
//! Podman restarts a container that ends for the first time, at once. From then on the supervisor has Podman's restart policy
//! for this container off and starts it itself, each time after a longer pause, as Kubernetes does. A container that runs
//! for [`CALM`] is Podman's again. The ledger outlives the supervisor in a file below `/run`; a new pod has a new one.
//!
//! Input: the pod as it is seen and the host's clock. Output: [`Order`]s, a report of each container, and when to look again. Times are
//! seconds since 1970, for they are compared with Podman's and shown to people.

use std::collections::BTreeMap;

use beemesh_protocol::pod::{
    CONTAINERS_MAX, ContainerReport, ContainerState, FailedProbe, LastExit, ProbeKind,
    TEXT_CHARS_MAX, clean,
};
use serde::{Deserialize, Serialize};

use super::SeenPod;
use crate::health::{Container, Probe, Restart, Role, Run, is_done, is_well};

/// The pause before the second restart; it doubles with each further one. The first has none.
const PAUSE_MIN: i64 = 10;
/// The longest pause.
const PAUSE_MAX: i64 = 300;
/// A container that runs for so long has no past.
const CALM: i64 = 600;
/// Podman restarts a container within a tenth of a second; one that is down for longer was stopped by hand.
const PODMAN_PATIENCE: i64 = 1;

/// What is remembered of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The pod's id.
    pub(super) pod: String,
    /// All of its containers ended and the unit failed for it: the next start of the unit plays the pod again.
    pub(super) over: bool,
    pub(super) containers: BTreeMap<String, Record>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Since the pod was made, whoever restarted it.
    restarts: u32,
    /// Podman's own count when it was last seen.
    seen: u32,
    /// How often it ended since it last ran for [`CALM`].
    ends: u32,
    /// How often it ended in failure since the pod was made.
    failures: u32,
    /// When it last ended.
    last: i64,
    /// While it is down: when that run began and ended.
    down: Option<(i64, i64)>,
    /// While it is down: when it is started again.
    due: i64,
    /// Why it last ended, as far as Podman says.
    code: Option<i32>,
    /// Its probe has failed too often, and Podman ends it for that.
    probe_failed: bool,
    /// It last ended for that.
    by_probe: bool,
    /// The run that was seen last waits for its startup probe.
    starting: bool,
    /// It last ended before its startup probe had succeeded.
    in_start: bool,
    /// Its probe was ended because it took too long.
    late: bool,
    /// What its probe said when it had failed too often.
    said: String,
    /// Why its last start failed.
    words: String,
    /// The last exit code of that probe, how often it had failed in a row, and how often it may.
    #[serde(default)]
    probe: (Option<u32>, u32, u32),
    /// It last ended because it had no memory left.
    #[serde(default)]
    out_of_memory: bool,
    /// The last line that it wrote before it ended.
    #[serde(default)]
    output: String,
}

/// Something to do for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Take its restarts out of Podman's hands.
    Hold(String),
    /// Give them back.
    Release(String),
    /// Start it.
    Start(String),
    /// Ask what the probe of a container, by id and name, said.
    Ask(String, String),
    /// Ask what a container, by id and name, wrote last.
    Hear(String, String),
}

impl Ledger {
    /// Takes note of a pod, and says what is to be done about its containers. `released`: Beemesh is being removed, and restarts are
    /// Podman's.
    pub(super) fn look(&mut self, pod: &SeenPod, at: i64, released: bool) -> Vec<Order> {
        if self.pod != pod.id {
            *self = Self {
                pod: pod.id.clone(),
                ..Self::default()
            };
        }
        let names: Vec<&str> = members(pod).map(|one| one.name.as_str()).collect();
        self.containers
            .retain(|name, _| names.contains(&name.as_str()));
        let mut orders = Vec::new();
        for container in members(pod) {
            let record = self
                .containers
                .entry(container.name.clone())
                .or_insert_with(|| Record::new(container, at));
            let ends = record.ends;
            record.note(container, pod.restart, at);
            if record.ends > ends {
                record.out_of_memory = pod.out_of_memory.contains(&container.id);
                record.output.clear();
                let names = || (container.id.clone(), container.name.clone());
                if record.in_start {
                    let (id, name) = names();
                    orders.push(Order::Ask(id, name));
                }
                if !record.by_probe {
                    let (id, name) = names();
                    orders.push(Order::Hear(id, name));
                }
            }
            let is_held = pod.held.contains(&container.id);
            let is_left_alone = pod.restart == Restart::Never || is_done(container, pod.restart);
            // A job that may fail a certain number of times is counted from its first failure on.
            let holds = !released && (record.ends > 0 || pod.failures_max.is_some());
            let id = || container.id.clone();
            match (is_left_alone, holds, is_held) {
                (false, true, false) => orders.push(Order::Hold(id())),
                (_, false, true) => orders.push(Order::Release(id())),
                _ => {}
            }
            if !is_left_alone && record.down.is_some() && record.start_at(is_held) <= at {
                orders.push(Order::Start(id()));
            }
        }
        orders
    }

    /// When to look again, at the latest: a container that is down is due then.
    pub(super) fn due(&self, pod: &SeenPod) -> Option<i64> {
        let waits = members(pod)
            .filter(|container| pod.restart != Restart::Never && !is_done(container, pod.restart));
        let records = waits.filter_map(|container| {
            let record = self.containers.get(&container.name)?;
            record.down?;
            Some(record.start_at(pod.held.contains(&container.id)))
        });
        records.min()
    }

    /// A container ended with this code.
    pub(super) fn died(&mut self, container: &str, code: i32) {
        if let Some(record) = self.containers.get_mut(container) {
            record.code = Some(code);
        }
    }

    /// The probe of a container said something.
    pub(super) fn probed(&mut self, container: &str, healthy: bool) {
        if let Some(record) = self.containers.get_mut(container) {
            record.probe_failed = !healthy;
        }
    }

    /// The probe of a container had failed too often.
    pub(super) fn probe_said(&mut self, container: &str, probe: FailedProbe) {
        if let Some(record) = self.containers.get_mut(container) {
            let FailedProbe {
                failures,
                threshold,
                exit,
                timed_out,
                output,
                ..
            } = probe;
            record.late = timed_out;
            record.said = output;
            record.probe = (exit, failures, threshold);
        }
    }

    /// This is the last line that a container wrote before it ended.
    pub(super) fn heard(&mut self, container: &str, output: String) {
        if let Some(record) = self.containers.get_mut(container) {
            record.output = output;
        }
    }

    /// A container could not be started: that counts as an end.
    pub(super) fn not_started(&mut self, pod: &SeenPod, id: &str, words: &str, at: i64) {
        let Some(container) = members(pod).find(|container| container.id == id) else {
            return;
        };
        if let Some(record) = self.containers.get_mut(&container.name) {
            record.ends = record.ends.saturating_add(1);
            record.failures = record.failures.saturating_add(1);
            record.last = at;
            record.due = at + pause(record.ends);
            record.words = clean(words, TEXT_CHARS_MAX);
        }
    }

    /// Restarts since the pod was made.
    pub(super) fn restarts(&self) -> u32 {
        let records = self.containers.values();
        records.fold(0, |sum, record| sum.saturating_add(record.restarts))
    }

    /// Failures since the pod was made.
    pub(super) fn failures(&self) -> u32 {
        let records = self.containers.values();
        records.fold(0, |sum, record| sum.saturating_add(record.failures))
    }

    /// A report of each container. Holds no time that changes by itself.
    pub(super) fn reports(&self, pod: &SeenPod, workload: &str) -> Vec<ContainerReport> {
        let is_given_up = pod.failures_max.is_some_and(|max| self.failures() > max);
        let fresh = Record::default();
        let all = members(pod).map(|container| {
            let record = self.containers.get(&container.name).unwrap_or(&fresh);
            record.report(container, pod, workload, is_given_up)
        });
        let mut all: Vec<ContainerReport> = all.collect();
        if all.len() > CONTAINERS_MAX {
            all.sort_by_key(|one| !one.is_telling());
            all.truncate(CONTAINERS_MAX);
        }
        all
    }
}

impl Record {
    /// What happened before the first look is known from Podman's count, and from when the container last ended.
    fn new(container: &Container, at: i64) -> Self {
        let Container {
            restarts,
            exited_at,
            ..
        } = *container;
        let is_late = restarts > 0 && exited_at > 0 && at < exited_at + CALM;
        Self {
            restarts,
            seen: restarts,
            ends: u32::from(is_late && is_up(container)),
            failures: restarts,
            last: exited_at.max(0),
            starting: container.probe == Probe::Starting,
            ..Self::default()
        }
    }

    fn note(&mut self, container: &Container, restart: Restart, at: i64) {
        let Container {
            restarts,
            started_at,
            exited_at,
            exit_code,
            ..
        } = *container;
        let run = (started_at, exited_at);
        let by_podman = restarts.saturating_sub(self.seen);
        if by_podman > 0 {
            self.restarts = self.restarts.saturating_add(by_podman);
            let unseen = by_podman - u32::from(self.down.is_some());
            self.ended(unseen, exited_at.clamp(0, at));
            self.failures = self.failures.saturating_add(unseen);
            self.down = None;
        } else if self
            .down
            .is_some_and(|down| is_up(container) || down != run)
        {
            // Started by the supervisor, or by a person.
            let since = if restarts < self.seen { restarts } else { 0 };
            self.restarts = self.restarts.saturating_add(1).saturating_add(since);
            self.down = None;
        }
        self.seen = restarts;
        // Also one that a power cut ended, and that podman-restart.service left alone.
        if container.run == Run::Exited && !is_done(container, restart) && self.down.is_none() {
            self.down = Some(run);
            self.code = Some(exit_code);
            self.ended(1, exited_at.clamp(0, at));
            self.failures = self.failures.saturating_add(u32::from(exit_code != 0));
            self.due = self.last + pause(self.ends);
        }
        self.starting = container.probe == Probe::Starting;
        // The clock may have been set back.
        self.due = self.due.min(at + PAUSE_MAX);
        if is_up(container) {
            self.words.clear();
            if at >= started_at + CALM && at >= self.last + CALM {
                self.ends = 0;
            }
        }
    }

    fn ended(&mut self, times: u32, last: i64) {
        if times > 0 {
            self.ends = self.ends.saturating_add(times);
            self.last = last;
            self.by_probe = std::mem::take(&mut self.probe_failed);
            self.in_start = self.starting && !self.by_probe;
        }
    }

    /// Podman is let do it first where its policy is on.
    fn start_at(&self, is_held: bool) -> i64 {
        let patience = if is_held { 0 } else { PODMAN_PATIENCE };
        self.due.max(self.last + patience)
    }

    fn report(
        &self,
        container: &Container,
        pod: &SeenPod,
        workload: &str,
        is_given_up: bool,
    ) -> ContainerReport {
        let healthy = is_well(container, pod.restart);
        let is_done = is_done(container, pod.restart);
        let waits = self.down.is_some() && !is_done && !is_given_up;
        let waits = waits && pod.restart != Restart::Never;
        ContainerReport {
            name: clean(short_name(&container.name, workload), TEXT_CHARS_MAX),
            state: match container.run {
                Run::Created => ContainerState::Created,
                Run::Running => ContainerState::Running,
                Run::Paused => ContainerState::Paused,
                Run::Stopping => ContainerState::Stopping,
                Run::Exited => ContainerState::Exited,
            },
            ready: healthy && container.run == Run::Running,
            healthy,
            restarts: self.restarts,
            ends: if is_done { 0 } else { self.ends },
            exit: (self.ends > 0 || self.restarts > 0 || self.down.is_some()).then(|| self.exit()),
            probe: self.failed_probe(container, pod),
            start_error: self.words.clone(),
            next_try_at: waits.then(|| u64::try_from(self.due).unwrap_or_default()),
        }
    }

    fn exit(&self) -> LastExit {
        LastExit {
            code: self.code.and_then(|code| u32::try_from(code).ok()),
            out_of_memory: self.out_of_memory,
            by_probe: self.by_probe,
            in_start: self.in_start,
            at: u64::try_from(self.last).unwrap_or_default(),
            output: self.output.clone(),
        }
    }

    /// The probe that fails now, or the one for which the container ended within the last ten minutes.
    fn failed_probe(&self, container: &Container, pod: &SeenPod) -> Option<FailedProbe> {
        let is_up = container.run == Run::Running;
        if let Some(probe) = pod.failing.get(&container.id).filter(|_| is_up) {
            return Some(probe.clone());
        }
        if is_up && container.probe == Probe::Unhealthy {
            return Some(FailedProbe::default());
        }
        let (exit, failures, threshold) = self.probe;
        let probe = |kind| FailedProbe {
            kind,
            failures,
            threshold,
            exit,
            timed_out: self.late,
            output: self.said.clone(),
        };
        if self.ends > 0 && self.by_probe {
            return Some(probe(ProbeKind::Liveness));
        }
        let in_start = self.ends > 0 && self.in_start && !self.said.is_empty();
        in_start.then(|| probe(ProbeKind::Startup))
    }
}

/// A container's name in its manifest.
pub(super) fn short_name<'a>(name: &'a str, workload: &str) -> &'a str {
    let rest = name.strip_prefix(workload);
    rest.and_then(|rest| rest.strip_prefix('-')).unwrap_or(name)
}

fn members(pod: &SeenPod) -> impl Iterator<Item = &Container> {
    let containers = pod.containers.iter();
    containers.filter(|container| container.role == Role::Member)
}

fn is_up(container: &Container) -> bool {
    matches!(container.run, Run::Running | Run::Paused)
}

fn pause(ends: u32) -> i64 {
    match ends {
        0 | 1 => 0,
        ends => (PAUSE_MIN << (ends - 2).min(8)).min(PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_those_of_kubernetes() {
        let pauses: Vec<i64> = [0, 1, 2, 3, 4, 5, 6, 7, 8, u32::MAX].map(pause).to_vec();
        assert_eq!(pauses, [0, 0, 10, 20, 40, 80, 160, 300, 300, 300]);
    }
}
