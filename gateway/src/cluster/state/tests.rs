use beemesh_protocol::{
    peer::{Action, Effect},
    state::Reference,
};

use super::*;

mod assign;

fn object(kind: Kind, name: &str, body: &str, uses: &[(Kind, &str)]) -> Object {
    Object {
        kind,
        namespace: "default".into(),
        name: name.into(),
        body: body.into(),
        hash: [u8::try_from(body.len()).unwrap(); 32],
        references: uses
            .iter()
            .map(|(kind, name)| Reference {
                kind: *kind,
                name: (*name).into(),
                optional: false,
            })
            .collect(),
        replicas: None,
        selector: BTreeMap::new(),
    }
}

fn host(byte: u8, name: &str) -> Host {
    Host {
        id: HostId([byte; 32]),
        name: name.into(),
        addresses: vec![],
        labels: BTreeMap::new(),
        drained: false,
        claims_as: None,
        votes_from_ms: 0,
    }
}

fn at(at_ms: u64, change: Change) -> Command {
    Command::unasked(at_ms, change)
}

fn put(state: &mut State, index: u64, manifest: &str, objects: Vec<Object>) -> Outcome {
    let manifest = manifest.to_owned();
    let change = Change::Apply {
        manifest,
        objects,
        policy: None,
    };
    state.apply(index, &at(index * 1000, change))
}

fn effects(of: &[(Kind, &str, u64, Action)]) -> Outcome {
    let effect = |(kind, name, revision, action): &(Kind, &str, u64, Action)| Effect {
        kind: *kind,
        name: (*name).to_owned(),
        revision: *revision,
        action: *action,
    };
    Outcome::Applied(of.iter().map(effect).collect())
}

fn revisions(state: &State) -> Vec<(&str, u64, u64)> {
    state
        .workloads()
        .map(|w| (w.name.as_str(), w.revision, w.index))
        .collect()
}

use Action::{Created, Removed, Unchanged, Updated};
use Kind::{ConfigMap, Deployment, Pod};

#[test]
fn an_identical_apply_changes_nothing() {
    let mut state = State::default();
    let objects = || {
        vec![
            object(ConfigMap, "conf", "a", &[]),
            object(Pod, "web", "b", &[(ConfigMap, "conf")]),
        ]
    };
    let first = put(&mut state, 5, "web", objects());
    assert_eq!(
        first,
        effects(&[(ConfigMap, "conf", 0, Created), (Pod, "web", 1, Created)])
    );
    let before = state.clone();
    let second = put(&mut state, 6, "web", objects());
    assert_eq!(
        second,
        effects(&[
            (ConfigMap, "conf", 0, Unchanged),
            (Pod, "web", 1, Unchanged)
        ])
    );
    assert_eq!(state, before);
}

#[test]
fn a_changed_config_map_rolls_the_workloads_that_use_it_wherever_they_came_from() {
    let mut state = State::default();
    put(
        &mut state,
        1,
        "conf",
        vec![object(ConfigMap, "conf", "a", &[])],
    );
    put(
        &mut state,
        2,
        "web",
        vec![object(Pod, "web", "b", &[(ConfigMap, "conf")])],
    );
    put(&mut state, 3, "db", vec![object(Pod, "db", "b", &[])]);
    let outcome = put(
        &mut state,
        4,
        "conf",
        vec![object(ConfigMap, "conf", "aa", &[])],
    );
    assert_eq!(
        outcome,
        effects(&[(ConfigMap, "conf", 0, Updated), (Pod, "web", 2, Updated)])
    );
    assert_eq!(revisions(&state), [("db", 1, 3), ("web", 2, 4)]);
}

#[test]
fn what_the_manifest_no_longer_has_is_removed_and_a_kind_may_change() {
    let mut state = State::default();
    put(
        &mut state,
        1,
        "m",
        vec![object(Pod, "a", "1", &[]), object(Pod, "b", "1", &[])],
    );
    let outcome = put(&mut state, 2, "m", vec![object(Deployment, "a", "1", &[])]);
    assert_eq!(
        outcome,
        effects(&[
            (Deployment, "a", 2, Created),
            (Pod, "a", 0, Removed),
            (Pod, "b", 0, Removed)
        ])
    );
    assert_eq!(revisions(&state), [("a", 2, 2)]);
}

