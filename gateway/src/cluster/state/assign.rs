//! The assignment of pods to hosts, and the hosts that have the data of claims.
//!
//! Pure. From level 1 on, a workload with `replicas`, or a Job, runs only on the hosts of its seats. A seat is one
//! [`Assignment`]: one pod on one host. The leader proposes the host of a seat, and each gateway stores the committed
//! ones. A seat stays when its workload changes, so no change of a workload moves a pod.
//!
//! The seat of a Job also tracks the attempts. `index` is the log index that started the current attempt. Between two
//! attempts it is 0, while the pod of the failed attempt is still on `host`. A seat with an `index` and no `host` is an
//! attempt whose host was removed; the leader has still to record it as failed.

use std::{collections::BTreeSet, sync::Arc};

use beemesh_protocol::{
    HostId,
    peer::Outcome,
    state::{Assignment, Assignments, ClaimRecord, JobEnd, Kind, MoveReason, Moved, Object},
    workload::PODS_PER_HOST_MAX,
};
use serde_json::Value;

use super::{Decision, Key, LOSES, Map, ROLLED, State, Workload, missing, refused};
use crate::cluster::placement;

/// The level from which on the state has assignments.
pub(crate) const ASSIGNED: u32 = 1;
/// The annotation that makes a Job run once on every host instead of once in the cluster.
pub(crate) const EVERY_HOST: &str = "beemesh.io/every-host";
/// Kubernetes' default for `backoffLimit`.
const BACKOFF_LIMIT: u32 = 6;

/// The settings of a Job's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    /// Whether it runs once on every host that its selector matches.
    pub(crate) every_host: bool,
    /// The number of failed attempts that the Job tolerates.
    pub(crate) backoff_limit: u32,
    /// The number of container restarts within one attempt: 0 with `restartPolicy: Never`.
    pub(crate) restarts: u32,
}

impl Job {
    /// Reads the settings from an object; `None` if it is no Job.
    pub(super) fn of(object: &Object) -> Option<Self> {
        if object.kind != Kind::Job {
            return None;
        }
        let body: Value = serde_json::from_slice(&object.body).unwrap_or_default();
        let annotations = body.pointer("/metadata/annotations");
        let every_host = annotations.and_then(|all| all.get(EVERY_HOST));
        let limit = body.pointer("/spec/backoffLimit").and_then(Value::as_u64);
        let limit = limit.map_or(BACKOFF_LIMIT, |limit| {
            u32::try_from(limit).unwrap_or(u32::MAX)
        });
        let policy = body.pointer("/spec/template/spec/restartPolicy");
        let in_place = policy.and_then(Value::as_str) == Some("OnFailure");
        Some(Self {
            every_host: every_host.and_then(Value::as_str) == Some("true"),
            backoff_limit: limit,
            restarts: if in_place { limit } else { 0 },
        })
    }
}

/// Seats by workload, and hosts by claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Book {
    /// By ordinal.
    pub(super) seats: Map<String, Arc<Vec<Assignment>>>,
    /// By namespace and name.
    pub(super) homes: Map<(String, String), Arc<BTreeSet<HostId>>>,
}

impl Book {
    pub(super) fn to_snapshot(&self) -> Assignments {
        let claims = self.homes.iter().flat_map(|((namespace, name), hosts)| {
            hosts.iter().map(|host| ClaimRecord {
                namespace: namespace.clone(),
                name: name.clone(),
                host: *host,
            })
        });
        Assignments {
            assigned: self
                .seats
                .values()
                .flat_map(|all| all.iter())
                .cloned()
                .collect(),
            claims: claims.collect(),
        }
    }

    pub(super) fn from_snapshot(snapshot: Assignments) -> Self {
        let mut book = Self::default();
        for seat in snapshot.assigned {
            let workload = seat.workload.clone();
            let mut seats = book.seats.get(&workload).cloned().unwrap_or_default();
            Arc::make_mut(&mut seats).push(seat);
            book.seats.insert_mut(workload, seats);
        }
        for ClaimRecord {
            namespace,
            name,
            host,
        } in snapshot.claims
        {
            book.live(namespace, name, host);
        }
        book
    }

