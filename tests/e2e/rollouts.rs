//! An update takes one host after the other, waits until each is ready, and undoes itself. Clients on every host ask the
//! port of their host all the time, and their logs judge.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{Cluster, Host, IMAGE, secs, wait_for};
use serde_json::Value;

/// A web server on port 8080 of each host that answers with a version; `more` is a part of the specification.
fn web(version: &str, more: &str) -> String {
    server(
        &format!("echo {version} >/index.html; httpd -p 8080 -h /"),
        IMAGE,
        more,
    )
}

fn server(command: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n{more}  selector: {{matchLabels: {{app: web}}}}\n  template:\n    \
         metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: app\n        \
         image: {image}\n        command: [sh, -c, 'trap \"exit 0\" TERM; {command}; while :; do sleep 1 & wait $!; done']\n        \
         ports: [{{containerPort: 8080, hostPort: 8080}}]\n        \
         readinessProbe: {{httpGet: {{port: 8080, path: /index.html}}, periodSeconds: 1}}\n"
    )
}

/// Starts a client on each host that asks for the page ten times a second.
fn watch(cluster: &Cluster) {
    cluster.each(|host| {
        let line = "rm -f /tmp/judge; systemctl stop judge 2>/dev/null; systemd-run -q --unit=judge --collect sh -c \
                    'while :; do found=$(busybox wget -q -T 1 -O- http://127.0.0.1:8080/index.html 2>/dev/null); \
                    echo \"$(date +%s%3N) ${found:-nothing}\" >>/tmp/judge; sleep 0.1; done'";
        let _ = host.sh(line).ok();
    });
}

/// The log of the client: the time in milliseconds, and the answer.
fn log(host: &Host) -> Vec<(u64, String)> {
    let text = host.sh("cat /tmp/judge").ok();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter_map(|(at, found)| Some((at.parse().ok()?, found.to_owned())))
        .collect()
}

/// The times without an answer: from the last answer before to the first one after. One request without an answer may be
/// that of a busy machine; while a pod is replaced, its port refuses many.
fn gaps(log: &[(u64, String)]) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut last = 0;
    let mut missed = 0;
    for (at, found) in log {
        if found == "nothing" {
            missed += 1;
            continue;
        }
        if missed > 1 {
            gaps.push((last, *at));
        }
        (last, missed) = (*at, 0);
    }
    if missed > 1 {
        gaps.push((last, u64::MAX));
    }
    gaps
}

/// Fails if two hosts were without an answer at the same time. Returns the logs.
#[track_caller]
fn one_at_a_time(cluster: &Cluster) -> Vec<Vec<(u64, String)>> {
    let logs: Vec<_> = cluster.hosts.iter().map(log).collect();
    for (one, mine) in logs.iter().enumerate() {
        assert!(mine.len() > 10, "{mine:?}");
        for other in &logs[one + 1..] {
            for (from, to) in gaps(mine) {
                let both = gaps(other)
                    .into_iter()
                    .find(|gap| from < gap.1 && gap.0 < to);
                assert_eq!(both, None, "{from} to {to}: {logs:?}");
            }
        }
    }
    logs
}

/// Waits until each host answers with this version.
#[track_caller]
fn answers(cluster: &Cluster, version: &str) {
    for host in &cluster.hosts {
        wait_for(&format!("{version} on {}", host.name), secs(60), || {
            let found = log(host).pop().map_or_else(String::new, |(_, found)| found);
            if found == version { Ok(()) } else { Err(found) }
        });
    }
}

fn workload(host: &Host) -> Value {
    host.api("GET", "/v1/workloads/web", b"").1
}

fn history(host: &Host) -> Vec<Value> {
    let (_, found) = host.api("GET", "/v1/workloads/web/revisions", b"");
    found["revisions"].as_array().unwrap().clone()
}

/// Waits for the end of the rollout of this revision. Returns its entry of the history.
#[track_caller]
fn ended(host: &Host, revision: u64) -> Value {
    wait_for(
        &format!("the end of revision {revision}"),
        secs(120),
        || {
            let found = history(host);
            let mut all = found.iter().filter(|one| one["revision"] == revision);
            match all.next().filter(|one| one["outcome"].is_string()) {
                Some(one) => Ok(one.clone()),
                None => Err(format!("{found:?}")),
            }
        },
    )
}

