//! openraft's types for this cluster, and their conversion to and from the protocol's types.
//!
//! Pure. openraft's types stay inside `raft/`; all other modules, the wire and the disk use the protocol's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use beemesh_protocol::{
    HostId,
    peer::Outcome,
    raft::{self, Payload},
    state::Command,
};
use bytes::Bytes;
use openraft::{EmptyNode, EntryPayload, ServerState};

use crate::cluster::consensus::Role;

/// openraft's id of a node is the host's id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) HostId);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// openraft's storage test suite numbers its nodes.
#[cfg(test)]
impl From<u64> for NodeId {
    fn from(number: u64) -> Self {
        let mut key = [0; 32];
        key[24..].copy_from_slice(&number.to_be_bytes());
        Self(HostId(key))
    }
}

/// The commands of one entry, shared between the log's cache, replication and the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) commands: Arc<Vec<Command>>,
    /// Until the entry is in a log: the only leader whose log may receive the commands. `None` allows any leader.
    pub(crate) only: Option<LeaderId>,
}

openraft::declare_raft_types!(
    /// The types that Beemesh gives to openraft.
    pub(crate) TypeConfig:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = NodeId,
        Node = EmptyNode,
        SnapshotData = Bytes,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<NodeId>;
/// The leader that appended an entry. Leaders are ordered by term and then by host: one term can have two leaders, one
/// after the other.
pub(crate) type LeaderId = openraft::LeaderId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type Membership = openraft::Membership<NodeId, EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, EmptyNode>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;
pub(crate) type RaftMetrics = openraft::RaftMetrics<NodeId, EmptyNode>;

pub(crate) fn role_in(state: ServerState) -> Role {
    match state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

/// Returns the last leadership that a node with this vote can have had.
pub(crate) fn last_led(vote: &Vote, node: NodeId) -> LeaderId {
    let LeaderId { term, .. } = vote.leader_id;
    let own = LeaderId::new(term, node);
    if own < vote.leader_id || (own == vote.leader_id && vote.committed) {
        own
    } else {
        LeaderId::new(term.saturating_sub(1), node)
    }
}

/// Returns true if the nodes that are `there` form a majority. During a membership change they must form one in both
/// sets of voters.
pub(crate) fn is_majority(membership: &Membership, there: impl Fn(&NodeId) -> bool) -> bool {
    let majority = |voters: &BTreeSet<NodeId>| {
        voters.iter().filter(|node| there(node)).count() > voters.len() / 2
    };
    membership.get_joint_config().iter().all(majority)
}

pub(crate) fn vote_in(vote: raft::Vote) -> Vote {
    Vote {
        leader_id: LeaderId::new(vote.term, NodeId(vote.node)),
        committed: vote.committed,
    }
}

pub(crate) fn vote_out(vote: &Vote) -> raft::Vote {
    raft::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id.0,
        committed: vote.committed,
    }
}

pub(crate) fn log_id_in(id: raft::LogId) -> LogId {
    LogId::new(LeaderId::new(id.term, NodeId(id.node)), id.index)
}

pub(crate) fn log_id_out(id: &LogId) -> raft::LogId {
    raft::LogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id.0,
        index: id.index,
    }
}

pub(crate) fn membership_in(membership: raft::Membership) -> Membership {
    let nodes: BTreeMap<_, _> = membership
        .nodes
        .into_iter()
        .map(|host| (NodeId(host), EmptyNode {}))
        .collect();
    Membership::new(
        membership
            .configs
            .into_iter()
            .map(|config| config.into_iter().map(NodeId).collect())
            .collect(),
        nodes,
    )
}

pub(crate) fn membership_out(membership: &Membership) -> raft::Membership {
    raft::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|config| config.iter().map(|node| node.0).collect())
            .collect(),
        nodes: membership.nodes().map(|(node, _)| node.0).collect(),
    }
}

pub(crate) fn stored_in(stored: raft::StoredMembership) -> StoredMembership {
    StoredMembership::new(
        stored.log_id.map(log_id_in),
        membership_in(stored.membership),
    )
}

pub(crate) fn stored_out(stored: &StoredMembership) -> raft::StoredMembership {
    raft::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_out),
        membership: membership_out(stored.membership()),
    }
}

pub(crate) fn meta_in(meta: raft::SnapshotMeta) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: meta.last_log_id.map(log_id_in),
        last_membership: stored_in(meta.membership),
        snapshot_id: meta.id,
    }
}

pub(crate) fn meta_out(meta: &SnapshotMeta) -> raft::SnapshotMeta {
    raft::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_out),
        membership: stored_out(&meta.last_membership),
        id: meta.snapshot_id.clone(),
    }
}

pub(crate) fn entry_in(entry: raft::Entry) -> Entry {
    Entry {
        log_id: log_id_in(entry.log_id),
        payload: match entry.payload {
            Payload::Blank => EntryPayload::Blank,
            Payload::Commands(commands) => EntryPayload::Normal(Batch {
                commands: Arc::new(commands),
                only: None,
            }),
            Payload::Membership(membership) => EntryPayload::Membership(membership_in(membership)),
        },
    }
}

pub(crate) fn entry_out(entry: &Entry) -> raft::Entry {
    raft::Entry {
        log_id: log_id_out(&entry.log_id),
        payload: match &entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Normal(batch) => Payload::Commands(batch.commands.to_vec()),
            EntryPayload::Membership(membership) => Payload::Membership(membership_out(membership)),
        },
    }
}

/// Returns the entry as it goes into a log. Commands that were meant for another leader's log are removed and leave an
/// empty entry: openraft has already assigned the index.
pub(crate) fn for_its_leader(mut entry: Entry) -> Entry {
    if let EntryPayload::Normal(batch) = &mut entry.payload {
        let only = batch.only.take();
        if only.is_some_and(|only| only != entry.log_id.leader_id) {
            batch.commands = Arc::default();
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_led_by_its_vote_at_most_what_comes_before_it() {
        let leader = |term, node: u64| LeaderId::new(term, NodeId::from(node));
        let vote = |term, node, committed| Vote {
            leader_id: leader(term, node),
            committed,
        };
        for (vote, led) in [
            (vote(4, 2, true), leader(4, 2)),
            (vote(4, 2, false), leader(3, 2)),
            // It may have led earlier in the same term than the other leader.
            (vote(4, 3, true), leader(4, 2)),
            (vote(4, 1, true), leader(3, 2)),
        ] {
            assert_eq!(last_led(&vote, NodeId::from(2)), led, "{vote}");
        }
    }
}
