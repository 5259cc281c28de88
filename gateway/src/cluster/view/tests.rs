use std::collections::BTreeMap;

use beemesh_protocol::{
    ClusterId,
    pod::{ContainerReport, Told},
    state::{Change, Command, Kind, Object},
};
use serde_json::{Value, json};

use super::*;

mod full_state;

pub(crate) fn h(n: u8) -> HostId {
    HostId([n; 32])
}

pub(super) fn pod(name: &str, selector: &[(&str, &str)]) -> Object {
    let body = format!("{{\"kind\":\"Pod\",\"metadata\":{{\"name\":\"{name}\"}}}}");
    Object {
        kind: Kind::Pod,
        namespace: "default".into(),
        name: name.into(),
        hash: [u8::try_from(body.len()).unwrap(); 32],
        body: body.into_bytes(),
        references: vec![],
        replicas: None,
        selector: selector
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
    }
}

#[test]
fn a_host_that_was_removed_says_so_and_claims_no_part_in_the_consensus() {
    let mut scene = Scene {
        removed: true,
        ..scene()
    };
    changed(&mut scene, 7, Change::RemoveHost { host: h(1) });
    let status = View::of(scene).status(Own {
        name: "h1".into(),
        ..Own::default()
    });
    assert_eq!(
        (status.host.as_str(), status.role, &status.leader),
        ("h1", Role::Removed, &None)
    );
    assert!(!status.quorum && status.voters.is_empty(), "{status:?}");
    assert!(
        status.trouble.contains("was removed from the cluster"),
        "{status:?}"
    );
}

/// The Job `job`, applied at log index 8, in a cluster that assigns replicas to hosts.
pub(super) fn with_job() -> Scene {
    let mut scene = scene();
    changed(&mut scene, 7, Change::RaiseLevel { level: 1 });
    let job = Object {
        kind: Kind::Job,
        ..pod("job", &[])
    };
    let apply = Change::Apply {
        manifest: "job".into(),
        objects: vec![job],
        policy: None,
        keep: false,
        if_index: None,
    };
    changed(&mut scene, 8, apply);
    scene
}

/// Three hosts, h1 the answering leader; `web` everywhere, `lone` on h2 only; no host has reported.
pub(crate) fn scene() -> Scene {
    let host = |n: u8| state::Host {
        id: h(n),
        name: format!("h{n}"),
        addresses: vec![format!("/ip4/10.0.0.{n}/udp/4701/quic-v1")],
        labels: BTreeMap::from([("n".to_owned(), n.to_string())]),
        drained: false,
        claims_as: None,
        votes_from_ms: 0,
        lost_at_ms: 0,
        declared_lost: false,
        steady_at_ms: 0,
    };
    let mut agreed = State::default();
    let token = beemesh_protocol::state::TokenRecord {
        id: [1; 8],
        secret_hash: [2; 32],
        expires_ms: 1000,
        uses: 2,
    };
    let admit = |n| Change::Admit {
        token: [1; 8],
        secret_hash: [2; 32],
        host: host(n),
        replaces: None,
    };
    let changes = [
        Change::Found {
            cluster: ClusterId([7; 16]),
            host: host(1),
        },
        Change::PutToken(token),
        admit(2),
        admit(3),
        Change::Apply {
            manifest: "web".into(),
            objects: vec![pod("web", &[])],
            policy: None,
            keep: false,
            if_index: None,
        },
        Change::Apply {
            manifest: "lone".into(),
            objects: vec![pod("lone", &[("n", "2")])],
            policy: None,
            keep: false,
            if_index: None,
        },
    ];
    for (index, change) in (1..).zip(changes) {
        agree(&mut agreed, index, change);
    }
    Scene {
        host: h(1),
        applied: 6,
        state: Arc::new(agreed),
        consensus: Consensus {
            role: consensus::Role::Leader,
            term: 2,
            leader: Some(h(1)),
            voters: [h(1), h(2), h(3)].into(),
            acknowledging: [h(1), h(2), h(3)].into(),
            quorum: true,
            applied: 6,
            ..Consensus::default()
        },
        reports: Arc::default(),
        reachable: [h(1), h(2), h(3)].into(),
        lost: BTreeMap::new(),
        elsewhere: None,
        removed: false,
        joining: None,
        index: OnceLock::new(),
    }
}

