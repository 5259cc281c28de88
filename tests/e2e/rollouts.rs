//! An update takes one host after the other, waits until each is ready, and undoes itself. Clients on every host ask the
//! port of their host all the time, and their logs judge.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{
    Cluster, Host, IMAGE,
    judge::{Log, PROBE, answers, ended, gaps, log, one_at_a_time, server, serves, watch, web},
    secs, start_agent, wait_for,
};
use serde_json::Value;

fn workload(host: &Host) -> Value {
    host.api("GET", "/v1/workloads/web", b"").1
}

#[test]
fn an_update_rolls_is_gated_and_undoes_itself() {
    let cluster = Cluster::formed("rollouts", 3);
    let host = cluster.host(1);
    let answer = host.apply(&web("one", ""));
    assert_eq!(answer["settled"], true, "{answer}");
    watch(&cluster.all());
    answers(&cluster.all(), "one");
    a_good_update(&cluster);
    updates_that_fail(&cluster);
    a_leader_that_dies(&cluster);
    a_pause_and_an_undo(&cluster);
    a_restart_and_a_scale(&cluster);
    what_stays_and_what_is_pruned(host);
    what_is_refused(host);
}

fn a_good_update(cluster: &Cluster) {
    watch(&cluster.all());
    answers(&cluster.all(), "one");
    let host = cluster.host(2);
    let answer = host.apply(&web("two", ""));
    assert_eq!(answer["settled"], true, "{answer}");
    answers(&cluster.all(), "two");
    let logs = one_at_a_time(&cluster.all());
    // The next host still has the old version when the one before it has the new one.
    let first = |log: &Log| log.iter().find(|(_, found)| found == "two").unwrap().0;
    let last = |log: &Log| log.iter().rfind(|(_, found)| found == "one").unwrap().0;
    let mut times: Vec<_> = logs.values().map(|log| (first(log), last(log))).collect();
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
    let failing = [
        (
            server(&serves("three"), never, "", PROBE),
            "localhost/none:1",
        ),
        (server("exit 3", IMAGE, "", PROBE), "exit 3"),
        (
            server(
                "echo three >/other.html; httpd -p 8080 -h /",
                IMAGE,
                deadline,
                PROBE,
            ),
            "no progress for 12 s",
        ),
    ];
    for (revision, (yaml, reason)) in (3..).zip(failing) {
        watch(&cluster.all());
        answers(&cluster.all(), "two");
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
        answers(&cluster.all(), "two");
        let logs = one_at_a_time(&cluster.all());
        let changed = logs.values().filter(|log| !gaps(log).is_empty()).count();
        assert!(changed <= 1, "one host tried it: {logs:?}");
    }
}

fn a_leader_that_dies(cluster: &Cluster) {
    watch(&cluster.all());
    answers(&cluster.all(), "two");
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
    answers(&cluster.all(), "six");
    one_at_a_time(&cluster.all());
    assert_eq!(ended(other, 6)["outcome"], "ready");
}

fn a_pause_and_an_undo(cluster: &Cluster) {
    let host = cluster.host(1);
    let rollout = |args: &[&str]| host.beemesh(&[&["rollout"], args].concat());
    watch(&cluster.all());
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
    answers(&cluster.all(), "seven");
    let undone = rollout(&["undo", "web", "--to-revision", "2"]).ok();
    assert!(undone.contains("revision 8"), "{undone}");
    let _ = rollout(&["status", "web"]).ok();
    answers(&cluster.all(), "two");
    let _ = rollout(&["undo", "web"]).ok();
    let _ = rollout(&["status", "web"]).ok();
    answers(&cluster.all(), "seven");
    one_at_a_time(&cluster.all());
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
    watch(&cluster.all());
    let _ = host.beemesh(&["rollout", "restart", "web"]).ok();
    let _ = host.beemesh(&["rollout", "status", "web"]).ok();
    one_at_a_time(&cluster.all());
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

/// A web server that answers with the data of its claim, which its first pod made.
fn keeper(more: &str) -> String {
    let serves = "[ -e /data/index.html ] || cat /proc/sys/kernel/random/uuid >/data/index.html; httpd -p 8080 -h /data";
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: kept}\nspec: {accessModes: [ReadWriteOnce], \
                 resources: {requests: {storage: 1Mi}}}\n";
    let volumes = "        volumeMounts: [{name: kept, mountPath: /data}]\n      \
                   volumes: [{name: kept, persistentVolumeClaim: {claimName: kept}}]\n";
    let web = server(serves, IMAGE, "", PROBE)
        .replace("{name: web}\nspec", &format!("{{name: web{more}}}\nspec"));
    format!("{web}{volumes}---\n{claim}")
}

/// Waits until each host answers, and returns the answers.
#[track_caller]
fn answer_of_each(hosts: &[&Host]) -> Vec<String> {
    let last = |host: &&Host| {
        wait_for(&format!("an answer of {}", host.name), secs(60), || {
            let found = log(host).pop().map_or_else(String::new, |(_, found)| found);
            if found.len() > 30 {
                Ok(found)
            } else {
                Err(found)
            }
        })
    };
    hosts.iter().map(last).collect()
}

