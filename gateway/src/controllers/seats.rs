//! Decides which seats the leader assigns, moves and removes, and which attempts of Jobs it records as ended.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes the time. Input: [`Seen`]. Output: a [`Plan`] of changes,
//! and when to plan again. A seat moves only if its host must not run the pod any longer and the pod leaves no data
//! behind. A running pod never moves for another reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    peer::{HostReport, Phase},
    state::{Assignment, Change, Place},
};
use beemesh_quadlet::manifest::Reschedule;

use crate::cluster::{
    placement::{
        self,
        choose::{Alone, Taken, There},
        seats::{assign, has_data, pause_ms},
    },
    state::{LOSES, State, Workload, claims, is_under_way},
};

/// Maximum number of changes in one round. Their effect triggers the next round.
const CHANGES_MAX: usize = 256;
/// Maximum length of a recorded reason, in bytes.
const REASON_MAX: usize = 512;

/// The input of a plan.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The replicated state.
    pub(crate) state: &'a State,
    /// The latest report of every host.
    pub(crate) reports: &'a BTreeMap<HostId, Arc<HostReport>>,
    /// The reachable hosts.
    pub(crate) reachable: &'a BTreeSet<HostId>,
    /// For how long each unreachable host has been so.
    pub(crate) away: &'a BTreeMap<HostId, Duration>,
    /// Below level 3, an attempt of a Job fails when its host has been unreachable for this long.
    pub(crate) job_lost_after: Duration,
    /// The wall clock in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

/// The changes to propose.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The changes, in order.
    pub(crate) changes: Vec<Change>,
    /// When to plan again if nothing changes before, in milliseconds since 1970.
    pub(crate) due: Option<u64>,
}

/// Returns the changes that are due now.
pub(crate) fn plan(seen: &Seen<'_>) -> Plan {
    let mut plan = Plan::default();
    let seated = seen
        .state
        .workloads()
        .filter(|one| seen.state.is_seated(one));
    let there = There::new(seen.state, seen.reachable, seen.reports);
    let mut begun = BTreeSet::new();
    for workload in seated {
        let object = &workload.object;
        let claims = claims(object).map(|claim| (object.namespace.as_str(), claim));
        let claims: Vec<_> = claims.collect();
        // The home of a claim's data is known only after this round's changes are applied.
        if claims.iter().any(|claim| begun.contains(claim)) {
            continue;
        }
        let before = plan.changes.len();
        let look = Look {
            seen,
            there: &there,
            workload,
        };
        look.add(&mut plan);
        if plan.changes.len() > before {
            begun.extend(claims);
        }
        if plan.changes.len() >= CHANGES_MAX {
            break;
        }
    }
    plan
}

/// The planning of one workload.
struct Look<'a> {
    seen: &'a Seen<'a>,
    there: &'a There<'a>,
    workload: &'a Workload,
}

