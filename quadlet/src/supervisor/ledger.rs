//! Pure: counts how often each container of a pod ended, and decides when it is restarted.
//!
//! Podman restarts a container that ends for the first time, at once. After that, the supervisor disables Podman's
//! restart policy for this container and restarts it itself, each time after a longer pause, as Kubernetes does. When a
//! container has run for [`CALM`], the supervisor returns its restarts to Podman. The ledger outlives the supervisor in
//! a file below `/run`; a new pod gets a new ledger.
//!
//! Input: the pod at a look, and the host's clock. Output: [`Order`]s, a report of each container, and the time of the
//! next look. Times are seconds since 1970, because they are compared with Podman's and shown to users.

use std::collections::BTreeMap;

use beemesh_protocol::pod::{CONTAINERS_MAX, ContainerReport, FailedProbe, TEXT_CHARS_MAX, clean};
use serde::{Deserialize, Serialize};

use super::SeenPod;
use super::probes::{Memory, RunId};
use super::termination::{EndedRun, MessageFile};
use crate::health::{Container, Probe, Restart, Role, Run, is_done};

mod report;

/// The pause before the second restart; it doubles with each further one. The first restart has no pause.
const PAUSE_MIN: i64 = 10;
/// The longest pause.
const PAUSE_MAX: i64 = 300;
/// After a container has run for this time, its earlier ends do not count.
const CALM: i64 = 600;
/// How long the supervisor waits for a restart by Podman, which takes a tenth of a second. A container that is down for
/// longer was stopped by hand.
const PODMAN_PATIENCE: i64 = 1;

/// The state that is kept for one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The pod's id.
    pub(super) pod: String,
    /// All of its containers ended, and the unit failed because of that. The next start of the unit plays the pod
    /// again.
    pub(super) over: bool,
    pub(super) containers: BTreeMap<String, Record>,
    /// What the probes found out.
    #[serde(default)]
    pub(super) probes: Memory,
    /// The last run of each container whose `postStart` hook has run.
    #[serde(default)]
    pub(super) posted: BTreeMap<String, RunId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Restarts since the pod was created, by Podman, the supervisor or a user.
    restarts: u32,
    /// Podman's restart count at the last look.
    seen: u32,
    /// Number of ends since it last ran for [`CALM`].
    ends: u32,
    /// Number of those ends that lengthen the pause. Podman may restart a container that ends at once several times
    /// before the supervisor disables its policy. Such a burst is the one restart without a pause.
    #[serde(default)]
    strikes: u32,
    /// Number of ends with a failure since the pod was created.
    failures: u32,
    /// When it last ended.
    last: i64,
    /// While it is down: when its last run began and ended.
    down: Option<(i64, i64)>,
    /// While it is down: when it is restarted.
    due: i64,
    /// Its last exit code, if Podman has reported it.
    code: Option<i32>,
    /// Its probe has failed too often, and Podman is stopping it.
    probe_failed: bool,
    /// Podman stopped it last because its probe had failed too often.
    by_probe: bool,
    /// In its last run it waits for its startup probe.
    starting: bool,
    /// It last ended before its startup probe succeeded.
    in_start: bool,
    /// Its probe was killed because it exceeded its time limit.
    late: bool,
    /// The output of its probe when it had failed too often.
    said: String,
    /// Why its last start failed, as a message.
    words: String,
    /// The last exit code of that probe, its number of consecutive failures, and its threshold.
    #[serde(default)]
    probe: (Option<u32>, u32, u32),
    /// It last ended because it was out of memory.
    #[serde(default)]
    out_of_memory: bool,
    /// The last line that it wrote before it ended, if it has no message.
    #[serde(default)]
    output: String,
    /// Its termination message of its last run.
    #[serde(default)]
    message: String,
    /// It has a file for its termination message.
    #[serde(default)]
    has_file: bool,
    /// When the run of the last look began.
    #[serde(default)]
    began: i64,
    /// While it has ended for good with code 0: when its last run began and ended.
    #[serde(default)]
    done: Option<(i64, i64)>,
    /// How its last `postStart` hook failed, as a message.
    #[serde(default)]
    hook: String,
    /// It is being ended because of a probe or a hook.
    #[serde(default)]
    condemned: bool,
}

/// A request about one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Disable its restarts by Podman.
    Hold(String),
    /// Enable its restarts by Podman.
    Release(String),
    /// Start it.
    Start(String),
    /// Request the last output of the probe of a container, by id and name.
    Ask(String, String),
    /// Request the termination message or the last line of a container.
    Hear {
        id: String,
        container: String,
        file: Option<MessageFile>,
    },
}

