//! Gathers proposals into log entries on the leader.
//!
//! Shell. openraft flushes each entry separately, so an entry carries everything that was proposed while the previous
//! entries were in flight. Each proposer gets the outcomes of its own commands.

use std::sync::Arc;

use beemesh_protocol::{
    peer::{Committed, Outcome},
    state::Command,
};
use openraft::{error::ClientWriteError, raft::ClientWriteResponse};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::types::{Batch, LeaderId, Raft, TypeConfig};
use crate::cluster::change::size_of;

/// Bounds of one entry, which a follower must be able to store with one flush in a few milliseconds.
const COMMANDS_MAX: usize = 256;
const BYTES_MAX: usize = 1 << 20;
/// Maximum number of entries in flight. This host flushes the second one while the followers flush the first.
const IN_FLIGHT_MAX: usize = 2;
/// Maximum number of queued proposals; further callers wait for room.
const QUEUE_MAX: usize = 1024;

/// Why a batch was not committed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This host does not lead, or has lost the leadership. Its log may still contain the proposal.
    NotLeader,
    /// This host leads, but not in the term that the caller named. No log contains the proposal.
    AnotherLeader,
    /// Consensus has ended on this host.
    Stopped,
}

struct Proposal {
    commands: Vec<Command>,
    only: Option<LeaderId>,
    size: usize,
    answer: oneshot::Sender<Result<Vec<Committed>, Refused>>,
}

/// Queues proposals for the log. Clones share it.
#[derive(Clone)]
pub(crate) struct Batcher {
    queue: mpsc::Sender<Proposal>,
}

impl Batcher {
    pub(crate) fn new(raft: Raft) -> Self {
        let (queue, proposals) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(raft, proposals));
        Self { queue }
    }

    /// Commits the commands in one entry. If `only` names a leader, the entry goes into that leader's log or into none.
    /// If the caller stops waiting before the commands are in the log, they are dropped.
    pub(crate) async fn propose(
        &self,
        commands: Vec<Command>,
        only: Option<LeaderId>,
    ) -> Result<Vec<Committed>, Refused> {
        let size = commands.iter().map(size_of).sum();
        let (answer, committed) = oneshot::channel();
        let proposal = Proposal {
            commands,
            only,
            size,
            answer,
        };
        self.queue
            .send(proposal)
            .await
            .map_err(|_| Refused::Stopped)?;
        committed.await.map_err(|_| Refused::Stopped)?
    }
}

async fn run(raft: Raft, mut proposals: mpsc::Receiver<Proposal>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut carried = None;
    loop {
        // The permit comes before the proposals, so that the entry includes everything that arrives during the wait.
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
            return;
        };
        let first = match carried.take() {
            Some(proposal) => proposal,
            None => match proposals.recv().await {
                Some(proposal) => proposal,
                None => return,
            },
        };
        let only = first.only;
        let mut entry = Vec::new();
        let (mut commands, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(proposal) = next {
            let (more, size) = (proposal.commands.len(), proposal.size);
            let full = commands + more > COMMANDS_MAX || bytes + size > BYTES_MAX;
            if proposal.only != only || (commands > 0 && full) {
                carried = Some(proposal);
                break;
            }
            if !proposal.answer.is_closed() {
                commands += more;
                bytes += size;
                entry.push(proposal);
            }
            next = proposals.try_recv().ok();
        }
        if entry.is_empty() {
            continue;
        }
        let mut all = Vec::with_capacity(commands);
        let mut waiting = Vec::with_capacity(entry.len());
        for proposal in entry {
            waiting.push((proposal.commands.len(), proposal.answer));
            all.extend(proposal.commands);
        }
        let batch = Batch {
            commands: Arc::new(all),
            only,
        };
        let written = raft.client_write_ff(batch).await;
        tokio::spawn(async move {
            let result = match written {
                Ok(written) => match written.await {
                    Ok(Ok(response)) => Ok(response),
                    Ok(Err(error)) => Err(refused(&error)),
                    Err(_) => Err(Refused::Stopped),
                },
                Err(_) => Err(Refused::Stopped),
            };
            drop(permit);
            share(result, waiting);
        });
    }
}

type Waiting = Vec<(usize, oneshot::Sender<Result<Vec<Committed>, Refused>>)>;

fn share(result: Result<ClientWriteResponse<TypeConfig>, Refused>, waiting: Waiting) {
    let result = result.map(|response| (response.log_id.index, response.data));
    let all: usize = waiting.iter().map(|(count, _)| count).sum();
    let result = result.and_then(|(index, outcomes)| {
        let taken = outcomes.len() == all;
        taken
            .then_some((index, outcomes))
            .ok_or(Refused::AnotherLeader)
    });
    match result {
        Ok((index, outcomes)) => {
            let mut outcomes = outcomes.into_iter();
            for (count, answer) in waiting {
                let own = outcomes.by_ref().take(count);
                let own = own.map(|outcome: Outcome| Committed { index, outcome });
                // The proposer may have stopped waiting.
                drop(answer.send(Ok(own.collect())));
            }
        }
        Err(refused) => {
            for (_, answer) in waiting {
                drop(answer.send(Err(refused.clone())));
            }
        }
    }
}

fn refused(error: &ClientWriteError<super::types::NodeId, openraft::EmptyNode>) -> Refused {
    match error {
        ClientWriteError::ForwardToLeader(_) => Refused::NotLeader,
        ClientWriteError::ChangeMembershipError(_) => Refused::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        tests::{Mesh, apply, host, put},
        types::NodeId,
    };
    use super::*;

    /// A proposal may wait here while this host loses and regains the leadership. The proposer may have sent it again
    /// by then.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_meant_for_another_leader_stays_out() {
        let mesh = Mesh::of(1).await;
        let node = mesh.node(1);
        let leads = node.consensus().borrow().term;
        let state = || node.state().borrow().state.to_snapshot().encode();
        for (term, content) in [(leads - 1, 1), (leads, 2), (leads + 1, 3)] {
            let before = state();
            let only = Some(LeaderId::new(term, NodeId(host(1))));
            let commands = vec![apply(1, content, 100)];
            let answer = node.inner.batcher.propose(commands, only).await;
            if term == leads {
                assert!(matches!(answer.as_deref(), Ok([_])), "{answer:?}");
                assert_ne!(before, state());
            } else {
                assert_eq!(answer, Err(Refused::AnotherLeader));
                assert_eq!(before, state());
            }
        }
        // The entry that replaces it is a normal entry, also when it is read from the disk.
        let again = put(&node, 2, 1).await;
        let kept = state();
        mesh.stop(1).await;
        let back = mesh.start(1).await;
        mesh.same(1, again).await;
        assert_eq!(kept, back.state().borrow().state.to_snapshot().encode());
        mesh.close().await;
    }
}