    fn put(&mut self, workload: &str, seats: Vec<Assignment>) {
        if seats.is_empty() {
            self.seats.remove_mut(workload);
        } else {
            self.seats.insert_mut(workload.to_owned(), Arc::new(seats));
        }
    }

    /// Records that the host has data of the claim.
    fn live(&mut self, namespace: String, name: String, host: HostId) {
        let key = (namespace, name);
        let mut hosts = self.homes.get(&key).cloned().unwrap_or_default();
        if Arc::make_mut(&mut hosts).insert(host) {
            self.homes.insert_mut(key, hosts);
        }
    }

    /// Records that the host has data of all claims of the workload's pods.
    fn settle(&mut self, object: &Object, host: HostId) {
        for claim in claims(object) {
            self.live(object.namespace.clone(), claim.to_owned(), host);
        }
    }

    /// The names and seats of the workloads with a seat on the host.
    fn on(&self, host: HostId) -> Vec<(String, Vec<Assignment>)> {
        self.seats
            .iter()
            .filter(|(_, seats)| seats.iter().any(|seat| seat.host == Some(host)))
            .map(|(name, seats)| (name.clone(), seats.to_vec()))
            .collect()
    }

    /// Moves the host's data to `heir`, or forgets it if there is none.
    fn inherit(&mut self, host: HostId, heir: Option<HostId>) {
        let of = |(_, hosts): &(&(String, String), &Arc<BTreeSet<HostId>>)| hosts.contains(&host);
        let keys: Vec<_> = self
            .homes
            .iter()
            .filter(of)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            let mut hosts = self.homes.get(&key).cloned().unwrap_or_default();
            let left = Arc::make_mut(&mut hosts);
            left.remove(&host);
            left.extend(heir);
            if left.is_empty() {
                self.homes.remove_mut(&key);
            } else {
                self.homes.insert_mut(key, hosts);
            }
        }
    }
}

/// The claims that an object's pods use.
pub(crate) fn claims(object: &Object) -> impl Iterator<Item = &str> {
    let claims = object.references.iter();
    claims
        .filter(|reference| reference.kind == Kind::PersistentVolumeClaim)
        .map(|reference| reference.name.as_str())
}

/// Whether a seat has a current attempt of a Job whose end is not recorded.
pub(crate) fn is_under_way(seat: &Assignment) -> bool {
    seat.index != 0 && seat.end.is_none()
}

/// Takes the host from a seat.
fn unassign(seat: &mut Assignment) {
    (seat.host, seat.index, seat.number) = (None, 0, 0);
}

impl State {
    /// The level of the rules by which changes are applied.
    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    /// Whether the workload runs only on the hosts of its seats.
    pub(crate) fn is_seated(&self, workload: &Workload) -> bool {
        self.level >= ASSIGNED && (workload.job.is_some() || workload.object.replicas.is_some())
    }

    /// Whether each seat of a Job is bound to its host: the Job requests every host, or it already ran on several hosts
    /// under a release without seats.
    pub(crate) fn is_on_each(&self, workload: &Workload) -> bool {
        workload
            .job
            .is_some_and(|job| job.every_host || self.seats(&workload.name).len() > 1)
    }

    /// The workload's seats, by ordinal.
    pub(crate) fn seats(&self, workload: &str) -> &[Assignment] {
        self.book
            .seats
            .get(workload)
            .map_or(&[], |seats| seats.as_slice())
    }

    /// The hosts with data of a claim.
    pub(crate) fn homes(&self, namespace: &str, claim: &str) -> impl Iterator<Item = HostId> {
        let key = (namespace.to_owned(), claim.to_owned());
        let hosts = self.book.homes.get(&key).into_iter();
        hosts.flat_map(|hosts| hosts.iter().copied())
    }

    /// Raises the level. When level 1 is reached, each existing workload gets seats on the hosts that ran it without
    /// seats, so that no pod moves. When level 2 is reached, its present contents become its first kept revision.
    pub(super) fn raise_level(&mut self, index: u64, level: u32) -> Decision {
        let begins = self.level < ASSIGNED && level >= ASSIGNED;
        let keeps = self.level < ROLLED && level >= ROLLED;
        self.level = self.level.max(level);
        if begins {
            let names: Vec<_> = self.workloads.keys().cloned().collect();
            for name in names {
                self.seed(&name);
            }
        }
        if keeps {
            self.begin_revisions();
            self.begin_identities(index);
        }
        Ok(Outcome::Done)
    }

