//! Tests of seats, and of the hosts with the data of claims.

use beemesh_protocol::state::{Assignment, JobEnd, Origin, Place};

use super::*;
use crate::cluster::placement::{self, Runs};
use Kind::{Job, PersistentVolumeClaim};

fn h(n: u8) -> HostId {
    HostId([n; 32])
}

/// Three hosts, below level 1.
fn three() -> State {
    let mut state = founded();
    let token = TokenRecord {
        id: [7; 8],
        secret_hash: [8; 32],
        expires_ms: u64::MAX,
        uses: 9,
    };
    state.apply(2, &at(0, Change::PutToken(token)));
    for n in 2..=3 {
        let admitted = state.apply(2, &at(0, admit(n, None)));
        assert!(matches!(admitted, Outcome::Admitted(_)), "{admitted:?}");
    }
    state
}

fn admit(n: u8, replaces: Option<HostId>) -> Change {
    Change::Admit {
        token: [7; 8],
        secret_hash: [8; 32],
        host: host(n, &format!("h{n}")),
        replaces,
    }
}

fn raised() -> State {
    let mut state = three();
    did(&mut state, 3, Change::RaiseLevel { level: 1 });
    state
}

fn did(state: &mut State, index: u64, change: Change) {
    let outcome = state.apply(index, &at(index * 1000, change));
    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert_eq!(State::from_snapshot(state.to_snapshot()), *state);
}

/// Applies a change that must be refused, checks that the state is unchanged, and returns the reason.
fn no(state: &mut State, index: u64, change: Change) -> String {
    let before = state.clone();
    match state.apply(index, &at(index * 1000, change)) {
        Outcome::Refused(reasons) => {
            assert_eq!(*state, before);
            reasons[0].message.clone()
        }
        other => panic!("{other:?}"),
    }
}

fn counted(replicas: u32, body: &str) -> Object {
    Object {
        replicas: Some(replicas),
        ..object(Deployment, "db", body, &[(PersistentVolumeClaim, "data")])
    }
}

fn claim() -> Object {
    object(PersistentVolumeClaim, "data", "c", &[])
}

fn job(body: &str) -> Object {
    object(Job, "job", body, &[(ConfigMap, "conf")])
}

fn conf(body: &str) -> Object {
    object(ConfigMap, "conf", body, &[])
}

fn assign(workload: &str, ordinal: u32, index: u64, from: Option<u8>, host: Option<u8>) -> Change {
    Change::Assign {
        workload: workload.into(),
        ordinal,
        index,
        from: from.map(h),
        host: host.map(h),
    }
}

fn end(index: u64, succeeded: bool, again: bool) -> Change {
    Change::EndJob {
        workload: "job".into(),
        ordinal: 0,
        index,
        succeeded,
        reason: if succeeded { "" } else { "exit code 3" }.into(),
        again,
    }
}

/// The ordinal, host and index of each seat.
fn seats(state: &State, workload: &str) -> Vec<(u32, Option<u8>, u64)> {
    let seats = state.seats(workload).iter();
    seats
        .map(|seat| (seat.ordinal, seat.host.map(|host| host.0[0]), seat.index))
        .collect()
}

fn homes(state: &State) -> Vec<u8> {
    state
        .homes("default", "data")
        .map(|host| host.0[0])
        .collect()
}

/// The hosts with a pod of a workload, the index, and whether the attempt has ended there.
fn runs(state: &State, workload: &str) -> Vec<(u8, u64, bool)> {
    let Some(workload) = state.workload(workload) else {
        return Vec::new();
    };
    let runs = state.hosts().keys().filter_map(|host| {
        let Runs { index, ended, .. } = placement::runs(state, workload, Place::first(*host))?;
        Some((host.0[0], index, ended))
    });
    let runs: Vec<_> = runs.collect();
    let hosts: Vec<_> = placement::hosts(state, workload)
        .iter()
        .map(|host| host.0[0])
        .collect();
    assert_eq!(runs.iter().map(|run| run.0).collect::<Vec<_>>(), hosts);
    runs
}

