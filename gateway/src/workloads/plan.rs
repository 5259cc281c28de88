//! Decides what this host must do next for each workload, and what it says about them.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes `now`. Input: the replicated state ([`View`]), what systemd
//! and the disk say ([`UnitState`]), and what became of earlier [`Work`]. Output: the work to begin, the reports, and
//! when to look again. The rules are in [`decide`] and, for Jobs, in [`job`], the steps of each work in [`work`], the words in [`tell`].
//!
//! A workload has at most one work under way. Over a restart of the gateway nothing is remembered but which units our own
//! works have stopped, and how attempts of Jobs ended: else what a work left half done shows in the units, and the next decision finishes it.

mod decide;
mod job;
mod tell;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{
    ClusterId, HostId, backoff::doubled, ipc::UnitState, peer::WorkloadReport, pod::PodReport,
};
use beemesh_quadlet::{
    health,
    render::{FORMAT, Quadlet, read_quadlet},
};
use tokio::time::Instant;

pub(crate) use job::End;
pub(crate) use work::{Step, Work, replacement, unnamed};

use crate::{
    cluster::{placement, state::State},
    raft::View,
};
use job::Attempt;

/// The pause after the first failure of a work; it doubles with each further one. What fails here is an image that
/// cannot be pulled, a full disk, a Podman or an agent that is away: short enough that nobody waits for us after the
/// repair, long enough not to be a burden meanwhile.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The same for a unit that is `failed`: its supervisor gave the pod up as beyond repair, so only something outside of
/// the workload can help (a port or a volume that becomes free, an image that appears), and the unit should stay
/// visibly failed in between.
const FAILED_PAUSE_MIN: Duration = Duration::from_secs(60);
/// The longest pause between two starts of a failed unit.
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(900);

/// The longest pause between two looks whether what another workload has is free by now: a look costs little, and who waits
/// should be there soon.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// How long the news of what a work has just done may take from systemd to us. The same work is not begun again before.
const NEWS_MAX: Duration = Duration::from_secs(2);

/// All that is seen at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The moment.
    pub(crate) now: Instant,
    /// This host.
    pub(crate) host: HostId,
    /// What the cluster wants.
    pub(crate) view: &'a View,
    /// What the host has.
    pub(crate) units: &'a BTreeMap<String, UnitState>,
}

/// What comes of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Work to begin, by workload.
    pub(crate) begin: Vec<(String, Work)>,
    /// Workloads whose work is to be broken off: it still pulls images for a revision that nobody wants any more.
    pub(crate) cancel: Vec<String>,
    /// What the host says about its workloads, by name.
    pub(crate) reports: Vec<WorkloadReport>,
    /// Workloads whose unit is no longer stopped by our own work.
    pub(crate) unmark: Vec<String>,
    /// What the host should not have, or not as it is, in words for a person.
    pub(crate) strange: Vec<String>,
    /// How attempts of Jobs ended: to be kept before it is reported, as [`Reconciler::recorded`] learns.
    pub(crate) record: Vec<(String, End)>,
    /// Jobs of which nothing is left here.
    pub(crate) forget: Vec<String>,
    /// When to look again, if nothing happens before.
    pub(crate) due: Option<Instant>,
}

/// What became of a work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All steps were done.
    Done,
    /// It cannot be done while another workload has what this one wants, or while that does not exist, in words for a person; nothing
    /// was changed.
    Waits(String),
    /// A step failed, in words for a person.
    Failed(String),
    /// It was broken off as asked.
    Cancelled,
}

/// A revision, as far as ordering goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revision {
    /// Its number, for people.
    pub(crate) revision: u64,
    /// The log index that made it.
    pub(crate) index: u64,
}

/// What the disk has for a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Disk {
    /// No Quadlet.
    Nothing,
    /// A Quadlet of this cluster.
    Ours(Revision),
    /// A Quadlet of another cluster.
    Other(ClusterId),
    /// A file in the place of the Quadlet that Beemesh did not write.
    Foreign,
}

/// What is remembered of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Memory {
    flight: Option<Flight>,
    failures: Option<Failures>,
    /// The log index of the revision whose storage is known to be durable.
    settled: u64,
    /// The last work that was done, and when.
    done: Option<(Work, Instant)>,
    /// Our own work has stopped the unit, and it was not seen up since.
    stopped: bool,
    /// How the last attempt of a Job ended that has.
    end: Option<End>,
    /// The log index of the attempt whose work is known to be durable.
    concluded: u64,
    /// The log index of the attempt whose end is kept.
    recorded: u64,
    /// What the last failure lacked was an image.
    image: Option<Image>,
}

