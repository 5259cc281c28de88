//! More replicas than hosts: pods of one workload run side by side on a host, each as a unit of its own.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{collections::BTreeSet, time::Duration};

use harness::{Cluster, Host, IMAGE, secs, wait_for};

/// From the time at which a pod is to start until it is ready. Tests run beside others.
const START_MAX: Duration = Duration::from_secs(30);

/// A Deployment with a ConfigMap and a scratch folder. `more` is added to the container.
fn web(replicas: u32, command: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: conf}}\ndata: {{word: hello}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  annotations: {{beemesh.io/reschedule-after: 10s}}\nspec:\n  \
         replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      volumes:\n      - {{name: scratch, emptyDir: {{}}}}\n      \
         - {{name: conf, configMap: {{name: conf}}}}\n      containers:\n      - name: main\n        image: {IMAGE}\n        \
         command: [sh, -c, '{command}']\n        \
         volumeMounts: [{{name: scratch, mountPath: /scratch}}, {{name: conf, mountPath: /conf}}]\n{more}"
    )
}

const STAYS: &str = "echo begins on $(cat /proc/sys/kernel/hostname); trap \"exit 0\" TERM; while :; do sleep 1 & wait $!; done";

/// The names of the workload's pods that run on a host, by Podman.
fn pods(host: &Host) -> BTreeSet<String> {
    let listed = host.sh("podman ps --format '{{.PodName}}' | sort -u").ok();
    let names = listed.lines().map(str::trim);
    names
        .filter(|name| name.starts_with("web"))
        .map(str::to_owned)
        .collect()
}

/// The number of its pods on each host.
fn counts(hosts: &[&Host]) -> Vec<usize> {
    hosts.iter().map(|host| pods(host).len()).collect()
}

fn shown(host: &Host) -> serde_json::Value {
    host.api("GET", "/v1/workloads/web", b"").1
}

#[track_caller]
fn wait_for_ready(host: &Host, ready: u64, time: Duration) {
    wait_for("the workload to be as asked", time, || {
        let found = shown(host);
        match found["ready"] == ready && found["asked"] == ready && found["settled"] == true {
            true => Ok(()),
            false => Err(found),
        }
    });
}

#[test]
fn replicas_run_side_by_side() {
    let cluster = Cluster::formed("beside", 3);
    let host = cluster.host(1);
    let answer = host.apply(&web(5, STAYS, ""));
    assert_eq!(answer["settled"], true, "{answer}");
    wait_for_ready(host, 5, secs(5));
    let hosts = cluster.all();
    let mut found = counts(&hosts);
    found.sort_unstable();
    assert_eq!(found, [1, 2, 2]);
    each_is_its_own(&cluster);
    what_is_shown(&cluster);
    a_bad_update_takes_one(&cluster);
    a_reboot(&cluster);
    a_dead_host(&cluster);
    what_a_host_has_once(&cluster);
    let _ = host.beemesh(&["delete", "web", "--wait"]).ok();
    for host in cluster.all() {
        for left in ["", "__1", "__2"].map(|number| host.leftovers(&format!("web{number}"))) {
            assert_eq!(left, "", "{}", host.name);
        }
        let volumes = host
            .sh("podman volume ls -q; podman secret ls -q --format '{{.Name}}'")
            .ok();
        assert!(!volumes.contains("web"), "{volumes}");
    }
}

/// Each pod has a unit, a host name and a scratch folder of its own, and the same ConfigMap.
fn each_is_its_own(cluster: &Cluster) {
    for host in cluster.all() {
        let names = pods(host);
        let units = names
            .iter()
            .map(|pod| host.unit(&format!("beemesh-pod-{pod}.service"), "ActiveState"));
        assert!(
            units.into_iter().all(|state| state == "active"),
            "{names:?}"
        );
        if names.len() == 1 {
            continue;
        }
        let first = host.sh("podman exec web-main sh -c 'echo mine >/scratch/file; cat /proc/sys/kernel/hostname /conf/word'");
        assert_eq!(first.ok().trim(), "web\nhello");
        let second = host.sh(
            "podman exec web__1-main sh -c 'ls /scratch; cat /proc/sys/kernel/hostname /conf/word'",
        );
        assert_eq!(second.ok().trim(), "web-1\nhello");
    }
}

/// A host with two pods.
fn full(cluster: &Cluster) -> &Host {
    let mut hosts = cluster.all().into_iter();
    hosts
        .find(|host| pods(host).len() == 2)
        .expect("a host with two")
}

fn what_is_shown(cluster: &Cluster) {
    let host = full(cluster);
    let table = host.beemesh(&["get", "workloads", "web"]).ok();
    assert!(
        table.contains("5/5 ready") && table.contains("(web__1)"),
        "{table}"
    );
    let name = host.name.as_str();
    let mut others = cluster
        .all()
        .into_iter()
        .filter(|other| other.name != host.name);
    let other = others.next().expect("three hosts");
    let one = other
        .beemesh(&["logs", "web", "--host", name, "--pod", "web__1"])
        .ok();
    assert_eq!(one, "begins on web-1\n");
    let all = other.beemesh(&["logs", "web", "--host", name]).ok();
    for line in ["web | begins on web", "web__1 | begins on web-1"] {
        assert!(all.lines().any(|told| told == line), "{all}");
    }
    let none = host.beemesh(&["logs", "web", "--pod", "web__77"]);
    assert!(none.code != 0 && none.err.contains("web__77"), "{none}");
    // A user of the host stops one of them: the others go on, and it says so.
    let _ = host.sh("systemctl stop beemesh-pod-web__1").ok();
    wait_for("the stop to be told", secs(10), || {
        let table = host.beemesh(&["get", "workloads", "web"]).ok();
        match table.contains("4/5 ready") && table.contains("stopped by the administrator") {
            true => Ok(()),
            false => Err(table),
        }
    });
    let _ = host.sh("systemctl start beemesh-pod-web__1").ok();
    wait_for_ready(host, 5, START_MAX);
}

