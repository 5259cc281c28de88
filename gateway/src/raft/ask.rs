//! Proposals and linearizable reads, from any gateway.
//!
//! Shell: finds the leader and asks it, and retries until the caller's deadline. A refusal just after an election, or
//! while a stream is being reopened, is short-lived, so the request is retried. A proposal that a leader may have
//! appended is retried only once it is known that it was lost: when an entry of a later leader is applied here and the
//! commands were not applied before it, no later leader's log contains them (Raft's leader completeness).

use std::{sync::Arc, time::Duration};

use beemesh_protocol::{
    HostId,
    frame::CONTROL_MAX,
    peer::{Committed, Failure, ReplyBody, RequestBody},
    state::Command,
};
use openraft::{EmptyNode, error::RaftError};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Node,
    batch::Refused,
    pending_proposals::Ticket,
    rpc::CallError,
    types::{LeaderId, NodeId, last_led},
};
use crate::cluster::{
    change::size_of,
    consensus::{Consensus, Role},
};

/// The pause between attempts grows from the first to the second value: an election takes up to two seconds.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The commands of one proposal must fit into one message to the leader, with room for its envelope.
const PROPOSAL_BYTES_MAX: usize = CONTROL_MAX - (64 << 10);

/// Why commands were not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    /// No leader with a majority was found in time; no log contains the commands.
    #[error("no gateway leads with a majority of the {voters} voters")]
    NoQuorum {
        /// Number of voters.
        voters: usize,
        /// The voters that do not answer this host.
        silent: Vec<HostId>,
    },
    /// The deadline passed while the commands were in flight: they may still be committed.
    #[error("the change was not confirmed in time; it may still take effect")]
    Deadline {
        /// The voters that do not answer this host.
        silent: Vec<HostId>,
    },
    /// The commands do not fit into a message.
    #[error("a change of {size} bytes, at most {limit} are accepted")]
    TooLarge {
        /// Their size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Consensus has ended on this host.
    #[error("consensus has stopped on this host: {0}")]
    Stopped(String),
}

/// Why a read is not linearizable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// No leader confirmed its leadership in time.
    #[error("no gateway leads with a majority of the {voters} voters")]
    NoQuorum {
        /// Number of voters.
        voters: usize,
        /// The voters that do not answer this host.
        silent: Vec<HostId>,
    },
    /// This host did not catch up with the leader in time.
    #[error("this host has applied entry {applied}, the read needs {wanted}")]
    Behind {
        /// The log index that this host has applied.
        applied: u64,
        /// The log index that the read needs.
        wanted: u64,
    },
    /// Consensus has ended on this host.
    #[error("consensus has stopped on this host: {0}")]
    Stopped(String),
}

/// Checks that the commands fit into one message.
fn check_size(commands: &[Command]) -> Result<(), ProposeError> {
    let size = commands.iter().map(size_of).sum();
    let limit = PROPOSAL_BYTES_MAX;
    match size > limit {
        true => Err(ProposeError::TooLarge { size, limit }),
        false => Ok(()),
    }
}

/// The outcome of commands that a leader may have appended.
enum Settled {
    Committed(Vec<Committed>),
    /// No later leader's log contains them; they can be proposed again.
    Never,
    /// This host cannot learn the outcome.
    Unknown,
}

/// The result of one attempt.
enum Attempt<T> {
    Done(T),
    /// Nothing was appended.
    Refused,
    /// This leader or an earlier one may have appended the commands.
    Unknown(LeaderId),
}