#[test]
fn an_update_rolls_is_gated_and_undoes_itself() {
    let cluster = Cluster::formed("rollouts", 3);
    let host = cluster.host(1);
    let answer = host.apply(&web("one", ""));
    assert_eq!(answer["settled"], true, "{answer}");
    watch(&cluster);
    answers(&cluster, "one");
    a_good_update(&cluster);
    updates_that_fail(&cluster);
    a_leader_that_dies(&cluster);
    a_pause_and_an_undo(&cluster);
    a_restart_and_a_scale(&cluster);
    what_stays_and_what_is_pruned(host);
    what_is_refused(host);
}

fn a_good_update(cluster: &Cluster) {
    watch(cluster);
    answers(cluster, "one");
    let host = cluster.host(2);
    let answer = host.apply(&web("two", ""));
    assert_eq!(answer["settled"], true, "{answer}");
    answers(cluster, "two");
    let logs = one_at_a_time(cluster);
    // The next host still has the old version when the one before it has the new one.
    let first = |log: &Vec<(u64, String)>| log.iter().find(|(_, found)| found == "two").unwrap().0;
    let last = |log: &Vec<(u64, String)>| log.iter().rfind(|(_, found)| found == "one").unwrap().0;
    let mut times: Vec<_> = logs.iter().map(|log| (first(log), last(log))).collect();
    times.sort_unstable();
    for pair in times.windows(2) {
        assert!(pair[0].0 < pair[1].1, "{times:?}");
    }
    let last = ended(host, 2);
    assert_eq!(
        (&last["outcome"], &last["who"]),
        (&"ready".into(), &"uid 0".into())
    );
}

fn updates_that_fail(cluster: &Cluster) {
    let host = cluster.host(3);
    let deadline = "  progressDeadlineSeconds: 12\n";
    let never = "localhost/none:1\n        imagePullPolicy: Never";
    let serves = "echo three >/index.html; httpd -p 8080 -h /";
    let failing = [
        (server(serves, never, ""), "localhost/none:1"),
        (server("exit 3", IMAGE, ""), "exit 3"),
        (
            server(
                "echo three >/other.html; httpd -p 8080 -h /",
                IMAGE,
                deadline,
            ),
            "no progress for 12 s",
        ),
    ];
    for (revision, (yaml, reason)) in (3..).zip(failing) {
        watch(cluster);
        answers(cluster, "two");
        // Without `--force` the apply of an image that no host has is refused.
        let answer = host.try_apply(&yaml, &["--force", "--wait=120s"]);
        assert_eq!(answer.code, 1, "{answer}");
        let said = answer.err.clone();
        assert!(
            said.contains("rolled back to revision 2") && said.contains(reason),
            "{said}"
        );
        let end = ended(host, revision);
        assert_eq!(end["outcome"], "rolledBack", "{end}");
        assert!(end["reason"].as_str().unwrap().contains(reason), "{end}");
        answers(cluster, "two");
        let logs = one_at_a_time(cluster);
        let changed = logs.iter().filter(|log| !gaps(log).is_empty()).count();
        assert!(changed <= 1, "one host tried it: {logs:?}");
    }
}

fn a_leader_that_dies(cluster: &Cluster) {
    watch(cluster);
    answers(cluster, "two");
    let leader = cluster.leader(cluster.host(1));
    let other = cluster
        .hosts
        .iter()
        .find(|host| host.name != leader.name)
        .unwrap();
    let _ = other.try_apply(&web("six", ""), &[]);
    wait_for("the first host with the new version", secs(60), || {
        let has = |host: &&Host| log(host).iter().any(|(_, found)| found == "six");
        match cluster.hosts.iter().find(has) {
            Some(_) => Ok(()),
            None => Err(workload(other)),
        }
    });
    let _ = leader.sh("kill -9 $(pgrep -x beemesh-gateway)").ok();
    answers(cluster, "six");
    one_at_a_time(cluster);
    assert_eq!(ended(other, 6)["outcome"], "ready");
}

