//! Any process of Beemesh may die at any time: it recovers, and no workload container is affected.

use std::time::Instant;

use harness::{Cluster, Host, IMAGE, broken_command, pod, secs, two_containers, wait_for};

#[test]
fn whatever_is_killed_or_restarted_recovers_and_no_container_restarts() {
    let cluster = Cluster::formed("kills", 3);
    let answer = cluster.host(1).apply(&two_containers("web", "first"));
    assert_eq!(answer["settled"], true, "{answer}");
    let host = cluster.leader(cluster.host(1));
    let before = host.containers("web");
    assert_eq!(before.len(), 2);

    let kill = |unit: &str| format!("systemctl kill --kill-whom=main -s KILL {unit}");
    let gateway = "kill -9 $(pgrep -x beemesh-gateway)".to_owned();
    for (what, line) in [
        ("the agent is killed", kill("beemesh-agent.service")),
        ("the gateway is killed", gateway),
        ("the supervisor is killed", kill("beemesh-pod-web.service")),
        (
            "podman is killed",
            "systemctl kill -s KILL podman.service; true".to_owned(),
        ),
        (
            "the agent is restarted",
            "systemctl restart beemesh-agent.service".to_owned(),
        ),
        (
            "the gateway is restarted",
            "systemctl restart beemesh-gateway.service".to_owned(),
        ),
    ] {
        eprintln!("when {what}");
        let _ = host.sh(&line).ok();
        cluster.ready();
        recovered(host, what);
        assert_eq!(
            host.containers("web"),
            before,
            "a container restarted when {what}"
        );
    }
    // The cluster still commits changes, and the host of the killed process carries them out.
    let answer = host.apply(&pod("after", "after"));
    assert_eq!(answer["settled"], true, "{answer}");
}

#[track_caller]
fn recovered(host: &Host, what: &str) {
    wait_for(&format!("recovery when {what}"), secs(60), || {
        let unit = "beemesh-pod-web.service";
        let seen = (
            host.unit(unit, "ActiveState"),
            host.unit(unit, "StatusText"),
        );
        let agent = host.unit("beemesh-agent.service", "StatusText");
        let whole = seen == ("active".into(), "2/2 healthy · rev 1 · 0 restarts".into())
            && agent.contains("3/3 hosts");
        if whole {
            Ok(())
        } else {
            Err(format!("{seen:?} {agent}"))
        }
    });
}

/// Two plays of one pod at the same time may deadlock Podman.
#[test]
fn a_supervisor_plays_nothing_while_somebody_else_plays_its_pod() {
    let cluster = Cluster::formed("played-once", 1);
    let host = cluster.host(1);
    let _ = host.apply(&pod("web", "first"));
    let hold = "exec 9>/run/beemesh/playing-web.lock; flock 9; podman pod rm -f web; while [ ! -e /run/go-on ]; do sleep 0.1; done";
    let _ = host
        .run(&["systemd-run", "--unit=holder", "sh", "-c", hold])
        .ok();
    let status = |wanted: &str| {
        wait_for(&format!("`{wanted}` in STATUS"), secs(60), || {
            let status = host.unit("beemesh-pod-web.service", "StatusText");
            (status == wanted).then_some(()).ok_or(status)
        });
    };
    status("starting rev 1: playing the pod");
    let held = Instant::now();
    while held.elapsed() < secs(3) {
        let exists = host.sh("podman pod exists web");
        assert_eq!(exists.code, 1, "played all the same: {exists}");
    }
    let _ = host.sh("touch /run/go-on").ok();
    status("1/1 healthy · rev 1 · 0 restarts");
}

