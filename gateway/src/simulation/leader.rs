//! The leader assigns pods and revisions to hosts, as in [`crate::controllers`], in spite of all faults.
//!
//! Some clusters have no seats, some have them from the beginning, and some get them while clients write and hosts
//! fail. It is the same with rollouts.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use beemesh_protocol::{
    HostId,
    state::{Assignment, Change},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{manifests::at, reports::Known, world::World};
use crate::{
    cluster::{
        consensus::Consensus,
        placement::choose::Alone,
        state::{ASSIGNED, State},
    },
    controllers::{
        carry_moves,
        leases::{Leads, Shared},
        level::raise,
        mandate::Mandate,
        pace::Pace,
        presence::{self, Presence},
        rollouts,
        seats::{Seen, plan},
    },
    raft::{LATELY, Node},
};

/// When hosts are given up: many faults last longer. No attempt of a Job is lost below level 3.
const TIMES: presence::Times = presence::Times {
    lost_after: Duration::from_secs(4),
    job_lost_after: Duration::MAX,
};
/// Timeout for one proposal.
const PROPOSE_MAX: Duration = Duration::from_secs(2);
/// Minimum time between two rounds.
const LOOK: Duration = Duration::from_millis(20);
/// Maximum time between two rounds: a host's report does not wake the leader in this simulation.
const AGAIN: Duration = Duration::from_millis(500);
/// The same while a workload is rolled out.
const SOON: Duration = Duration::from_millis(100);

/// Proposes the leader's changes until this life of the host's gateway ends.
pub(super) async fn lead(world: Arc<World>, node: Node, host: HostId, life: u64, leases: Shared) {
    let (mut view, mut consensus) = (node.state(), node.consensus());
    let (mut mandate, mut memory) = (None, None);
    while world.lives(host, life) {
        let now = consensus.borrow_and_update().clone();
        let seen = Arc::clone(&view.borrow_and_update());
        let before = mandate;
        mandate = Mandate::of(before, &now, Instant::now());
        if mandate != before {
            memory = mandate.map(|mandate| Memory::new(&world, host, mandate));
            let since = world.holder(host).now();
            let leads = mandate.map(|mandate| mandate.leads());
            leases
                .lock()
                .lead(leads.map(|leads| Leads { since, ..leads }));
        }
        let mut due = None;
        let leads = |one: &&mut Memory| one.mandate.is_current(&now, seen.applied);
        if let Some(memory) = memory.as_mut().filter(leads)
            && seen.state.cluster().is_some()
        {
            let mut reachable = world.up();
            reachable.retain(|host| now.acknowledging.contains(host));
            let (mut changes, mut next) = memory.changes(&world, &seen.state, (&now, &reachable));
            let held = leases
                .lock()
                .hold(&mut changes, &seen, world.holder(host).now());
            next = next.into_iter().chain(held).min();
            if changes.is_empty() {
                let rolls = seen.state.rollouts().next().is_some();
                let again = Instant::now() + if rolls { SOON } else { AGAIN };
                due = Some(next.map_or(again, |next| next.min(again)));
            } else {
                let now_ms = world.clock_ms();
                let term = memory.mandate.term;
                let local = world.holder(host).now();
                let moves = leases.lock().begin(&mut changes, &seen.state, term, local);
                let moved = carry_moves(&node, &leases, moves, (term, now_ms));
                let commands: Vec<_> = changes
                    .into_iter()
                    .map(|change| at(now_ms, change))
                    .collect();
                let proposed = async {
                    if !commands.is_empty() {
                        let deadline = Instant::now() + PROPOSE_MAX;
                        drop(node.propose_in_term(commands, term, deadline).await);
                    }
                };
                // The next round plans failed changes again.
                drop(tokio::join!(proposed, timeout(PROPOSE_MAX, moved)));
            }
        }
        sleep(LOOK).await;
        let changed = tokio::select! {
            changed = view.changed() => changed.is_ok(),
            changed = consensus.changed() => changed.is_ok(),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => true,
        };
        if !changed {
            return;
        }
    }
}

/// What a leader remembers within one term.
struct Memory {
    mandate: Mandate,
    known: Known,
    presence: Presence,
    rollouts: rollouts::Watch,
    pace: Pace,
}

impl Memory {
    fn new(world: &World, host: HostId, mandate: Mandate) -> Self {
        let term = mandate.term;
        Self {
            mandate,
            known: Known::new(host, world.stream(term << 8 | u64::from(host.0[0]))),
            presence: Presence::default(),
            rollouts: rollouts::Watch::default(),
            pace: Pace::default(),
        }
    }

    /// The changes that are due, and when to plan again.
    fn changes(
        &mut self,
        world: &World,
        state: &State,
        (consensus, reachable): (&Consensus, &BTreeSet<HostId>),
    ) -> (Vec<Change>, Option<Instant>) {
        if world.level() > state.level() {
            return (vec![raise(state.level() + 1)], None);
        }
        if state.level() < ASSIGNED {
            return (Vec::new(), None);
        }
        let (now, now_ms) = (Instant::now(), world.clock_ms());
        let reports = self.known.reports(world);
        let looked = self.presence.look(
            &presence::Seen {
                state,
                reports: &reports,
                reachable,
                now,
                now_ms,
            },
            &TIMES,
        );
        let plan = plan(&Seen {
            state,
            reports: &reports,
            reachable,
            away: &looked.away,
            job_lost_after: TIMES.job_lost_after,
            now_ms,
        });
        let mut changes = looked.changes;
        changes.extend(plan.changes);
        let rollouts = rollouts::plan(
            &mut self.rollouts,
            &rollouts::Seen {
                state,
                reports: &reports,
                reachable,
                known_at: self.mandate.knows_hosts_at(consensus, now, LATELY),
                now,
            },
        );
        changes.extend(rollouts.changes);
        let (changes, held) = self.pace.take(now, changes);
        let dues = [looked.due, rollouts.due, held];
        (changes, dues.into_iter().flatten().min())
    }
}

/// Returns what is wrong with the placement. Each workload must have the requested number of pods, in different places,
/// or as many as there are hosts, on different hosts, if it may have one on each; and each Job must have ended.
pub(super) fn misplaced(state: &State) -> Option<String> {
    let mut hosts = state.hosts().values();
    if let Some(lost) = hosts.find(|host| host.lost_at_ms != 0) {
        return Some(format!("{} is still lost", lost.name));
    }
    let counted = state.workloads().filter(|one| state.is_seated(one));
    counted.into_iter().find_map(|workload| {
        let seats = state.seats(&workload.name);
        let hosts: BTreeSet<HostId> = seats.iter().filter_map(|seat| seat.host).collect();
        if workload.job.is_some() {
            let over = !seats.is_empty() && seats.iter().all(|seat| seat.end.is_some());
            return (!over).then(|| format!("{}: not over: {seats:?}", workload.name));
        }
        let replicas = workload.object.replicas.unwrap_or(0);
        let asked = usize::try_from(replicas).unwrap_or(usize::MAX);
        let (expected, apart) = match Alone::of(state, workload) {
            Some(_) => (asked.min(state.hosts().len()), hosts.len()),
            None => {
                let places = seats.iter().filter_map(Assignment::place);
                (asked, places.collect::<BTreeSet<_>>().len())
            }
        };
        let fits = seats.len() == expected && apart == expected;
        let known = hosts.iter().all(|host| state.hosts().contains_key(host));
        (!fits || !known).then(|| format!("{}: {expected} of {seats:?}", workload.name))
    })
}
