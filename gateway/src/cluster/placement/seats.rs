//! What the seats of a workload mean: which pods wait and for what, and the progress of a Job's attempts.
//!
//! Pure: no I/O, no clock, no randomness.

use beemesh_protocol::{
    HostId,
    state::{Assignment, Change},
};

use beemesh_quadlet::manifest::{RESCHEDULE_AFTER, Reschedule};

use super::choose::{Taken, There};
use crate::cluster::{
    placement,
    state::{State, Workload, claims},
};

/// The pause between the first failed attempt of a Job and the second, in milliseconds. It doubles with each further
/// attempt, as in Kubernetes.
const RETRY_MIN_MS: u64 = 10_000;
/// What a singleton waits for that could have a host.
pub(crate) const LEASED: &str = "waits until no other host can have its lease, for 21 s at most";
/// The longest pause between two attempts, in milliseconds.
const RETRY_MAX_MS: u64 = 360_000;

/// Moves the pods that a drained host holds stopped to other hosts, where they start with empty volumes. A singleton gets
/// no host here, because the leader gives it one when its lease is over.
pub(crate) fn move_without_data(there: &There<'_>, host: HostId) -> Vec<Change> {
    let state = there.state;
    let mut moves = Vec::new();
    let with_data = held(state, host).into_iter();
    for (workload, seat) in with_data.filter(|(workload, _)| has_data(workload)) {
        let mut taken = Taken::of(state.seats(&workload.name));
        taken.add(host);
        if let Some(to) = there.choose_without_data(workload, &taken) {
            let to = Some(to).filter(|_| !state.is_singleton(workload));
            moves.push(assign(workload, seat.ordinal, seat.host, to));
        }
    }
    moves
}

/// Returns the seats on a host whose pods it must not run, of workloads with `replicas`.
pub(crate) fn held(state: &State, host: HostId) -> Vec<(&Workload, &Assignment)> {
    let counted = state
        .workloads()
        .filter(|one| state.is_seated(one) && one.job.is_none());
    let held = counted.flat_map(|workload| {
        let seats = state.seats(&workload.name).iter();
        let here = seats.filter(|seat| seat.host == Some(host));
        let held = here.filter(|seat| is_held(state, workload, seat));
        held.map(move |seat| (workload, seat))
    });
    held.collect()
}

/// Returns true if the pod of this seat has a host that must not run it.
fn is_held(state: &State, workload: &Workload, seat: &Assignment) -> bool {
    let place = seat.place();
    place.is_some_and(|place| placement::runs(state, workload, place).is_none())
}

/// Returns what the missing pods of the workload wait for, as messages for the user; empty if no pod is missing.
pub(crate) fn waits(there: &There<'_>, workload: &Workload) -> Vec<String> {
    let state = there.state;
    if !state.is_seated(workload) {
        return Vec::new();
    }
    let seats = state.seats(&workload.name);
    let taken = Taken::of(seats);
    let mut waits = Vec::new();
    for seat in seats.iter().filter(|seat| seat.end.is_none()) {
        match seat.host {
            // If the seat has a host, that host reports what it waits for.
            None if workload.job.is_some() => waits.extend(between_attempts(seat, "")),
            Some(host) if workload.job.is_none() && is_held(state, workload, seat) => {
                waits.extend(there.held(workload, host));
            }
            Some(host) if workload.job.is_none() && is_lost(state, host) => {
                waits.extend(stays(there, workload, host));
            }
            _ => {}
        }
    }
    let with = seats
        .iter()
        .filter(|seat| seat.host.is_some() || seat.end.is_some())
        .count();
    if with < placement::asked(state, workload) {
        match there.choose(workload, &taken) {
            Err(wait) => waits.push(there.words(workload, &wait)),
            Ok(_) if state.is_singleton(workload) => waits.push(LEASED.to_owned()),
            Ok(_) => {}
        }
    }
    waits.dedup();
    waits
}

/// Returns why a pod stays with a host that is lost; `None` if it starts elsewhere.
fn stays(there: &There<'_>, workload: &Workload, host: HostId) -> Option<String> {
    let member = there.state.hosts().get(&host)?;
    let name = &member.name;
    let is_declared = member.declared_lost;
    match workload.failover.reschedule {
        Reschedule::Never if !is_declared => Some(format!(
            "waits for host {name}, which is lost: {RESCHEDULE_AFTER} is `never`"
        )),
        Reschedule::After(after) if !is_declared => Some(format!(
            "starts elsewhere when {name} has been unreachable for {} s ({RESCHEDULE_AFTER})",
            after.as_secs()
        )),
        _ => there.held(workload, host),
    }
}

fn is_lost(state: &State, host: HostId) -> bool {
    let member = state.hosts().get(&host);
    member.is_some_and(|member| member.lost_at_ms != 0)
}

/// Returns what a Job waits for between two attempts, as a message for the user. `why` is the reason of the last
/// failure.
pub(crate) fn between_attempts(seat: &Assignment, why: &str) -> Option<String> {
    if seat.end.is_some() || seat.index != 0 || seat.failures == 0 {
        return None;
    }
    let due = seat.failed_at_ms.saturating_add(pause_ms(seat.failures));
    let failed = failed(seat.failures, why);
    Some(format!(
        "{failed}; the next attempt starts after {}",
        time_of_day(due)
    ))
}

/// Returns why a Job's pod has failed for good, as a message for the user; `None` if it has not.
pub(crate) fn failed_for_good(seat: &Assignment) -> Option<String> {
    let end = seat.end.as_ref().filter(|end| !end.succeeded)?;
    Some(match seat.failures {
        0 | 1 => end.reason.clone(),
        many => failed(many, &end.reason),
    })
}

/// Formats the failures: `1 attempt failed: …`, `3 attempts failed, the last: …`.
fn failed(count: u32, why: &str) -> String {
    let (attempts, last) = match count {
        1 => ("1 attempt".to_owned(), ""),
        _ => (format!("{count} attempts"), ", the last"),
    };
    match why {
        "" => format!("{attempts} failed"),
        why => format!("{attempts} failed{last}: {why}"),
    }
}

pub(crate) fn assign(
    workload: &Workload,
    ordinal: u32,
    from: Option<HostId>,
    host: Option<HostId>,
) -> Change {
    Change::Assign {
        workload: workload.name.clone(),
        ordinal,
        index: workload.index,
        from,
        host,
    }
}

/// Returns true if the pods of the workload leave data behind when they move.
pub(crate) fn has_data(workload: &Workload) -> bool {
    claims(&workload.object).next().is_some()
}

/// Returns the pause before the next attempt after this many failures, in milliseconds.
pub(crate) fn pause_ms(failures: u32) -> u64 {
    if failures == 0 {
        return 0;
    }
    let doublings = 2_u64.saturating_pow(failures - 1);
    RETRY_MIN_MS.saturating_mul(doublings).min(RETRY_MAX_MS)
}

/// Formats milliseconds since 1970 as a time: `10:00:20 UTC`.
fn time_of_day(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02} UTC")
}
