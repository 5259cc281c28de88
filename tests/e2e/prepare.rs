//! Before an apply is proposed, the hosts say whether they can run it: images, host ports, Podman's generator. A real
//! registry, of files, serves the images that are pulled ahead.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{Answer, Cluster, Host, IMAGE, secs, wait_for};
use serde_json::Value;

/// A pod on every host; `port` is its host port, if it has one.
fn pod(name: &str, image: &str, port: Option<u16>) -> String {
    let port = port.map_or_else(String::new, |port| {
        format!("    ports: [{{containerPort: 8080, hostPort: {port}}}]\n")
    });
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    \
         image: {image}\n    imagePullPolicy: IfNotPresent\n    command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 1 & wait $!; done']\n{port}"
    )
}

fn exists(host: &Host, name: &str) -> bool {
    let (status, _) = host.api("GET", &format!("/v1/workloads/{name}"), b"");
    status == 200
}

#[track_caller]
fn refused(host: &Host, answer: &Answer, name: &str, words: &[&str]) {
    assert_eq!(answer.code, 1, "{answer}");
    for part in words {
        assert!(answer.err.contains(part), "{part}: {answer}");
    }
    assert!(!exists(host, name), "{answer}");
}

#[test]
fn hosts_are_asked_before_an_apply() {
    let cluster = Cluster::formed("prepare", 3);
    an_image_that_one_host_lacks(&cluster);
    a_scale_onto_a_host_without_the_image(&cluster);
    a_port_that_a_stranger_has(&cluster);
    an_image_that_a_registry_has(&cluster);
    a_registry_that_does_not_answer(&cluster);
    a_host_that_does_not_answer(&cluster);
}

