//! Values of messages about the policy.

use beemesh_protocol::state::{Change, PolicyRecord};

use super::command;

pub(super) fn changes() -> [Change; 3] {
    let document = record().document;
    let Change::Apply {
        manifest, objects, ..
    } = command().change
    else {
        unreachable!("it is an apply")
    };
    [
        Change::Apply {
            manifest,
            objects,
            policy: Some(3),
            keep: false,
            if_index: None,
        },
        Change::SetPolicy {
            document: document.clone(),
            if_version: Some(2),
        },
        Change::SetPolicy {
            document,
            if_version: None,
        },
    ]
}

pub(super) fn record() -> PolicyRecord {
    PolicyRecord {
        version: 3,
        index: 12,
        at_ms: 8,
        document: "privileged: true\n".into(),
    }
}
