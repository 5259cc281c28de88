use beemesh_protocol::{
    HostId,
    api::{Host, HostChanged, JoinToken, LostHost, MovedFrom},
    pod::{ContainerReport, FailedProbe, LastExit},
};
use serde_json::json;

use super::*;

fn on(host: &str, phase: Phase, healthy: u32, message: &str) -> WorkloadHost {
    WorkloadHost {
        host: host.into(),
        id: HostId([1; 32]),
        phase,
        revision: 1,
        healthy,
        total: 2,
        restarts: 0,
        message: message.into(),
        reachable: true,
        containers: Vec::new(),
        moved: None,
        pod: String::new(),
    }
}

fn web(settled: bool, hosts: Vec<WorkloadHost>) -> Workload {
    let ready = hosts.iter().filter(|one| fine(one, 1)).count();
    let asked = hosts.len();
    Workload {
        name: "web".into(),
        namespace: "default".into(),
        kind: "Pod".into(),
        manifest: "web".into(),
        revision: 1,
        index: 9,
        applied_at_ms: 0,
        settled,
        stuck: false,
        stopped: false,
        asked: u32::try_from(asked).unwrap(),
        ready: u32::try_from(ready).unwrap(),
        reason: String::new(),
        rollout: None,
        min_ready_seconds: 0,
        hosts,
        identity: None,
        object: None,
    }
}

fn object(kind: &str, name: &str, action: Action, revision: u64) -> AppliedObject {
    AppliedObject {
        kind: kind.into(),
        name: name.into(),
        action,
        revision,
    }
}

fn answer(objects: Vec<AppliedObject>, workloads: Option<Vec<Workload>>) -> Applied {
    Applied {
        manifest: "web".into(),
        index: 9,
        dry_run: false,
        settled: None,
        objects,
        warnings: vec![],
        workloads,
    }
}

#[test]
fn an_apply_is_told_as_far_as_it_came() {
    use Phase::*;
    let created = || vec![object("Pod", "web", Action::Created, 1)];
    let running = |host| on(host, Running, 2, "");
    let mut away = on("h3", Running, 2, "");
    away.reachable = false;
    let mut old = on("h2", Running, 2, "image x cannot be pulled: no such host");
    old.revision = 7;
    for (applied_answer, waited, expected) in [
        (
            answer(created(), None),
            None,
            "web   revision 1   committed at log index 9\n",
        ),
        (
            answer(
                created(),
                Some(vec![web(
                    true,
                    vec![running("h1"), running("h2"), running("h3")],
                )]),
            ),
            Some(900),
            "web   revision 1   committed at log index 9\n  \
             h1  running 2/2 healthy   h2  running 2/2 healthy   h3  running 2/2 healthy   in 0.9 s\n",
        ),
        (
            answer(
                created(),
                Some(vec![web(
                    false,
                    vec![on("h1", Starting, 0, "pulling x"), old, away],
                )]),
            ),
            Some(60_000),
            "web   revision 1   committed at log index 9\n  \
             h1  starting: pulling x\n  \
             h2  running 2/2 healthy (revision 7): image x cannot be pulled: no such host\n  \
             h3  unknown: host unreachable (last: running 2/2 healthy)\n  after 60.0 s\n",
        ),
        (
            answer(
                vec![
                    object("ConfigMap", "web-conf", Action::Updated, 0),
                    object("Pod", "web", Action::Updated, 3),
                    object("Secret", "key", Action::Unchanged, 0),
                    object("Pod", "old", Action::Removed, 0),
                    object("Pod", "same", Action::Unchanged, 2),
                ],
                None,
            ),
            None,
            "web-conf   ConfigMap   updated   committed at log index 9\n\
             web        revision 3   committed at log index 9\n\
             key        Secret   unchanged\n\
             old        Pod   removed   committed at log index 9\n\
             same       revision 2   unchanged\n",
        ),
    ] {
        assert_eq!(
            applied(&applied_answer, waited.map(Duration::from_millis)),
            expected
        );
    }
    let dry = Applied {
        dry_run: true,
        ..answer(created(), None)
    };
    assert_eq!(applied(&dry, None), "web   revision 1   would be created\n");
}