impl Look<'_> {
    fn add(&self, plan: &mut Plan) {
        plan.due = plan.due.into_iter().chain(self.gone_at()).min();
        match self.workload.job {
            None => self.counted(plan),
            Some(_) => self.job(plan),
        }
    }

    fn seats(&self) -> &[Assignment] {
        self.seen.state.seats(&self.workload.name)
    }

    /// Chooses the host for a pod that leaves another one, or none, and counts it in `taken`.
    fn give(&self, taken: &mut Taken, leaving: Option<HostId>) -> Option<HostId> {
        let host = self
            .there
            .choose_after(self.workload, taken, leaving)
            .ok()?;
        if let Some(leaving) = leaving {
            taken.remove(leaving);
        }
        taken.add(host);
        self.there.give(self.workload, host);
        Some(host)
    }

    /// Plans a workload with `replicas`.
    fn counted(&self, plan: &mut Plan) {
        let Self { seen, workload, .. } = self;
        let mut taken = Taken::of(self.seats());
        let stays = has_data(workload) && !workload.failover.disposable;
        let runs = |place| placement::runs(seen.state, workload, place).is_some();
        let moves_lost = seen.state.level() >= LOSES;
        let is_alone = Alone::of(seen.state, workload).is_some();
        for seat in self.seats() {
            // The workload got a port or the like after its pods were put beside each other. Each of them goes when it is
            // its turn to be replaced.
            let crowds = |place: Place| {
                is_alone
                    && moves_lost
                    && place.number > 0
                    && taken.on(place.host) > 1
                    && self.has_latest(place)
            };
            let (moves, crowds) = match seat.place() {
                None => (true, false),
                Some(place) => {
                    let crowds = crowds(place);
                    let leaves = !runs(place) || moves_lost && self.is_gone(place.host);
                    (!stays && leaves || crowds, crowds)
                }
            };
            let change = |to| assign(workload, seat.ordinal, seat.host, to);
            if !moves {
                continue;
            }
            if let Some(to) = self.give(&mut taken, seat.host) {
                plan.changes.push(change(Some(to)));
            } else if let Some(host) = seat.host.filter(|_| crowds) {
                taken.remove(host);
                plan.changes.push(change(None));
            }
        }
        for ordinal in self.vacant(workload.object.replicas.unwrap_or(0)) {
            if plan.changes.len() >= CHANGES_MAX {
                return;
            }
            // All pods are alike: if one finds no host, the next one does not either.
            let Some(to) = self.give(&mut taken, None) else {
                return;
            };
            plan.changes.push(assign(workload, ordinal, None, Some(to)));
        }
    }

    /// Returns true if the pod is to run the latest revision.
    fn has_latest(&self, place: Place) -> bool {
        let rollout = self.seen.state.rollout(&self.workload.name);
        rollout.is_none_or(|rollout| rollout.on(place) == self.workload.index)
    }

    /// Returns true if the pods on an unreachable host start elsewhere.
    fn is_gone(&self, host: HostId) -> bool {
        let Self { seen, workload, .. } = self;
        let away = seen.away.get(&host).copied();
        if seen.state.level() < LOSES {
            return away.is_some_and(|away| away >= seen.job_lost_after);
        }
        let Some(member) = seen.state.hosts().get(&host) else {
            return false;
        };
        let is_lost = match workload.failover.reschedule {
            Reschedule::Lost => member.lost_at_ms != 0,
            Reschedule::After(after) => away.is_some_and(|away| away >= after),
            Reschedule::Never => false,
        };
        is_lost || member.declared_lost
    }

    /// When a pod on an unreachable host starts elsewhere, in milliseconds since 1970, if its workload says so.
    fn gone_at(&self) -> Option<u64> {
        let Reschedule::After(after) = self.workload.failover.reschedule else {
            return None;
        };
        let hosts = self.seats().iter().filter_map(|seat| seat.host);
        let away = hosts.filter_map(|host| self.seen.away.get(&host));
        let left = away.filter_map(|away| after.checked_sub(*away));
        let left = left.filter(|left| !left.is_zero()).min()?;
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Some(self.seen.now_ms.saturating_add(left).saturating_add(1))
    }

    /// Returns the ordinals below `most` that have no seat, the lowest first.
    fn vacant(&self, most: u32) -> impl Iterator<Item = u32> {
        let seats: BTreeSet<u32> = self.seats().iter().map(|seat| seat.ordinal).collect();
        (0..most).filter(move |ordinal| !seats.contains(ordinal))
    }

    fn job(&self, plan: &mut Plan) {
        let Self { seen, workload, .. } = self;
        let own = seen.state.is_on_each(workload);
        for seat in self.seats().iter().filter(|seat| seat.end.is_none()) {
            if is_under_way(seat) {
                self.attempt(seat, own, plan);
            } else {
                self.next_attempt(seat, own, plan);
            }
        }
        let mut taken = Taken::of(self.seats());
        if workload.job.is_some_and(|job| job.every_host) {
            for ordinal in self.vacant(u32::MAX) {
                let Some(to) = self.give(&mut taken, None) else {
                    return;
                };
                plan.changes.push(assign(workload, ordinal, None, Some(to)));
            }
        } else if self.seats().is_empty()
            && let Some(to) = self.give(&mut taken, None)
        {
            plan.changes.push(assign(workload, 0, None, Some(to)));
        }
    }

    /// Records the end of a running attempt: when its host reports it, or when its host is lost.
    fn attempt(&self, seat: &Assignment, own: bool, plan: &mut Plan) {
        let Self { seen, workload, .. } = self;
        let Some(host) = seat.host else {
            let reason = "the host that ran it is no longer a member";
            plan.changes.push(self.ended(seat, Err(reason), 0));
            return;
        };
        let report = seen.reports.get(&host).and_then(|report| {
            let of = |one: &&beemesh_protocol::peer::WorkloadReport| one.workload == workload.name;
            report.workloads.iter().find(of)
        });
        let index = workload.index.max(seat.index);
        if let Some(report) = report.filter(|report| report.ended && report.index == index) {
            let ended = match report.phase {
                Phase::Succeeded => Ok(()),
                _ if report.message.is_empty() => Err("its pod has failed"),
                _ => Err(report.message.as_str()),
            };
            plan.changes.push(self.ended(seat, ended, report.restarts));
        } else if self.is_gone(host) && !own {
            // Unassigns the attempt, so that the host stops it when it returns.
            plan.changes
                .push(assign(workload, seat.ordinal, Some(host), None));
            let name = seen
                .state
                .hosts()
                .get(&host)
                .map_or("", |host| host.name.as_str());
            let reason = format!("{name}, which ran it, has been away for too long");
            plan.changes.push(self.ended(seat, Err(&reason), 0));
        }
    }

    fn ended(&self, seat: &Assignment, ended: Result<(), &str>, restarts: u32) -> Change {
        let limit = self.workload.job.map_or(0, |job| job.backoff_limit);
        // Each restart within the attempt also counts as a failure.
        let failures = seat.failures.saturating_add(restarts);
        Change::EndJob {
            workload: self.workload.name.clone(),
            ordinal: seat.ordinal,
            index: seat.index,
            succeeded: ended.is_ok(),
            reason: short(ended.err().unwrap_or_default()),
            again: ended.is_err() && failures < limit,
        }
    }

    /// Starts the attempt after a failed one, after a pause and on the same host if possible.
    fn next_attempt(&self, seat: &Assignment, own: bool, plan: &mut Plan) {
        let Self { seen, workload, .. } = self;
        let due = seat.failed_at_ms.saturating_add(pause_ms(seat.failures));
        // A failure in the future was recorded before the clock was set back, so its pause is ignored.
        if seat.failed_at_ms <= seen.now_ms && due > seen.now_ms {
            plan.due = plan.due.into_iter().chain([due]).min();
            return;
        }
        let mut others = Taken::of(self.seats());
        if let Some(host) = seat.host {
            others.remove(host);
        }
        let same = seat.host.filter(|host| {
            let fits = seen.state.hosts().get(host);
            fits.is_some_and(|host| placement::fits(host, &workload.object.selector))
                && seen.reachable.contains(host)
        });
        let host = match same {
            Some(host) => Some(host),
            None if own => None,
            None => self.give(&mut others, None),
        };
        if let Some(host) = host {
            plan.changes
                .push(assign(workload, seat.ordinal, seat.host, Some(host)));
        }
    }
}

/// Shortens a text to [`REASON_MAX`] bytes.
fn short(text: &str) -> String {
    let fits = text
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= REASON_MAX);
    fits.map(|(_, c)| c).collect()
}

#[cfg(test)]
mod tests;