#[test]
fn what_is_there_when_seats_begin_stays_where_it_is() {
    let mut state = three();
    put(&mut state, 5, "db", vec![claim(), counted(2, "d")]);
    put(&mut state, 6, "job", vec![conf("c"), job("j")]);
    put(&mut state, 7, "all", vec![object(Pod, "all", "p", &[])]);
    assert!(no(&mut state, 8, assign("db", 0, 5, None, Some(1))).contains("assigned"));
    assert_eq!(state.to_snapshot().assignments, None);
    let names = ["db", "job", "all"];
    let before = names.map(|name| runs(&state, name));
    for index in [9, 10] {
        did(&mut state, index, Change::RaiseLevel { level: 1 });
        assert_eq!(names.map(|name| runs(&state, name)), before);
    }
    assert_eq!(
        (before[0].len(), before[1].len(), before[2].len()),
        (2, 3, 3)
    );
    let db: Vec<u8> = before[0].iter().map(|run| run.0).collect();
    assert_eq!(homes(&state), db);
    let asked = |state: &State, name: &str| placement::asked(state, state.workload(name).unwrap());
    assert_eq!(names.map(|name| asked(&state, name)), [2, 3, 3]);
    // An additional host gets the workloads that run on every host, and no others.
    did(&mut state, 11, admit(4, None));
    assert_eq!(runs(&state, "job"), before[1]);
    assert_eq!(names.map(|name| asked(&state, name)), [2, 3, 4]);
}

#[test]
fn a_seat_is_given_once_and_by_what_was_seen() {
    let mut state = raised();
    put(&mut state, 5, "db", vec![claim(), counted(2, "d")]);
    put(&mut state, 6, "all", vec![object(Pod, "all", "p", &[])]);
    assert_eq!(runs(&state, "db"), []);
    did(&mut state, 7, assign("db", 0, 5, None, Some(2)));
    for (change, words) in [
        (assign("nope", 0, 5, None, Some(1)), "not found"),
        (assign("all", 0, 6, None, Some(1)), "assigned to a host"),
        (assign("db", 0, 5, None, Some(1)), "differently"),
        (assign("db", 0, 5, Some(3), Some(1)), "differently"),
        (assign("db", 1, 4, None, Some(1)), "changed"),
        (assign("db", 1, 5, None, Some(9)), "not a member"),
        (assign("db", 1, 5, None, Some(2)), "has pod 0"),
        (assign("db", 2, 5, None, Some(1)), "no pod 2"),
        (end(7, true, false), "not found"),
    ] {
        let said = no(&mut state, 8, change);
        assert!(said.contains(words), "{said}");
    }
    did(&mut state, 9, assign("db", 1, 5, None, Some(1)));
    assert_eq!(seats(&state, "db"), [(0, Some(2), 7), (1, Some(1), 9)]);
    assert_eq!(runs(&state, "db"), [(1, 5, false), (2, 5, false)]);
    did(&mut state, 10, assign("db", 0, 5, Some(2), Some(3)));
    assert_eq!(runs(&state, "db"), [(1, 5, false), (3, 5, false)]);
    assert_eq!(homes(&state), [1, 2, 3], "data stays");
}