#[test]
fn workloads_are_summed_up_and_shown_host_by_host() {
    use Phase::*;
    let failed = on(
        "h2",
        Failed,
        0,
        "container one cannot start: no such program",
    );
    let bad = Workload {
        name: "shop_bad".into(),
        kind: "Deployment".into(),
        ..web(
            true,
            vec![on("h1", Running, 2, ""), failed, on("h3", Pending, 0, "")],
        )
    };
    let short = Workload {
        asked: 2,
        reason: "only h1 may run it".into(),
        ..web(false, vec![on("h1", Running, 2, "")])
    };
    assert_eq!(
        workloads(&[
            bad.clone(),
            web(true, vec![on("h1", Running, 2, "")]),
            web(true, vec![]),
            Workload {
                asked: 2,
                reason: "no host matches nodeSelector disk=ssd".into(),
                ..web(false, vec![])
            },
            short.clone(),
        ]),
        "WORKLOAD   KIND         REVISION   MANIFEST   READY   STATE\n\
         shop_bad   Deployment   1          web        1/3     failed: container one cannot start: no such program on h2, and 1 more\n\
         web        Pod          1          web        1/1     running\n\
         web        Pod          1          web        0/0     no pods requested\n\
         web        Pod          1          web        0/2     no host matches nodeSelector disk=ssd\n\
         web        Pod          1          web        1/2     running: only h1 may run it\n"
    );
    let mut gone = on("h3", Running, 2, "");
    gone.reachable = false;
    let lost = Workload {
        reason: "failed: h3, which ran it, has been away for too long".into(),
        ..web(false, vec![gone])
    };
    let told = workloads(&[lost]);
    assert!(told.contains("   failed: h3, which ran it"), "{told}");
    let left = Workload {
        asked: 1,
        ready: 1,
        ..web(true, vec![])
    };
    let told = workloads(&[left]);
    assert!(told.contains("1/1     succeeded"), "{told}");
    assert_eq!(
        workload(&bad),
        "shop_bad   Deployment   revision 1   manifest web   committed at log index 9   1/3 ready\n\
         HOST   STATE     REVISION   HEALTHY   RESTARTS   MESSAGE\n\
         h1     running   1          2/2       0\n\
         h2     failed    1          0/2       0          container one cannot start: no such program\n\
         h3     pending   1          0/2       0\n"
    );
    assert_eq!(workloads(&[]), "no workloads\n");
    let mut behind = web(
        false,
        vec![on("h1", Running, 2, "image x cannot be pulled")],
    );
    behind.revision = 2;
    assert_eq!(
        not_running(&[behind]),
        "web on h1: running 2/2 healthy (revision 1): image x cannot be pulled"
    );
    let stopped = web(
        false,
        vec![
            on(
                "h1",
                Stopped,
                0,
                "stopped by the administrator of this host",
            ),
            on("h2", Succeeded, 0, ""),
        ],
    );
    let looping = web(
        false,
        vec![on("h1", Running, 2, "exporter ended with code 1, 4 times")],
    );
    assert_eq!(
        not_running(&[web(true, vec![on("h1", Running, 2, "")])]),
        ""
    );
    let mut done = web(true, vec![on("h1", Succeeded, 0, "")]);
    done.hosts[0].reachable = false;
    assert_eq!(not_running(&[done]), "", "a job that has ended well");
    assert_eq!(
        not_running(&[short, looping]),
        "web: 1/2 ready: only h1 may run it; web on h1: running 2/2 healthy: exporter ended with code 1, 4 times"
    );
    let long = Workload {
        min_ready_seconds: 30,
        ..web(true, vec![on("h1", Running, 2, "")])
    };
    assert_eq!(
        not_for_long(&[long]),
        "web has been ready for less than 30 s (0 restarts)"
    );
    assert_eq!(
        not_running(&[stopped, bad]),
        "web on h1: stopped on this host (systemctl stop); shop_bad on h2: failed: container one cannot start: no such program; shop_bad on h3: pending"
    );
}

