//! Decides the next operation for each pod on this host, and composes the reports on the pods. Each pod is a unit of its
//! own, and the decisions on the pods of one workload do not depend on each other.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes `now`. Input: the replicated state ([`View`]), the state of
//! systemd and the disk ([`UnitState`]), and the results of earlier operations ([`Work`]). Output: the operations to
//! start, the reports, and the time of the next look. [`decide`] has the rules, [`job`] those for Jobs, [`work`] the
//! steps of each operation, and [`tell`] the messages.
//!
//! At most one operation is in progress for a pod. Two things are kept over a restart of the gateway: which units
//! its own operations have stopped, and how attempts of Jobs ended. Everything else that an unfinished operation left
//! is visible in the units, and the next decision finishes it.

mod decide;
mod disk;
mod job;
mod tell;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    backoff::doubled,
    ipc::UnitState,
    peer::WorkloadReport,
    pod::PodReport,
    state::ResolvedImages,
    workload::{pod_name, split_pod_name},
};
use beemesh_quadlet::health;
use tokio::time::Instant;

pub(crate) use job::End;
pub(crate) use work::{Step, Work, replacement, unnamed};

use crate::{
    cluster::{
        placement,
        state::{State, Workload},
    },
    raft::View,
};
use disk::{Disk, disk, old_format};
use job::Attempt;

/// The pause after the first failure of an operation; it doubles with each further one. Typical causes are an image
/// that cannot be pulled, a full disk, or a Podman or an agent that does not respond. The pause is short enough that
/// the retry soon follows the repair, and long enough not to load the host.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The same for a unit that is `failed`. Its supervisor gave up the pod, so only a change outside of the workload can
/// help, such as a port or a volume that becomes free or an image that becomes available. The pause is longer so that
/// the unit stays visibly failed in between.
const FAILED_PAUSE_MIN: Duration = Duration::from_secs(60);
/// The longest pause between two starts of a failed unit.
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(900);

/// The longest pause between two checks whether another workload has released what this one needs. A check is cheap,
/// and the waiting workload should start soon after.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// Time that systemd may need to report the effect of a finished operation. Until then the same operation is not
/// started again.
const NEWS_MAX: Duration = Duration::from_secs(2);

/// The input of a decision.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The present time.
    pub(crate) now: Instant,
    pub(crate) host: HostId,
    /// The replicated state.
    pub(crate) view: &'a View,
    /// The units of the host.
    pub(crate) units: &'a BTreeMap<String, UnitState>,
}

/// The output of a decision.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Operations to start, by pod.
    pub(crate) begin: Vec<(String, Work)>,
    /// Pods whose operation must be cancelled, because it still pulls images for an outdated revision.
    pub(crate) cancel: Vec<String>,
    /// The reports on the pods, sorted by workload and number.
    pub(crate) reports: Vec<WorkloadReport>,
    /// Workloads whose unit is no longer stopped by an operation of the gateway.
    pub(crate) unmark: Vec<String>,
    /// Files and units that should not be on the host or differ from the expected ones, as messages.
    pub(crate) strange: Vec<String>,
    /// The ends of Jobs' attempts. The caller stores them and then calls [`Reconciler::recorded`]; only then are they
    /// reported.
    pub(crate) record: Vec<(String, End)>,
    /// Jobs of which the host has nothing left.
    pub(crate) forget: Vec<String>,
    /// The time of the next look if no event comes before.
    pub(crate) due: Option<Instant>,
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All steps are done.
    Done,
    /// The operation waits, for the reason in this message: another workload uses what this one needs, or an object
    /// that it refers to does not exist. Nothing was changed.
    Waits(String),
    /// The agent or Podman was not there during a step. That says nothing of the revision.
    Interrupted(String),
    /// A step failed, for the reason in this message.
    Failed(String),
    /// It was cancelled as requested.
    Cancelled,
}

/// The pod that an operation has left running.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Played {
    /// The log index of its revision.
    pub(crate) index: u64,
    /// Its images, if its rollout needs them.
    pub(crate) images: ResolvedImages,
    /// What differs from what the manifest says, as a message; empty if nothing does.
    pub(crate) note: String,
}

/// The number of a revision and its place in the order of revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Its number, for users.
    pub(crate) revision: u64,
    /// The log index that created it.
    pub(crate) index: u64,
}