/// Applies one more change at this log index.
pub(crate) fn changed(scene: &mut Scene, index: u64, change: Change) {
    agree(Arc::make_mut(&mut scene.state), index, change);
    scene.applied = index;
}

fn agree(state: &mut State, index: u64, change: Change) {
    let outcome = state.apply(index, &Command::unasked(5, change));
    assert!(!matches!(outcome, peer::Outcome::Refused(_)), "{outcome:?}");
}

pub(super) fn report(
    workload: &str,
    index: u64,
    phase: peer::Phase,
    healthy: u32,
) -> WorkloadReport {
    WorkloadReport {
        workload: workload.into(),
        revision: 1,
        index,
        phase,
        healthy,
        total: 2,
        ..WorkloadReport::default()
    }
}

pub(super) fn with(scene: &mut Scene, host: u8, applied: u64, workloads: Vec<WorkloadReport>) {
    let said = HostReport {
        applied,
        version: "0.1.0".into(),
        podman: "5.4.2".into(),
        workloads,
        ..HostReport::default()
    };
    Arc::make_mut(&mut scene.reports).insert(h(host), Arc::new(said));
}

#[test]
fn a_workload_is_settled_when_every_host_that_should_run_it_does() {
    use peer::Phase::*;
    for (what, at_h3, reachable, settled) in [
        ("healthy", Some(report("web", 5, Running, 2)), true, true),
        ("newer", Some(report("web", 9, Running, 2)), true, true),
        (
            "half healthy",
            Some(report("web", 5, Running, 1)),
            true,
            false,
        ),
        ("older", Some(report("web", 4, Running, 2)), true, false),
        ("starting", Some(report("web", 5, Starting, 0)), true, false),
        ("failed", Some(report("web", 5, Failed, 0)), true, false),
        ("done", Some(report("web", 5, Succeeded, 0)), true, true),
        ("stopped", Some(report("web", 5, Stopped, 0)), true, false),
        ("silent", None, true, false),
        ("cut off", Some(report("web", 5, Running, 2)), false, false),
    ] {
        let mut scene = scene();
        for host in [1, 2] {
            with(&mut scene, host, 6, vec![report("web", 5, Running, 2)]);
        }
        with(&mut scene, 3, 6, at_h3.into_iter().collect());
        if !reachable {
            scene.reachable.remove(&h(3));
        }
        let web = scene.workload("web").unwrap();
        assert_eq!(web.settled, settled, "{what}");
        let hosts: Vec<_> = web.hosts.iter().map(|one| one.host.as_str()).collect();
        assert_eq!(hosts, ["h1", "h2", "h3"], "{what}");
    }
}

#[test]
fn a_workload_shows_the_hosts_that_should_run_it_and_those_that_still_do() {
    let mut scene = scene();
    with(
        &mut scene,
        3,
        6,
        vec![report("lone", 2, peer::Phase::Removing, 2)],
    );
    let told = serde_json::to_value(scene.workload("lone").unwrap()).unwrap();
    let on = |host: u8, phase: &str, revision: u64, count: u32| -> Value {
        json!({"host": format!("h{host}"), "id": h(host).to_string(), "phase": phase, "revision": revision,
               "healthy": count, "total": count, "restarts": 0, "message": "", "reachable": true, "pod": "lone"})
    };
    let expected = json!({
        "name": "lone", "namespace": "default", "kind": "Pod", "manifest": "lone", "revision": 1, "index": 6,
        "appliedAtMs": 5, "settled": false, "stuck": false, "asked": 1, "ready": 0, "hosts": [on(2, "pending", 0, 0), on(3, "removing", 1, 2)],
    });
    assert_eq!(told, expected);
    let app = ContainerReport {
        name: "app".into(),
        restarts: 1,
        ..ContainerReport::default()
    };
    let goal = WorkloadReport {
        containers: Told(vec![app]),
        ..report("lone", 6, peer::Phase::Running, 2)
    };
    with(&mut scene, 2, 6, vec![goal]);
    let told = serde_json::to_value(scene.workload("lone").unwrap()).unwrap();
    let app = json!({"name": "app", "state": "created", "ready": false, "healthy": false, "restarts": 1, "ends": 0});
    assert_eq!(told["hosts"][0]["containers"], json!([app]));
    assert!(!scene.workload("lone").unwrap().settled, "h3 still has it");
    with(&mut scene, 3, 6, vec![]);
    assert!(scene.workload("lone").unwrap().settled);
    assert_eq!(scene.host_with("lone", None), Some(h(2)));
    assert_eq!(scene.host_with("web", None), Some(h(1)));
    assert_eq!(scene.host_named("h3"), Some(h(3)));
    assert_eq!(scene.workload("none"), None);
}