#[test]
fn only_data_that_stays_behind_can_be_left_behind() {
    let drained = |left: &str, leaves_data| {
        host_drained(&HostChanged {
            host: "h3".into(),
            index: 7,
            leaves: vec![left.into()],
            leaves_data,
            settled: Some(true),
            waiting_for: Vec::new(),
        })
    };
    let full = drained(
        "five stops, and waits for a host: every host that matches runs a pod of it already",
        false,
    );
    assert!(!full.contains("--move-without-data"), "{full}");
    let data = drained(
        "db stops, and waits for host h3, which has its claim data and is drained",
        true,
    );
    assert!(
        data.contains("`beemesh host drain h3 --move-without-data`"),
        "{data}"
    );
}

#[test]
fn hosts_that_are_lost_or_come_and_go_say_so() {
    let id = HostId([1; 32]).to_string();
    let host = |lost: Option<u64>, steady_at_ms: Option<u64>| -> Host {
        let host: Host = serde_json::from_value(json!({
            "name": "h3", "id": id, "addresses": [], "role": "follower", "reachable": lost.is_none(),
            "applied": 9, "version": "0.1.0", "podman": "", "trouble": ""}))
        .unwrap();
        Host {
            lost: lost.map(|since_ms| LostHost {
                since_ms,
                declared: false,
            }),
            steady_at_ms,
            ..host
        }
    };
    let now = Duration::from_secs(36_212);
    for (host, words) in [
        (
            host(Some(36_020_000), None),
            "no, lost since 10:00:20 UTC (3m12s)",
        ),
        (
            host(None, Some(36_300_000)),
            "yes, comes and goes: no further pods until 10:05:00 UTC",
        ),
        (host(None, Some(36_000_000)), "yes  "),
    ] {
        let table = hosts(&[host], now);
        assert!(table.contains(words), "{table}");
    }
}

#[test]
fn a_pod_says_from_where_it_has_moved() {
    let moved = WorkloadHost {
        moved: Some(MovedFrom {
            host: "h2".into(),
            why: MoveReason::Lost,
            at_ms: 1,
        }),
        ..on("h1", Phase::Running, 2, "")
    };
    let one = web(true, vec![moved]);
    let shown = on_hosts(&one, None);
    let words = "running 2/2 healthy (moved from h2, which was lost)";
    assert!(shown.contains(words), "{shown}");
    let table = workloads(&[one]);
    let words = "running (on h1 instead of h2, which was lost)";
    assert!(table.contains(words), "{table}");
}