/// Fails unless each host soon has nothing left of the workload, and no unit that would start it.
#[track_caller]
fn none_runs(hosts: &[&Host]) {
    for host in hosts {
        wait_for(&format!("no pod on {}", host.name), secs(30), || {
            let left = host.leftovers("web");
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

#[test]
fn a_stop_lasts_and_a_start_brings_everything_back() {
    let cluster = Cluster::booted("stops", 4);
    cluster.form_of(3);
    let host = cluster.host(1);
    let three = [host, cluster.host(2), cluster.host(3)];
    let answer = host.apply(&keeper(""));
    assert_eq!(answer["settled"], true, "{answer}");
    watch(&cluster.all());
    let kept = answer_of_each(&three);

    let stopped = host.beemesh(&["stop", "web"]).ok();
    assert!(stopped.contains("revision 2   stopped"), "{stopped}");
    none_runs(&three);
    let status = host.beemesh(&["rollout", "status", "web"]).ok();
    assert_eq!(status, "deployment \"web\" is stopped\n");
    let shown = |args: &[&str]| host.beemesh(&[&["get", "workloads"], args].concat()).ok();
    let row = |text: &str| text.lines().nth(1).unwrap_or_default().to_owned();
    assert!(
        row(&shown(&[])).ends_with("0/0     stopped"),
        "{}",
        shown(&[])
    );
    assert!(
        shown(&["web"]).contains("`beemesh start web`"),
        "{}",
        shown(&["web"])
    );
    let found = workload(host);
    assert_eq!(
        (&found["stopped"], &found["settled"]),
        (&true.into(), &true.into())
    );
    what_a_stopped_workload_keeps(host);

    // It stays stopped: after a power cut, under another leader, and on a host that joins.
    let off = cluster.host(3);
    cluster.crash(&[off]);
    cluster.boot(&[off]);
    cluster.agree_on(&three, 3, 3);
    let leader = cluster.leader(host);
    let _ = leader.sh("kill -9 $(pgrep -x beemesh-gateway)").ok();
    let fourth = cluster.host(4);
    start_agent(fourth);
    cluster.agree_on(&three, 3, 3);
    let token = host.beemesh(&["token", "create"]).ok();
    let _ = fourth.beemesh(&["join", token.trim()]).ok();
    cluster.ready();
    let all: Vec<&Host> = cluster.hosts.iter().collect();
    none_runs(&all);

    watch(&cluster.all());
    let started = host.beemesh(&["start", "web"]).ok();
    assert!(started.contains("started   committed"), "{started}");
    assert_eq!(answer_of_each(&three), kept);
    let _ = answer_of_each(&[fourth]);
    let again = host.beemesh(&["start", "web"]).ok();
    assert!(again.contains("is not stopped"), "{again}");

    // An apply of the file starts it, and diff says so before.
    let _ = host.beemesh(&["stop", "web"]).ok();
    none_runs(&all);
    let differs = host.run_with(&["beemesh", "diff", "-f", "-"], keeper("").as_bytes());
    assert_eq!(differs.code, 1, "{differs}");
    assert!(
        differs.out.contains("-    beemesh.io/stopped: 'true'"),
        "{differs}"
    );
    watch(&cluster.all());
    let _ = host.apply(&keeper(""));
    assert_eq!(answer_of_each(&three), kept);
    let annotated = keeper(", annotations: {beemesh.io/stopped: 'true'}");
    let _ = host.try_apply(&annotated, &["--wait"]).ok();
    none_runs(&all);
}

fn what_a_stopped_workload_keeps(host: &Host) {
    let before = workload(host)["index"].clone();
    let again = host.beemesh(&["stop", "web"]).ok();
    assert!(again.contains("is stopped already"), "{again}");
    assert_eq!(workload(host)["index"], before);
    for (args, part) in [
        (&["restart", "web"][..], "has no pods to restart"),
        (&["stop", "nothing"], "`nothing` not found"),
        (&["start", "nothing"], "`nothing` not found"),
    ] {
        let answer = host.beemesh(args);
        assert_eq!(answer.code, 1, "{args:?}: {answer}");
        assert!(answer.err.contains(part), "{args:?}: {answer}");
    }
    let other = web("other", "").replace("name: web}", "name: other}");
    let refused = host.try_apply(&other, &[]);
    assert!(
        refused.code == 1 && refused.err.contains("held by workload web"),
        "{refused}"
    );
    let job = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: once}}\nspec: {{template: {{spec: {{restartPolicy: Never, \
         containers: [{{name: a, image: {IMAGE}, command: [sleep, '600']}}]}}}}}}\n"
    );
    let _ = host.try_apply(&job, &[]).ok();
    let refused = host.beemesh(&["stop", "once"]);
    assert!(
        refused.code == 1 && refused.err.contains("a Job cannot be stopped"),
        "{refused}"
    );
    let _ = host.beemesh(&["delete", "once"]).ok();
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