impl Ledger {
    /// Updates the ledger with a pod, and returns the orders for its containers. `released`: Beemesh is being removed,
    /// and Podman does all restarts.
    pub(super) fn look(&mut self, pod: &SeenPod, at: i64, released: bool) -> Vec<Order> {
        self.begin(&pod.id);
        let names: Vec<&str> = members(pod).map(|one| one.name.as_str()).collect();
        self.containers
            .retain(|name, _| names.contains(&name.as_str()));
        let mut orders = Vec::new();
        for container in members(pod) {
            let record = self
                .containers
                .entry(container.name.clone())
                .or_insert_with(|| Record::new(container, at));
            let ended = record.note(container, pod.restart, at);
            let volume = pod.messages.get(&container.id);
            record.has_file = volume.is_some();
            if let Some(run) = ended {
                record.out_of_memory = pod.out_of_memory.contains(&container.id);
                record.output.clear();
                record.message.clear();
                let file = volume.map(|volume| run.message_file(volume.clone()));
                orders.extend(record.questions(container, file));
            }
            let is_held = is_held(pod, container);
            let restart = container.role.restart(pod.restart);
            let is_left_alone = restart == Restart::Never || is_done(container, pod.restart);
            // A Job with a limited number of failures is counted from its first failure on.
            let is_failing = record.ends > 0 || record.condemned;
            let holds = pod.needs_lease || !released && (is_failing || pod.failures_max.is_some());
            let id = || container.id.clone();
            match (is_left_alone, holds, is_held) {
                // Podman never restarts it, and the containers that wait for it keep the pod.
                _ if container.role == Role::Init => {}
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

    /// Starts a new ledger unless this is the one of the pod.
    pub(super) fn begin(&mut self, pod: &str) {
        if self.pod != pod {
            *self = Self {
                pod: pod.to_owned(),
                ..Self::default()
            };
        }
    }

    /// Records that a container is being ended because of a probe or a hook. Until it has ended, the pod keeps its
    /// holder: otherwise the pod would stop with it.
    pub(super) fn condemn(&mut self, container: &str) {
        if let Some(record) = self.containers.get_mut(container) {
            record.condemned = true;
        }
    }

    /// Records that a container is ended because its `postStart` hook failed.
    pub(super) fn hook_failed(&mut self, container: &str, reason: &str) {
        if let Some(record) = self.containers.get_mut(container) {
            record.hook = clean(&format!("postStart hook: {reason}"), TEXT_CHARS_MAX);
        }
    }

    /// The latest time of the next look, when a container that is down is due.
    pub(super) fn due(&self, pod: &SeenPod) -> Option<i64> {
        let waits = members(pod).filter(|container| {
            let is_left_alone = container.role.restart(pod.restart) == Restart::Never;
            !is_left_alone && !is_done(container, pod.restart)
        });
        let records = waits.filter_map(|container| {
            let record = self.containers.get(&container.name)?;
            record.down?;
            Some(record.start_at(is_held(pod, container)))
        });
        records.min()
    }

    /// Records that a container ended with this code.
    pub(super) fn died(&mut self, container: &str, code: i32) {
        if let Some(record) = self.containers.get_mut(container) {
            record.code = Some(code);
        }
    }

    /// Records a result of a container's probe.
    pub(super) fn probed(&mut self, container: &str, healthy: bool) {
        if let Some(record) = self.containers.get_mut(container) {
            record.probe_failed = !healthy;
        }
    }

    /// Records the details of a container's probe that had failed too often.
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

    /// Records what a container said at its end.
    pub(super) fn heard(&mut self, container: &str, message: String, output: String) {
        if let Some(record) = self.containers.get_mut(container) {
            record.message = message;
            record.output = output;
        }
    }

    /// Records that a container could not be started, which counts as an end.
    pub(super) fn not_started(&mut self, pod: &SeenPod, id: &str, words: &str, at: i64) {
        let Some(container) = members(pod).find(|container| container.id == id) else {
            return;
        };
        if let Some(record) = self.containers.get_mut(&container.name) {
            record.ends = record.ends.saturating_add(1);
            record.strikes = record.strikes.saturating_add(1);
            record.failures = record.failures.saturating_add(1);
            record.last = at;
            record.due = at + pause(record.strikes);
            record.words = clean(words, TEXT_CHARS_MAX);
        }
    }

    /// Restarts since the pod was created.
    pub(super) fn restarts(&self) -> u32 {
        let records = self.containers.values();
        records.fold(0, |sum, record| sum.saturating_add(record.restarts))
    }

    /// Failures since the pod was created.
    pub(super) fn failures(&self) -> u32 {
        let records = self.containers.values();
        records.fold(0, |sum, record| sum.saturating_add(record.failures))
    }

    /// A report of each container. It contains no time that changes without an event.
    pub(super) fn reports(&self, pod: &SeenPod, workload: &str) -> Vec<ContainerReport> {
        let is_given_up = pod.failures_max.is_some_and(|max| self.failures() > max);
        let fresh = Record::default();
        let all = members(pod).map(|container| {
            let record = self.containers.get(&container.name).unwrap_or(&fresh);
            record.report(container, pod, workload, is_given_up)
        });
        let mut all: Vec<ContainerReport> = all.collect();
        if all.len() > CONTAINERS_MAX {
            all.sort_by_key(|one| (!one.is_telling(), one.is_calm()));
            all.truncate(CONTAINERS_MAX);
        }
        all
    }
}

impl Record {
    /// The history before the first look comes from Podman's restart count and the time of the container's last end.
    fn new(container: &Container, at: i64) -> Self {
        let Container {
            restarts,
            exited_at,
            ..
        } = *container;
        let is_late = restarts > 0 && exited_at > 0 && at < exited_at + CALM;
        let ends = u32::from(is_late && is_up(container));
        Self {
            restarts,
            seen: restarts,
            ends,
            strikes: ends,
            failures: restarts,
            last: exited_at.max(0),
            starting: container.probe == Probe::Starting,
            began: container.started_at,
            ..Self::default()
        }
    }

    /// Updates the record. Returns the run that has ended since the last look.
    fn note(&mut self, container: &Container, restart: Restart, at: i64) -> Option<EndedRun> {
        let Container {
            restarts,
            started_at,
            exited_at,
            exit_code,
            ..
        } = *container;
        let run = (started_at, exited_at);
        let mut ended = None;
        let by_podman = restarts.saturating_sub(self.seen);
        if by_podman > 0 {
            self.restarts = self.restarts.saturating_add(by_podman);
            let unseen = by_podman - u32::from(self.down.is_some());
            self.ended(unseen, exited_at.clamp(0, at));
            self.failures = self.failures.saturating_add(unseen);
            self.down = None;
            ended = (unseen > 0).then_some(EndedRun {
                began: self.began,
                next: Some(started_at),
            });
        } else if self
            .down
            .is_some_and(|down| is_up(container) || down != run)
        {
            // The supervisor or a user started it, which resets Podman's count.
            let since = if restarts < self.seen { restarts } else { 0 };
            self.restarts = self.restarts.saturating_add(1).saturating_add(since);
            self.down = None;
        }
        self.seen = restarts;
        let this_run = EndedRun {
            began: started_at,
            next: None,
        };
        let is_done = is_done(container, restart);
        // This includes a container that a power cut ended and podman-restart.service did not start.
        if container.run == Run::Exited && !is_done && self.down.is_none() {
            ended = Some(this_run);
            self.down = Some(run);
            self.code = Some(exit_code);
            self.ended(1, exited_at.clamp(0, at));
            self.failures = self.failures.saturating_add(u32::from(exit_code != 0));
            self.due = self.last + pause(self.strikes);
        }
        if is_done && self.done != Some(run) {
            ended = Some(this_run);
            self.succeeded(exited_at.clamp(0, at));
        }
        self.done = is_done.then_some(run);
        self.began = started_at;
        self.starting = container.probe == Probe::Starting;
        // The clock may have been set back.
        self.due = self.due.min(at + PAUSE_MAX);
        if is_up(container) {
            self.words.clear();
            if at >= started_at + CALM && at >= self.last + CALM {
                self.hook.clear();
                self.ends = 0;
                self.strikes = 0;
            }
        }
        ended
    }

    /// What to ask about a container that has ended.
    fn questions(&self, container: &Container, file: Option<MessageFile>) -> Vec<Order> {
        let (id, name) = (&container.id, &container.name);
        let mut orders = Vec::new();
        if self.in_start {
            orders.push(Order::Ask(id.clone(), name.clone()));
        }
        // An init container that is done is removed next.
        let has_succeeded = self.done.is_some();
        let has_message = file.is_some() && !(has_succeeded && container.role == Role::Init);
        if has_message || !self.by_probe && !has_succeeded {
            orders.push(Order::Hear {
                id: id.clone(),
                container: name.clone(),
                file,
            });
        }
        orders
    }

    /// Records an end for good with code 0, which does not count as an end.
    fn succeeded(&mut self, last: i64) {
        self.code = Some(0);
        self.last = last;
        self.by_probe = std::mem::take(&mut self.probe_failed);
        self.in_start = false;
    }

    fn ended(&mut self, times: u32, last: i64) {
        if times > 0 {
            self.ends = self.ends.saturating_add(times);
            self.strikes = self.strikes.saturating_add(1);
            self.condemned = false;
            self.last = last;
            self.by_probe = std::mem::take(&mut self.probe_failed);
            self.in_start = self.starting && !self.by_probe;
        }
    }

    /// If Podman's policy is enabled, Podman gets time to restart the container first.
    fn start_at(&self, is_held: bool) -> i64 {
        let patience = if is_held { 0 } else { PODMAN_PATIENCE };
        self.due.max(self.last + patience)
    }
}

/// The name of a container in its manifest.
pub(super) fn short_name<'a>(name: &'a str, workload: &str) -> &'a str {
    let rest = name.strip_prefix(workload);
    rest.and_then(|rest| rest.strip_prefix('-')).unwrap_or(name)
}

fn members(pod: &SeenPod) -> impl Iterator<Item = &Container> {
    let containers = pod.containers.iter();
    containers.filter(|container| container.role.is_in_manifest())
}

/// Whether Podman does not restart a container although its manifest requests it.
fn is_held(pod: &SeenPod, container: &Container) -> bool {
    container.role == Role::Init || pod.held.contains(&container.id)
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
