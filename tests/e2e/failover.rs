//! A host dies, and what ran there starts elsewhere. Data stays with its host. When the host returns, what it has too much
//! goes, and nothing moves again.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

#[path = "failover/outages.rs"]
mod outages;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use harness::{Cluster, Host, IMAGE, secs, wait_for};

/// From the time at which a pod is to start elsewhere until it is ready: one play, and a second. Tests run beside others.
const START_MAX: Duration = Duration::from_secs(10);
/// How long a pod that a host has too much may last after the host has caught up with the log.
const SURPLUS_MAX: Duration = Duration::from_secs(10);

const STAYS: &str = "trap \"exit 0\" TERM; while :; do sleep 1 & wait $!; done";

fn deployment(name: &str, replicas: u32, annotations: &str, pod: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  annotations: {{{annotations}}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: x}}}}\n  template:\n    metadata: {{labels: {{app: x}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: {IMAGE}\n        \
         command: [sh, -c, '{STAYS}']\n{pod}"
    )
}

fn with_data(name: &str, annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         resources: {{requests: {{storage: 1Gi}}}}\n---\n{}",
        deployment(
            name,
            1,
            annotations,
            &format!(
                "        volumeMounts: [{{name: data, mountPath: /data}}]\n      volumes:\n      - name: data\n        \
                 persistentVolumeClaim: {{claimName: {name}}}\n"
            )
        )
    )
}

/// The hosts on which the workload's container runs.
fn places(hosts: &[&Host], workload: &str) -> Vec<String> {
    let runs = |host: &&&Host| !host.containers(workload).is_empty();
    hosts
        .iter()
        .filter(runs)
        .map(|host| host.name.clone())
        .collect()
}