#[test]
fn a_killed_container_is_restarted_by_its_policy_and_counted() {
    let cluster = Cluster::formed("killed-container", 1);
    let host = cluster.host(1);
    let _ = host.apply(&two_containers("web", "first"));
    let before = host.containers("web");
    let victim = &before["web-one"];
    let _ = host.sh(&format!("kill -9 {}", victim.pid)).ok();
    let says = |wanted: &str| {
        wait_for(&format!("`{wanted}` in STATUS"), secs(60), || {
            let status = host.unit("beemesh-pod-web.service", "StatusText");
            (status == wanted).then_some(()).ok_or(status)
        });
    };
    says("2/2 healthy · one: exit 137 (SIGKILL) · rev 1 · 1 restart");
    let after = host.containers("web");
    assert_ne!(after["web-one"].pid, victim.pid);
    assert_eq!(after["web-two"], before["web-two"]);
    let cgroup = host.unit("beemesh-pod-web.service", "ControlGroup");
    wait_for("the new conmon in the unit's cgroup", secs(20), || {
        let place = host
            .sh(&format!("cat /proc/{}/cgroup", after["web-one"].conmon))
            .out;
        if place.contains(&cgroup) {
            Ok(())
        } else {
            Err(place)
        }
    });
}

#[test]
fn a_container_that_was_removed_by_hand_comes_back() {
    let cluster = Cluster::formed("removed-container", 1);
    let host = cluster.host(1);
    let _ = host.apply(&two_containers("web", "first"));
    let before = host.containers("web");
    let _ = host.sh("podman rm --force --time 0 web-two").ok();
    wait_for("both containers", secs(30), || {
        let after = host.containers("web");
        let new = after
            .get("web-two")
            .is_some_and(|two| *two != before["web-two"]);
        if new && after.contains_key("web-one") {
            Ok(())
        } else {
            Err(format!("{after:?}"))
        }
    });
    cluster.running("web", 1, &[host]);
}

#[test]
fn a_container_that_cannot_start_fails_its_unit_in_words_on_every_host() {
    let cluster = Cluster::formed("broken", 2);
    let answer = cluster
        .host(1)
        .try_apply(&broken_command("bad"), &["--wait=60"]);
    assert_eq!(answer.code, 1, "{answer}");
    for host in &cluster.hosts {
        wait_for(&format!("bad failed on {}", host.name), secs(60), || {
            let seen = host.unit("beemesh-pod-bad.service", "ActiveState");
            if seen == "failed" { Ok(()) } else { Err(seen) }
        });
        let shown = host
            .run(&[
                "systemctl",
                "status",
                "--no-pager",
                "beemesh-pod-bad.service",
            ])
            .out;
        assert!(shown.contains("/no/such/program"), "{shown}");
    }
    wait_for(
        "both hosts' failures in the cluster's answer",
        secs(30),
        || {
            let (_, bad) = cluster.host(2).api("GET", "/v1/workloads/bad", b"");
            let reports = bad["hosts"].as_array().cloned().unwrap_or_default();
            let failed = |one: &serde_json::Value| {
                one["phase"] == "failed"
                    && one["message"]
                        .as_str()
                        .is_some_and(|m| m.contains("/no/such/program"))
            };
            if reports.len() == 2 && reports.iter().all(failed) {
                Ok(())
            } else {
                Err(bad)
            }
        },
    );
    // A new revision that works replaces it at once.
    let fixed = cluster.host(2).apply(&pod("bad", "good now"));
    assert_eq!(fixed["settled"], true, "{fixed}");
    assert_eq!(
        cluster
            .host(1)
            .unit("beemesh-pod-bad.service", "ActiveState"),
        "active"
    );
}

#[test]
fn an_administrator_may_stop_a_unit_and_start_it_again() {
    let cluster = Cluster::formed("stopped", 2);
    let _ = cluster.host(1).apply(&pod("web", "first"));
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
    let _ = h2
        .run(&["systemctl", "stop", "beemesh-pod-web.service"])
        .ok();
    assert!(h2.containers("web").is_empty());
    let phase = |wanted: &str| {
        let (_, web) = h1.api("GET", "/v1/workloads/web", b"");
        let reports = web["hosts"].as_array().cloned().unwrap_or_default();
        let is = reports
            .iter()
            .any(|one| one["host"] == "h2" && one["phase"] == wanted);
        if is { Ok(()) } else { Err(web) }
    };
    wait_for("h1 to see web stopped on h2", secs(20), || phase("stopped"));
    assert!(
        h2.containers("web").is_empty(),
        "the cluster does not fight the administrator"
    );
    let _ = h2
        .run(&["systemctl", "start", "beemesh-pod-web.service"])
        .ok();
    wait_for("h1 to see web running on h2", secs(20), || phase("running"));
    assert_eq!(h2.containers("web").len(), 1);
}