/// The state that is kept for a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Memory {
    flight: Option<Flight>,
    failures: Option<Failures>,
    /// The log index of the revision whose storage is known to be durable.
    settled: u64,
    /// The last operation that succeeded, and when.
    done: Option<(Work, Instant)>,
    /// An operation of the gateway has stopped the unit, and the unit has not been up since.
    stopped: bool,
    /// The end of the last attempt of a Job that has ended.
    end: Option<End>,
    /// The log index of the attempt whose data is known to be durable.
    concluded: u64,
    /// The log index of the attempt whose end is stored.
    recorded: u64,
    /// Set if the last failure was caused by a missing image.
    image: Option<Image>,
    /// The pod that the last operation left.
    played: Played,
}

/// The state of an image that an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    /// The host lacks the image. The gateway looks for it on this host all the time, and asks the registry again at
    /// this time.
    Missing {
        /// The time of the next request, in seconds since 1970.
        again: u64,
    },
    /// It is on this host now.
    Arrived,
}

/// An operation in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flight {
    work: Work,
    step: Step,
    cancelled: bool,
}

/// The failures of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failures {
    /// The log index of the revision; failures of other revisions do not count.
    index: u64,
    count: u32,
    last: Instant,
    /// The step at which the operation failed; `None` if the unit failed by itself.
    step: Option<Step>,
    cause: Cause,
    message: String,
}

/// Why an operation did not reach its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Not a failure: another workload uses what this one needs.
    Waits,
    /// Not one of the revision: the agent or Podman was not there.
    Interrupted,
    /// A failure of the revision on this host.
    Failed,
}

/// The operations in progress, and the failures.
#[derive(Debug, Default)]
pub(crate) struct Reconciler {
    memory: BTreeMap<String, Memory>,
    /// The last report of each unit's supervisor, with the unit's status line that belongs to it.
    heard: BTreeMap<String, (String, Heard)>,
}

/// The report of a supervisor; `None` if the status line of the unit does not come from a supervisor.
type Heard = Option<Arc<health::Report>>;

impl Reconciler {
    /// Creates a reconciler after a restart of the gateway: the previous one had stopped the units of these workloads,
    /// and had stored these ends.
    pub(crate) fn after(stopped: BTreeSet<String>, ends: BTreeMap<String, End>) -> Self {
        let mut memory: BTreeMap<String, Memory> = BTreeMap::new();
        for workload in stopped {
            memory.entry(workload).or_default().stopped = true;
        }
        for (workload, end) in ends {
            let memory = memory.entry(workload).or_default();
            (memory.concluded, memory.recorded) = (end.index, end.index);
            memory.end = Some(end);
        }
        Self {
            memory,
            ..Self::default()
        }
    }

    /// Reads the reports of supervisors whose status line has changed; `read` returns the last report. For a unit
    /// without a report, its status line is used.
    pub(crate) fn hear(
        &mut self,
        units: &BTreeMap<String, UnitState>,
        read: impl Fn(&str) -> Option<PodReport>,
    ) {
        self.heard.retain(|name, _| units.contains_key(name));
        for (name, unit) in units {
            let known = self.heard.get(name);
            if unit.status.is_empty() || known.is_some_and(|(line, _)| *line == unit.status) {
                continue;
            }
            let report = health::heard(&unit.status, read(name)).map(Arc::new);
            self.heard
                .insert(name.clone(), (unit.status.clone(), report));
        }
    }

    fn heard_of(&self, name: &str, unit: Option<&UnitState>) -> Heard {
        let line = &unit?.status;
        match self.heard.get(name) {
            Some((known, report)) if known == line => report.clone(),
            _ => health::parse(line).map(Arc::new),
        }
    }

