//! Values of messages that were added with revisions and rollouts.

use std::collections::BTreeMap;

use beemesh_protocol::{
    HostId, Uid,
    peer::{self, Action, Committed, Effect, Outcome},
    state::{
        Change, HostRevision, Identities, Kind, Object, ObjectIdentity, ResolvedImage,
        ResolvedImages, RevisionEnd, RevisionOutcome, RevisionRecord, Revisions, RolloutPhase,
        RolloutRecord,
    },
};

fn host(n: u8) -> HostId {
    HostId([n; 32])
}

fn object() -> Object {
    Object {
        kind: Kind::Pod,
        namespace: "default".into(),
        name: "web".into(),
        body: b"{\"kind\":\"Pod\"}".into(),
        hash: [4; 32],
        references: vec![],
        replicas: None,
        selector: BTreeMap::new(),
    }
}

pub(super) fn identities() -> Identities {
    Identities {
        created: 5,
        objects: vec![ObjectIdentity {
            uid: Uid([3; 16]),
            generation: 2,
            index: 9,
        }],
    }
}

pub(super) fn images() -> ResolvedImages {
    let image = |reference: &str, id, digest| ResolvedImage {
        reference: reference.into(),
        id,
        digest,
    };
    ResolvedImages(vec![
        image("r.example/app:latest", Some([6; 32]), Some([7; 32])),
        image("localhost/one", Some([8; 32]), None),
        image("localhost/two", None, Some([9; 32])),
    ])
}

pub(super) fn ready_with_images() -> Change {
    Change::EndRollout {
        workload: "web".into(),
        index: 9,
        outcome: RevisionOutcome::Ready,
        reason: String::new(),
        images: images(),
    }
}

pub(super) fn revisions_with_images() -> Revisions {
    let mut kept = revisions();
    for (at, one) in kept.revisions.iter_mut().enumerate() {
        one.images = images();
        one.pinned = at % 2 == 1;
    }
    kept
}

pub(super) fn changes() -> [Change; 9] {
    use RevisionOutcome::{Failed, Ready, RolledBack};
    let end = |outcome, reason: &str| Change::EndRollout {
        workload: "web".into(),
        index: 9,
        outcome,
        reason: reason.into(),
        images: ResolvedImages::default(),
    };
    [
        Change::RequireLevel { level: 2 },
        Change::Apply {
            manifest: "web".into(),
            objects: vec![object()],
            policy: Some(3),
            keep: true,
            if_index: Some(8),
        },
        Change::Roll {
            workload: "web".into(),
            index: 9,
            to: 9,
            hosts: vec![host(2), host(3)],
            numbers: vec![],
        },
        end(Ready, "h3 is unreachable and follows when it returns"),
        end(RolledBack, "h1: app: exit 127: not found"),
        end(Failed, ""),
        Change::PauseRollout {
            workload: "web".into(),
            paused: true,
        },
        Change::Undo {
            workload: "web".into(),
            revision: 2,
            policy: Some(3),
        },
        Change::Undo {
            workload: "web".into(),
            revision: 2,
            policy: None,
        },
    ]
}

pub(super) fn revisions() -> Revisions {
    use RevisionOutcome::{Failed, Ready, RolledBack, Superseded};
    let one = |revision, end: Option<RevisionOutcome>| RevisionRecord {
        workload: "web".into(),
        revision,
        index: 6 + revision,
        at_ms: 1_800_000_000_000,
        who: "uid 0".into(),
        cause: "new image".into(),
        objects: vec![[4; 32], [5; 32]],
        end: end.map(|outcome| RevisionEnd {
            outcome,
            reason: "h1: app: exit 127".into(),
            at_ms: 1_800_000_000_001,
        }),
        images: ResolvedImages::default(),
        pinned: false,
    };
    let outcomes = [
        None,
        Some(Ready),
        Some(RolledBack),
        Some(Failed),
        Some(Superseded),
    ];
    let rollout = |workload: &str, phase, hosts| RolloutRecord {
        workload: workload.into(),
        base: 7,
        hosts,
        phase,
        paused: false,
        moved_at_ms: 1_800_000_000_002,
    };
    let on = vec![HostRevision {
        host: host(2),
        index: 9,
        number: 0,
    }];
    Revisions {
        objects: vec![object().into()],
        revisions: (1..).zip(outcomes).map(|(n, end)| one(n, end)).collect(),
        rollouts: vec![
            rollout("a", RolloutPhase::Rolling, on),
            rollout("b", RolloutPhase::RollingBack, vec![]),
            rollout("c", RolloutPhase::Halted, vec![]),
        ],
    }
}

/// A rollout of pods beside each other, from level 3 on.
pub(super) fn beside() -> Revisions {
    let mut all = revisions();
    if let Some(first) = all.rollouts.first_mut() {
        first.hosts = [0, 1]
            .map(|number| HostRevision {
                host: host(2),
                index: 9,
                number,
            })
            .to_vec();
    }
    all
}

pub(super) fn kept() -> peer::Reply {
    let effect = Effect {
        kind: Kind::ConfigMap,
        name: "conf".into(),
        revision: 0,
        action: Action::Kept,
    };
    peer::Reply {
        id: 3,
        body: peer::ReplyBody::Committed(vec![Committed {
            index: 9,
            outcome: Outcome::Applied(vec![effect]),
        }]),
    }
}
