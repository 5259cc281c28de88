use beemesh_protocol::{
    ClusterId,
    state::{
        Authority, Kind, Origin, Reference, ResolvedImage, RevisionOutcome, TokenRecord,
        UserRecord, UserRole,
    },
};

use super::*;

/// Length in bytes of each text in [`every`] that has no fixed limit.
const LONG: usize = 10_000;

fn host() -> Host {
    Host {
        id: HostId([2; 32]),
        name: "h2".into(),
        addresses: vec!["a".repeat(LONG)],
        labels: BTreeMap::from([("k".repeat(LONG), "v".repeat(LONG))]),
        drained: false,
        claims_as: None,
        votes_from_ms: 0,
        lost_at_ms: 0,
        declared_lost: false,
        steady_at_ms: 0,
    }
}

fn object(kind: Kind, namespace: &str, name: &str) -> Object {
    Object {
        kind,
        namespace: namespace.into(),
        name: name.into(),
        body: vec![b'x'; LONG],
        hash: [0; 32],
        references: vec![Reference {
            kind: Kind::ConfigMap,
            name: "r".repeat(LONG),
            optional: false,
        }],
        replicas: None,
        selector: BTreeMap::from([("k".repeat(LONG), String::new())]),
    }
}

fn apply(objects: Vec<Object>) -> Change {
    Change::Apply {
        manifest: "web".into(),
        objects,
        policy: None,
        keep: false,
        if_index: None,
    }
}

fn admit(replaces: Option<HostId>) -> Change {
    Change::Admit {
        token: [8; 8],
        secret_hash: [8; 32],
        host: host(),
        replaces,
    }
}

/// The change after this one in the list of all changes. The match has no wildcard, so a new variant must be added to
/// compile.
fn after(change: &Change) -> Option<Change> {
    let id = HostId([2; 32]);
    Some(match change {
        Change::Found { .. } => apply(vec![object(Kind::Pod, "default", "web")]),
        Change::Apply { .. } => Change::DeleteWorkload {
            workload: "web".into(),
        },
        Change::DeleteWorkload { .. } => Change::DeleteManifest {
            manifest: "web".into(),
        },
        Change::DeleteManifest { .. } => Change::PutToken(TokenRecord {
            id: [8; 8],
            secret_hash: [8; 32],
            expires_ms: 9,
            uses: 1,
        }),
        Change::PutToken(_) => admit(None),
        Change::Admit { replaces: None, .. } => admit(Some(id)),
        Change::Admit { .. } => Change::PutHost(host()),
        Change::PutHost(_) => Change::RemoveHost { host: id },
        Change::RemoveHost { .. } => Change::RevokeToken { token: [8; 8] },
        Change::RevokeToken { .. } => Change::LabelHost {
            host: id,
            set: host().labels,
            remove: vec!["k".repeat(LONG)],
        },
        Change::LabelHost { .. } => Change::DrainHost {
            host: id,
            drained: true,
        },
        Change::DrainHost { drained: true, .. } => Change::DrainHost {
            host: id,
            drained: false,
        },
        Change::DrainHost { .. } => Change::DemoteHost { host: id },
        Change::DemoteHost { .. } => Change::LoseHost {
            host: id,
            declared: true,
        },
        Change::LoseHost { .. } => Change::ReturnHost {
            host: id,
            steady_at_ms: 9,
        },
        Change::ReturnHost { .. } => Change::PutAuthority {
            authority: Authority {
                certificate: vec![1; LONG],
                key: [1; 32],
                sealed: vec![1; LONG],
            },
            replaced: None,
        },
        Change::PutAuthority { .. } => Change::PutUser(UserRecord {
            name: "alice".into(),
            role: UserRole::Viewer,
            certificate: [1; 32],
            made_ms: 1,
            expires_ms: 2,
        }),
        Change::PutUser(_) => Change::RevokeUser {
            user: "alice".into(),
        },
        Change::RevokeUser { .. } => Change::SetPolicy {
            document: "p".repeat(LONG),
            if_version: None,
        },
        Change::SetPolicy { .. } => Change::RaiseLevel { level: 1 },
        Change::RaiseLevel { .. } => Change::RequireLevel { level: 2 },
        Change::RequireLevel { level: 2 } => Change::RequireLevel { level: 3 },
        Change::RequireLevel { .. } => Change::Assign {
            workload: "web".into(),
            ordinal: 0,
            index: 7,
            from: None,
            host: Some(id),
        },
        Change::Assign { .. } => Change::EndJob {
            workload: "web".into(),
            ordinal: 0,
            index: 7,
            succeeded: false,
            reason: "r".repeat(LONG),
            again: true,
        },
        Change::EndJob { .. } => Change::Roll {
            workload: "web".into(),
            index: 7,
            to: 7,
            hosts: vec![id; 32],
            numbers: vec![99; 32],
        },
        Change::Roll { .. } => Change::EndRollout {
            workload: "web".into(),
            index: 7,
            outcome: RevisionOutcome::Failed,
            reason: "r".repeat(LONG),
            images: ResolvedImages(vec![ResolvedImage {
                reference: "i".repeat(LONG),
                id: Some([7; 32]),
                digest: Some([8; 32]),
            }]),
        },
        Change::EndRollout { .. } => Change::PauseRollout {
            workload: "web".into(),
            paused: true,
        },
        Change::PauseRollout { .. } => Change::Undo {
            workload: "web".into(),
            revision: 3,
            policy: Some(1),
        },
        Change::Undo { .. } => return None,
    })
}