#[test]
fn seats_outlive_revisions_and_go_with_the_workload() {
    let mut state = raised();
    put(&mut state, 5, "db", vec![claim(), counted(3, "d")]);
    for n in 0..3 {
        did(&mut state, 6, assign("db", n, 5, None, Some(3 - n as u8)));
    }
    put(&mut state, 7, "db", vec![claim(), counted(2, "dd")]);
    assert_eq!(runs(&state, "db"), [(2, 7, false), (3, 7, false)]);
    put(&mut state, 8, "db", vec![claim(), counted(3, "ddd")]);
    assert_eq!(runs(&state, "db"), [(2, 8, false), (3, 8, false)]);
    let everywhere = Object {
        replicas: None,
        ..counted(0, "dddd")
    };
    put(&mut state, 9, "db", vec![claim(), everywhere]);
    assert_eq!(
        (seats(&state, "db").len(), runs(&state, "db").len()),
        (0, 3)
    );
    // A workload that ran on every host keeps running between its change and the leader's assignments.
    put(&mut state, 10, "db", vec![claim(), counted(2, "ddddd")]);
    assert_eq!(
        (seats(&state, "db").len(), runs(&state, "db").len()),
        (2, 2)
    );
    let delete = Change::DeleteWorkload {
        workload: "db".into(),
    };
    did(&mut state, 11, delete);
    assert_eq!(
        (seats(&state, "db"), homes(&state)),
        (vec![], vec![1, 2, 3])
    );
    let delete = Change::DeleteManifest {
        manifest: "db".into(),
    };
    did(&mut state, 12, delete);
    assert!(homes(&state).is_empty(), "the claim was deleted");
}

#[test]
fn a_job_is_attempted_until_it_ends_and_a_change_of_what_it_uses_is_none_of_the_job() {
    let mut state = raised();
    put(&mut state, 5, "job", vec![job("j")]);
    put(&mut state, 5, "conf", vec![conf("c")]);
    put(&mut state, 6, "job", vec![job("j")]);
    did(&mut state, 7, assign("job", 0, 6, None, Some(2)));
    assert_eq!(runs(&state, "job"), [(2, 7, false)]);
    for change in [assign("job", 0, 6, Some(2), Some(3)), end(6, true, false)] {
        no(&mut state, 8, change);
    }
    did(&mut state, 9, end(7, false, true));
    assert_eq!(runs(&state, "job"), [(2, 6, true)], "its logs stay");
    no(&mut state, 10, end(7, false, true));
    did(&mut state, 11, assign("job", 0, 6, Some(2), Some(3)));
    put(&mut state, 12, "conf", vec![conf("cc")]);
    assert_eq!(runs(&state, "job"), [(3, 11, false)]);
    did(&mut state, 13, end(11, false, false));
    assert_eq!(runs(&state, "job"), [(3, 11, true)]);
    let over = Assignment {
        workload: "job".into(),
        ordinal: 0,
        host: Some(h(3)),
        index: 11,
        failures: 2,
        failed_at_ms: 13_000,
        end: Some(JobEnd {
            succeeded: false,
            reason: "exit code 3".into(),
            at_ms: 13_000,
        }),
        moved: None,
        number: 0,
    };
    assert_eq!(state.seats("job"), [over]);
    put(&mut state, 14, "conf", vec![conf("ccc")]);
    no(&mut state, 15, assign("job", 0, 6, Some(3), Some(1)));
    let drain = Change::DrainHost {
        host: h(3),
        drained: true,
    };
    did(&mut state, 16, drain);
    assert_eq!(runs(&state, "job"), [(3, 11, true)]);
    put(&mut state, 17, "job", vec![job("jj")]);
    assert_eq!(seats(&state, "job"), [(0, None, 0)], "a new Job");
    did(&mut state, 18, assign("job", 0, 17, None, Some(1)));
    put(&mut state, 19, "job", vec![job("jjj")]);
    assert_eq!(runs(&state, "job"), [(1, 19, false)], "replaced in place");
    did(&mut state, 20, end(19, true, false));
    assert!(
        state.seats("job")[0]
            .end
            .as_ref()
            .is_some_and(|end| end.succeeded)
    );
}

#[test]
fn a_job_below_level_1_runs_again_with_what_it_uses_as_it_always_did() {
    let mut state = three();
    put(&mut state, 5, "conf", vec![conf("c")]);
    put(&mut state, 6, "job", vec![job("j")]);
    put(&mut state, 7, "conf", vec![conf("cc")]);
    assert_eq!(state.workload("job").map(|job| job.index), Some(7));
}

