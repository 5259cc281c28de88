//! Decides the next step of each rollout.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes the time. Input: [`Seen`], and what the leader has observed
//! before ([`Watch`]). Output: a [`Plan`] of changes, and when to plan again. A leader that has just been elected knows
//! nothing of the past, so it waits the full times again; nothing else depends on who leads.
//!
//! - A pod of the latest revision is available when it has been ready for long enough.
//! - No more ready pods of earlier revisions are replaced than may be unavailable. A pod that is not ready anyway is
//!   replaced at once.
//! - A pod that its host works on may be ready. It counts as one that is not available, and is replaced like a ready one.
//! - When a pod of the latest revision fails, no other one gets it. All go back to the last revision that was ready, if
//!   there is one.
//! - A host that has not reported on the workload since the change counts as one whose pod is not available, and its pod
//!   stays. A gateway that has just started is such a host.
//! - A host that is not reachable is not waited for. It gets the latest revision when it returns. One that becomes
//!   unreachable while its pod is not ready may go on with its update: for some time it counts as one without a pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    peer::{HostReport, Phase, WorkloadReport},
    pod::{ContainerReport, ContainerState},
    state::{Change, Place, ResolvedImages, RevisionOutcome, RolloutPhase},
    workload::pod_name,
};
use tokio::time::Instant;

use crate::cluster::{
    placement,
    state::{Rollout, State, Workload},
    strategy::Strategy,
    view::sentence,
};

/// The shortest time for which a pod must be ready to be available.
const STABLE: Duration = Duration::from_secs(2);
/// The same for a pod of which a container has ended once: the pause before its second restart.
const STABLE_AGAIN: Duration = Duration::from_secs(10);
/// The number of times that a container of a new revision ends before the revision counts as failed.
const ENDS_MAX: u32 = 2;
/// How long a host counts whose pod was not ready when it became unreachable. A gateway that was killed is back within
/// this time, and its host then continues its update.
const VANISHED_MAX: Duration = Duration::from_secs(10);
/// Maximum length of a recorded reason, in bytes.
const REASON_MAX: usize = 512;
/// Maximum number of changes in one round. Their effect triggers the next round.
const CHANGES_MAX: usize = 256;

/// The input of a plan.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The replicated state.
    pub(crate) state: &'a State,
    /// The latest report of every host.
    pub(crate) reports: &'a BTreeMap<HostId, Arc<HostReport>>,
    /// The reachable hosts.
    pub(crate) reachable: &'a BTreeSet<HostId>,
    /// When a new leader knows which hosts are unreachable, if it does not yet. Until then nothing is decided.
    pub(crate) known_at: Option<Instant>,
    /// The present time.
    pub(crate) now: Instant,
}

/// The changes to propose.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The changes, in order.
    pub(crate) changes: Vec<Change>,
    /// When to plan again if nothing changes before.
    pub(crate) due: Option<Instant>,
}

/// What the leader has observed of the rollouts in its term.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    workloads: BTreeMap<String, Observed>,
}

/// What the leader has observed of one rollout.
#[derive(Debug)]
struct Observed {
    /// The log index of the latest revision.
    index: u64,
    /// The number of pods that have the latest revision, and of those that are available.
    progress: (usize, usize),
    /// When `progress` last changed.
    since: Instant,
    /// Since when each pod is ready, with the log index of its revision and the number of its restarts.
    ready: BTreeMap<Place, ((u64, u32), Instant)>,
    /// When the host of each pod was last reachable, and the log index of the revision that was ready then.
    last: BTreeMap<Place, (Instant, Option<u64>)>,
}

/// A pod, compared with the revision that it is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pod {
    /// The host has not reported on the workload since the change, so its pod may be ready.
    Unknown,
    /// The host works on it, for the reason in this message. It may be ready, or is being replaced.
    Busy(String),
    /// It has been ready for long enough, or its administrator has stopped it.
    Available,
    /// It is ready, and will be available at this time.
    Ready(Instant),
    /// It is not ready yet, for the reason in this message.
    Waits(String),
    /// It has failed, for the reason in this message.
    Failed(String),
}