    /// Gives the workload's seats to the hosts that the rule without seats selects.
    fn seed(&mut self, name: &str) {
        let Some(workload) = self.workloads.get(name).filter(|one| self.is_seated(one)) else {
            return;
        };
        let hosts = placement::ranked(name, &workload.object, &self.hosts);
        let seats = (0..).zip(&hosts).map(|(ordinal, host)| Assignment {
            workload: name.to_owned(),
            ordinal,
            host: Some(*host),
            index: workload.index,
            failures: 0,
            failed_at_ms: 0,
            end: None,
            moved: None,
            number: 0,
        });
        let (seats, object) = (seats.collect(), Arc::clone(&workload.object));
        self.book.put(name, seats);
        for host in hosts {
            self.book.settle(&object, host);
        }
    }

    /// The move of a pod of the workload from this host.
    fn moved(&self, at_ms: u64, workload: &Workload, from: HostId) -> Option<Moved> {
        let host = self.hosts.get(&from)?;
        let why = if host.lost_at_ms != 0 {
            MoveReason::Lost
        } else if host.drained {
            MoveReason::Drained
        } else if !placement::selects(host, &workload.object.selector) {
            MoveReason::Unfit
        } else {
            MoveReason::Unreachable
        };
        Some(Moved {
            from: host.name.clone(),
            why,
            at_ms,
        })
    }

    pub(super) fn assign(
        &mut self,
        (index, at_ms): (u64, u64),
        (name, ordinal): (&str, u32),
        seen: u64,
        from: Option<HostId>,
        host: Option<HostId>,
    ) -> Decision {
        let workload = self.seated(name)?;
        if workload.index != seen {
            return Err(refused(format!("workload `{name}` has changed since then")));
        }
        let mut seats = self.seats(name).to_vec();
        let at = seats.binary_search_by_key(&ordinal, |seat| seat.ordinal);
        let present = at.ok().map(|at| &seats[at]);
        if present.and_then(|seat| seat.host) != from {
            return Err(refused(format!(
                "pod {ordinal} of workload `{name}` has been assigned differently since then"
            )));
        }
        let job = workload.job.is_some();
        let runs = job && present.is_some_and(is_under_way);
        if job && present.is_some_and(|seat| seat.end.is_some())
            || runs && (host.is_some() || from.is_none())
        {
            return Err(refused(format!("job `{name}` has no attempt to reassign")));
        }
        if let Some(host) = host {
            self.check_seat(workload, ordinal, host)?;
        }
        let mut seat = present.cloned().unwrap_or_else(|| Assignment {
            workload: name.to_owned(),
            ordinal,
            host: None,
            index: 0,
            failures: 0,
            failed_at_ms: 0,
            end: None,
            moved: None,
            number: 0,
        });
        if let Some((from, _)) = from.zip(host).filter(|_| self.level >= LOSES) {
            seat.moved = self.moved(at_ms, workload, from);
        }
        seat.host = host;
        seat.number = host.map_or(0, |host| self.free_number(name, ordinal, host));
        let place = seat.place();
        // An attempt that lost its host keeps its index until it is recorded as failed.
        seat.index = match host {
            Some(_) => index,
            None if runs => seat.index,
            None => 0,
        };
        let object = Arc::clone(&workload.object);
        let leaves = from.filter(|_| host.is_none() && self.is_singleton(workload));
        match at {
            Ok(at) => seats[at] = seat,
            Err(at) => seats.insert(at, seat),
        }
        self.book.put(name, seats);
        if let Some(place) = place {
            self.book.settle(&object, place.host);
            self.begin_as_the_first(name, place);
        }
        if let Some(from) = leaves {
            self.leave_data(name, &object, from);
        }
        Ok(Outcome::Done)
    }