/// The third host of a scaled Deployment lacks its image.
fn a_scale_onto_a_host_without_the_image(cluster: &Cluster) {
    let host = cluster.host(1);
    let image = "localhost/for-scale:1";
    for host in [cluster.host(1), cluster.host(3)] {
        let _ = host.sh(&format!("podman tag {IMAGE} {image}")).ok();
    }
    let yaml = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: wide}}\nspec:\n  replicas: 0\n  selector: {{matchLabels: {{app: wide}}}}\n  \
         template:\n    metadata: {{labels: {{app: wide}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        \
         image: {image}\n        imagePullPolicy: IfNotPresent\n        command: [sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 1 & wait $!; done']\n"
    );
    let _ = host.apply(&yaml);
    let answer = host.beemesh(&["scale", "wide", "--replicas", "3"]);
    assert_eq!(answer.code, 1, "{answer}");
    for words in [
        "nothing was changed",
        "on h2: image localhost/for-scale:1 cannot be pulled",
        "`beemesh scale --force`",
    ] {
        assert!(answer.err.contains(words), "{words}: {answer}");
    }
    let (_, found) = host.api("GET", "/v1/workloads/wide", b"");
    assert_eq!(found["object"]["spec"]["replicas"], 0, "{found}");
    let _ = host
        .beemesh(&["scale", "wide", "--replicas", "3", "--force"])
        .ok();
    let (_, found) = host.api("GET", "/v1/workloads/wide", b"");
    assert_eq!(found["object"]["spec"]["replicas"], 3, "{found}");
    let _ = host.beemesh(&["delete", "wide", "--wait"]).ok();
}

/// The image has another name on two hosts, and the third cannot pull it.
fn an_image_that_one_host_lacks(cluster: &Cluster) {
    let image = "localhost/only-some:1";
    for host in [cluster.host(1), cluster.host(3)] {
        let _ = host.sh(&format!("podman tag {IMAGE} {image}")).ok();
    }
    let host = cluster.host(1);
    let yaml = pod("some", image, None);
    let answer = host.try_apply(&yaml, &[]);
    refused(
        host,
        &answer,
        "some",
        &[
            "on h2: image localhost/only-some:1 cannot be pulled",
            "nothing was applied",
            "--force",
        ],
    );
    assert!(!answer.err.contains("on h1"), "{answer}");
    let answer = host.try_apply(&yaml, &["--dry-run"]);
    assert_eq!(answer.code, 0, "{answer}");
    let words = "on h2: image localhost/only-some:1 is not there: the apply pulls it";
    assert!(answer.err.contains(words), "{answer}");
    // An unchanged object, or one that no host runs, asks nobody.
    let answer = host.try_apply(&yaml, &["--force"]);
    assert_eq!(answer.code, 0, "{answer}");
    assert!(
        answer.err.contains("on h2: image localhost/only-some:1"),
        "{answer}"
    );
    let again = host.try_apply(&yaml, &[]);
    assert_eq!(again.code, 0, "{again}");
    cluster.running("some", 1, &[cluster.host(1), cluster.host(3)]);
    let _ = host.beemesh(&["delete", "some", "--wait"]).ok();
}

fn a_port_that_a_stranger_has(cluster: &Cluster) {
    let (host, other) = (cluster.host(1), cluster.host(2));
    let line = "systemd-run -q --unit=stranger --collect busybox httpd -f -p 8081 -h /tmp; \
                podman run -d --rm --name old-web -p 8082:8080 localhost/beemesh-demo:1 sleep 1000";
    let _ = other.sh(line).ok();
    wait_for("the stranger to listen", secs(10), || {
        let found = other
            .sh("busybox netstat -ltn | grep -c -e :8081 -e :8082")
            .out;
        if found.trim() == "2" {
            Ok(())
        } else {
            Err(found)
        }
    });
    for (port, holder) in [(8081, "(process "), (8082, "container old-web")] {
        let yaml = pod("taken", IMAGE, Some(port));
        for more in [&[][..], &["--force"], &["--dry-run"]] {
            let answer = host.try_apply(&yaml, more);
            let words = format!("on h2: port {port}/tcp is in use by ");
            refused(host, &answer, "taken", &[&words, holder]);
            assert!(!answer.err.contains("on h1"), "{answer}");
        }
    }
    let _ = other
        .sh("systemctl stop stranger; podman rm -f -t 0 old-web")
        .ok();
    // Its own port is no obstacle to the next revision.
    let answer = host.apply(&pod("taken", IMAGE, Some(8081)));
    assert_eq!(answer["settled"], true, "{answer}");
    let changed = pod("taken", IMAGE, Some(8081)).replace("sleep 1 &", "sleep 2 &");
    let answer = host.apply(&changed);
    assert_eq!(answer["settled"], true, "{answer}");
    let _ = host.beemesh(&["delete", "taken", "--wait"]).ok();
}

/// Serves the image from files. The name of the tag gives the manifest its type.
fn registry(host: &Host, port: u16) {
    let lines = [
        "set -e; rm -rf /srv/registry /tmp/pushed; mkdir -p /srv/registry/v2/demo/blobs /srv/registry/v2/demo/manifests".to_owned(),
        format!("podman push -q --format oci {IMAGE} dir:/tmp/pushed"),
        "cp /tmp/pushed/manifest.json /srv/registry/v2/demo/manifests/one.oci; echo ok >/srv/registry/v2/index.html".to_owned(),
        "cd /tmp/pushed; for f in *; do case $f in manifest.json|version) ;; *) cp $f /srv/registry/v2/demo/blobs/sha256:$f;; esac; done".to_owned(),
        "cp /tmp/pushed/manifest.json /srv/registry/v2/demo/manifests/sha256:$(sha256sum </tmp/pushed/manifest.json | cut -d' ' -f1)".to_owned(),
        "echo .oci:application/vnd.oci.image.manifest.v1+json >/srv/httpd.conf".to_owned(),
        "mkdir -p /etc/containers/registries.conf.d".to_owned(),
        format!(
            "printf '[[registry]]\\nlocation=\"127.0.0.1:{port}\"\\ninsecure=true\\n' >/etc/containers/registries.conf.d/test-{port}.conf"
        ),
        // Podman's service reads the list of registries once.
        "systemctl stop podman.service".to_owned(),
        format!("systemd-run -q --unit=registry-{port} --collect busybox httpd -f -c /srv/httpd.conf -p {port} -h /srv/registry"),
    ];
    let _ = host.sh(&lines.join("\n")).ok();
}

fn an_image_that_a_registry_has(cluster: &Cluster) {
    cluster.each(|host| registry(host, 5005));
    let host = cluster.host(3);
    let image = "127.0.0.1:5005/demo:one.oci";
    let yaml = pod("pulled", image, None);
    let answer = host.try_apply(&yaml, &["--dry-run"]);
    assert_eq!(answer.code, 0, "{answer}");
    let there = |host: &Host| host.sh(&format!("podman image exists {image}")).code == 0;
    assert!(!cluster.hosts.iter().any(there), "a dry run pulls nothing");
    let answer = host.try_apply(&yaml, &[]);
    assert_eq!(answer.code, 0, "{answer}");
    assert!(
        cluster.hosts.iter().all(there),
        "pulled before the apply: {answer}"
    );
    let journal = cluster
        .host(1)
        .sh("journalctl -u beemesh-gateway -o cat | grep 'pulled ahead'");
    let journal = journal.ok();
    assert!(
        journal.contains(image) && journal.contains("uid 0"),
        "{journal}"
    );
    let hosts: Vec<&Host> = cluster.hosts.iter().collect();
    cluster.running("pulled", 1, &hosts);
    let _ = host.beemesh(&["delete", "pulled", "--wait"]).ok();
}

/// The client waits while a host pulls, and says so. The gateway says it to any client.
fn a_registry_that_does_not_answer(cluster: &Cluster) {
    let (host, other) = (cluster.host(1), cluster.host(2));
    let image = "127.0.0.1:5006/demo:one.oci";
    let line = "printf '[[registry]]\\nlocation=\"127.0.0.1:5006\"\\ninsecure=true\\n' >/etc/containers/registries.conf.d/slow.conf; systemctl stop podman.service; \
                systemd-run -q --unit=slow --collect sh -c 'while :; do busybox nc -l -p 5006 -e sleep 30; done'";
    let _ = other.sh(line).ok();
    for here in [host, cluster.host(3)] {
        let _ = here.sh(&format!("podman tag {IMAGE} {image}")).ok();
    }
    let yaml = pod("slow", image, None);
    let (status, answer) = host.api("POST", "/v1/apply?timeout=2", yaml.as_bytes());
    let error = &answer["error"];
    let message = error["message"].as_str().unwrap();
    assert_eq!(
        (status, &error["pulling"]),
        (503, &Value::Bool(true)),
        "{answer}"
    );
    assert!(
        message.contains(&format!("h2 pulls image {image}"))
            && message.contains("nothing was changed yet"),
        "{message}"
    );
    assert!(!exists(host, "slow"), "{answer}");
    // Another way to the image ends the wait.
    let _ = other
        .sh(&format!("podman tag {IMAGE} {image}; systemctl stop slow"))
        .ok();
    let answer = host.try_apply(&yaml, &[]);
    assert_eq!(answer.code, 0, "{answer}");
    let _ = host.beemesh(&["delete", "slow", "--wait"]).ok();
}

/// Its gateway is stopped, and the mesh still reaches the host. Without power it would be away, and not be waited for.
fn a_host_that_does_not_answer(cluster: &Cluster) {
    let (host, other) = (cluster.host(1), cluster.host(2));
    let pid = other.sh("podman inspect -f '{{.State.Pid}}' beemesh-gateway-gateway");
    let pid = pid.ok().trim().to_owned();
    let _ = other.sh(&format!("kill -STOP {pid}")).ok();
    let yaml = pod("silent", IMAGE, None);
    let answer = host.try_apply(&yaml, &["--timeout", "4s"]);
    let forced = host.try_apply(&yaml, &["--force"]);
    // The agent may have restarted a gateway that does not connect.
    let _ = other.sh(&format!("kill -CONT {pid} || :")).ok();
    assert_eq!(answer.code, 1, "{answer}");
    assert!(answer.err.contains("h2 did not answer"), "{answer}");
    assert_eq!(forced.code, 0, "{forced}");
    assert!(forced.err.contains("h2 did not answer"), "{forced}");
    let hosts: Vec<&Host> = cluster.hosts.iter().collect();
    cluster.running("silent", 1, &hosts);
    other.power_off();
    wait_for("the mesh to lose h2", secs(60), || {
        let (_, found) = host.api("GET", "/v1/hosts?stale=true", b"");
        let all = found["hosts"].as_array().unwrap().clone();
        match all
            .iter()
            .find(|one| one["name"] == "h2" && one["reachable"] == false)
        {
            Some(_) => Ok(()),
            None => Err(found),
        }
    });
    let answer = host.try_apply(&pod("later", IMAGE, None), &[]);
    assert_eq!(answer.code, 0, "{answer}");
    let words = "h2 is not reachable: it follows when it returns";
    assert!(answer.err.contains(words), "{answer}");
    cluster.boot(&[other]);
    cluster.running("later", 1, &[other]);
}