/// A revision that fails replaces one pod of five, and goes back.
fn a_bad_update_takes_one(cluster: &Cluster) {
    let host = cluster.host(1);
    let ids = || -> BTreeSet<String> {
        let listed = |host: &&Host| {
            host.sh("podman ps --filter pod=web --filter pod=web__1 --filter pod=web__2 --format '{{.ID}} {{.Names}}' | grep main").ok()
        };
        let all: Vec<String> = cluster.all().iter().map(listed).collect();
        all.iter()
            .flat_map(|text| text.lines())
            .map(str::to_owned)
            .collect()
    };
    let before = ids();
    assert_eq!(before.len(), 5, "{before:?}");
    let answer = host.try_apply(&web(5, "exit 3", ""), &["--wait"]);
    assert_ne!(answer.code, 0, "{answer}");
    wait_for("the rollout to be over", secs(60), || {
        let found = shown(host);
        let is_back = found["rollout"]["phase"] == "rolledBack"
            && found["hosts"].as_array().is_some_and(|all| all.len() == 5);
        match is_back && ids().len() == 5 {
            true => Ok(()),
            false => Err(found),
        }
    });
    let after = ids();
    assert_eq!(
        before.intersection(&after).count(),
        4,
        "{before:?} {after:?}"
    );
    let good = host.apply(&web(5, &STAYS.replace("begins", "goes on"), ""));
    assert_eq!(good["settled"], true, "{good}");
    assert_eq!(ids().intersection(&after).count(), 0, "all are new");
}

/// Every pod comes back from its Quadlet.
fn a_reboot(cluster: &Cluster) {
    let host = full(cluster);
    let before = pods(host);
    cluster.crash(&[host]);
    cluster.boot(&[host]);
    wait_for("the pods to be back", secs(60), || {
        let now = pods(host);
        match now == before {
            true => Ok(()),
            false => Err(format!("{now:?} instead of {before:?}")),
        }
    });
    wait_for_ready(cluster.host(1), 5, secs(60));
}

/// The pods of a dead host start beside the others. When it returns it has none, and gets some when more are asked for.
fn a_dead_host(cluster: &Cluster) {
    let (host, dead) = (cluster.host(1), cluster.host(3));
    let left = [host, cluster.host(2)];
    let before = left.map(pods);
    cluster.crash(&[dead]);
    wait_for("five on the others", secs(10) + START_MAX, || {
        let found = counts(&left);
        match found.iter().sum::<usize>() == 5 && shown(host)["ready"] == 5 {
            true => Ok(()),
            false => Err(shown(host)),
        }
    });
    let now = left.map(pods);
    for (before, now) in before.iter().zip(&now) {
        assert!(
            before.is_subset(now),
            "those that were there stay: {before:?} {now:?}"
        );
    }
    cluster.boot(&[dead]);
    wait_for("the surplus to go", secs(60), || {
        let (_, found) = host.api("GET", "/v1/hosts/h3", b"");
        match found["reachable"] == true && found["lost"].is_null() && pods(dead).is_empty() {
            true => Ok(()),
            false => Err(found),
        }
    });
    wait_for_ready(host, 5, secs(30));
    assert_eq!(left.map(pods), now, "nothing moves again");
    for (replicas, expected) in [("8", None), ("2", None), ("4", Some([1, 1, 2]))] {
        let _ = host.beemesh(&["scale", "web", "--replicas", replicas]).ok();
        wait_for_ready(host, replicas.parse().unwrap(), secs(60));
        let mut found = counts(&cluster.all());
        assert_eq!(found.iter().sum::<usize>().to_string(), replicas);
        if let Some(expected) = expected {
            found.sort_unstable();
            assert_eq!(found, expected);
        }
    }
}

/// A host port allows one pod on each host: the others go, and what is missing is said.
fn what_a_host_has_once(cluster: &Cluster) {
    let host = cluster.host(1);
    let port = "        ports: [{containerPort: 80, hostPort: 8081}]\n";
    let answer = host.try_apply(&web(4, STAYS, port), &["--wait=60s"]);
    assert_ne!(answer.code, 0, "{answer}");
    let words = "4 replicas are requested, and 3 hosts can run one each, because its host port allows one on each host: h1, h2 and h3";
    wait_for("the reason", secs(60), || {
        let found = shown(host);
        match found["reason"] == words && found["ready"] == 3 {
            true => Ok(()),
            false => Err(found),
        }
    });
    assert_eq!(counts(&cluster.all()), [1, 1, 1]);
}