    /// The lowest number that no other pod of the workload has on this host.
    fn free_number(&self, workload: &str, ordinal: u32, host: HostId) -> u32 {
        let seats = self.seats(workload).iter();
        let others = seats.filter(|seat| seat.host == Some(host) && seat.ordinal != ordinal);
        let used: BTreeSet<u32> = others.map(|seat| seat.number).collect();
        let mut free = (0..).filter(|number| !used.contains(number));
        free.next().unwrap_or(0)
    }

    /// Checks whether a host may have this pod of the workload.
    fn check_seat(&self, workload: &Workload, ordinal: u32, host: HostId) -> Decision<()> {
        if !self.hosts.contains_key(&host) {
            return Err(missing(format!("host {host} is not a member")));
        }
        let name = &workload.name;
        let seats = self.seats(name);
        let taken = |seat: &&Assignment| seat.host == Some(host) && seat.ordinal != ordinal;
        let others: Vec<_> = seats.iter().filter(taken).collect();
        let most = if self.is_one_on_each(workload) {
            1
        } else {
            PODS_PER_HOST_MAX
        };
        if let Some(other) = others.last()
            && others.len() >= usize::try_from(most).unwrap_or(usize::MAX)
        {
            return Err(refused(format!(
                "the host has pod {} of workload `{name}` already, and {most} is the most",
                other.ordinal
            )));
        }
        let seat_exists = seats.iter().any(|seat| seat.ordinal == ordinal);
        let most = match (workload.object.replicas, workload.job) {
            (Some(replicas), _) => replicas,
            (None, Some(job)) if job.every_host => u32::MAX,
            (None, _) => 1,
        };
        if ordinal >= most && !seat_exists {
            return Err(refused(format!("workload `{name}` has no pod {ordinal}")));
        }
        Ok(())
    }

    /// Returns true if a host may have one pod of the workload at most, whatever the leader proposes: the volume of a
    /// claim is there once, and a Job runs once.
    fn is_one_on_each(&self, workload: &Workload) -> bool {
        self.level < LOSES || workload.job.is_some() || claims(&workload.object).next().is_some()
    }

    pub(super) fn end_job(
        &mut self,
        at_ms: u64,
        (name, ordinal): (&str, u32),
        attempt: u64,
        ended: Result<(), &str>,
        again: bool,
    ) -> Decision {
        self.seated(name)?;
        let mut seats = self.seats(name).to_vec();
        let current = |seat: &&mut Assignment| {
            seat.ordinal == ordinal && seat.index == attempt && is_under_way(seat)
        };
        let Some(seat) = seats.iter_mut().find(current) else {
            return Err(refused(format!(
                "job `{name}` has no such attempt under way"
            )));
        };
        if ended.is_err() {
            seat.failures = seat.failures.saturating_add(1);
            seat.failed_at_ms = at_ms;
        }
        match ended {
            Err(_) if again => seat.index = 0,
            _ => {
                seat.end = Some(JobEnd {
                    succeeded: ended.is_ok(),
                    reason: ended.err().unwrap_or_default().to_owned(),
                    at_ms,
                });
            }
        }
        self.book.put(name, seats);
        Ok(Outcome::Done)
    }

    fn seated(&self, name: &str) -> Decision<&Workload> {
        let Some(workload) = self.workloads.get(name) else {
            return Err(missing(format!("workload `{name}` not found")));
        };
        if !self.is_seated(workload) {
            return Err(refused(format!(
                "no pod of workload `{name}` is assigned to a host"
            )));
        }
        Ok(workload)
    }

    /// Updates the seats after the workload was added, changed or removed. `before` is its previous version.
    pub(super) fn reseat(&mut self, name: &str, before: Option<&Workload>) {
        let now = self.workloads.get(name).filter(|one| self.is_seated(one));
        let Some(workload) = now else {
            self.book.seats.remove_mut(name);
            return;
        };
        let Some(before) = before else {
            return;
        };
        let mut seats = self.seats(name).to_vec();
        match (self.is_seated(before), before.job, workload.job) {
            // A workload that ran on every host keeps the hosts that the rule without seats selects.
            (false, _, None) => return self.seed(name),
            (true, None, None) => {
                let replicas = workload.object.replicas.unwrap_or(u32::MAX);
                seats.retain(|seat| seat.ordinal < replicas);
                if self.is_one_on_each(workload) {
                    seats
                        .iter_mut()
                        .filter(|seat| seat.number > 0)
                        .for_each(unassign);
                }
            }
            (true, Some(_), Some(job)) => {
                let more = seats.len() > 1 && !job.every_host;
                seats.truncate(if more { 1 } else { seats.len() });
                seats = seats
                    .into_iter()
                    .filter_map(|seat| self.begin_anew(workload, job, seat))
                    .collect();
            }
            _ => seats.clear(),
        }
        let object = Arc::clone(&workload.object);
        for host in seats.iter().filter_map(|seat| seat.host) {
            self.book.settle(&object, host);
        }
        self.book.put(name, seats);
    }

