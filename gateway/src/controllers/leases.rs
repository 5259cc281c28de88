//! Decides which host gets the lease of a singleton, and from when on the singleton may get another host.
//!
//! Pure: no I/O, no clock, no randomness; the caller passes the time. Input: the requests of hosts, the replicated state,
//! and the moves that the leader plans. Output: grants, and the moves that it may propose. The memory is that of one
//! gateway, and no part of the log.
//!
//! Why no two hosts have the lease of a workload at a time: a host gets it only when the state assigns the pod to it.
//! The state that is looked at includes all that was committed when the request arrived, and a host counts its lease
//! from before its request. An assignment to another host is proposed only when
//!
//! - no lease that this leader has granted lasts, and it grants none until the assignment is applied or is in no log,
//! - no lease that an earlier leader has granted lasts: a majority has confirmed that leader after the request arrived,
//!   so before it elected this one, which has waited for a term since.
//!
//! So the host to which the state assigns the pod can have the lease at once, from every leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use beemesh_protocol::{
    HostId,
    state::{Change, Place},
};
use tokio::time::Instant;

use crate::{
    cluster::{
        placement,
        state::{State, Workload},
    },
    raft::View,
};

/// When to look again at a move whose workload is being moved already.
const AGAIN: Duration = Duration::from_millis(500);

/// The leases that this gateway has granted, and the moves that it proposes.
#[derive(Debug)]
pub(crate) struct Leases {
    /// How long a lease lasts, from the time of the grant.
    wait: Duration,
    leads: Option<Leads>,
    /// The last grant of each workload. All of them count, also while another host leads.
    grants: BTreeMap<String, Grant>,
    /// The workloads for which an assignment is proposed. Nobody gets their leases.
    moving: BTreeMap<String, Moving>,
    /// The workloads that the leader wants to move as soon as their lease is over. Nobody gets their leases.
    leaving: BTreeSet<String>,
}

/// The term in which this host leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leads {
    /// The term.
    pub(crate) term: u64,
    /// When this gateway noticed that it leads.
    pub(crate) since: Instant,
    /// The last log index at that time. It may be an assignment that this host has proposed before it was restarted.
    pub(crate) floor: u64,
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    host: HostId,
    until: Instant,
}

/// The outcome of a proposed assignment, as far as the leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moving {
    /// Nothing: a log may contain it.
    Proposed,
    /// It is the entry with this log index.
    Committed(u64),
}

/// How the proposal of an assignment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proposed {
    /// Its entry has this log index.
    Committed(u64),
    /// No log contains it.
    Never,
    /// It may still be committed, in another term if at all.
    Unknown,
}

impl Leases {
    /// Without grants. `wait` is how long the leader waits after a grant until nobody has the lease.
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            wait,
            leads: None,
            grants: BTreeMap::new(),
            moving: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    /// Records in which term this host leads; `None` if it does not. What was proposed in another term is in the log of
    /// this one when it begins, or in none.
    pub(crate) fn lead(&mut self, leads: Option<Leads>) {
        if self.leads.map(|one| one.term) != leads.map(|one| one.term) {
            self.moving.clear();
            self.leaving.clear();
            self.leads = leads;
        }
    }

    /// Grants the leases that this host may have of these workloads, as the leader of this term. The state must include
    /// everything that was committed when the request arrived. Returns the names of the workloads.
    pub(crate) fn grant(
        &mut self,
        (term, host): (u64, HostId),
        workloads: &[String],
        view: &View,
        now: Instant,
    ) -> Vec<String> {
        let leads = self.leads.filter(|leads| leads.term == term);
        if leads.is_none_or(|leads| view.applied < leads.floor) {
            return Vec::new();
        }
        self.grants.retain(|_, grant| grant.until > now);
        self.forget_moves(view.applied);
        let asked: BTreeSet<&String> = workloads.iter().collect();
        let granted = asked.into_iter().filter(|name| {
            let workload = view.state.workload(name);
            let is_his = workload.is_some_and(|one| is_on(&view.state, one, host));
            let is_free = self.grants.get(*name).is_none_or(|one| one.host == host);
            let stays = !self.moving.contains_key(*name) && !self.leaving.contains(*name);
            is_his && is_free && stays
        });
        let granted: Vec<String> = granted.cloned().collect();
        let until = now + self.wait;
        for name in &granted {
            self.grants.insert(name.clone(), Grant { host, until });
        }
        granted
    }