#[test]
fn hosts_manifests_and_the_status_fit_on_a_screen() {
    let id = HostId([1; 32]).to_string();
    let host = |name: &str, role: &str, reachable: bool, podman: &str| -> Host {
        serde_json::from_value(
            json!({"name": name, "id": id, "addresses": [], "role": role, "reachable": reachable,
            "applied": 9, "version": "0.1.0", "podman": podman, "trouble": ""}),
        )
        .unwrap()
    };
    assert_eq!(
        hosts(
            &[
                host("h1", "leader", true, "5.4.2"),
                host("h2", "follower", false, ""),
                Host {
                    lost_at_ms: Some(8_000),
                    ..host("h3", "follower", false, "")
                }
            ],
            Duration::from_secs(200)
        ),
        "HOST   ROLE       REACHABLE       APPLIED   BEEMESH   PODMAN   PROBLEM\n\
         h1     leader     yes             9         0.1.0     5.4.2\n\
         h2     follower   no              9         0.1.0     -\n\
         h3     follower   no, for 3m12s   9         0.1.0     -\n"
    );
    let manifest = serde_json::from_value(json!({"name": "web", "index": 9, "appliedAtMs": 0, "objects": [
        {"kind": "ConfigMap", "namespace": "default", "name": "conf"}, {"kind": "Pod", "namespace": "shop", "name": "web"}]}))
    .unwrap();
    assert_eq!(
        manifests(&[manifest]),
        "MANIFEST   INDEX   OBJECTS\nweb        9       ConfigMap conf, Pod shop/web\n"
    );
    let told: Status = serde_json::from_value(json!({
        "cluster": "07".repeat(16), "host": "h2", "id": id, "role": "follower", "leader": {"name": "h1", "id": id},
        "term": 3, "applied": 12, "quorum": false, "voters": ["h1", "h2", "h3"], "learners": ["h6"],
        "hosts": {"total": 4, "reachable": 2, "missing": ["h3", "h6"]}, "workloads": {"total": 2, "healthy": 1},
        "version": "0.1.0", "podman": "5.4.2", "trouble": "waiting for the agent"}))
    .unwrap();
    assert_eq!(
        status(&told),
        "host        h2\n\
         role        follower of h1 (term 3)\n\
         cluster     07070707070707070707070707070707\n\
         quorum      no: 2 of 3 voters reachable, no leader elected\n\
         hosts       2/4 reachable, missing: h3, h6\n\
         voters      h1, h2, h3\n\
         note        workloads keep running and start again after a reboot; changes are refused; `--stale` shows this host's view; if a majority of the voters is lost for good, `beemesh-agent recover` on a surviving host is the last resort\n\
         learners    h6\n\
         workloads   1/2 healthy\n\
         applied     log index 12\n\
         beemesh     0.1.0\n\
         podman      5.4.2\n\
         problem     waiting for the agent\n"
    );
}

#[test]
fn a_probe_that_fails_less_often_than_it_may_is_shown_where_one_workload_is() {
    let mut host = on("h1", Phase::Running, 2, "");
    host.containers = vec![ContainerReport {
        name: "app".into(),
        healthy: true,
        probe: Some(FailedProbe {
            failures: 2,
            threshold: 10,
            exit: Some(1),
            output: "404 Not Found".into(),
            ..FailedProbe::default()
        }),
        ..ContainerReport::default()
    }];
    let told = web(true, vec![host]);
    let words = "app: liveness probe failed 2 of 10, exit 1: 404 Not Found";
    assert!(workload(&told).contains(words), "{}", workload(&told));
    assert_eq!(not_running(&[told]), "", "it is ready");
}

#[test]
fn a_host_that_alone_hears_no_leader_says_so_and_advises_no_recovery() {
    let id = HostId([1; 32]).to_string();
    let told: Status = serde_json::from_value(json!({
        "cluster": "07".repeat(16), "host": "h3", "id": id, "role": "follower", "leader": null,
        "elsewhere": {"name": "h1", "id": id},
        "term": 3, "applied": 12, "quorum": false, "voters": ["h1", "h2", "h3"], "learners": [],
        "hosts": {"total": 3, "reachable": 2, "missing": ["h1"]}, "workloads": {"total": 2, "healthy": 1},
        "version": "0.1.0", "podman": "5.4.2", "trouble": ""}))
    .unwrap();
    let told = status(&told);
    for words in [
        "quorum      no connection: other members reach the leader h1, this host does not\n",
        "restore the connection between h3 and h1",
    ] {
        assert!(told.contains(words), "{told}");
    }
    assert!(!told.contains("recover`"), "{told}");
}