#[test]
fn a_host_that_goes_leaves_its_seats_and_a_host_in_its_place_takes_them() {
    let mut before = raised();
    put(&mut before, 4, "conf", vec![conf("c")]);
    put(&mut before, 5, "db", vec![claim(), counted(1, "d")]);
    put(&mut before, 6, "job", vec![job("j")]);
    did(&mut before, 7, assign("db", 0, 5, None, Some(2)));
    did(&mut before, 8, assign("job", 0, 6, None, Some(2)));

    let mut removed = before.clone();
    did(&mut removed, 9, Change::RemoveHost { host: h(2) });
    assert_eq!(
        (seats(&removed, "db"), homes(&removed)),
        (vec![(0, None, 0)], vec![])
    );
    assert_eq!(
        seats(&removed, "job"),
        [(0, None, 8)],
        "an attempt that is to be counted"
    );
    no(&mut removed, 10, assign("job", 0, 6, None, Some(3)));
    did(&mut removed, 11, end(8, false, true));
    assert_eq!(
        (seats(&removed, "job"), removed.seats("job")[0].failures),
        (vec![(0, None, 0)], 1)
    );
    did(&mut removed, 12, assign("job", 0, 6, None, Some(3)));

    let mut away = before.clone();
    did(&mut away, 9, assign("job", 0, 6, Some(2), None));
    assert_eq!(
        (runs(&away, "job"), seats(&away, "job")),
        (vec![], vec![(0, None, 8)])
    );

    let mut replaced = before.clone();
    did(&mut replaced, 9, admit(4, Some(h(2))));
    assert_eq!(
        (runs(&replaced, "db"), homes(&replaced)),
        (vec![(4, 5, false)], vec![4])
    );
    assert_eq!(seats(&replaced, "job"), [(0, None, 8)]);

    let mut rotated = before.clone();
    let change = admit(4, Some(h(2)));
    let origin = Origin {
        host: h(2),
        who: "uid 0".into(),
        from: "pid 1".into(),
    };
    let command = Command {
        origin: Some(origin),
        ..at(9, change)
    };
    assert!(matches!(rotated.apply(9, &command), Outcome::Admitted(_)));
    assert_eq!(
        (runs(&rotated, "db"), homes(&rotated)),
        (vec![(4, 5, false)], vec![4])
    );
    assert_eq!(runs(&rotated, "job"), [(4, 8, false)], "the same machine");

    let alone = before.recovered(ClusterId([9; 16]), host(1, "h1"));
    assert_eq!(seats(&alone, "db"), [(0, None, 0)]);
    assert!(homes(&alone).is_empty());
}

#[test]
fn a_job_for_every_host_has_a_seat_on_each_that_ends_for_itself() {
    let body = r#"{"metadata":{"annotations":{"beemesh.io/every-host":"true"}},"spec":{"backoffLimit":2}}"#;
    let mut state = raised();
    put(&mut state, 4, "conf", vec![conf("c")]);
    put(&mut state, 5, "job", vec![job(body)]);
    let rules = state.workload("job").and_then(|job| job.job).unwrap();
    assert_eq!((rules.every_host, rules.backoff_limit), (true, 2));
    for n in 0..3 {
        did(&mut state, 6, assign("job", n, 5, None, Some(n as u8 + 1)));
    }
    did(&mut state, 7, end(6, true, false));
    assert_eq!(
        runs(&state, "job"),
        [(1, 6, true), (2, 6, false), (3, 6, false)]
    );
    assert_eq!(placement::asked(&state, state.workload("job").unwrap()), 3);
    did(&mut state, 8, Change::RemoveHost { host: h(2) });
    assert_eq!(seats(&state, "job"), [(0, Some(1), 6), (2, Some(3), 6)]);
    did(&mut state, 9, admit(4, Some(h(3))));
    assert_eq!(seats(&state, "job"), [(0, Some(1), 6), (2, Some(4), 0)]);
    did(&mut state, 10, assign("job", 2, 5, Some(4), Some(4)));
    assert_eq!(runs(&state, "job"), [(1, 6, true), (4, 10, false)]);
}