    /// Makes the decisions of one look. The operations that the plan starts count as in progress from now on.
    pub(crate) fn look(&mut self, seen: &Seen<'_>) -> Plan {
        let mut plan = Plan::default();
        if seen.view.state.cluster().is_none() {
            return plan;
        }
        // A host that was removed keeps its workloads, and its administrator manages the units.
        if seen.view.state.is_without(seen.host) {
            return plan;
        }
        let state = &seen.view.state;
        let wanted: BTreeMap<String, (Revision, Option<Attempt>)> = state
            .workloads()
            .flat_map(|workload| wanted_of(state, workload, seen.host))
            .collect();
        self.memory.retain(|name, memory| {
            let there = memory.flight.is_some()
                || wanted.contains_key(name)
                || seen.units.contains_key(name);
            if !there && memory.stopped {
                plan.unmark.push(name.clone());
            }
            if !there && memory.end.is_some() {
                plan.forget.push(name.clone());
            }
            there
        });
        let names: BTreeSet<&String> = wanted.keys().chain(seen.units.keys()).collect();
        let mut old = Vec::new();
        for name in names {
            let unit = seen.units.get(name);
            let disk = disk(name, state, unit);
            let (wanted, job) = wanted.get(name).copied().unzip();
            let job = job.flatten();
            let case = decide::Case {
                now: seen.now,
                applied: seen.view.applied,
                wanted: match (&disk, job) {
                    // The host gets no other attempt of this Job.
                    (Disk::Ours(present), Some(Attempt { over: true, .. })) => Some(*present),
                    _ => wanted,
                },
                job,
                cluster: state.cluster(),
                rolls: split_pod_name(name)
                    .is_some_and(|(workload, _)| state.rollout(workload).is_some()),
                disk,
                unit,
                heard: self.heard_of(name, unit),
            };
            let memory = self.memory.entry(name.clone()).or_default();
            memory.look(&case);
            memory.look_for_end(&case, state);
            if memory.runs_again(&case) {
                plan.unmark.push(name.to_owned());
            }
            let decision = decide::decide(&case, memory);
            plan.due = plan.due.into_iter().chain(decision.due).min();
            match (&mut memory.flight, decision.work) {
                (Some(flight), work) => {
                    if work != Some(flight.work) && flight.step == Step::Pull && !flight.cancelled {
                        flight.cancelled = true;
                        plan.cancel.push(name.to_owned());
                    }
                }
                (flight @ None, Some(work)) => {
                    *flight = Some(Flight {
                        work,
                        step: work.steps()[0],
                        cancelled: false,
                    });
                    plan.begin.push((name.to_owned(), work));
                }
                (None, None) => {}
            }
            plan.record
                .extend(memory.unrecorded().map(|end| (name.to_owned(), end)));
            plan.reports.extend(tell::report(name, &case, memory));
            plan.strange.extend(tell::strange(name, &case.disk));
            let is_over = memory.end.is_some();
            let format = old_format(&case.disk, unit);
            if let Some(format) = format.filter(|_| case.wanted.is_some() && !is_over) {
                old.push((name.as_str(), format));
            }
        }
        plan.strange.extend(tell::old(&old));
        // The names of units have another order: `web__1` stands behind `web.v2`.
        plan.reports
            .sort_by(|a, b| (&a.workload, a.number).cmp(&(&b.workload, b.number)));
        plan
    }

    /// Records that an operation has reached this step.
    pub(crate) fn reached(&mut self, workload: &str, step: Step) {
        let memory = self.memory.entry(workload.to_owned()).or_default();
        if let Some(flight) = &mut memory.flight {
            flight.step = step;
            memory.stopped |= step == Step::Stop;
            if step == Step::Put {
                // The revision that was durable is replaced. If it is wanted again, its pod is another one.
                memory.settled = 0;
            }
            if step.is_after_sync() && matches!(flight.work, Work::Conclude(_)) {
                memory.concluded = flight.work.index();
                memory.failures = None;
            } else if step.is_after_sync() && flight.work.syncs() {
                memory.settled = flight.work.index();
                memory.failures = None;
            }
        }
    }

    /// Records that the end of an attempt of a Job is stored, and may be reported.
    pub(crate) fn recorded(&mut self, workload: &str, index: u64) {
        if let Some(memory) = self.memory.get_mut(workload) {
            memory.recorded = index;
        }
    }

    /// Records that an operation has ended.
    pub(crate) fn ended(&mut self, now: Instant, workload: &str, ending: Ending) {
        let memory = self.memory.entry(workload.to_owned()).or_default();
        let Some(flight) = memory.flight.take() else {
            return;
        };
        let index = flight.work.index();
        match ending {
            Ending::Done => {
                memory.failures = None;
                memory.done = Some((flight.work, now));
            }
            Ending::Cancelled => {}
            Ending::Waits(message) => {
                memory.fail(now, index, (Some(flight.step), Cause::Waits), message);
            }
            Ending::Interrupted(message) => {
                memory.fail(now, index, (Some(flight.step), Cause::Interrupted), message);
            }
            Ending::Failed(message) => {
                memory.fail(now, index, (Some(flight.step), Cause::Failed), message);
            }
        }
    }
}

impl Reconciler {
    /// Records that the last operation failed because an image is missing, at `at_ms`, in milliseconds since 1970.
    pub(crate) fn lacks_image(&mut self, now: Instant, at_ms: u64, workload: &str) {
        if let Some(memory) = self.memory.get_mut(workload)
            && let Some(failures) = &memory.failures
        {
            let pause = failures.retry_at(false).saturating_duration_since(now);
            let again = Duration::from_millis(at_ms) + pause;
            memory.image = Some(Image::Missing {
                again: again.as_secs(),
            });
        }
    }