#[test]
fn a_removal_is_over_when_no_host_can_still_have_it() {
    let gone = ["gone".to_owned()];
    let mut scene = scene();
    let holding = |scene: &Scene| scene.holding(6, &gone);
    assert_eq!(holding(&scene), ["h1", "h2", "h3"]);
    with(&mut scene, 1, 6, vec![]);
    with(&mut scene, 2, 5, vec![]);
    with(
        &mut scene,
        3,
        6,
        vec![report("gone", 3, peer::Phase::Removing, 2)],
    );
    assert_eq!(holding(&scene), ["h2", "h3"]);
    with(&mut scene, 2, 6, vec![]);
    with(
        &mut scene,
        3,
        7,
        vec![report("web", 5, peer::Phase::Running, 2)],
    );
    assert_eq!(holding(&scene), [""; 0]);
    scene.reachable.remove(&h(2));
    assert_eq!(holding(&scene), ["h2"]);
}

#[test]
fn the_status_says_what_this_host_knows() {
    let mut scene = scene();
    let running = |name: &str, index| report(name, index, peer::Phase::Running, 2);
    with(&mut scene, 1, 6, vec![running("web", 5)]);
    with(
        &mut scene,
        2,
        6,
        vec![running("web", 5), running("lone", 6)],
    );
    with(&mut scene, 3, 6, vec![running("web", 5)]);
    scene.reachable.remove(&h(3));
    let own = Own {
        name: "unused".into(),
        version: "0.1.0".into(),
        trouble: "waiting for the agent".into(),
    };
    let expected = json!({
        "cluster": "07".repeat(16), "host": "h1", "id": h(1).to_string(), "role": "leader",
        "leader": {"name": "h1", "id": h(1).to_string()}, "term": 2, "applied": 6, "quorum": true,
        "voters": ["h1", "h2", "h3"], "learners": [],
        "hosts": {"total": 3, "reachable": 2, "missing": ["h3"]}, "workloads": {"total": 2, "healthy": 1},
        "version": "0.1.0", "podman": "5.4.2", "trouble": "waiting for the agent",
    });
    assert_eq!(
        serde_json::to_value(View::of(scene.clone()).status(own)).unwrap(),
        expected
    );
    let hosts: Vec<_> = scene
        .hosts()
        .into_iter()
        .map(|host| (host.name, host.role, host.reachable, host.applied))
        .collect();
    let expected = [
        ("h1", Role::Leader, true),
        ("h2", Role::Follower, true),
        ("h3", Role::Follower, false),
    ];
    assert_eq!(
        hosts,
        expected.map(|(name, role, reachable)| (name.to_owned(), role, reachable, 6))
    );
}

#[test]
fn a_host_that_is_in_no_cluster_yet_answers_too() {
    let scene = Scene {
        state: Arc::default(),
        consensus: Consensus::default(),
        reachable: [h(1)].into(),
        applied: 0,
        ..scene()
    };
    let status = View::of(scene).status(Own {
        name: "h1".into(),
        ..Own::default()
    });
    assert_eq!(
        (
            status.host.as_str(),
            status.role,
            status.cluster,
            status.leader,
            status.quorum
        ),
        ("h1", Role::Learner, None, None, false)
    );
}

#[test]
fn a_host_that_alone_hears_no_leader_names_the_one_that_others_hear() {
    let mut scene = Scene {
        elsewhere: Some(h(2)),
        ..scene()
    };
    let heard = |scene: &Scene| {
        let status = View::of(scene.clone()).status(Own::default());
        status.elsewhere.map(|leader| leader.name)
    };
    assert_eq!(heard(&scene), None, "it leads itself");
    let named = |scene: &Scene| {
        View::of(scene.clone())
            .status(Own::default())
            .leader
            .is_some()
    };
    scene.consensus.leader = Some(h(3));
    assert!(named(&scene), "a leader that it hears");
    scene.consensus.quorum = false;
    assert_eq!(heard(&scene).as_deref(), Some("h2"));
    assert!(!named(&scene), "the last leader that it knew");
    scene.removed = true;
    assert_eq!(heard(&scene), None);
}