/// Returns the changes that are due now.
pub(crate) fn plan(watch: &mut Watch, seen: &Seen<'_>) -> Plan {
    let mut plan = Plan::default();
    if seen.known_at.is_some() {
        plan.due = seen.known_at;
        return plan;
    }
    let state = seen.state;
    watch
        .workloads
        .retain(|name, _| state.rollout(name).is_some());
    for (workload, rollout) in state.rollouts() {
        if plan.changes.len() >= CHANGES_MAX {
            break;
        }
        if state.is_rolled_out(workload, rollout) {
            watch.workloads.remove(&workload.name);
            continue;
        }
        let observed = watch
            .workloads
            .entry(workload.name.clone())
            .or_insert_with(|| Observed::new(workload.index, seen.now));
        if observed.index != workload.index {
            *observed = Observed::new(workload.index, seen.now);
        }
        let look = Look {
            seen,
            workload,
            rollout,
            strategy: Strategy::of(&workload.object),
            places: placement::places(state, workload),
        };
        look.add(observed, &mut plan);
    }
    plan
}

impl Observed {
    fn new(index: u64, now: Instant) -> Self {
        Self {
            index,
            progress: (0, 0),
            since: now,
            ready: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }
}

/// The planning of one rollout.
struct Look<'a> {
    seen: &'a Seen<'a>,
    workload: &'a Workload,
    rollout: &'a Rollout,
    strategy: Strategy,
    /// The places of the workload's pods.
    places: BTreeSet<Place>,
}