#[test]
fn a_refused_command_names_every_reason_and_changes_nothing() {
    let mut state = State::default();
    put(
        &mut state,
        1,
        "conf",
        vec![object(ConfigMap, "conf", "a", &[])],
    );
    put(
        &mut state,
        2,
        "web",
        vec![object(Pod, "web", "b", &[(ConfigMap, "conf")])],
    );
    let before = state.clone();
    let delete = |manifest: &str| Change::DeleteManifest {
        manifest: manifest.into(),
    };
    let apply = |objects| Change::Apply {
        manifest: "x".into(),
        objects,
        policy: None,
    };
    for (change, expected) in [
        (delete("nope"), missing("manifest `nope` not found")),
        (delete("conf"), refused("ConfigMap conf is used by workload web of manifest `web`")),
        (
            Change::DeleteWorkload { workload: "nope".into() },
            missing("workload `nope` not found"),
        ),
        (
            apply(vec![
                object(Deployment, "web", "b", &[]),
                object(Pod, "y", "b", &[(ConfigMap, "gone")]),
            ]),
            vec![Refusal {
                missing: false,
                object: Some(0),
                message: "Pod web belongs to manifest `web`: apply it under that name, or delete it there first".into(),
            }],
        ),
        (
            apply(vec![object(Pod, "y", "b", &[(ConfigMap, "gone")])]),
            vec![Refusal {
                missing: false,
                object: Some(0),
                message: "Pod y uses ConfigMap gone, which is neither in this manifest nor in the cluster".into(),
            }],
        ),
        (Change::RemoveHost { host: HostId([9; 32]) }, missing(format!("host {} is not a member", HostId([9; 32])))),
    ] {
        assert_eq!(state.apply(9, &at(0, change)), Outcome::Refused(expected));
        assert_eq!(state, before);
    }
}

#[test]
fn a_file_that_only_shares_the_name_of_a_manifest_removes_nothing() {
    let mut state = State::default();
    put(
        &mut state,
        1,
        "web",
        vec![object(ConfigMap, "web", "a", &[])],
    );
    let before = state.clone();
    let outcome = put(&mut state, 2, "web", vec![object(Pod, "web", "b", &[])]);
    let reason = "manifest `web` holds ConfigMap web and nothing of this file: apply it under another name (`--name`), \
                  or delete that manifest first";
    assert_eq!(
        (outcome, state),
        (Outcome::Refused(refused(reason)), before)
    );
}

#[test]
fn a_deleted_workload_begins_again_at_revision_1_with_a_higher_index() {
    let mut state = State::default();
    put(&mut state, 1, "web", vec![object(Pod, "web", "b", &[])]);
    let delete = Change::DeleteWorkload {
        workload: "web".into(),
    };
    assert_eq!(
        state.apply(2, &at(0, delete)),
        Outcome::Deleted(vec!["web".into()])
    );
    assert_eq!(state, State::default());
    put(&mut state, 3, "web", vec![object(Pod, "web", "b", &[])]);
    assert_eq!(revisions(&state), [("web", 1, 3)]);
}

#[test]
fn a_token_admits_as_often_as_it_says_and_members_need_none() {
    let mut state = State::default();
    state.apply(
        1,
        &at(
            0,
            Change::Found {
                cluster: ClusterId([1; 16]),
                host: host(1, "h1"),
            },
        ),
    );
    let token = TokenRecord {
        id: [7; 8],
        secret_hash: [8; 32],
        expires_ms: 100,
        uses: 1,
    };
    state.apply(2, &at(0, Change::PutToken(token)));
    let mut ask = |at_ms, hash, host| {
        state.apply(
            3,
            &at(
                at_ms,
                Change::Admit {
                    token: [7; 8],
                    secret_hash: [hash; 32],
                    host,
                    replaces: None,
                },
            ),
        )
    };
    let unknown = Outcome::Refused(refused(
        "the join token is unknown, used up, revoked or expired: create a new token with `beemesh token create`",
    ));
    assert_eq!(ask(50, 9, host(2, "h2")), unknown, "wrong secret");
    assert_eq!(ask(100, 8, host(2, "h2")), unknown, "expired");
    assert!(
        matches!(ask(50, 8, host(2, "h1")), Outcome::Refused(_)),
        "name is taken"
    );
    assert!(matches!(ask(50, 8, host(2, "h2")), Outcome::Admitted(members) if members.len() == 2));
    assert_eq!(ask(50, 8, host(3, "h3")), unknown, "used up");
    assert!(
        matches!(ask(500, 8, host(2, "h2")), Outcome::Admitted(_)),
        "a member asks again"
    );
}