/// An apply during the restart of a gateway only takes a little longer.
#[test]
fn an_apply_during_a_restart_succeeds_on_every_host() {
    let cluster = Cluster::formed("restarts", 3);
    let mut number = 0;
    let mut apply_from_each = |when: &str| {
        for host in &cluster.hosts {
            number += 1;
            let answer = host.try_apply(&pod(&format!("p{number}"), "here"), &[]);
            assert_eq!(answer.code, 0, "from {} after {when}: {answer}", host.name);
        }
    };
    let leader = cluster.leader(cluster.host(1));
    let _ = leader
        .run(&["systemctl", "restart", "beemesh-gateway.service"])
        .ok();
    apply_from_each("a restart of the leader's gateway");
    cluster.ready();

    let leader = cluster.leader(cluster.host(2));
    let _ = leader
        .run(&["systemctl", "restart", "beemesh-agent.service"])
        .ok();
    apply_from_each("a restart of the leader's agent");
    cluster.ready();

    let joined = cluster.host(3);
    joined.power_off();
    cluster.crash(&[joined]);
    cluster.boot(&[joined]);
    apply_from_each("a reboot of a joined host");
    cluster.ready();
    let all: Vec<&Host> = cluster.hosts.iter().collect();
    for n in 1..=number {
        cluster.running(&format!("p{n}"), 1, &all);
    }
}

/// Four sidecars: one crashes, one has a probe that hangs after a second, one has a probe that fails with output, and
/// one is healthy.
const TROUBLED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: side}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: good
    image: IMAGE
    command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 1; done']
  - name: crashes
    image: IMAGE
    command: [sh, -c, 'echo no such metric; exit 3']
---
apiVersion: v1
kind: Pod
metadata: {name: hangs}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: IMAGE
    command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 1; done']
    livenessProbe: {exec: {command: [sh, -c, 'sleep 3600']}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: ill}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: IMAGE
    command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 1; done']
    livenessProbe: {exec: {command: [sh, -c, 'echo a secret of the lock; exit 3']}, periodSeconds: 1, failureThreshold: 2}
"#;

#[test]
fn a_container_in_trouble_is_restarted_alone_with_growing_pauses_and_says_why() {
    let cluster = Cluster::formed("troubled", 1);
    let host = cluster.host(1);
    let answer = host.try_apply(&TROUBLED.replace("IMAGE", IMAGE), &["--wait=1"]);
    assert_eq!(answer.code, 1, "{answer}");
    // The apply ends after its second, even if Podman has not created the container by then.
    let before = wait_for("the container side-good", secs(60), || {
        let containers = host.containers("side");
        let good = containers.get("side-good").cloned();
        good.ok_or_else(|| format!("{containers:?}"))
    });
    let status = |workload: &str, wanted: &[&str]| {
        let unit = format!("beemesh-pod-{workload}.service");
        wait_for(&format!("{wanted:?} in STATUS"), secs(60), || {
            let text = host.unit(&unit, "StatusText");
            let all = wanted.iter().all(|words| text.contains(words));
            all.then_some(()).ok_or(text)
        });
        assert_eq!(host.unit(&unit, "ActiveState"), "active");
    };
    // The third attempt starts ten seconds after the second end. Podman may have restarted the container before the
    // supervisor's first look.
    status(
        "side",
        &[
            "1/2 healthy · crashes: exit 3, 3 times, next try at ",
            " UTC · rev 1 · ",
            " restarts",
        ],
    );
    assert_eq!(host.containers("side").get("side-good"), Some(&before));
    assert!(
        host.beemesh(&["logs", "side"])
            .ok()
            .contains("no such metric")
    );
    status(
        "hangs",
        &["app: liveness probe failed 1 of 1, timed out, 2 times, next try at "],
    );
    status(
        "ill",
        &["app: liveness probe failed 2 of 2, exit 3, 2 times, next try at "],
    );
    for (workload, reason, output) in [
        (
            "ill",
            "app: liveness probe failed 2 of 2, exit 3",
            "a secret of the lock",
        ),
        ("side", "crashes: exit 3", "no such metric"),
    ] {
        let unit = format!("beemesh-pod-{workload}.service");
        let status = format!("systemctl status --no-pager --lines=0 {unit}");
        let shown = host.sh(&status).out;
        assert!(
            shown.contains(reason) && !shown.contains(output),
            "for every local user: {shown}"
        );
        says_everywhere(host, workload, reason, output);
    }
    // A deletion does not wait for the next try.
    for workload in ["side", "hangs", "ill"] {
        let _ = host.beemesh(&["delete", workload, "--wait=30"]).ok();
        assert!(host.containers(workload).is_empty());
    }
}