/// An image that a work could not do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    /// It is looked for on this host all the time, and asked for elsewhere at this time, in seconds since 1970.
    Missing {
        /// The time.
        again: u64,
    },
    /// It is on this host now.
    Arrived,
}

/// A work under way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flight {
    work: Work,
    step: Step,
    cancelled: bool,
}

/// What went wrong with one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failures {
    /// The revision's log index; failures of another one do not count.
    index: u64,
    count: u32,
    last: Instant,
    /// Where our work failed; `None` when the unit failed by itself.
    step: Option<Step>,
    /// Nothing failed: another workload is in the way.
    waits: bool,
    message: String,
}

/// Remembers what is under way and what failed.
#[derive(Debug, Default)]
pub(crate) struct Reconciler {
    memory: BTreeMap<String, Memory>,
    /// What supervisors say: of each unit the line by which that is known, and the report.
    heard: BTreeMap<String, (String, Heard)>,
}

/// What a supervisor says; nothing when its unit's line is none of a supervisor's.
type Heard = Option<Arc<health::Report>>;

impl Reconciler {
    /// Goes on where another one ended that had stopped the units of these workloads, and had seen these ends.
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

    /// Hears the supervisors of units whose line has changed: `read` gives the report that one has written last. Units that are not heard
    /// say what their line says.
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

    /// Looks at everything once. What the plan begins counts as under way from now on.
    pub(crate) fn look(&mut self, seen: &Seen<'_>) -> Plan {
        let mut plan = Plan::default();
        if seen.view.state.cluster().is_none() {
            return plan;
        }
        // A host that was removed keeps what it runs: its units are its administrator's now.
        if seen.view.state.is_without(seen.host) {
            return plan;
        }
        let state = &seen.view.state;
        let wanted: BTreeMap<&str, (Revision, Option<Attempt>)> = state
            .workloads()
            .filter_map(|workload| {
                let placement::Runs {
                    revision,
                    index,
                    ended,
                } = placement::runs(state, workload, seen.host)?;
                let attempt = workload.job.map(|job| Attempt {
                    over: ended,
                    restarts: job.restarts,
                });
                let revision = Revision { revision, index };
                Some((workload.name.as_str(), (revision, attempt)))
            })
            .collect();
        self.memory.retain(|name, memory| {
            let there = memory.flight.is_some()
                || wanted.contains_key(name.as_str())
                || seen.units.contains_key(name);
            if !there && memory.stopped {
                plan.unmark.push(name.clone());
            }
            if !there && memory.end.is_some() {
                plan.forget.push(name.clone());
            }
            there
        });
        let names: BTreeSet<&str> = wanted
            .keys()
            .copied()
            .chain(seen.units.keys().map(String::as_str))
            .collect();
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
                    // Of no other attempt there will be anything here.
                    (Disk::Ours(present), Some(Attempt { over: true, .. })) => Some(*present),
                    _ => wanted,
                },
                job,
                cluster: state.cluster(),
                disk,
                unit,
                heard: self.heard_of(name, unit),
            };
            let memory = self.memory.entry(name.to_owned()).or_default();
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
            if case.wanted.is_some() && !is_over && is_old(&case.disk, unit) {
                old.push(name);
            }
        }
        plan.strange.extend(tell::old(&old));
        plan
    }

    /// A work has come to this step.
    pub(crate) fn reached(&mut self, workload: &str, step: Step) {
        let memory = self.memory.entry(workload.to_owned()).or_default();
        if let Some(flight) = &mut memory.flight {
            flight.step = step;
            memory.stopped |= step == Step::Stop;
            if step.is_after_sync() && matches!(flight.work, Work::Conclude(_)) {
                memory.concluded = flight.work.index();
                memory.failures = None;
            } else if step.is_after_sync() && flight.work.syncs() {
                memory.settled = flight.work.index();
                memory.failures = None;
            }
        }
    }

    /// The end of an attempt of a Job is kept, and may be reported.
    pub(crate) fn recorded(&mut self, workload: &str, index: u64) {
        if let Some(memory) = self.memory.get_mut(workload) {
            memory.recorded = index;
        }
    }

    /// A work has ended.
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
                memory.fail(now, index, Some(flight.step), message);
                if let Some(failures) = &mut memory.failures {
                    failures.waits = true;
                }
            }
            Ending::Failed(message) => memory.fail(now, index, Some(flight.step), message),
        }
    }
}