impl Look<'_> {
    fn add(&self, observed: &mut Observed, plan: &mut Plan) {
        let pods = self.pods(observed);
        match self.rollout.phase {
            RolloutPhase::Rolling => self.forward(observed, &pods, plan),
            RolloutPhase::RollingBack => self.back(observed, &pods, plan),
            RolloutPhase::Halted => self.ended_after_all(&pods, plan),
        }
    }

    /// The pods of the reachable hosts, by the hosts' names.
    fn pods(&self, observed: &mut Observed) -> Vec<(Place, Pod)> {
        let there = self.places.iter().copied();
        let mut there: Vec<Place> = there.filter(|one| self.is_reachable(one)).collect();
        there.sort_by_cached_key(|place| (self.name(place.host), place.number));
        let pods = there
            .into_iter()
            .map(|place| (place, self.pod(place, observed)));
        let pods: Vec<_> = pods.collect();
        let known: BTreeSet<Place> = pods.iter().map(|(place, _)| *place).collect();
        observed.ready.retain(|place, _| known.contains(place));
        let now = self.seen.now;
        let last = pods.iter().map(|(place, pod)| {
            let ready = is_up(pod).then(|| self.rollout.on(*place));
            (*place, (now, ready))
        });
        observed.last.extend(last);
        pods
    }

    /// The number of pods on unreachable hosts that count as missing, and until when.
    fn vanished(&self, observed: &mut Observed) -> (usize, Option<Instant>) {
        let now = self.seen.now;
        observed.last.retain(|place, _| self.places.contains(place));
        let away = self.places.iter().filter(|one| !self.is_reachable(one));
        let until = away.filter_map(|place| {
            let on = self.rollout.on(*place);
            // A leader that has not seen the host does not know how far its update is.
            let unseen = || (now, (on != self.workload.index).then_some(on));
            let (at, ready) = *observed.last.entry(*place).or_insert_with(unseen);
            let until = at + VANISHED_MAX;
            (ready != Some(on) && until > now).then_some(until)
        });
        let until: Vec<_> = until.collect();
        (until.len(), until.into_iter().min())
    }

    fn is_reachable(&self, place: &Place) -> bool {
        self.seen.reachable.contains(&place.host)
    }

    fn pod(&self, place: Place, observed: &mut Observed) -> Pod {
        let reports = self.seen.reports.get(&place.host);
        if reports.is_none_or(|report| report.applied < self.workload.index) {
            return Pod::Unknown;
        }
        // The gateway of a host that runs the workload reports on it as soon as it has looked at its units.
        let Some(told) = self.report(place) else {
            return Pod::Unknown;
        };
        let is_whole = told.total > 0 && told.healthy == told.total;
        let report = Some(told).filter(|report| report.index == self.rollout.on(place));
        let is_up = report.is_some_and(is_ready);
        if !is_up {
            observed.ready.remove(&place);
        }
        let Some(report) = report else {
            // The report on the pod of another revision says why this one is not there. That pod may be ready until then.
            let why = told.message.clone();
            return match is_whole {
                true => Pod::Busy(why),
                false => Pod::Waits(why),
            };
        };
        if let Some(reason) = failure(report) {
            let is_tried = self.rollout.phase == RolloutPhase::Rolling
                && self.rollout.on(place) == self.workload.index;
            // The host could not replace the pod before this one, which keeps running.
            return match report.phase {
                Phase::Failed if is_whole && !is_tried => Pod::Busy(reason),
                _ => Pod::Failed(reason),
            };
        }
        if report.phase == Phase::Stopped {
            return Pod::Available;
        }
        if !is_up {
            let message = report.message.clone();
            return match report.phase {
                Phase::Starting if is_whole => Pod::Busy(message),
                _ => Pod::Waits(message),
            };
        }
        let now = self.seen.now;
        let known = observed.ready.get(&place).copied();
        let pod = (report.index, report.restarts);
        let known = known.filter(|(known, _)| *known == pod);
        let (_, since) = known.unwrap_or((pod, now));
        observed.ready.insert(place, (pod, since));
        let due = since + self.stable(report);
        if due <= now {
            Pod::Available
        } else {
            Pod::Ready(due)
        }
    }

    /// The time for which the pod must be ready.
    fn stable(&self, report: &WorkloadReport) -> Duration {
        let asked = Duration::from_secs(self.strategy.min_ready_s);
        let has_ended = report.containers.0.iter().any(|one| one.ends > 0);
        asked.max(if has_ended { STABLE_AGAIN } else { STABLE })
    }

    /// Gives the latest revision to the next pods, or ends the rollout.
    fn forward(&self, observed: &mut Observed, pods: &[(Place, Pod)], plan: &mut Plan) {
        let latest = self.workload.index;
        let is_first = self.rollout.base == latest;
        if (self.rollout.paused || self.strategy.paused) && !is_first {
            // The time of a pause does not count.
            observed.since = self.seen.now;
            return;
        }
        let (moved, rest): (Vec<_>, Vec<_>) = pods
            .iter()
            .partition(|(place, _)| self.rollout.on(*place) == latest);
        let failed = moved.iter().find_map(|(place, pod)| match pod {
            Pod::Failed(reason) => Some(self.on(*place, reason)),
            _ => None,
        });
        if let Some(reason) = failed {
            plan.changes.push(self.failed(&reason));
            return;
        }
        let available = moved.iter().filter(|(_, pod)| *pod == Pod::Available);
        let available = available.count();
        let (vanished, until) = self.vanished(observed);
        plan.due = plan.due.into_iter().chain(until).min();
        let is_all_available = rest.is_empty() && vanished == 0 && available == moved.len();
        let needs_none = placement::asked(self.seen.state, self.workload) == 0;
        if is_all_available && (!pods.is_empty() || needs_none) {
            plan.changes.push(self.ready());
            return;
        }
        if observed.progress != (moved.len(), available) {
            (observed.progress, observed.since) = ((moved.len(), available), self.seen.now);
        }
        let deadline = observed.since + Duration::from_secs(self.strategy.deadline_s);
        if deadline <= self.seen.now && !moved.is_empty() && available < moved.len() {
            plan.changes.push(self.failed(&self.late(&moved)));
            return;
        }
        let due = moved.iter().filter_map(|(_, pod)| due(pod));
        plan.due = plan
            .due
            .into_iter()
            .chain(due)
            .chain([deadline].into_iter().filter(|at| *at > self.seen.now))
            .min();
        let next = self.next(&rest, vanished + moved.len() - available);
        if !next.is_empty() {
            plan.changes.push(self.roll(latest, next));
        }
    }

    /// The pods that are replaced next: all that are not ready, and as many others as may be unavailable, first those
    /// that are being worked on; `lacking` other pods are not available.
    fn next(&self, rest: &[&(Place, Pod)], lacking: usize) -> Vec<Place> {
        let known = rest.iter().copied().filter(|(_, pod)| *pod != Pod::Unknown);
        let (busy, idle): (Vec<_>, Vec<_>) =
            known.partition(|(_, pod)| matches!(pod, Pod::Busy(_)));
        let (up, down): (Vec<_>, Vec<_>) = idle.into_iter().partition(|(_, pod)| is_up(pod));
        let unknown = rest.len() - busy.len() - up.len() - down.len();
        let most = self.strategy.unavailable_of(self.places.len());
        let most = most.saturating_sub(lacking + down.len() + unknown);
        let of_up = most.saturating_sub(busy.len());
        let chosen = down
            .into_iter()
            .chain(busy.into_iter().take(most))
            .chain(up.into_iter().take(of_up));
        chosen.map(|(place, _)| *place).collect()
    }

    /// Lets the next pods go back to the base.
    fn back(&self, observed: &mut Observed, pods: &[(Place, Pod)], plan: &mut Plan) {
        let base = self.rollout.base;
        let (there, rest): (Vec<_>, Vec<_>) = pods
            .iter()
            .partition(|(place, _)| self.rollout.on(*place) == base);
        let lacking = there.iter().filter(|(_, pod)| !is_up(pod)).count();
        let (vanished, until) = self.vanished(observed);
        if !rest.is_empty() {
            plan.due = plan.due.into_iter().chain(until).min();
        }
        let next = self.next(&rest, vanished + lacking);
        if !next.is_empty() {
            plan.changes.push(self.roll(base, next));
        }
    }

    /// Records that a revision that had failed is ready on all hosts after all.
    fn ended_after_all(&self, pods: &[(Place, Pod)], plan: &mut Plan) {
        let latest = self.workload.index;
        let is_there = |(place, pod): &(Place, Pod)| {
            self.rollout.on(*place) == latest && *pod == Pod::Available
        };
        if !pods.is_empty() && pods.iter().all(is_there) {
            plan.changes.push(self.ready());
        }
        let due = pods.iter().filter_map(|(_, pod)| due(pod));
        plan.due = plan.due.into_iter().chain(due).min();
    }

    fn roll(&self, to: u64, places: Vec<Place>) -> Change {
        let has_several = places.iter().any(|place| place.number > 0);
        let numbers = places.iter().map(|place| place.number);
        Change::Roll {
            workload: self.workload.name.clone(),
            index: self.workload.index,
            to,
            hosts: places.iter().map(|place| place.host).collect(),
            numbers: numbers.filter(|_| has_several).collect(),
        }
    }

    /// The end of a rollout that succeeded, with the hosts that were not reached.
    fn ready(&self) -> Change {
        let away = self.places.iter().filter(|one| !self.is_reachable(one));
        let mut away: Vec<String> = away.map(|place| self.name(place.host)).collect();
        away.sort();
        away.dedup();
        let reason = match away.len() {
            0 => String::new(),
            1 => format!(
                "{} is unreachable and follows when it returns",
                sentence(&away)
            ),
            _ => format!(
                "{} are unreachable and follow when they return",
                sentence(&away)
            ),
        };
        self.end(RevisionOutcome::Ready, &reason)
    }

    /// The end of a rollout that failed.
    fn failed(&self, reason: &str) -> Change {
        let name = &self.workload.name;
        let base = self.seen.state.revision_at(name, self.rollout.base);
        let goes_back = self.rollout.base != self.workload.index
            && !self.strategy.halts
            && base.is_some_and(|base| base.was_ready());
        let outcome = match goes_back {
            true => RevisionOutcome::RolledBack,
            false => RevisionOutcome::Failed,
        };
        self.end(outcome, reason)
    }

    fn end(&self, outcome: RevisionOutcome, reason: &str) -> Change {
        let end = reason.floor_char_boundary(REASON_MAX);
        Change::EndRollout {
            workload: self.workload.name.clone(),
            index: self.workload.index,
            outcome,
            reason: reason[..end].to_owned(),
            images: match outcome {
                RevisionOutcome::Ready => self.images(),
                _ => ResolvedImages::default(),
            },
        }
    }

    /// The images of which all pods of the latest revision say the same.
    fn images(&self) -> ResolvedImages {
        let reports = self.places.iter().filter_map(|place| self.report(*place));
        let latest = reports.filter(|report| report.index == self.workload.index);
        ResolvedImages::agreed(latest.map(|report| &report.images))
    }

    /// Why the deadline has passed.
    fn late(&self, moved: &[&(Place, Pod)]) -> String {
        let waits = moved.iter().find_map(|(place, pod)| match pod {
            Pod::Waits(reason) if reason.is_empty() => Some(self.on(*place, "is not ready")),
            Pod::Waits(reason) | Pod::Busy(reason) => Some(self.on(*place, reason)),
            Pod::Ready(_) => Some(self.on(*place, "is not ready for long enough")),
            Pod::Unknown => Some(self.on(*place, "has not reported")),
            Pod::Available | Pod::Failed(_) => None,
        });
        format!(
            "no progress for {} s: {}",
            self.strategy.deadline_s,
            waits.unwrap_or_default()
        )
    }

    fn on(&self, place: Place, reason: &str) -> String {
        let host = self.name(place.host);
        match place.number {
            0 => format!("{host}: {reason}"),
            number => {
                let pod = pod_name(&self.workload.name, number);
                format!("{host} ({pod}): {reason}")
            }
        }
    }

    fn name(&self, host: HostId) -> String {
        let member = self.seen.state.hosts().get(&host);
        member.map_or_else(|| host.to_string(), |member| member.name.clone())
    }

    fn report(&self, place: Place) -> Option<&WorkloadReport> {
        let all = &self.seen.reports.get(&place.host)?.workloads;
        let key = (self.workload.name.as_str(), place.number);
        let at = all.binary_search_by(|one| (one.workload.as_str(), one.number).cmp(&key));
        at.ok().map(|at| &all[at])
    }
}

