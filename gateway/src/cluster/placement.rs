//! Decides which hosts run a workload.
//!
//! Pure: no I/O, no clock, no randomness. Input: the replicated state. Output: what a host has to run of a workload,
//! the same on every gateway. A workload without `replicas` runs on every member that fits. A workload with `replicas`,
//! and a Job, runs on the hosts of its seats ([`crate::cluster::state::State::seats`]). A seat assigns one pod to a
//! host; the leader proposes the seats.
//!
//! Below level 1 of the state machine there are no seats. Each member's claim to a workload is then a hash of both
//! names, and the highest claims win (rendezvous hashing), so that a member that joins or leaves moves no replica
//! between the others. A member that replaced another one uses the claims of its predecessor. The same hash also
//! spreads the seats.

pub(crate) mod choose;
mod rules;
pub(crate) mod seats;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use beemesh_protocol::{
    HostId,
    peer::HostReport,
    state::{Assignment, Host, Object, Place},
};
use sha2::{Digest, Sha256};

use crate::cluster::state::{State, Workload, is_under_way};
use choose::Taken;

/// The label that every host has implicitly: its name.
pub(crate) const LABEL_HOSTNAME: &str = "kubernetes.io/hostname";

/// The pod of a workload that a host has to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Runs {
    /// The revision number, which is shown to users.
    pub(crate) revision: u64,
    /// The log index of what the host has to run: that of the revision, or that of a Job's attempt if it is higher.
    /// Meaningless if `ended` is set.
    pub(crate) index: u64,
    /// The Job, or this attempt of it, has ended: the host starts nothing, and keeps the ended pod with its logs. Only
    /// the host knows whether it has such a pod.
    pub(crate) ended: bool,
}

/// Returns what this pod of the workload has to run; `None` if there is no such pod.
pub(crate) fn runs(state: &State, workload: &Workload, place: Place) -> Option<Runs> {
    let (revision, index) = state.assigned(workload, place);
    let runs = Runs {
        revision,
        index,
        ended: false,
    };
    if !state.is_seated(workload) {
        let object = &workload.object;
        let here = match object.replicas {
            _ if place.number > 0 => false,
            None => is_fit(state, object, place.host),
            Some(_) => ranked(&workload.name, object, state.hosts()).contains(&place.host),
        };
        return here.then_some(runs);
    }
    let mut seats = state.seats(&workload.name).iter();
    let seat = seats.find(|seat| seat.place() == Some(place))?;
    is_here(state, workload, seat).then(|| match workload.job {
        None => runs,
        Some(_) => Runs {
            index: workload.index.max(seat.index),
            ended: !is_under_way(seat),
            ..runs
        },
    })
}

/// Returns what the host has to run of the workload, by the numbers of the pods.
pub(crate) fn on_host(state: &State, workload: &Workload, host: HostId) -> Vec<(u32, Runs)> {
    let numbers: Vec<u32> = match state.is_seated(workload) {
        false => vec![0],
        true => {
            let seats = state.seats(&workload.name).iter();
            let here = seats.filter(|seat| seat.host == Some(host));
            here.map(|seat| seat.number).collect()
        }
    };
    let runs = numbers.into_iter().filter_map(|number| {
        let place = Place { host, number };
        Some((number, runs(state, workload, place)?))
    });
    runs.collect()
}

/// Returns true if the host has to run something of the workload.
pub(crate) fn is_on(state: &State, workload: &Workload, host: HostId) -> bool {
    !on_host(state, workload, host).is_empty()
}

/// Returns the places of all pods of the workload that hosts have to run.
pub(crate) fn places(state: &State, workload: &Workload) -> BTreeSet<Place> {
    if !state.is_seated(workload) {
        let hosts = ranked(&workload.name, &workload.object, state.hosts());
        return hosts.into_iter().map(Place::first).collect();
    }
    let seats = state.seats(&workload.name).iter();
    let here = seats.filter(|seat| is_here(state, workload, seat));
    here.filter_map(Assignment::place).collect()
}

/// Returns the hosts that have to run something of the workload.
pub(crate) fn hosts(state: &State, workload: &Workload) -> BTreeSet<HostId> {
    let places = places(state, workload).into_iter();
    places.map(|place| place.host).collect()
}