/// The reason and the output are in the table, in JSON, and in the stream of events.
#[track_caller]
fn says_everywhere(host: &Host, workload: &str, reason: &str, output: &str) {
    let has = |shown: &str| shown.contains(reason) && shown.contains(output);
    wait_for(&format!("{output:?} in the table"), secs(10), || {
        let shown = host.beemesh(&["get", "workloads", workload]).out;
        has(&shown).then_some(()).ok_or(shown)
    });
    let (_, json) = host.api("GET", &format!("/v1/workloads/{workload}"), b"");
    let one = &json["hosts"][0];
    assert!(has(one["message"].as_str().unwrap_or_default()), "{one}");
    let containers = one["containers"].as_array().cloned().unwrap_or_default();
    let outputs = containers.iter().map(|container| {
        let of = |part: &str| container[part]["output"].as_str().unwrap_or_default();
        format!("{}{}", of("probe"), of("exit"))
    });
    assert!(
        outputs.into_iter().any(|one| one.contains(output)),
        "{containers:?}"
    );
    let stream =
        "timeout 2 curl -sN --unix-socket /run/beemesh/gateway.sock http://beemesh/v1/events";
    let events = host.sh(stream).out;
    assert!(has(&events), "{events}");
}

/// The reason for which a pod cannot be created names the container or the image, and has the container's last output.
#[test]
fn a_pod_that_cannot_be_made_names_the_container_the_image_or_the_port() {
    let cluster = Cluster::formed("unmade", 1);
    let host = cluster.host(1);
    let container = |rest: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: NAME}}\nspec:\n  containers:\n  - {{name: app, {rest}}}\n"
        )
    };
    let stays = format!("image: \"{IMAGE}\", command: [sh, -c, 'while :; do sleep 1; done']");
    let zero = format!(
        "  initContainers:\n  - {{name: zero, image: \"{IMAGE}\", command: [sh, -c, 'echo no route to db; exit 3']}}\n"
    );
    let init = container(&stays) + &zero;
    let image = container("image: \"localhost/nobody/has:1\"");
    let port = container(&format!(
        "{stays}, ports: [{{containerPort: 80, hostPort: 8099}}]"
    ));
    for (name, yaml, words) in [
        (
            "init",
            init,
            &["init container zero: exit 3", "no route to db"][..],
        ),
        ("lacks", image, &["localhost/nobody/has:1"]),
    ] {
        let answer = host.try_apply(&yaml.replace("NAME", name), &["--force", "--wait=15"]);
        assert_eq!(answer.code, 1, "{answer}");
        eprintln!("{}", answer.err);
        shows(host, name, words);
        let _ = host.beemesh(&["delete", name, "--wait=60"]).ok();
    }
    // A port that is taken before the apply refuses it.
    let _ = host
        .try_apply(&port.replace("NAME", "ports"), &["--wait"])
        .ok();
    let listen = "systemctl stop beemesh-pod-ports && systemd-run --unit=foreign busybox nc -l -p 8099 && \
                  ! systemctl start beemesh-pod-ports";
    let _ = host.sh(listen).ok();
    shows(host, "ports", &["8099"]);
}

/// Waits until the reason of this workload has all these words.
#[track_caller]
fn shows(host: &Host, name: &str, words: &[&str]) {
    wait_for(&format!("{words:?} of {name}"), secs(60), || {
        let shown = host.beemesh(&["get", "workloads", name]).out;
        let all = words.iter().all(|word| shown.contains(word));
        all.then_some(()).ok_or(shown)
    });
}