#[test]
fn a_host_without_a_quorum_says_who_must_return() {
    let told = |voters: &[&str], missing: &[&str]| -> Status {
        serde_json::from_value(json!({
            "cluster": null, "host": "h1", "id": HostId([7; 32]).to_string(), "role": "follower", "leader": null,
            "term": 3, "applied": 12, "quorum": false, "voters": voters, "learners": [],
            "hosts": {"total": 5, "reachable": 2, "missing": missing}, "workloads": {"total": 0, "healthy": 0},
            "version": "0.2.0", "podman": "5.4.2", "trouble": ""}))
        .unwrap()
    };
    for (voters, missing, words) in [
        (&[][..], &[][..], "no"),
        (
            &["h1", "h2", "h3", "h4", "h5"],
            &["h3", "h4", "h5"],
            "no: 2 of 5 voters reachable; 1 of h3, h4 and h5 must return",
        ),
        (
            &["h1", "h2"],
            &["h2", "h9"],
            "no: 1 of 2 voters reachable; h2 must return",
        ),
        (
            &["h1", "h2", "h3"],
            &["h2", "h3"],
            "no: 1 of 3 voters reachable; 1 of h2 and h3 must return",
        ),
        (
            &["h1", "h2", "h3"],
            &[],
            "no: 3 of 3 voters reachable, no leader elected",
        ),
    ] {
        assert_eq!(quorum(&told(voters, missing)), words);
    }
}

#[test]
fn tokens_say_for_how_long_they_are_good() {
    let token = |id: &str, uses, expires_at_ms| JoinToken {
        id: id.to_owned(),
        uses,
        expires_at_ms,
    };
    let now = Duration::from_secs(1000);
    assert_eq!(tokens(&[], now), "no tokens\n");
    let listed = [
        token("00000000000000ab", 1, 999_000),
        token("00000000000000ac", 2, 1_059_000),
        token("00000000000000ad", 3, 1_061_000),
        token("00000000000000ae", 4, 8_260_000),
        token("00000000000000af", 5, 183_400_000),
    ];
    assert_eq!(
        tokens(&listed, now),
        "TOKEN              HOSTS LEFT   EXPIRES IN\n\
         00000000000000ab   1            0s\n\
         00000000000000ac   2            59s\n\
         00000000000000ad   3            1m1s\n\
         00000000000000ae   4            2h1m\n\
         00000000000000af   5            2d2h\n"
    );
}

#[test]
fn a_completed_pod_is_shown_with_its_termination_messages() {
    let left = |name: &str, output: &str| ContainerReport {
        name: name.into(),
        healthy: true,
        exit: Some(LastExit {
            code: Some(0),
            output: output.into(),
            ..LastExit::default()
        }),
        ..ContainerReport::default()
    };
    let mut host = on("h1", Phase::Succeeded, 0, "");
    host.containers = vec![left("app", "42 rows"), left("log", ""), left("sum", "7")];
    let mut done = web(true, vec![host]);
    let last = |done: &Workload| workload(done).lines().last().unwrap().to_owned();
    let shown = last(&done);
    assert!(shown.ends_with("app: 42 rows; sum: 7"), "{shown}");
    done.hosts[0].containers.remove(0);
    done.hosts[0].containers.remove(1);
    let shown = last(&done);
    assert!(
        shown.trim_end().ends_with('0'),
        "nothing is left to show: {shown}"
    );
}

#[test]
fn a_stopped_workload_is_shown_as_stopped() {
    let stopped = |hosts| Workload {
        stopped: true,
        ..web(true, hosts)
    };
    let removing = |n: u8| on(&format!("h{n}"), Phase::Removing, 0, "taking its pod down");
    let away = WorkloadHost {
        reachable: false,
        ..on("h2", Phase::Running, 2, "")
    };
    for (hosts, expected) in [
        (vec![], "stopped"),
        (vec![removing(1)], "stopping on h1"),
        (
            vec![removing(1), removing(2), removing(3)],
            "stopping on h1, and 2 more",
        ),
        (vec![away], "stopped, but h2 is unreachable"),
    ] {
        let table = workloads(&[stopped(hosts)]);
        assert!(table.ends_with(&format!("   {expected}\n")), "{table}");
    }
    let one = workload(&stopped(vec![]));
    assert!(
        one.contains("\nstopped: `beemesh start web` starts it\n"),
        "{one}"
    );
    let ended = rollout(&stopped(vec![]));
    assert_eq!(ended, "pod \"web\" is stopped\n");
}