/// Returns the hosts that will run something of the workload: those that do, and those that the leader would choose now
/// for the pods without a host.
pub(crate) fn expected(
    state: &State,
    workload: &Workload,
    reachable: &BTreeSet<HostId>,
    reports: &BTreeMap<HostId, Arc<HostReport>>,
) -> BTreeSet<HostId> {
    let mut found = hosts(state, workload);
    if !state.is_seated(workload) {
        return found;
    }
    let there = choose::There::new(state, reachable, reports);
    let mut taken = Taken::of(state.seats(&workload.name));
    let most = match workload.job {
        Some(job) if job.every_host => state.hosts().len(),
        _ => asked(state, workload),
    };
    let with = places(state, workload).len();
    for _ in with..most {
        let Ok(host) = there.choose(workload, &taken) else {
            break;
        };
        // The hosts with the fewest pods are chosen first: all others have one, too.
        if !found.insert(host) {
            break;
        }
        taken.add(host);
    }
    found
}

/// Returns the requested number of pods.
pub(crate) fn asked(state: &State, workload: &Workload) -> usize {
    let object = &workload.object;
    if let Some(replicas) = object.replicas {
        return usize::try_from(replicas).unwrap_or(usize::MAX);
    }
    let fit = || fitting(&object.selector, state.hosts());
    if !state.is_seated(workload) {
        return fit().count();
    }
    let seats = state.seats(&workload.name);
    if workload.job.is_some_and(|job| job.every_host) {
        let seated = seats.iter().filter_map(|seat| seat.host);
        return fit().chain(seated).collect::<BTreeSet<_>>().len();
    }
    seats.len().max(1)
}

/// Returns true if the host of this seat has to run its pod. A Job ends on the host where it started, even if the host
/// has been drained since.
fn is_here(state: &State, workload: &Workload, seat: &Assignment) -> bool {
    let fit = |host| is_fit(state, &workload.object, host);
    workload.job.is_some() || seat.host.is_some_and(fit)
}

fn is_fit(state: &State, object: &Object, host: HostId) -> bool {
    let host = state.hosts().get(&host);
    host.is_some_and(|host| fits(host, &object.selector))
}

fn fitting(
    selector: &BTreeMap<String, String>,
    members: &BTreeMap<HostId, Host>,
) -> impl Iterator<Item = HostId> {
    let fit = members.values().filter(|host| fits(host, selector));
    fit.map(|host| host.id)
}

/// Returns the members that run a workload without seats. If it has `replicas`, these are the members with the highest
/// claims, the highest first.
pub(crate) fn ranked(
    workload: &str,
    object: &Object,
    members: &BTreeMap<HostId, Host>,
) -> Vec<HostId> {
    let mut fit: Vec<HostId> = fitting(&object.selector, members).collect();
    if let Some(replicas) = object.replicas {
        rank(workload, &mut fit, members);
        fit.truncate(usize::try_from(replicas).unwrap_or(usize::MAX));
    }
    fit
}

/// Returns true if the workload can run on this host when the host is not drained.
pub(crate) fn can_run(host: &Host, object: &Object) -> bool {
    selects(host, &object.selector)
}

/// Sorts members by their claim to the workload, the highest first.
pub(crate) fn rank(workload: &str, hosts: &mut [HostId], members: &BTreeMap<HostId, Host>) {
    let seat = |host: &HostId| {
        let taken = members.get(host).and_then(|member| member.claims_as);
        taken.unwrap_or(*host)
    };
    hosts.sort_by_cached_key(|host| std::cmp::Reverse((claim(workload, seat(host)), *host)));
}

/// Returns true if the host is not drained and has all these labels.
pub(crate) fn fits(host: &Host, selector: &BTreeMap<String, String>) -> bool {
    !host.drained && selects(host, selector)
}

/// Returns true if the host has all labels of a `nodeSelector`.
pub(crate) fn selects(host: &Host, selector: &BTreeMap<String, String>) -> bool {
    let has = |(label, value): (&String, &String)| {
        if label == LABEL_HOSTNAME {
            *value == host.name
        } else {
            host.labels.get(label) == Some(value)
        }
    };
    selector.iter().all(has)
}

