//! Tests of manifests and of the revisions of their workloads.

use super::*;

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
        keep: false,
        if_index: None,
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
                message: "Pod web belongs to manifest `web`: apply it with `--name web`, or delete it there first".into(),
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
    let reason = "manifest `web` contains ConfigMap web and no object of this file: apply the file under another name (`--name`), \
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
fn two_changes_of_a_workload_in_one_log_entry_make_one_revision() {
    let mut state = founded();
    state.apply(2, &at(0, Change::RequireLevel { level: 2 }));
    for (index, body) in [(3, "a"), (4, "bb"), (4, "ccc")] {
        put(
            &mut state,
            index,
            "web",
            vec![object(Pod, "web", body, &[])],
        );
    }
    let kept = state.revisions("web").iter();
    let kept: Vec<_> = kept.map(|one| (one.number, one.index)).collect();
    assert_eq!(kept, [(1, 3), (3, 4)]);
    let web = state.workload("web").unwrap();
    assert_eq!(state.contents(web, 4).1.body, b"ccc");
    assert_eq!(state.rollout("web").unwrap().base, 3);
    assert_eq!(State::from_snapshot(state.to_snapshot()), state);
}
