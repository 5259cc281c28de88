//! Tracks this host's proposals until their entry is applied here: a leader's answer can get lost, the entry cannot.
//!
//! Output: the outcome of a proposal, even if no leader answered. A proposer may only repeat commands that can no
//! longer be committed, because a repeated command could undo a change that came in between.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use beemesh_protocol::{
    peer::{Committed, Outcome},
    state::{Change, Command},
};
use tokio::sync::oneshot;

use crate::cluster::change::about;

/// Proposals that wait, by a hash of their first command.
#[derive(Default)]
pub(crate) struct PendingProposals {
    waiting: Mutex<HashMap<u64, Vec<Waiting>>>,
}

struct Waiting {
    commands: Arc<Vec<Command>>,
    tell: oneshot::Sender<Vec<Committed>>,
}

/// A proposal that waits for its outcome. Dropping it stops the wait.
pub(crate) struct Ticket<'a> {
    pending_proposals: &'a PendingProposals,
    hash: u64,
    told: oneshot::Receiver<Vec<Committed>>,
}

impl PendingProposals {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Vec<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to look for these commands among the entries that are applied here.
    pub(crate) fn expect(&self, commands: &Arc<Vec<Command>>) -> Ticket<'_> {
        let (tell, told) = oneshot::channel();
        let hash = commands.first().map_or(0, hash);
        let commands = Arc::clone(commands);
        let waiting = Waiting { commands, tell };
        self.waiting().entry(hash).or_default().push(waiting);
        Ticket {
            pending_proposals: self,
            hash,
            told,
        }
    }

    /// Records that an entry was applied here, with these outcomes.
    pub(crate) fn applied(&self, index: u64, commands: &[Command], outcomes: &[Outcome]) {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            return;
        }
        for (at, command) in commands.iter().enumerate() {
            let Some(same) = waiting.get_mut(&hash(command)) else {
                continue;
            };
            let is_here = |one: &mut Waiting| begin_alike(&commands[at..], &one.commands);
            for one in same.extract_if(.., is_here) {
                let own = outcomes[at..].iter().take(one.commands.len());
                let own = own.map(|outcome| Committed {
                    index,
                    outcome: outcome.clone(),
                });
                // The proposer may already have its answer.
                drop(one.tell.send(own.collect()));
            }
        }
    }

    /// Records that a snapshot replaced entries: their commands are not known here.
    pub(crate) fn skipped(&self) {
        self.waiting().clear();
    }
}

impl Ticket<'_> {
    /// Returns the outcomes once the entry is applied here; `None` if they cannot be known.
    pub(crate) async fn told(&mut self) -> Option<Vec<Committed>> {
        (&mut self.told).await.ok()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.told.close();
        let mut waiting = self.pending_proposals.waiting();
        if let Some(same) = waiting.get_mut(&self.hash) {
            same.retain(|one| !one.tell.is_closed());
            if same.is_empty() {
                waiting.remove(&self.hash);
            }
        }
    }
}

/// Returns true if an entry's commands begin with the proposed ones.
fn begin_alike(entry: &[Command], proposed: &[Command]) -> bool {
    let mut pairs = entry.iter().zip(proposed);
    entry.len() >= proposed.len() && pairs.all(|(one, other)| is_same(one, other))
}

/// Compares two commands. A leader of a release without policies drops the policy version that an apply was checked
/// against, and the user who requested it.
fn is_same(entry: &Command, proposed: &Command) -> bool {
    if entry.at_ms != proposed.at_ms || (entry.origin.is_some() && entry.origin != proposed.origin)
    {
        return false;
    }
    match (&entry.change, &proposed.change) {
        (
            Change::Apply {
                manifest, objects, ..
            },
            Change::Apply {
                manifest: named,
                objects: held,
                ..
            },
        ) => (manifest, objects) == (named, held),
        (entry, proposed) => entry == proposed,
    }
}

/// Hashes a command by fields that are cheap to read. Equality decides when two hashes match.
fn hash(command: &Command) -> u64 {
    let mut hasher = DefaultHasher::new();
    command.at_ms.hash(&mut hasher);
    about(&command.change).subject.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(manifest: &str) -> Command {
        let manifest = manifest.to_owned();
        Command::unasked(1, Change::DeleteManifest { manifest })
    }

    #[tokio::test]
    async fn an_apply_is_known_again_when_an_older_leader_has_dropped_the_policys_version() {
        let apply = |policy| {
            let change = Change::Apply {
                manifest: "a".to_owned(),
                objects: Vec::new(),
                policy,
                keep: false,
                if_index: None,
            };
            Command::unasked(1, change)
        };
        let pending_proposals = PendingProposals::default();
        let mut ours = pending_proposals.expect(&Arc::new(vec![apply(Some(0))]));
        pending_proposals.applied(6, &[delete("a")], &[Outcome::Done]);
        assert!(ours.told.try_recv().is_err(), "another command");
        pending_proposals.applied(7, &[apply(None)], &[Outcome::Done]);
        assert_eq!(ours.told().await.map(|told| told[0].index), Some(7));
    }

    #[tokio::test]
    async fn a_proposal_hears_of_its_own_entry_and_of_a_snapshot_instead() {
        let pending_proposals = PendingProposals::default();
        let commands =
            |names: &[&str]| Arc::new(names.iter().map(|n| delete(n)).collect::<Vec<_>>());
        let mut ours = pending_proposals.expect(&commands(&["b", "c"]));
        let mut lost = pending_proposals.expect(&commands(&["b"]));
        drop(pending_proposals.expect(&commands(&["b", "c"])));
        let all = commands(&["a", "b", "c"]);
        let outcomes: Vec<_> = ["0", "1", "2"]
            .map(|n| Outcome::Deleted(vec![n.into()]))
            .into();
        pending_proposals.applied(6, &all[..2], &outcomes[..2]);
        assert!(ours.told.try_recv().is_err(), "only a part of it");
        assert_eq!(lost.told().await.map(|told| told[0].index), Some(6));
        pending_proposals.applied(7, &all, &outcomes);
        let told = ours.told().await.expect("applied");
        let of = |n: &str| Committed {
            index: 7,
            outcome: Outcome::Deleted(vec![n.into()]),
        };
        assert_eq!(told, [of("1"), of("2")]);
        lost = pending_proposals.expect(&all);
        pending_proposals.skipped();
        assert_eq!(lost.told().await, None);
        drop(lost);
        drop(ours);
        assert!(pending_proposals.waiting().is_empty());
    }
}
