//! Values of the replies between gateways.

use beemesh_protocol::{
    peer::{self, Action, Committed, Effect, Outcome, Refusal},
    state::Kind,
};

use super::{host, member, raft_values::log_id};

pub(super) fn peer_replies() -> [peer::Reply; 11] {
    let actions = [
        Action::Created,
        Action::Updated,
        Action::Unchanged,
        Action::Removed,
    ];
    let effects = actions.map(|action| Effect {
        kind: Kind::Job,
        name: "web".into(),
        revision: 2,
        action,
    });
    let outcomes = [
        Outcome::Done,
        Outcome::Applied(effects.into()),
        Outcome::Deleted(vec!["web".into(), "shop_web".into()]),
        Outcome::Admitted(vec![member()]),
        Outcome::Refused(vec![
            Refusal {
                missing: true,
                object: Some(0),
                message: "no workload `web`".into(),
            },
            Refusal {
                missing: false,
                object: None,
                message: "".into(),
            },
        ]),
    ];
    let committed = outcomes.map(|outcome| Committed { index: 9, outcome });
    [
        peer::ReplyBody::Committed(committed.into()),
        peer::ReplyBody::ReadIndex(Some(log_id(9))),
        peer::ReplyBody::ReadIndex(None),
        peer::ReplyBody::NotLeader(Some(host(2))),
        peer::ReplyBody::NotLeader(None),
        peer::ReplyBody::Noted,
        peer::ReplyBody::Failed(peer::Failure::Other("stopping".into())),
        peer::ReplyBody::PreVoted(true),
        peer::ReplyBody::PreVoted(false),
        peer::ReplyBody::Leased(vec!["db".into()]),
        peer::ReplyBody::Leased(vec![]),
    ]
    .map(|body| peer::Reply { id: 3, body })
}