fn a_pause_and_an_undo(cluster: &Cluster) {
    let host = cluster.host(1);
    let rollout = |args: &[&str]| host.beemesh(&[&["rollout"], args].concat());
    watch(cluster);
    let paused = rollout(&["pause", "deployment/web"]).ok();
    assert!(paused.contains("paused"), "{paused}");
    let _ = host.try_apply(&web("seven", ""), &[]);
    let shown = rollout(&["status", "web", "--watch=false"]).ok();
    assert!(shown.contains("paused: 0 of 3 updated"), "{shown}");
    let found = workload(host);
    assert_eq!(found["rollout"]["phase"], "paused", "{found}");
    let _ = rollout(&["resume", "web"]).ok();
    let done = rollout(&["status", "web"]).ok();
    assert!(done.contains("successfully rolled out"), "{done}");
    answers(cluster, "seven");
    let undone = rollout(&["undo", "web", "--to-revision", "2"]).ok();
    assert!(undone.contains("revision 8"), "{undone}");
    let _ = rollout(&["status", "web"]).ok();
    answers(cluster, "two");
    let _ = rollout(&["undo", "web"]).ok();
    let _ = rollout(&["status", "web"]).ok();
    answers(cluster, "seven");
    one_at_a_time(cluster);
    let table = rollout(&["history", "web"]).ok();
    let rows: Vec<&str> = table.lines().collect();
    assert!(
        rows[0].starts_with("REVISION") && rows.len() == 10,
        "{table}"
    );
    assert!(
        rows.iter()
            .any(|row| row.contains("rolled back: ") && row.contains("exit 3")),
        "{table}"
    );
}

fn a_restart_and_a_scale(cluster: &Cluster) {
    let host = cluster.host(1);
    let started = |host: &Host| {
        host.sh("podman inspect -f '{{.State.StartedAt}}' web-app")
            .ok()
    };
    let before: Vec<String> = cluster.hosts.iter().map(started).collect();
    watch(cluster);
    let _ = host.beemesh(&["rollout", "restart", "web"]).ok();
    let _ = host.beemesh(&["rollout", "status", "web"]).ok();
    one_at_a_time(cluster);
    let after: Vec<String> = cluster.hosts.iter().map(started).collect();
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| before != after),
        "{before:?} {after:?}"
    );
    let _ = host.beemesh(&["scale", "web", "--replicas", "2"]).ok();
    wait_for("two pods", secs(60), || {
        let runs = |host: &&Host| !host.containers("web").is_empty();
        match cluster.hosts.iter().filter(runs).count() {
            2 => Ok(()),
            count => Err(count.to_string()),
        }
    });
    assert_eq!(workload(host)["object"]["spec"]["replicas"], 2);
}

fn what_stays_and_what_is_pruned(host: &Host) {
    let map = |name: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n")
    };
    let both = format!("{}---\n{}", map("first"), map("second"));
    let _ = host.try_apply(&both, &["--name", "maps"]).ok();
    let kept = host.try_apply(&map("first"), &["--name", "maps"]).ok();
    assert!(kept.contains("second") && kept.contains("stays"), "{kept}");
    let objects = || {
        let (_, found) = host.api("GET", "/v1/manifests", b"");
        let all = found["manifests"].as_array().unwrap().clone();
        let maps = all.into_iter().find(|one| one["name"] == "maps").unwrap();
        maps["objects"].as_array().unwrap().len()
    };
    assert_eq!(objects(), 2);
    let pruned = host
        .try_apply(&map("first"), &["--name", "maps", "--prune"])
        .ok();
    assert!(pruned.contains("removed"), "{pruned}");
    assert_eq!(objects(), 1);
}

fn what_is_refused(host: &Host) {
    for (args, code, part) in [
        (
            &["rollout", "undo", "web", "--to-revision", "99"][..],
            1,
            "has no revision 99",
        ),
        (&["rollout", "history", "nothing"], 1, "not found"),
        (&["rollout", "undo", "nothing"], 1, "not found"),
        (&["scale", "web"], 2, "--replicas"),
    ] {
        let answer = host.beemesh(args);
        assert_eq!(answer.code, code, "{args:?}: {answer}");
        assert!(answer.err.contains(part), "{args:?}: {answer}");
    }
}