fn claim(workload: &str, host: HostId) -> [u8; 32] {
    // A name contains no zero byte, so two different pairs never give the same input.
    let hash = Sha256::new()
        .chain_update(workload)
        .chain_update([0])
        .chain_update(host.0);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use beemesh_protocol::state::Kind;

    use super::*;

    fn members(numbers: impl IntoIterator<Item = u8>) -> BTreeMap<HostId, Host> {
        let host = |n: u8| Host {
            id: HostId([n; 32]),
            name: format!("h{n}"),
            addresses: Vec::new(),
            labels: BTreeMap::from([(
                "disk".to_owned(),
                if n.is_multiple_of(2) { "ssd" } else { "hdd" }.to_owned(),
            )]),
            drained: false,
            claims_as: None,
            votes_from_ms: 0,
            lost_at_ms: 0,
            declared_lost: false,
            steady_at_ms: 0,
        };
        numbers
            .into_iter()
            .map(|n| (HostId([n; 32]), host(n)))
            .collect()
    }

    fn object(replicas: Option<u32>, selector: &[(&str, &str)]) -> Object {
        Object {
            kind: Kind::Deployment,
            namespace: "default".into(),
            name: "web".into(),
            body: Vec::new(),
            hash: [0; 32],
            references: Vec::new(),
            replicas,
            selector: selector
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    fn chosen(workload: &str, object: &Object, members: &BTreeMap<HostId, Host>) -> Vec<u8> {
        let hosts: BTreeSet<_> = ranked(workload, object, members).into_iter().collect();
        hosts.iter().map(|host| host.0[0]).collect()
    }

    #[test]
    fn selector_narrows_and_replicas_count() {
        let all = members(1..=4);
        for (replicas, selector, expected) in [
            (None, &[][..], vec![1, 2, 3, 4]),
            (None, &[("disk", "ssd")], vec![2, 4]),
            (None, &[("disk", "ssd"), (LABEL_HOSTNAME, "h4")], vec![4]),
            (None, &[(LABEL_HOSTNAME, "h3")], vec![3]),
            (None, &[("zone", "a")], vec![]),
            (Some(0), &[], vec![]),
            (Some(9), &[("disk", "hdd")], vec![1, 3]),
        ] {
            assert_eq!(
                chosen("web", &object(replicas, selector), &all),
                expected,
                "{replicas:?} {selector:?}"
            );
        }
    }

    #[test]
    fn a_drained_host_runs_nothing_and_another_takes_its_place() {
        let (all, mut drained) = (members(1..=3), members(1..=3));
        for host in drained.values_mut() {
            host.drained = host.id.0[0] == 2;
        }
        for (replicas, before, after) in [(None, 3, 2), (Some(2), 2, 2), (Some(3), 3, 2)] {
            let object = object(replicas, &[]);
            assert_eq!(chosen("web", &object, &all).len(), before);
            let left = chosen("web", &object, &drained);
            assert!(left.len() == after && !left.contains(&2), "{left:?}");
        }
    }

    #[test]
    fn a_host_that_took_the_place_of_another_runs_what_that_one_ran() {
        let (before, mut after) = (members(1..=5), members((1..=6).filter(|n| *n != 3)));
        if let Some(successor) = after.get_mut(&HostId([6; 32])) {
            successor.claims_as = Some(HostId([3; 32]));
        }
        let mut moved = 0;
        for n in 0..50 {
            let workload = format!("w{n}");
            let two = object(Some(2), &[]);
            let old = chosen(&workload, &two, &before);
            moved += usize::from(old.contains(&3));
            let renamed = old.iter().map(|host| if *host == 3 { 6 } else { *host });
            let renamed: BTreeSet<u8> = renamed.collect();
            let new = chosen(&workload, &two, &after).into_iter().collect();
            assert_eq!(renamed, new, "{workload}");
        }
        assert!(moved > 0, "some ran there");
    }

    #[test]
    fn a_host_that_leaves_moves_only_its_own_replicas() {
        let (before, after) = (members(1..=9), members((1..=9).filter(|n| *n != 5)));
        let two = object(Some(2), &[]);
        let mut used = BTreeSet::new();
        for n in 0..50 {
            let workload = format!("w{n}");
            let (old, new) = (
                chosen(&workload, &two, &before),
                chosen(&workload, &two, &after),
            );
            assert_eq!((old.len(), new.len()), (2, 2));
            assert!(
                old.iter()
                    .filter(|host| **host != 5)
                    .all(|host| new.contains(host)),
                "{old:?} {new:?}"
            );
            used.extend(old);
        }
        assert_eq!(used.len(), 9, "every host gets its share");
    }
}