    /// Records what an operation has left running.
    pub(crate) fn played(&mut self, workload: &str, played: Played) {
        if let Some(memory) = self.memory.get_mut(workload) {
            // The operation that makes a pod durable does not know how it was played.
            let is_known = memory.played.index == played.index && played.note.is_empty();
            let note = match is_known {
                true => std::mem::take(&mut memory.played.note),
                false => played.note,
            };
            memory.played = Played { note, ..played };
        }
    }

    /// Records that this image is on the host now.
    pub(crate) fn arrived(&mut self, workload: &str) {
        if let Some(memory) = self.memory.get_mut(workload)
            && memory.image.is_some()
        {
            memory.image = Some(Image::Arrived);
        }
    }
}

/// The pods of the workload that the host has to run, by their names, with the attempt of a Job.
fn wanted_of(
    state: &State,
    workload: &Workload,
    host: HostId,
) -> impl Iterator<Item = (String, (Revision, Option<Attempt>))> {
    let all = placement::on_host(state, workload, host).into_iter();
    all.map(|(number, runs)| {
        let placement::Runs {
            revision,
            index,
            ended,
        } = runs;
        let attempt = workload.job.map(|job| Attempt {
            over: ended,
            restarts: job.restarts,
        });
        let name = pod_name(&workload.name, number);
        (name, (Revision { revision, index }, attempt))
    })
}

impl Memory {
    /// Records changes of the unit that no operation has caused.
    fn look(&mut self, case: &decide::Case<'_>) {
        let (Disk::Ours(revision), Some(_), None) = (&case.disk, case.unit, &self.flight) else {
            return;
        };
        let known = self
            .failures
            .as_ref()
            .is_some_and(|failures| failures.index == revision.index);
        match case.doing() {
            decide::Doing::Failed if !known => self.fail(
                case.now,
                revision.index,
                (None, Cause::Failed),
                String::new(),
            ),
            // The unit is up, so the cause of the failures is gone.
            decide::Doing::Up(_) | decide::Doing::Completed | decide::Doing::Ended
                if known && self.settled == revision.index =>
            {
                self.failures = None
            }
            _ => {}
        }
    }

    /// Records the end of an attempt of a Job. The memory of ends that belong to another cluster is ignored.
    fn look_for_end(&mut self, case: &decide::Case<'_>, state: &State) {
        let of = |end: &End| state.cluster() == Some(end.cluster) || state.was(end.cluster);
        if self.end.as_ref().is_some_and(|end| !of(end)) {
            (self.end, self.concluded, self.recorded) = (None, 0, 0);
        }
        if let Some(end) = job::end(case, self) {
            self.end = Some(end);
        }
    }

    /// The end of the attempt with this log index, if it has ended.
    fn ended(&self, index: u64) -> Option<&End> {
        self.end.as_ref().filter(|end| end.index == index)
    }

    /// An end whose data is durable, and which is not stored yet.
    fn unrecorded(&self) -> Option<End> {
        let new = |end: &&End| self.concluded == end.index && self.recorded != end.index;
        self.end.as_ref().filter(new).cloned()
    }

    /// Whether a unit that an operation has stopped is up for the first time since.
    fn runs_again(&mut self, case: &decide::Case<'_>) -> bool {
        let up = matches!(
            case.doing(),
            decide::Doing::Up(_) | decide::Doing::Completed | decide::Doing::Ended
        );
        up && self.flight.is_none() && std::mem::take(&mut self.stopped)
    }

    fn fail(
        &mut self,
        now: Instant,
        index: u64,
        (step, cause): (Option<Step>, Cause),
        message: String,
    ) {
        let before = self
            .failures
            .as_ref()
            .filter(|failures| failures.index == index);
        let count = before
            .map_or(0, |failures| failures.count)
            .saturating_add(1);
        self.image = None;
        self.failures = Some(Failures {
            index,
            count,
            last: now,
            step,
            cause,
            message,
        });
    }
}

impl Failures {
    /// The time of the next try.
    fn retry_at(&self, unit_failed: bool) -> Instant {
        let (min, max) = if self.cause == Cause::Waits {
            (PAUSE_MIN, WAIT_MAX)
        } else if unit_failed {
            (FAILED_PAUSE_MIN, FAILED_PAUSE_MAX)
        } else {
            (PAUSE_MIN, PAUSE_MAX)
        };
        self.last + doubled(min, max, self.count.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests;
