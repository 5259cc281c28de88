//! Values of Raft's messages and files.

use beemesh_protocol::{
    raft::{Entry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Vote},
    state::Command,
};

use super::host;

pub(super) fn vote() -> Vote {
    Vote {
        term: 3,
        node: host(1),
        committed: true,
    }
}

pub(super) fn log_id(index: u64) -> LogId {
    LogId {
        term: 2,
        node: host(2),
        index,
    }
}

fn membership() -> Membership {
    Membership {
        configs: vec![vec![host(1)], vec![host(1), host(2)]],
        nodes: vec![host(1), host(2), host(3)],
    }
}

pub(super) fn meta() -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(log_id(9)),
        membership: StoredMembership {
            log_id: Some(log_id(4)),
            membership: membership(),
        },
        id: "9-1".into(),
    }
}

pub(super) fn entries() -> [Entry; 3] {
    let commands = Payload::Commands(vec![
        super::command(),
        Command {
            at_ms: 2,
            change: super::changes()[7].clone(),
            origin: None,
        },
    ]);
    let [first, second, third] = [Payload::Blank, commands, Payload::Membership(membership())];
    [(7, first), (8, second), (9, third)].map(|(index, payload)| Entry {
        log_id: log_id(index),
        payload,
    })
}
