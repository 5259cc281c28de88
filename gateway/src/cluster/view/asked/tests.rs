use beemesh_protocol::{api, state::Change};
use serde_json::json;

use super::super::tests::{changed, h, pod, report, scene, with};
use super::*;

/// The API's form of a Deployment in the scene of three hosts, of which `drained` are drained, after each host that
/// must run it does.
fn shown(replicas: Option<u32>, selector: &[(&str, &str)], drained: &[u8]) -> api::Workload {
    let mut scene = scene();
    for host in drained {
        let (host, drained) = (h(*host), true);
        changed(&mut scene, 7, Change::DrainHost { host, drained });
    }
    let apply = Change::Apply {
        manifest: "five".into(),
        objects: vec![Object {
            kind: Kind::Deployment,
            replicas,
            ..pod("five", selector)
        }],
        policy: None,
        keep: false,
        if_index: None,
    };
    changed(&mut scene, 8, apply);
    let workload = scene.state.workload("five").unwrap().clone();
    let wanted = scene.wanted(&workload);
    for host in [1, 2, 3]
        .into_iter()
        .filter(|host| wanted.contains(&Place::first(h(*host))))
    {
        with(
            &mut scene,
            host,
            8,
            vec![report("five", 8, Phase::Running, 2)],
        );
    }
    scene.workload("five").unwrap()
}

#[test]
fn what_runs_is_counted_against_what_was_asked_for() {
    let ssd = [("disk", "ssd")];
    let second = [("n", "2")];
    for (replicas, selector, drained, counts, reason) in [
        (None, &[][..], &[][..], (3, 3), ""),
        (Some(2), &[], &[], (2, 2), ""),
        (Some(0), &[], &[], (0, 0), ""),
        (Some(0), &ssd, &[], (0, 0), ""),
        (None, &[], &[3], (2, 2), ""),
        (
            Some(5),
            &[],
            &[],
            (3, 5),
            "5 replicas are requested, and 3 hosts can run one each, because each runs one until all hosts have run Beemesh 0.5.0 for ten minutes: h1, h2 and h3",
        ),
        (
            Some(3),
            &[],
            &[3],
            (2, 3),
            "3 replicas are requested, and 2 hosts can run one each, because each runs one until all hosts have run Beemesh 0.5.0 for ten minutes: h1 and h2; h3 is drained",
        ),
        (
            Some(2),
            &second,
            &[],
            (1, 2),
            "2 replicas are requested, and 1 host matches nodeSelector n=2, for one, because each runs one until all hosts have run Beemesh 0.5.0 for ten minutes: h2",
        ),
        (
            None,
            &ssd,
            &[],
            (0, 0),
            "no host matches nodeSelector disk=ssd",
        ),
        (
            Some(1),
            &ssd,
            &[],
            (0, 1),
            "no host matches nodeSelector disk=ssd",
        ),
        (
            None,
            &second,
            &[2],
            (0, 0),
            "every host that matches nodeSelector n=2 is drained: h2",
        ),
        (None, &[], &[1, 2, 3], (0, 0), "every host is drained"),
    ] {
        let five = shown(replicas, selector, drained);
        assert_eq!((five.ready, five.asked), counts, "{five:?}");
        assert_eq!(five.reason, reason);
        assert_eq!(
            (five.settled, five.stuck),
            (reason.is_empty(), !reason.is_empty())
        );
    }
}

#[test]
fn a_label_that_hosts_have_not_given_themselves_yet_is_waited_for() {
    let os = [("kubernetes.io/os", "linux")];
    let five = shown(None, &os, &[]);
    assert_eq!(
        five.reason,
        "no host matches nodeSelector kubernetes.io/os=linux"
    );
    assert!(!five.settled && !five.stuck, "{five:?}");
}

