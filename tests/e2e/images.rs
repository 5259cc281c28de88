//! What a tag stands for changes, and a return to an earlier revision runs what that revision ran: after an undo, and when
//! a failed update goes back by itself.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::fs;

use harness::{Cluster, Host, IMAGE, secs, wait_for};
use serde_json::Value;

/// The tag that moves.
const TAG: &str = "localhost/moving:1";

/// A pod on every host.
fn web(command: &str, version: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    \
         metadata: {{labels: {{app: web}}, annotations: {{version: \"{version}\"}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
         containers:\n      - name: app\n        image: {TAG}\n        imagePullPolicy: IfNotPresent\n        command: [sh, -c, '{command}']\n"
    )
}

const RUNS: &str = "trap \"exit 0\" TERM; while :; do sleep 1 & wait $!; done";

/// Gives all hosts the same image under this name, with a file that says so.
fn load(cluster: &Cluster, name: &str) {
    let first = cluster.host(1);
    let line = format!(
        "podman run --name made {IMAGE} sh -c 'echo {name} >/version' && podman commit -q made localhost/{name}:1 && podman rm made \
         && podman save -q -o /root/{name}.tar localhost/{name}:1"
    );
    let _ = first.sh(&line).ok();
    let file = format!("root/{name}.tar");
    for host in &cluster.hosts[1..] {
        let _ = fs::copy(first.root().join(&file), host.root().join(&file)).unwrap();
        let _ = host.sh(&format!("podman load -q -i /root/{name}.tar")).ok();
    }
}

fn tag(cluster: &Cluster, name: &str) {
    for host in &cluster.hosts {
        let _ = host
            .sh(&format!("podman tag localhost/{name}:1 {TAG}"))
            .ok();
    }
}

/// The image that each pod runs, by the file in it.
fn runs(cluster: &Cluster) -> Vec<String> {
    let version = |host: &Host| host.sh("podman exec web-app cat /version").ok();
    cluster
        .hosts
        .iter()
        .map(version)
        .map(|one| one.trim().to_owned())
        .collect()
}

/// The latest revision, once it has ended.
fn latest(host: &Host) -> Value {
    let mut last = Value::Null;
    wait_for("the end of the rollout", secs(30), || {
        let (_, kept) = host.api("GET", "/v1/workloads/web/revisions", b"");
        last = kept["revisions"][0].clone();
        match last["outcome"].is_string() {
            true => Ok(()),
            false => Err(last.clone()),
        }
    });
    last
}

fn rollout(host: &Host, args: &[&str]) -> String {
    host.beemesh(&[&["rollout"], args].concat()).ok()
}

#[test]
fn a_return_to_a_revision_runs_the_images_that_it_ran() {
    let cluster = Cluster::formed("images", 2);
    let host = cluster.host(1);
    for name in ["red", "green", "blue"] {
        load(&cluster, name);
    }
    tag(&cluster, "red");
    let answer = host.apply(&web(RUNS, 1));
    assert_eq!(answer["settled"], true, "{answer}");
    assert_eq!(runs(&cluster), ["red", "red"]);
    let first = latest(host);
    let red = host
        .sh("podman image inspect -f '{{.Id}}' localhost/red:1")
        .ok();
    assert_eq!(first["images"][0]["id"], red.trim(), "{first}");
    assert_eq!(first["images"][0]["reference"], TAG, "{first}");

    tag(&cluster, "green");
    let _ = host.beemesh(&["restart", "web"]).ok();
    let _ = rollout(host, &["status", "web"]);
    assert_eq!(runs(&cluster), ["green", "green"]);

    let _ = rollout(host, &["undo", "web"]);
    let _ = rollout(host, &["status", "web"]);
    assert_eq!(runs(&cluster), ["red", "red"]);
    let undone = latest(host);
    assert_eq!(
        (&undone["pinned"], &undone["images"]),
        (&true.into(), &first["images"])
    );
    a_boot_keeps_it(&cluster);

    // An apply of the same file with a change means the tag again.
    let answer = host.apply(&web(RUNS, 2));
    assert_eq!(answer["settled"], true, "{answer}");
    assert_eq!(runs(&cluster), ["green", "green"]);
    assert_eq!(latest(host)["outcome"], "ready");
    an_update_that_fails_goes_back_to_what_ran(&cluster);
    an_image_that_is_gone(&cluster);
}

fn a_boot_keeps_it(cluster: &Cluster) {
    let host = cluster.host(2);
    cluster.crash(&[host]);
    cluster.boot(&[host]);
    wait_for("the pod after a boot", secs(60), || {
        let answer = host.sh("podman exec web-app cat /version");
        match answer.out.trim() {
            "red" => Ok(()),
            _ => Err(answer.to_string()),
        }
    });
    let _ = rollout(host, &["status", "web"]);
}

fn an_update_that_fails_goes_back_to_what_ran(cluster: &Cluster) {
    let host = cluster.host(1);
    tag(cluster, "blue");
    let answer = host.try_apply(&web("exit 3", 3), &["--wait=1m"]);
    assert_eq!(answer.code, 1, "{answer}");
    wait_for("the way back", secs(60), || {
        let version = |host: &Host| host.sh("podman exec web-app cat /version").out;
        let versions: Vec<String> = cluster.hosts.iter().map(version).collect();
        match versions.iter().all(|one| one.trim() == "green") {
            true => Ok(()),
            false => Err(format!("{versions:?}")),
        }
    });
}

/// An undo that cannot run what it would return to leaves the pods alone.
fn an_image_that_is_gone(cluster: &Cluster) {
    let host = cluster.host(1);
    for host in &cluster.hosts {
        let _ = host.sh("podman rmi -f localhost/red:1").ok();
    }
    let _ = rollout(host, &["undo", "web", "--to-revision", "1"]);
    let status = host.beemesh(&["rollout", "status", "web"]);
    assert_eq!(status.code, 1, "{status}");
    let last = latest(host);
    let reason = last["reason"].as_str().unwrap();
    assert!(
        reason.contains(TAG) && reason.contains("is gone from this host"),
        "{last}"
    );
    assert_eq!(runs(cluster), ["green", "green"]);
}