/// One of each change.
fn every() -> impl Iterator<Item = Change> {
    let first = Change::Found {
        cluster: ClusterId([1; 16]),
        host: host(),
    };
    std::iter::successors(Some(first), after)
}

/// The names in the audit log and the journal, and the first release, of each change. They must not change, because
/// users and tools read them.
#[test]
fn each_change_has_a_verb_a_subject_and_its_release() {
    let hosts = BTreeMap::from([(HostId([2; 32]), host())]);
    let said: Vec<String> = every()
        .map(|change| {
            let about = about(&change);
            let (noun, verb) = about.verb;
            let since = about.needs();
            let since = since.map_or_else(String::new, |(since, what)| format!(" {since} {what}"));
            format!("{noun} {verb} {}{since}", about.subject.name(&hosts))
        })
        .collect();
    let expected = [
        "cluster founded h2",
        "manifest applied web",
        "workload deleted web",
        "manifest deleted web",
        "join token created 0808080808080808",
        "host admitted h2",
        "host admitted h2 0.2.0 this",
        "host updated h2",
        "host removed h2",
        "join token revoked 0808080808080808 0.2.0 this",
        "host labelled h2 0.2.0 this",
        "host drained h2 0.2.0 this",
        "host undrained h2 0.2.0 this",
        "host demoted h2 0.2.0 this",
        "host lost h2 0.5.0 this",
        "host returned h2 0.5.0 this",
        "authority made remote API 0.2.0 this",
        "user created alice 0.2.0 this",
        "user revoked alice 0.2.0 this",
        "policy set manifests 0.2.0 this",
        "level raised 1 0.2.1 this",
        "level raised 2 0.4.0 this",
        "level raised 3 0.5.0 this",
        "workload assigned web 0.2.1 this",
        "job ended web 0.2.1 this",
        "workload moved to a revision web 0.5.0 this",
        "rollout ended web 0.4.0 this",
        "rollout paused web 0.4.0 this",
        "rollout undone web 0.4.0 this",
    ];
    assert_eq!(said, expected);
    let gone = about(&Change::RemoveHost {
        host: HostId([2; 32]),
    })
    .subject
    .name(&BTreeMap::new());
    assert_eq!(gone, HostId([2; 32]).to_string());
}

#[test]
fn no_change_takes_much_more_in_an_entry_than_is_said() {
    for change in every() {
        let command = Command {
            at_ms: 1,
            change,
            origin: Some(Origin {
                host: HostId([1; 32]),
                who: "w".repeat(LONG),
                from: "f".repeat(LONG),
            }),
        };
        let (said, is) = (size_of(&command), command.encode().len());
        let near = said.saturating_sub(REST)..=said + REST;
        assert!(
            near.contains(&is),
            "{is} of {said}: {:?}",
            about(&command.change).verb
        );
    }
}

#[test]
fn a_workload_with_the_prefix_of_claims_waits_for_the_last_upgrade() {
    for (kind, namespace, name, expected) in [
        (Kind::Pod, "default", "pvc", true),
        (Kind::Deployment, "default", "pvc", true),
        (Kind::Pod, "shop", "pvc", false),
        (Kind::ConfigMap, "default", "pvc", false),
        (Kind::Pod, "default", "web", false),
    ] {
        let change = apply(vec![
            object(Kind::Pod, "default", "other"),
            object(kind, namespace, name),
        ]);
        let needs = about(&change).needs();
        let wanted = expected.then_some((Version::new(0, 2, 1), "a workload named `pvc`"));
        assert_eq!(needs, wanted, "{kind:?} {namespace} {name}");
    }
}