impl Reconciler {
    /// The work that has just failed did so for want of an image, at `at_ms`, in milliseconds since 1970.
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

    /// That image is on this host now.
    pub(crate) fn arrived(&mut self, workload: &str) {
        if let Some(memory) = self.memory.get_mut(workload)
            && memory.image.is_some()
        {
            memory.image = Some(Image::Arrived);
        }
    }
}

impl Memory {
    /// Takes note of what the unit does by itself.
    fn look(&mut self, case: &decide::Case<'_>) {
        let (Disk::Ours(revision), Some(_), None) = (&case.disk, case.unit, &self.flight) else {
            return;
        };
        let known = self
            .failures
            .as_ref()
            .is_some_and(|failures| failures.index == revision.index);
        match case.doing() {
            decide::Doing::Failed if !known => {
                self.fail(case.now, revision.index, None, String::new())
            }
            // Whatever failed, somebody repaired it.
            decide::Doing::Up(_) | decide::Doing::Completed | decide::Doing::Ended
                if known && self.settled == revision.index =>
            {
                self.failures = None
            }
            _ => {}
        }
    }

    /// Takes note of how an attempt of a Job ended. What was noted for another cluster says nothing about this one.
    fn look_for_end(&mut self, case: &decide::Case<'_>, state: &State) {
        let of = |end: &End| state.cluster() == Some(end.cluster) || state.was(end.cluster);
        if self.end.as_ref().is_some_and(|end| !of(end)) {
            (self.end, self.concluded, self.recorded) = (None, 0, 0);
        }
        if let Some(end) = job::end(case, self) {
            self.end = Some(end);
        }
    }

    /// How the attempt of this log index ended, if it has.
    fn ended(&self, index: u64) -> Option<&End> {
        self.end.as_ref().filter(|end| end.index == index)
    }

    /// An end that is durable and not yet kept.
    fn unrecorded(&self) -> Option<End> {
        let new = |end: &&End| self.concluded == end.index && self.recorded != end.index;
        self.end.as_ref().filter(new).cloned()
    }

    /// Whether what our own work has stopped is seen up for the first time since.
    fn runs_again(&mut self, case: &decide::Case<'_>) -> bool {
        let up = matches!(
            case.doing(),
            decide::Doing::Up(_) | decide::Doing::Completed | decide::Doing::Ended
        );
        up && self.flight.is_none() && std::mem::take(&mut self.stopped)
    }

    fn fail(&mut self, now: Instant, index: u64, step: Option<Step>, message: String) {
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
            waits: false,
            message,
        });
    }
}

impl Failures {
    /// When to try again.
    fn retry_at(&self, unit_failed: bool) -> Instant {
        let (min, max) = if self.waits {
            (PAUSE_MIN, WAIT_MAX)
        } else if unit_failed {
            (FAILED_PAUSE_MIN, FAILED_PAUSE_MAX)
        } else {
            (PAUSE_MIN, PAUSE_MAX)
        };
        self.last + doubled(min, max, self.count.saturating_sub(1))
    }
}

/// Whether an earlier release has rendered what lies on the disk in a way that is not as safe as today's.
fn is_old(disk: &Disk, unit: Option<&UnitState>) -> bool {
    let quadlet = unit.and_then(|unit| read_quadlet(&unit.kube));
    matches!(disk, Disk::Ours(_)) && quadlet.is_some_and(|quadlet| quadlet.format < FORMAT)
}

/// What lies on the disk. A unit that was made before a recovery is this cluster's.
fn disk(name: &str, state: &State, unit: Option<&UnitState>) -> Disk {
    let Some(unit) = unit.filter(|unit| !unit.kube.is_empty()) else {
        return Disk::Nothing;
    };
    match read_quadlet(&unit.kube) {
        Some(Quadlet {
            workload,
            cluster: other,
            ..
        }) if workload == name && state.cluster() != Some(other) && !state.was(other) => {
            Disk::Other(other)
        }
        Some(Quadlet {
            workload,
            revision,
            index,
            ..
        }) if workload == name => Disk::Ours(Revision { revision, index }),
        _ => Disk::Foreign,
    }
}

#[cfg(test)]
mod tests;