#[test]
fn a_new_host_takes_the_place_of_a_lost_one_in_one_change() {
    let mut state = founded();
    let lost = HostId([1; 32]);
    let token = TokenRecord {
        id: [7; 8],
        secret_hash: [8; 32],
        expires_ms: 100,
        uses: 1,
    };
    let label = Change::LabelHost {
        host: lost,
        set: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        remove: vec![],
    };
    let drain = Change::DrainHost {
        host: lost,
        drained: true,
    };
    let demote = Change::DemoteHost { host: lost };
    let moved = Change::PutHost(host(1, "h1"));
    for change in [Change::PutToken(token), label, drain, demote, moved] {
        assert_eq!(state.apply(2, &at(0, change)), Outcome::Done);
    }
    assert_eq!(state.hosts()[&lost].votes_from_ms, DEMOTED_MS);
    let admit = |hash, replaces| Change::Admit {
        token: [7; 8],
        secret_hash: [hash; 32],
        host: host(2, "h1"),
        replaces,
    };
    let before = state.clone();
    for (change, words) in [
        (admit(8, None), "--replace h1"),
        (admit(9, Some(lost)), "token is unknown"),
        (admit(8, Some(HostId([3; 32]))), "is not a member"),
    ] {
        match state.apply(3, &at(0, change)) {
            Outcome::Refused(reasons) => {
                assert!(reasons[0].message.contains(words), "{reasons:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(state, before, "the token can still be used");
    // The answer may be lost, so it is asked for twice.
    for _ in 0..2 {
        let admitted = state.apply(3, &at(0, admit(8, Some(lost))));
        assert!(matches!(admitted, Outcome::Admitted(members) if members.len() == 1));
    }
    let expected = Host {
        labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        drained: true,
        claims_as: Some(lost),
        ..host(2, "h1")
    };
    assert_eq!(state.hosts().values().collect::<Vec<_>>(), [&expected]);
    assert_eq!(state.tokens(50).count(), 0);
}

#[test]
fn a_revoked_token_admits_nobody() {
    let mut state = State::default();
    let token = TokenRecord {
        id: [7; 8],
        secret_hash: [8; 32],
        expires_ms: 100,
        uses: 3,
    };
    state.apply(1, &at(0, Change::PutToken(token.clone())));
    assert_eq!(state.tokens(99).collect::<Vec<_>>(), [&token]);
    assert_eq!(state.tokens(100).count(), 0, "expired");
    let mut revoke = |id| state.apply(2, &at(0, Change::RevokeToken { token: [id; 8] }));
    assert!(
        matches!(revoke(6), Outcome::Refused(_)),
        "there is no such token"
    );
    assert_eq!(revoke(7), Outcome::Done);
    assert!(matches!(revoke(7), Outcome::Refused(_)), "it is gone");
    let admit = Change::Admit {
        token: [7; 8],
        secret_hash: [8; 32],
        host: host(2, "h2"),
        replaces: None,
    };
    assert!(matches!(state.apply(3, &at(0, admit)), Outcome::Refused(_)));
    assert_eq!(state, State::default());
}

fn founded() -> State {
    let mut state = State::default();
    let found = Change::Found {
        cluster: ClusterId([1; 16]),
        host: host(1, "h1"),
    };
    state.apply(1, &at(0, found));
    state
}

#[test]
fn a_host_keeps_its_labels_and_its_drain_when_its_address_changes() {
    let mut state = founded();
    let id = HostId([1; 32]);
    let label = |set: &[(&str, &str)], remove: &[&str]| Change::LabelHost {
        host: id,
        set: set
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        remove: remove.iter().map(|key| (*key).to_owned()).collect(),
    };
    let drain = |host| Change::DrainHost {
        host,
        drained: true,
    };
    for change in [
        label(&[("disk", "hdd"), ("zone", "a")], &[]),
        label(&[("disk", "ssd")], &["zone", "none"]),
        drain(id),
        Change::PutHost(host(1, "new")),
    ] {
        assert_eq!(state.apply(2, &at(0, change)), Outcome::Done);
    }
    let expected = Host {
        labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        drained: true,
        ..host(1, "new")
    };
    assert_eq!(state.hosts()[&id], expected);
    assert_eq!(State::from_snapshot(state.to_snapshot()), state);
    let before = state.clone();
    let many: Vec<_> = (0..LABELS_MAX).map(|n| format!("l{n}")).collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "")).collect();
    for change in [label(&many, &[]), drain(HostId([2; 32]))] {
        assert!(matches!(
            state.apply(3, &at(0, change)),
            Outcome::Refused(_)
        ));
    }
    assert_eq!(state, before);
}

#[test]
fn a_snapshot_holds_everything() {
    let mut state = founded();
    let token = TokenRecord {
        id: [7; 8],
        secret_hash: [8; 32],
        expires_ms: 100,
        uses: 1,
    };
    state.apply(2, &at(0, Change::PutToken(token)));
    put(
        &mut state,
        3,
        "conf",
        vec![object(ConfigMap, "conf", "a", &[])],
    );
    put(
        &mut state,
        4,
        "web",
        vec![
            object(Pod, "web", "b", &[(ConfigMap, "conf")]),
            object(Pod, "db", "b", &[]),
        ],
    );
    put(
        &mut state,
        5,
        "conf",
        vec![object(ConfigMap, "conf", "aa", &[])],
    );
    assert_eq!(State::from_snapshot(state.to_snapshot()), state);
}