    /// Removes the changes that give a singleton a host before nobody else can have its lease. Returns when the first
    /// of them may be proposed. The changes are all that the leader has planned.
    pub(crate) fn hold(
        &mut self,
        changes: &mut Vec<Change>,
        view: &View,
        now: Instant,
    ) -> Option<Instant> {
        self.forget_moves(view.applied);
        self.leaving.clear();
        let mut due: Option<Instant> = None;
        changes.retain(|change| {
            let Some((name, host)) = moved(change, &view.state) else {
                return true;
            };
            // From now on its lease is not renewed, so that it ends although its host still asks.
            self.leaving.insert(name.to_owned());
            let until = self.held_until(name, host, now);
            due = due.into_iter().chain(until).min();
            until.is_none()
        });
        due
    }

    /// Takes the changes that give singletons a host, which the leader of this term proposes now. Those that it may not
    /// propose are dropped. The outcome must be told with [`Self::ended`].
    pub(crate) fn begin(
        &mut self,
        changes: &mut Vec<Change>,
        state: &State,
        term: u64,
        now: Instant,
    ) -> Vec<Change> {
        let is_moved = |change: &mut Change| moved(change, state).is_some();
        let mut moves: Vec<Change> = changes.extract_if(.., is_moved).collect();
        let leads = self.leads.is_some_and(|leads| leads.term == term);
        moves.retain(|change| {
            let moved = moved(change, state).filter(|_| leads);
            let allowed = moved.filter(|(name, host)| self.held_until(name, *host, now).is_none());
            if let Some((name, _)) = allowed {
                self.moving.insert(name.to_owned(), Moving::Proposed);
            }
            allowed.is_some()
        });
        moves
    }

    /// Records how the proposal of these moves ended, which was made in this term.
    pub(crate) fn ended(&mut self, term: u64, moves: &[Change], proposed: Proposed) {
        if self.leads.is_none_or(|leads| leads.term != term) {
            return;
        }
        for name in moves.iter().filter_map(named) {
            match proposed {
                Proposed::Committed(index) => {
                    let moving = Moving::Committed(index);
                    self.moving.insert(name.to_owned(), moving);
                }
                Proposed::Never => drop(self.moving.remove(name)),
                Proposed::Unknown => {}
            }
        }
    }

    /// Forgets the moves that the state with this log index includes.
    fn forget_moves(&mut self, applied: u64) {
        self.moving.retain(|_, moving| match moving {
            Moving::Proposed => true,
            Moving::Committed(index) => *index > applied,
        });
    }

    /// Until when the workload must not get this host; `None` if it may now.
    fn held_until(&self, name: &str, host: HostId, now: Instant) -> Option<Instant> {
        let is_moving = self.moving.contains_key(name);
        let moving = is_moving.then(|| now + AGAIN);
        let granted = self.grants.get(name).filter(|grant| grant.host != host);
        let granted = granted.map(|grant| grant.until);
        // Without a term nobody proposes anything.
        let led = self.leads.map_or(now + AGAIN, |one| one.since + self.wait);
        let all = [moving, granted, Some(led)].into_iter().flatten();
        all.filter(|until| *until > now).max()
    }
}

/// The leases that the leader's loop and the requests of hosts share.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Leases>>);

impl Shared {
    pub(crate) fn new(leases: Leases) -> Self {
        Self(Arc::new(Mutex::new(leases)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Leases> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true if the state assigns the pod of this singleton to the host.
fn is_on(state: &State, workload: &Workload, host: HostId) -> bool {
    state.is_singleton(workload) && placement::runs(state, workload, Place::first(host)).is_some()
}

/// The singleton that the change gives a host, and the host.
fn moved<'a>(change: &'a Change, state: &State) -> Option<(&'a str, HostId)> {
    let Change::Assign {
        workload,
        host: Some(host),
        ..
    } = change
    else {
        return None;
    };
    let is_singleton = |one: &&Workload| state.is_singleton(one);
    state.workload(workload).filter(is_singleton)?;
    Some((workload, *host))
}

/// The workload that the change assigns.
fn named(change: &Change) -> Option<&str> {
    match change {
        Change::Assign { workload, .. } => Some(workload),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