impl Node {
    /// Turns this host into a cluster of one and commits its first command. It is safe to repeat this after a crash.
    pub(crate) async fn found(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<Vec<Committed>, ProposeError> {
        let raft = &self.inner.raft;
        let stopped = |error: &dyn std::fmt::Display| ProposeError::Stopped(error.to_string());
        if !raft.is_initialized().await.map_err(|e| stopped(&e))? {
            let members =
                std::collections::BTreeMap::from([(NodeId(self.inner.host), EmptyNode {})]);
            match raft.initialize(members).await {
                // openraft refuses because another call initialized it in between.
                Ok(()) | Err(RaftError::APIError(_)) => {}
                Err(RaftError::Fatal(error)) => return Err(stopped(&error)),
            }
        }
        self.propose(vec![command], deadline).await
    }

    /// Commits the commands in one entry, on whichever host leads. Each command gets its outcome once a majority of the
    /// voters has stored the entry and the leader has applied it.
    pub(crate) async fn propose(
        &self,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Vec<Committed>, ProposeError> {
        check_size(&commands)?;
        let commands = Arc::new(commands);
        let mut ticket = self.inner.pending_proposals.expect(&commands);
        let mut pause = PAUSE_MIN;
        loop {
            self.still_running().map_err(ProposeError::Stopped)?;
            let attempt = timeout_at(deadline, self.try_propose(&commands)).await;
            let taken = match attempt {
                Ok(Attempt::Done(committed)) => return Ok(committed),
                Ok(Attempt::Refused) => false,
                Ok(Attempt::Unknown(taken_by)) => {
                    match timeout_at(deadline, self.settled(&mut ticket, taken_by)).await {
                        Ok(Settled::Committed(committed)) => return Ok(committed),
                        Ok(Settled::Never) => false,
                        Ok(Settled::Unknown) | Err(_) => true,
                    }
                }
                Err(_) => true,
            };
            if taken {
                let (_, silent) = self.silent();
                return Err(ProposeError::Deadline { silent });
            }
            if !self.rest(&mut pause, deadline).await {
                let (voters, silent) = self.silent();
                return Err(ProposeError::NoQuorum { voters, silent });
            }
        }
    }

    /// Commits the commands as the leader of this term. Unlike [`Self::propose`], it does not hand them to a later leader,
    /// which may have decided otherwise since.
    pub(crate) async fn propose_in_term(
        &self,
        commands: Vec<Command>,
        term: u64,
        deadline: Instant,
    ) -> Result<Vec<Committed>, ProposeError> {
        check_size(&commands)?;
        let only = Some(LeaderId::new(term, NodeId(self.inner.host)));
        let proposed = self.inner.batcher.propose(commands, only);
        match timeout_at(deadline, proposed).await {
            Ok(Ok(committed)) => Ok(committed),
            Ok(Err(Refused::AnotherLeader)) => {
                let (voters, silent) = self.silent();
                Err(ProposeError::NoQuorum { voters, silent })
            }
            Ok(Err(Refused::Stopped)) => {
                let reason = "the log takes no further entries".to_owned();
                Err(ProposeError::Stopped(reason))
            }
            // The entry may have been in the log when this host lost the leadership.
            Ok(Err(Refused::NotLeader)) | Err(_) => {
                let (_, silent) = self.silent();
                Err(ProposeError::Deadline { silent })
            }
        }
    }

    /// Waits for the outcome of commands that this leader or an earlier one may have appended.
    async fn settled(&self, ticket: &mut Ticket<'_>, taken_by: LeaderId) -> Settled {
        let mut raft = self.inner.raft.metrics();
        let later = raft.wait_for(|now| {
            let applied = now.last_applied;
            applied.is_some_and(|last| last.leader_id > taken_by) || now.running_state.is_err()
        });
        tokio::select! {
            biased;
            told = ticket.told() => told.map_or(Settled::Unknown, Settled::Committed),
            later = later => match later {
                Ok(now) if now.running_state.is_ok() => Settled::Never,
                Ok(_) | Err(_) => Settled::Unknown,
            },
        }
    }

    async fn try_propose(&self, commands: &[Command]) -> Attempt<Vec<Committed>> {
        let term = self.inner.consensus.borrow().term;
        match self.leader() {
            None => Attempt::Refused,
            Some(leader) if leader == self.inner.host => {
                let only = Some(LeaderId::new(term, NodeId(leader)));
                match self.inner.batcher.propose(commands.to_vec(), only).await {
                    Ok(committed) => Attempt::Done(committed),
                    Err(Refused::AnotherLeader) => Attempt::Refused,
                    // The entry may have been in the log when this host lost the leadership.
                    Err(Refused::NotLeader | Refused::Stopped) => {
                        let vote = self.inner.raft.server_metrics().borrow().vote;
                        Attempt::Unknown(last_led(&vote, NodeId(leader)))
                    }
                }
            }
            Some(leader) => {
                let commands = commands.to_vec();
                let request = RequestBody::Propose { commands, term };
                match self.inner.peers.ask(leader, request).await {
                    Ok(ReplyBody::Committed(committed)) => Attempt::Done(committed),
                    Ok(ReplyBody::NotLeader(_) | ReplyBody::Failed(Failure::NoQuorum))
                    | Err(CallError::Unreachable { .. } | CallError::Stranger(_)) => {
                        Attempt::Refused
                    }
                    Ok(_) | Err(CallError::Lost { .. }) => {
                        Attempt::Unknown(LeaderId::new(term, NodeId(leader)))
                    }
                }
            }
        }
    }

    /// Waits until the published state includes everything that was committed before the call.
    pub(crate) async fn read_index(&self, deadline: Instant) -> Result<(), ReadError> {
        let mut pause = PAUSE_MIN;
        let wanted = loop {
            self.still_running().map_err(ReadError::Stopped)?;
            if let Ok(Some(wanted)) = timeout_at(deadline, self.try_read()).await {
                break wanted;
            }
            if !self.rest(&mut pause, deadline).await {
                let (voters, silent) = self.silent();
                return Err(ReadError::NoQuorum { voters, silent });
            }
        };
        let mut view = self.state();
        let caught_up = timeout_at(deadline, view.wait_for(|view| view.applied >= wanted)).await;
        match caught_up {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped("the state machine has ended".into())),
            Err(_) => Err(ReadError::Behind {
                applied: self.inner.view.borrow().applied,
                wanted,
            }),
        }
    }

    /// Returns the leader as another host sees it, which may be that host itself. `None` if it has no leader or does
    /// not say.
    pub(crate) async fn leader_of(&self, host: HostId) -> Option<HostId> {
        match self.inner.peers.ask(host, RequestBody::ReadIndex).await {
            Ok(ReplyBody::ReadIndex(_)) => Some(host),
            Ok(ReplyBody::NotLeader(leader)) => leader,
            Ok(_) | Err(_) => None,
        }
    }

    async fn try_read(&self) -> Option<u64> {
        let leader = self.leader()?;
        if leader == self.inner.host {
            let (read, _) = self.inner.raft.get_read_log_id().await.ok()?;
            return Some(read.map_or(0, |id| id.index));
        }
        match self.inner.peers.ask(leader, RequestBody::ReadIndex).await {
            Ok(ReplyBody::ReadIndex(read)) => Some(read.map_or(0, |id| id.index)),
            Ok(_) | Err(_) => None,
        }
    }

    /// Returns the leader that this host knows. This host does not count as the leader while no majority answers it.
    pub(super) fn leader(&self) -> Option<HostId> {
        let consensus = self.inner.consensus.borrow();
        match consensus.role {
            Role::Leader => consensus.quorum.then_some(self.inner.host),
            Role::Follower | Role::Learner => {
                consensus.leader.filter(|leader| *leader != self.inner.host)
            }
            Role::Candidate | Role::Stopped => None,
        }
    }

    fn still_running(&self) -> Result<(), String> {
        self.inner.failed.borrow().clone().map_or(Ok(()), Err)
    }

    /// Waits for a short time or until the metrics change. Returns `false` when the deadline has passed.
    async fn rest(&self, pause: &mut Duration, deadline: Instant) -> bool {
        let mut consensus = self.inner.consensus.clone();
        consensus.mark_unchanged();
        let now = *pause;
        let news = async {
            tokio::select! {
                () = sleep(now) => {}
                Ok(()) = consensus.changed() => {}
            }
        };
        *pause = (*pause * 2).min(PAUSE_MAX);
        timeout_at(deadline, news).await.is_ok()
    }

    fn silent(&self) -> (usize, Vec<HostId>) {
        let consensus: Consensus = self.inner.consensus.borrow().clone();
        let silent = match (consensus.role, consensus.leader) {
            (Role::Leader | Role::Candidate, _) | (_, None) => consensus
                .voters
                .difference(&consensus.acknowledging)
                .filter(|host| **host != self.inner.host)
                .copied()
                .collect(),
            // This host follows the leader, so only the leader can be the voter that does not answer.
            (Role::Follower | Role::Learner | Role::Stopped, Some(leader)) => vec![leader],
        };
        (consensus.voters.len(), silent)
    }
}