    /// The seat of a Job after a change of the Job, with no failures. A current attempt is replaced on its host, so
    /// that two attempts never run at the same time.
    fn begin_anew(&self, workload: &Workload, job: Job, seat: Assignment) -> Option<Assignment> {
        let fits = |host: HostId| {
            let host = self.hosts.get(&host);
            host.is_some_and(|host| placement::fits(host, &workload.object.selector))
        };
        let under_way = is_under_way(&seat);
        let host = seat.host.filter(|host| fits(*host));
        if job.every_host && host.is_none() {
            return None;
        }
        Some(Assignment {
            workload: seat.workload,
            ordinal: seat.ordinal,
            host: host.filter(|_| under_way || job.every_host),
            index: if under_way && host.is_some() {
                workload.index
            } else {
                0
            },
            failures: 0,
            failed_at_ms: 0,
            end: None,
            moved: None,
            number: 0,
        })
    }

    /// Removes all seats of the workload.
    pub(super) fn unseat(&mut self, workload: &str) {
        self.book.seats.remove_mut(workload);
    }

    /// Forgets the data of the claims among these removed objects.
    pub(super) fn forget_claims(&mut self, keys: &[Key]) {
        for key in keys {
            if key.kind == Kind::PersistentVolumeClaim {
                let claim = (key.namespace.clone(), key.name.clone());
                self.book.homes.remove_mut(&claim);
            }
        }
    }

    /// Removes a host from all seats. The host is no member. Its attempts of Jobs have no host until they are recorded
    /// as failed.
    pub(super) fn vacate(&mut self, host: HostId) {
        for (name, mut seats) in self.book.on(host) {
            let own = self
                .workloads
                .get(&name)
                .is_some_and(|one| self.is_on_each(one));
            let job = self
                .workloads
                .get(&name)
                .is_some_and(|one| one.job.is_some());
            seats.retain(|seat| !own || seat.host != Some(host));
            for seat in seats.iter_mut().filter(|seat| seat.host == Some(host)) {
                let index = if job { seat.index } else { 0 };
                unassign(seat);
                seat.index = index;
            }
            self.book.put(&name, seats);
        }
        self.book.inherit(host, None);
        self.leave_rollouts(host, None);
    }

    /// Gives the seats of a replaced host to its successor. With `is_same` the successor is the same machine with
    /// another key and keeps all data. Otherwise it is another machine without the data, and the current attempts of
    /// Jobs are lost.
    pub(super) fn succeed(&mut self, lost: HostId, heir: HostId, is_same: bool) {
        for (name, mut seats) in self.book.on(lost) {
            let Some(workload) = self.workloads.get(&name) else {
                continue;
            };
            let own = self.is_on_each(workload);
            let job = workload.job.is_some();
            // The lost machine may still run it. The leader gives it a host when its lease is over.
            let waits = !is_same && self.is_singleton(workload);
            let object = Arc::clone(&workload.object);
            for seat in seats.iter_mut().filter(|seat| seat.host == Some(lost)) {
                let stays = (is_same || !job || own) && !waits;
                if stays {
                    seat.host = Some(heir);
                } else {
                    let index = seat.index;
                    unassign(seat);
                    seat.index = index;
                }
                if !is_same && own && is_under_way(seat) {
                    seat.index = 0;
                }
            }
            self.book.put(&name, seats);
            if !job && !waits {
                self.book.settle(&object, heir);
            }
        }
        self.book.inherit(lost, is_same.then_some(heir));
        self.leave_rollouts(lost, is_same.then_some(heir));
    }
}
