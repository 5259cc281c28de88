//! The leader's own work for the cluster: raises the level of the state machine once all members support it, and
//! assigns pods and revisions to hosts.
//!
//! Shell: one loop, which acts only on the leader. It runs whenever its input has changed, and proposes what [`seats`],
//! [`rollouts`], [`presence`] and [`level`] decide. [`leases`] decides which host has the lease of a singleton, and holds
//! back its moves until then. [`mandate`] says from when on, and [`pace`] limits how often the same change is proposed. [`voters`] keeps Raft's membership up to date.

pub(crate) mod leases;
pub(crate) mod level;
pub(crate) mod mandate;
pub(crate) mod pace;
pub(crate) mod presence;
pub(crate) mod rollouts;
pub(crate) mod seats;
pub(crate) mod voters;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use beemesh_protocol::{
    HostId,
    peer::{Committed, Outcome},
    state::{Change, Command},
};
use beemesh_quadlet::lease;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    agent_link::Link,
    clock::now_ms,
    cluster::{
        consensus::{Consensus, Role},
        reports::Reports,
        state::{ASSIGNED, State},
    },
    raft::{Asking, Grant, LATELY, Node, ProposeError, View},
};
use leases::{Leases, Proposed, Shared};
use level::{LATEST, Upgrade};
use mandate::Mandate;
use pace::Pace;
use presence::Presence;
use seats::{Seen, plan};

/// Minimum time between two rounds; the first round after a quiet time starts at once.
const LOOK: Duration = Duration::from_millis(20);
/// Timeout for one proposal.
const PROPOSE_MAX: Duration = Duration::from_secs(10);
/// A leader learns what became of its proposal when it leads no longer, if not before. This time is longer than any term
/// in which it could not.
const OUTCOME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The pause after a failed proposal; it doubles with each further failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause after failed proposals.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The times that an administrator can configure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// When hosts are given up.
    pub(crate) presence: presence::Times,
    /// All members must have run a release that supports a level for this long before the leader raises it.
    pub(crate) raise_after: Duration,
}

/// The input of the leader's loop, and the means to act.
pub(crate) struct Handles {
    pub(crate) node: Node,
    /// Reports which hosts are reachable.
    pub(crate) link: Link,
    /// The latest report of every host.
    pub(crate) reports: watch::Receiver<Reports>,
    /// The leases that this gateway grants.
    pub(crate) leases: Shared,
}

/// Creates the leases of this gateway, and what answers the hosts that ask for them.
pub(crate) fn leases() -> (Shared, Grant) {
    let leases = Shared::new(Leases::new(lease::term_of_leader()));
    let asked = leases.clone();
    let grant = move |asking: &Asking<'_>| {
        // The state is read while no move can begin, and includes every move that has ended.
        let mut leases = asked.lock();
        let view = Arc::clone(&asking.view.borrow());
        let whom = (asking.term, asking.host);
        leases.grant(whom, asking.workloads, &view, Instant::now())
    };
    (leases, Arc::new(grant))
}