#[test]
fn an_apply_says_what_the_cluster_lacks() {
    let state = scene().state;
    let lacks = |kind, replicas, selector: &[(&str, &str)]| {
        let object = Object {
            kind,
            replicas,
            ..pod("five", selector)
        };
        let (field, message) = lack(&object, state.hosts(), state.level()).unwrap_or_default();
        format!("{field}: {message}")
    };
    use Kind::{ConfigMap, Deployment, Pod};
    assert_eq!(lacks(Deployment, Some(3), &[]), ": ");
    assert_eq!(lacks(Pod, None, &[("n", "2")]), ": ");
    assert_eq!(lacks(Deployment, Some(0), &[("n", "9")]), ": ");
    assert_eq!(lacks(ConfigMap, None, &[]), ": ");
    assert_eq!(
        lacks(Pod, None, &[("beta.kubernetes.io/arch", "arm64")]),
        ": "
    );
    assert_eq!(
        lacks(Deployment, Some(4), &[]),
        "spec.replicas: 4 replicas are requested, and 3 hosts can run one each, because each runs one until all hosts have run Beemesh 0.5.0 for ten minutes: h1, h2 and h3"
    );
    let with = |spec: &str, replicas| {
        let mut object = pod("five", &[]);
        object.body = format!(r#"{{"metadata":{{"name":"five"}},"spec":{{{spec}}}}}"#).into();
        object.replicas = Some(replicas);
        lack(&object, state.hosts(), 3).map(|(_, message)| message)
    };
    assert_eq!(with("", 4), None, "side by side");
    let words = "4 replicas are requested, and 3 hosts can run one each, because the network of its host allows one on each host: h1, h2 and h3";
    assert_eq!(with(r#""hostNetwork":true"#, 4).as_deref(), Some(words));
    let words = "400 replicas are requested, and 3 hosts can run 100 each: h1, h2 and h3";
    assert_eq!(with("", 400).as_deref(), Some(words));
    assert_eq!(
        lacks(Pod, None, &[("n", "9")]),
        "spec.nodeSelector: no host matches nodeSelector n=9"
    );
}

#[test]
fn a_pod_is_ready_while_it_runs_and_settled_while_no_container_has_ended_lately() {
    let ended = "side ended with 1 3 min ago";
    for (phase, healthy, message, ready, settled, stuck) in [
        (Phase::Running, 2, "", true, true, false),
        (Phase::Running, 2, ended, true, false, false),
        (Phase::Running, 1, "", false, false, false),
        (Phase::Succeeded, 0, "", true, true, false),
        (Phase::Starting, 2, "", false, false, false),
        (Phase::Failed, 0, "no image", false, false, true),
        (Phase::Stopped, 0, "stopped", false, false, true),
    ] {
        let mut scene = scene();
        let report = WorkloadReport {
            message: message.into(),
            ..report("lone", 6, phase, healthy)
        };
        with(&mut scene, 2, 6, vec![report]);
        let lone = scene.workload("lone").unwrap();
        let told = (lone.ready == 1, lone.settled, lone.stuck);
        let expected = (ready, settled, stuck);
        assert_eq!(told, expected, "{phase:?} {healthy} {message}");
        scene.reachable.remove(&h(2));
        let lone = scene.workload("lone").unwrap();
        assert_eq!((lone.ready, lone.settled, lone.stuck), (0, false, false));
    }
}

#[test]
fn an_author_may_ask_for_longer() {
    let object = |kind, body: serde_json::Value| Object {
        kind,
        body: body.to_string().into_bytes(),
        ..pod("web", &[])
    };
    let asks = json!({"spec": {"minReadySeconds": 30}});
    for (object, expected) in [
        (object(Kind::Deployment, asks.clone()), 30),
        (object(Kind::DaemonSet, asks.clone()), 30),
        (object(Kind::Pod, asks), 0),
        (object(Kind::Deployment, json!({"spec": {}})), 0),
        (
            object(Kind::Deployment, json!({"spec": {"minReadySeconds": -1}})),
            0,
        ),
    ] {
        assert_eq!(min_ready_seconds(&object), expected, "{object:?}");
    }
}

/// The scene at level 1 with this object, committed at log index 8.
fn seated(object: Object) -> Scene {
    let mut scene = scene();
    changed(&mut scene, 7, Change::RaiseLevel { level: 1 });
    let apply = Change::Apply {
        manifest: object.name.clone(),
        objects: vec![object],
        policy: None,
        keep: false,
        if_index: None,
    };
    changed(&mut scene, 8, apply);
    scene
}

fn job(annotations: serde_json::Value) -> Object {
    let body = json!({"metadata": {"annotations": annotations}, "spec": {"backoffLimit": 1}});
    Object {
        kind: Kind::Job,
        body: body.to_string().into_bytes(),
        ..pod("job", &[])
    }
}

/// At this log index, the leader assigns the pod of this ordinal, or the next attempt of the Job, to a host.
fn given(scene: &mut Scene, index: u64, (name, ordinal): (&str, u32), from: Option<u8>, to: u8) {
    let assign = Change::Assign {
        workload: name.into(),
        ordinal,
        index: 8,
        from: from.map(h),
        host: Some(h(to)),
    };
    changed(scene, index, assign);
}

/// The attempt that began at log index `attempt` ends.
fn over(scene: &mut Scene, index: u64, ordinal: u32, attempt: u64, ended: Result<(), bool>) {
    let end = Change::EndJob {
        workload: "job".into(),
        ordinal,
        index: attempt,
        succeeded: ended.is_ok(),
        reason: "container c ended with code 3".into(),
        again: ended == Err(true),
    };
    changed(scene, index, end);
}

/// The host reports its attempt, with its end if `ended`.
fn says(scene: &mut Scene, host: u8, index: u64, phase: Phase, healthy: u32, ended: bool) {
    let report = WorkloadReport {
        ended,
        ..report("job", index, phase, healthy)
    };
    with(scene, host, index, vec![report]);
}

/// Requested and ready pods; whether it is settled and stuck; the reason.
fn told(scene: &Scene, name: &str) -> ((u32, u32), (bool, bool), String) {
    let one = scene.workload(name).unwrap();
    ((one.ready, one.asked), (one.settled, one.stuck), one.reason)
}

#[test]
fn a_job_is_over_when_the_cluster_has_recorded_its_end() {
    let mut scene = seated(job(json!({})));
    let none = "0 of 1 pods have a host so far".to_owned();
    assert_eq!(told(&scene, "job"), ((0, 1), (false, false), none));
    given(&mut scene, 9, ("job", 0), None, 2);
    let quiet = |counts, ends| (counts, ends, String::new());
    let waits = quiet((0, 1), (false, false));
    assert_eq!(told(&scene, "job"), waits);
    says(&mut scene, 2, 9, Phase::Running, 2, false);
    assert_eq!(told(&scene, "job"), quiet((1, 1), (true, false)));
    // The attempt has failed, and the leader has not decided yet whether to retry.
    says(&mut scene, 2, 9, Phase::Failed, 0, true);
    assert_eq!(told(&scene, "job"), waits);
    over(&mut scene, 10, 0, 9, Err(true));
    assert_eq!(told(&scene, "job"), waits);
    // The host still reports the end of the last attempt.
    given(&mut scene, 11, ("job", 0), Some(2), 2);
    assert_eq!(told(&scene, "job"), waits);
    says(&mut scene, 2, 11, Phase::Failed, 0, true);
    over(&mut scene, 12, 0, 11, Err(false));
    assert_eq!(told(&scene, "job"), quiet((0, 1), (false, true)));
    scene.reachable.remove(&h(2));
    assert_eq!(told(&scene, "job"), quiet((0, 1), (false, true)));
    changed(&mut scene, 13, Change::RemoveHost { host: h(2) });
    let (counts, ends, reason) = told(&scene, "job");
    assert_eq!((counts, ends), ((0, 1), (false, true)));
    assert!(
        reason.ends_with("container c ended with code 3"),
        "{reason}"
    );
}

#[test]
fn a_job_that_is_done_stays_done_whatever_becomes_of_its_host() {
    let mut scene = seated(job(json!({})));
    given(&mut scene, 9, ("job", 0), None, 2);
    says(&mut scene, 2, 9, Phase::Succeeded, 0, true);
    over(&mut scene, 10, 0, 9, Ok(()));
    let done = ((1, 1), (true, false), String::new());
    assert_eq!(told(&scene, "job"), done);
    let drained = Change::DrainHost {
        host: h(2),
        drained: true,
    };
    changed(&mut scene, 11, drained);
    assert_eq!(told(&scene, "job"), done);
    scene.reachable.remove(&h(2));
    assert_eq!(told(&scene, "job"), done);
    changed(&mut scene, 12, Change::RemoveHost { host: h(2) });
    assert_eq!(told(&scene, "job"), done);
}

#[test]
fn a_job_for_every_host_is_counted_by_hosts() {
    let mut scene = seated(job(json!({"beemesh.io/every-host": "true"})));
    for host in [1, 2, 3] {
        given(&mut scene, 9, ("job", u32::from(host) - 1), None, host);
        says(&mut scene, host, 9, Phase::Succeeded, 0, true);
    }
    over(&mut scene, 10, 0, 9, Ok(()));
    over(&mut scene, 11, 1, 9, Ok(()));
    assert_eq!(told(&scene, "job").0, (3, 3), "the third says so itself");
    says(&mut scene, 3, 9, Phase::Failed, 0, true);
    over(&mut scene, 12, 2, 9, Err(false));
    assert_eq!(told(&scene, "job"), ((2, 3), (false, true), String::new()));
    changed(&mut scene, 13, Change::RemoveHost { host: h(3) });
    assert_eq!(told(&scene, "job"), ((2, 2), (true, false), String::new()));
}

#[test]
fn a_replica_whose_data_is_on_a_drained_host_makes_its_workload_stuck() {
    let claim = beemesh_protocol::state::Reference {
        kind: Kind::PersistentVolumeClaim,
        name: "ledger".into(),
        optional: true,
    };
    let mut scene = seated(Object {
        kind: Kind::Deployment,
        replicas: Some(1),
        references: vec![claim],
        ..pod("db", &[])
    });
    given(&mut scene, 9, ("db", 0), None, 2);
    with(&mut scene, 2, 9, vec![report("db", 8, Phase::Running, 2)]);
    assert_eq!(told(&scene, "db"), ((1, 1), (true, false), String::new()));
    let drained = Change::DrainHost {
        host: h(2),
        drained: true,
    };
    changed(&mut scene, 10, drained);
    with(&mut scene, 2, 10, Vec::new());
    let why = "waits for host h2, which has its claim ledger and is drained".to_owned();
    assert_eq!(told(&scene, "db"), ((0, 1), (false, true), why.clone()));
    assert_eq!(scene.leaves(h(2)), [format!("db stops, and {why}")]);
    assert!(scene.leaves_data(h(2)) && !scene.leaves_data(h(3)));
}

#[test]
fn hosts_that_cannot_be_reached_are_waited_for() {
    let mut scene = seated(Object {
        kind: Kind::Deployment,
        replicas: Some(3),
        ..pod("five", &[])
    });
    scene.reachable.remove(&h(3));
    for host in [1, 2] {
        let ordinal = u32::from(host) - 1;
        given(
            &mut scene,
            8 + u64::from(host),
            ("five", ordinal),
            None,
            host,
        );
        with(
            &mut scene,
            host,
            10,
            vec![report("five", 8, Phase::Running, 2)],
        );
    }
    let (counts, ends, reason) = told(&scene, "five");
    assert_eq!((counts, ends), ((2, 3), (false, false)));
    assert_eq!(reason, "waits for a host: h3 is not reachable");
    // Host 3 is assigned its pod, and becomes unreachable after that.
    given(&mut scene, 11, ("five", 2), None, 3);
    assert_eq!(
        told(&scene, "five"),
        ((2, 3), (false, false), String::new())
    );
}

#[test]
fn a_stopped_workload_is_as_requested_when_no_host_has_it() {
    let mut scene = scene();
    let body =
        r#"{"kind":"Pod","metadata":{"annotations":{"beemesh.io/stopped":"true"},"name":"five"}}"#;
    let apply = Change::Apply {
        manifest: "five".into(),
        objects: vec![Object {
            replicas: Some(0),
            body: body.into(),
            ..pod("five", &[])
        }],
        policy: None,
        keep: false,
        if_index: None,
    };
    changed(&mut scene, 8, apply);
    let runs = report("five", 7, Phase::Removing, 2);
    for (reports, settled) in [(vec![runs], false), (vec![], true)] {
        with(&mut scene, 1, 8, reports);
        let five = scene.workload("five").unwrap();
        assert!(
            five.stopped && !five.stuck && five.reason.is_empty(),
            "{five:?}"
        );
        assert_eq!((five.settled, five.ready, five.asked), (settled, 0, 0));
    }
}