#[track_caller]
fn wait_for_place(
    hosts: &[&Host],
    workload: &str,
    time: Duration,
    expected: impl Fn(&[String]) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    wait_for(&format!("{workload} where it belongs"), time, || {
        found = places(hosts, workload);
        match expected(&found) {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
    found
}

fn shown(host: &Host) -> String {
    host.beemesh(&["get", "workloads", "--stale"]).ok()
}

#[test]
fn what_ran_on_a_dead_host_starts_elsewhere() {
    let cluster = Cluster::formed("failover", 3);
    let host = cluster.host(1);
    let soon = "beemesh.io/reschedule-after: 10s";
    for yaml in [
        deployment("soon", 2, soon, ""),
        deployment("usual", 2, "", ""),
        deployment("never", 3, "beemesh.io/reschedule-after: never", ""),
    ] {
        let answer = host.apply(&yaml);
        assert_eq!(answer["settled"], true, "{answer}");
    }
    let dead = cluster.host(3);
    let pinned = |name: &str, annotations: &str| {
        with_data(name, annotations).replace(
            "      terminationGrace",
            "      nodeSelector: {kubernetes.io/hostname: h3}\n      terminationGrace",
        )
    };
    for (name, annotations) in [
        ("ledger", ""),
        (
            "cache",
            "beemesh.io/data: disposable, beemesh.io/reschedule-after: 10s",
        ),
    ] {
        let _ = host.apply(&pinned(name, annotations));
        // Free of the selector, only its data holds it.
        let answer = host.apply(&with_data(name, annotations));
        assert_eq!(answer["settled"], true, "{answer}");
        assert_eq!(places(&cluster.all(), name), ["h3"]);
    }
    let _ = dead
        .sh("podman exec ledger-main sh -c 'echo kept >/data/file' && sync")
        .ok();
    a_power_cut(&cluster, dead);
    a_return(&cluster, dead);
    a_user_who_knows(&cluster);
    what_is_refused(host);
}

fn a_power_cut(cluster: &Cluster, dead: &Host) {
    let left = [cluster.host(1), cluster.host(2)];
    let before: BTreeMap<&str, Vec<String>> = ["soon", "usual"]
        .map(|name| (name, places(&cluster.all(), name)))
        .into();
    let begun = Instant::now();
    cluster.crash(&[dead]);
    let within = |seconds: u64| (secs(seconds) + START_MAX).saturating_sub(begun.elapsed());
    let both = |found: &[String]| found.len() == 2;
    wait_for_place(&left, "soon", within(10), both);
    wait_for_place(&left, "cache", within(10), |found| found.len() == 1);
    if before["usual"].contains(&dead.name) {
        assert!(begun.elapsed() < secs(30), "{:?}", begun.elapsed());
        assert_eq!(places(&left, "usual").len(), 1, "it may only restart");
    }
    let host = left[0];
    wait_for("the host to be lost", within(30), || {
        let hosts = host.beemesh(&["get", "hosts"]).ok();
        match hosts.contains("lost since") {
            true => Ok(()),
            false => Err(hosts),
        }
    });
    assert!(begun.elapsed() > secs(30), "{:?}", begun.elapsed());
    wait_for_place(&left, "usual", within(30) + START_MAX, both);
    let table = shown(host);
    if before["usual"].contains(&dead.name) {
        assert!(table.contains("instead of h3, which was lost"), "{table}");
    }
    assert!(
        table.contains("waits for host h3, which has its claim ledger and is lost")
            && table.contains(
                "waits for host h3, which is lost: beemesh.io/reschedule-after is `never`"
            ),
        "{table}"
    );
    // Deletions and changes go on without it.
    let answer = host.apply(&deployment("late", 2, "", ""));
    assert_eq!(answer["settled"], true, "{answer}");
    assert_eq!(places(&left, "late").len(), 2);
}

fn a_return(cluster: &Cluster, back: &Host) {
    let left = [cluster.host(1), cluster.host(2)];
    let moved: BTreeMap<&str, Vec<String>> = ["soon", "usual", "cache", "late"]
        .map(|name| (name, places(&left, name)))
        .into();
    cluster.boot(&[back]);
    wait_for("the host to be taken back", secs(60), || {
        let (_, found) = cluster.host(1).api("GET", "/v1/hosts/h3", b"");
        let applied = cluster.host(1).status()["applied"].as_u64();
        let is_back = found["reachable"] == true && found["lost"].is_null();
        match is_back && found["applied"].as_u64() >= applied {
            true => Ok(()),
            false => Err(found),
        }
    });
    for (name, expected) in &moved {
        wait_for_place(&cluster.all(), name, SURPLUS_MAX, |found| {
            found == expected.as_slice()
        });
    }
    wait_for_place(&cluster.all(), "ledger", secs(30), |found| found == ["h3"]);
    assert_eq!(
        back.sh("podman exec ledger-main cat /data/file")
            .ok()
            .trim(),
        "kept"
    );
    wait_for_place(&cluster.all(), "never", secs(30), |found| found.len() == 3);
}

/// A cable is cut, and a user says at once that the host is lost.
fn a_user_who_knows(cluster: &Cluster) {
    let cut = cluster.host(2);
    let left = [cluster.host(1), cluster.host(3)];
    cluster.isolate(cut);
    let host = left[0];
    wait_for("the host to be unreachable", secs(20), || {
        let answer = host.beemesh(&["host", "lost", "h2"]);
        match answer.code {
            0 => Ok(()),
            _ => Err(answer.to_string()),
        }
    });
    let begun = Instant::now();
    wait_for_place(&left, "usual", START_MAX, |found| found.len() == 2);
    assert!(begun.elapsed() < secs(10));
    let (_, found) = host.api("GET", "/v1/hosts/h2", b"");
    assert_eq!(found["lost"]["declared"], true, "{found}");
    cluster.heal();
    wait_for_place(&cluster.all(), "usual", secs(30), |found| {
        found == ["h1", "h3"]
    });
}

fn what_is_refused(host: &Host) {
    let answer = host.beemesh(&["host", "lost", "h3"]);
    assert_eq!(answer.code, 1, "{answer}");
    assert!(
        answer.err.contains("h3 is reachable") && answer.err.contains("host drain"),
        "{answer}"
    );
    for (annotations, words) in [
        ("beemesh.io/reschedule-after: 5s", "shortest time is 10 s"),
        ("beemesh.io/reschedule-after: \"-30s\"", "is not a time"),
        (
            "beemesh.io/data: gone",
            "neither \"disposable\" nor \"keep\"",
        ),
    ] {
        let answer = host.try_apply(&deployment("bad", 1, annotations, ""), &[]);
        assert_eq!(answer.code, 1, "{answer}");
        assert!(answer.err.contains(words), "{words}: {answer}");
    }
}