/// Does the leader's work whenever this host leads.
pub(crate) async fn lead(handles: Handles, times: Times) {
    let mut view = handles.node.state();
    let mut consensus = handles.node.consensus();
    let mut reports = handles.reports.clone();
    let mut connected = handles.link.connected();
    let mut mandate = None;
    let mut leader = Leader::default();
    loop {
        let (now, seen) = (
            consensus.borrow_and_update().clone(),
            view.borrow_and_update().clone(),
        );
        reports.mark_unchanged();
        connected.mark_unchanged();
        let before = mandate;
        mandate = Mandate::of(before, &now, Instant::now());
        if mandate != before {
            leader = Leader::default();
            let leads = mandate.map(|mandate| mandate.leads());
            handles.leases.lock().lead(leads);
        }
        let due = match mandate.filter(|mandate| mandate.is_current(&now, seen.applied)) {
            Some(mandate) => leader.round(&handles, &times, &seen, (&now, mandate)).await,
            None => None,
        };
        sleep(LOOK).await;
        let changed = tokio::select! {
            changed = view.changed() => changed,
            changed = consensus.changed() => changed,
            changed = reports.changed() => changed,
            changed = connected.changed() => changed,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Sets the level of a new cluster to that of this release. If that fails, the leader does it later.
pub(crate) async fn begin(node: &Node, deadline: Instant) {
    let command = Command::unasked(now_ms(), level::raise(LATEST));
    if let Err(error) = node.propose(vec![command], deadline).await {
        tracing::warn!(%error, "the feature level of the new cluster is raised later");
    }
}

/// The memory of a leader within one term.
#[derive(Default)]
struct Leader {
    presence: Presence,
    upgrade: Upgrade,
    pace: Pace,
    rollouts: rollouts::Watch,
    /// Number of consecutive failed proposals, and when the next proposal may be made.
    failed: Option<(u32, Instant)>,
}

impl Leader {
    /// Does the work that is due. Returns when to run again if nothing changes before.
    async fn round(
        &mut self,
        handles: &Handles,
        times: &Times,
        view: &View,
        (consensus, mandate): (&Consensus, Mandate),
    ) -> Option<Instant> {
        let now = Instant::now();
        if let Some((_, until)) = self.failed.filter(|(_, until)| *until > now) {
            return Some(until);
        }
        let (mut changes, mut due) = (Vec::new(), None);
        if view.state.level() < LATEST {
            (changes, due) = self.raise(handles, times, view, now);
        }
        if view.state.level() >= ASSIGNED {
            let office = (consensus, mandate);
            let (more, next) = self.controllers(handles, times, view, office, now);
            changes.extend(more);
            due = due.into_iter().chain(next).min();
        }
        if changes.is_empty() {
            return due;
        }
        let state = &view.state;
        let failed = self.propose(handles, state, changes, mandate.term).await;
        failed.into_iter().chain(due).min()
    }

    fn raise(
        &mut self,
        handles: &Handles,
        times: &Times,
        view: &View,
        now: Instant,
    ) -> (Vec<Change>, Option<Instant>) {
        let members: BTreeSet<HostId> = view.state.hosts().keys().copied().collect();
        let reports = handles.reports.borrow().clone();
        let level = view.state.level() + 1;
        let after = times.raise_after;
        let due = self.upgrade.due(level, now, &members, &reports, after);
        match due {
            Some(due) if due <= now => (vec![level::raise(level)], None),
            due => (Vec::new(), due),
        }
    }

    /// Plans seats and rollouts.
    fn controllers(
        &mut self,
        handles: &Handles,
        times: &Times,
        view: &View,
        (consensus, mandate): (&Consensus, Mandate),
        now: Instant,
    ) -> (Vec<Change>, Option<Instant>) {
        let mut reachable = handles.link.reachable(handles.node.host());
        // A connection outlives its host for a while; the host's answers to the leader do not.
        reachable.retain(|host| consensus.acknowledging.contains(host));
        let reports = handles.reports.borrow().clone();
        let now_ms = now_ms();
        let looked = self.presence.look(
            &presence::Seen {
                state: &view.state,
                reports: &reports,
                reachable: &reachable,
                now,
                now_ms,
            },
            &times.presence,
        );
        let plan = plan(&Seen {
            state: &view.state,
            reports: &reports,
            reachable: &reachable,
            away: &looked.away,
            job_lost_after: times.presence.job_lost_after,
            now_ms,
        });
        let due = plan
            .due
            .map(|due| now + Duration::from_millis(due.saturating_sub(now_ms)));
        let rollouts = rollouts::plan(
            &mut self.rollouts,
            &rollouts::Seen {
                state: &view.state,
                reports: &reports,
                reachable: &reachable,
                known_at: mandate.knows_hosts_at(consensus, now, LATELY),
                now,
            },
        );
        let mut changes = looked.changes;
        changes.extend(plan.changes);
        changes.extend(rollouts.changes);
        let leased = handles.leases.lock().hold(&mut changes, view, now);
        let (changes, held) = self.pace.take(now, changes);
        let dues = [looked.due, due, rollouts.due, leased, held];
        (changes, dues.into_iter().flatten().min())
    }

    /// Proposes the changes in this term. If that fails, returns when the next proposal may be made.
    async fn propose(
        &mut self,
        handles: &Handles,
        state: &State,
        mut changes: Vec<Change>,
        term: u64,
    ) -> Option<Instant> {
        let (node, leases) = (&handles.node, &handles.leases);
        let now = Instant::now();
        let moves = leases.lock().begin(&mut changes, state, term, now);
        let moved = carry_moves(node, leases, moves.clone(), (term, now_ms()));
        let commands = commands(&changes, now_ms());
        let proposed = async {
            match changes.is_empty() {
                true => Ok(Vec::new()),
                false => {
                    node.propose_in_term(commands, term, now + PROPOSE_MAX)
                        .await
                }
            }
        };
        let (proposed, moved) = tokio::join!(proposed, timeout(PROPOSE_MAX, moved));
        changes.extend(moves);
        let proposed = proposed.and_then(|mut committed| {
            committed.extend(moved.unwrap_or_else(|_| Err(late()))?);
            Ok(committed)
        });
        match proposed {
            Ok(committed) => {
                let state = handles.node.state().borrow().state.clone();
                let name =
                    |host: &HostId| state.hosts().get(host).map_or("", |one| one.name.as_str());
                for (change, Committed { outcome, .. }) in changes.iter().zip(&committed) {
                    tell(change, outcome, name);
                }
                self.failed = None;
            }
            Err(error) => {
                let failures = self.failed.map_or(0, |(failures, _)| failures);
                let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(failures));
                let until = Instant::now() + pause.min(PAUSE_MAX);
                self.failed = Some((failures.saturating_add(1), until));
                tracing::warn!(%error, "a controller of the leader failed, will retry");
            }
        }
        self.failed.map(|(_, until)| until)
    }
}

fn commands(changes: &[Change], at_ms: u64) -> Vec<Command> {
    let commands = changes.iter().cloned();
    commands
        .map(|change| Command::unasked(at_ms, change))
        .collect()
}

fn late() -> ProposeError {
    let silent = Vec::new();
    ProposeError::Deadline { silent }
}

/// Proposes the moves of singletons that [`Leases::begin`] has returned, at this time in milliseconds since 1970. A task
/// of its own learns the outcome, also when the caller waits no longer: until then nobody gets the leases.
pub(crate) async fn carry_moves(
    node: &Node,
    leases: &Shared,
    moves: Vec<Change>,
    (term, at_ms): (u64, u64),
) -> Result<Vec<Committed>, ProposeError> {
    if moves.is_empty() {
        return Ok(Vec::new());
    }
    let (node, leases) = (node.clone(), leases.clone());
    let carried = tokio::spawn(async move {
        let mut consensus = node.consensus();
        let is_over = |now: &Consensus| now.role != Role::Leader || now.term != term;
        let proposed = tokio::select! {
            biased;
            proposed = node.propose_in_term(commands(&moves, at_ms), term, Instant::now() + OUTCOME_MAX) => proposed,
            _ = consensus.wait_for(is_over) => Err(late()),
        };
        let ended = match &proposed {
            // All of them are in one entry.
            Ok(committed) => committed
                .first()
                .map_or(Proposed::Never, |one| Proposed::Committed(one.index)),
            Err(ProposeError::NoQuorum { .. } | ProposeError::TooLarge { .. }) => Proposed::Never,
            Err(ProposeError::Deadline { .. } | ProposeError::Stopped(_)) => Proposed::Unknown,
        };
        leases.lock().ended(term, &moves, ended);
        proposed
    });
    carried.await.unwrap_or_else(|_| Err(late()))
}

fn tell<'a>(change: &Change, outcome: &Outcome, name: impl Fn(&HostId) -> &'a str) {
    if let Outcome::Refused(reasons) = outcome {
        let reasons: Vec<_> = reasons.iter().map(|one| one.message.as_str()).collect();
        tracing::info!(
            ?change,
            reasons = reasons.join("; "),
            "a proposal of a controller was refused"
        );
        return;
    }
    match change {
        Change::RaiseLevel { level } | Change::RequireLevel { level } => {
            tracing::info!(
                level,
                "all members apply changes by the rules of this level from now on"
            );
        }
        Change::Assign {
            workload,
            ordinal,
            from,
            host,
            ..
        } => tracing::info!(
            workload,
            ordinal,
            from = from.as_ref().map_or("", &name),
            host = host.as_ref().map_or("", &name),
            "assigned"
        ),
        Change::EndJob {
            workload,
            ordinal,
            succeeded,
            reason,
            again,
            ..
        } => tracing::info!(
            workload,
            ordinal,
            succeeded,
            reason,
            again,
            "an attempt of a job has ended"
        ),
        Change::Roll {
            workload,
            index,
            to,
            hosts,
            ..
        } => {
            let hosts: Vec<&str> = hosts.iter().map(name).collect();
            tracing::info!(
                workload,
                index,
                to,
                hosts = hosts.join(", "),
                "hosts get another revision"
            );
        }
        Change::LoseHost { host, .. } => {
            tracing::warn!(
                host = name(host),
                "no member reaches a host, so it is given up"
            );
        }
        Change::ReturnHost { host, steady_at_ms } => {
            tracing::info!(host = name(host), steady_at_ms, "a host is taken back");
        }
        Change::EndRollout {
            workload,
            index,
            outcome,
            reason,
            ..
        } => tracing::info!(workload, index, ?outcome, reason, "a rollout has ended"),
        _ => {}
    }
}