/// Returns true if the pod is ready, or has completed.
fn is_ready(report: &WorkloadReport) -> bool {
    match report.phase {
        Phase::Running => report.healthy == report.total,
        Phase::Succeeded => true,
        _ => false,
    }
}

/// Why a pod counts as failed.
fn failure(report: &WorkloadReport) -> Option<String> {
    let mut containers = report.containers.0.iter();
    let loops = containers.find(|one| one.ends >= ENDS_MAX);
    if report.phase != Phase::Failed && loops.is_none() {
        return None;
    }
    // The reason outlives the pod, so it does not say when the container is tried again.
    let reason = loops.and_then(|one| {
        let last = ContainerReport {
            next_try_at: None,
            state: ContainerState::Running,
            ..one.clone()
        };
        let why = last.reason_with_output()?;
        Some(format!("{}: {why}", one.name))
    });
    Some(match reason {
        _ if report.phase == Phase::Failed && !report.message.is_empty() => report.message.clone(),
        Some(reason) => reason,
        None => "its pod has failed".to_owned(),
    })
}

fn is_up(pod: &Pod) -> bool {
    matches!(pod, Pod::Available | Pod::Ready(_))
}

fn due(pod: &Pod) -> Option<Instant> {
    match pod {
        Pod::Ready(due) => Some(*due),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
