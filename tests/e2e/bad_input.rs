//! Bad input and failures: a clear error, and no loss of acknowledged changes.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use harness::{Cluster, Host, IMAGE, pod, secs, wait_for};
use serde_json::Value;

#[test]
fn bad_manifests_are_refused_with_every_problem_and_change_nothing() {
    let cluster = Cluster::formed("bad-manifests", 1);
    let host = cluster.host(1);
    let good = pod("good", "good");
    let no_image = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: bare\nspec:\n  containers:\n  - name: main\n";
    let service =
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports: [{port: 80}]\n";
    let escape = pod("good", "x").replace("name: good", "name: ../../etc/passwd");
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
        "bcdefghi"
            .chars()
            .zip("abcdefgh".chars())
            .map(|(new, old)| format!("{new}: &{new} [{}]\n", vec![format!("*{old}"); 9].join(",")))
            .collect::<String>()
    );
    for (what, yaml, status, words) in [
        ("not YAML", "a: [b".to_owned(), 422, "line"),
        (
            "no image",
            no_image.to_owned(),
            422,
            "spec.containers[0].image",
        ),
        ("an escaping name", escape, 422, "metadata.name"),
        ("duplicates", format!("{good}---\n{good}"), 422, "good"),
        (
            "latest without pull",
            pod("l", "l").replace(IMAGE, "localhost/x:latest\n    imagePullPolicy: Never"),
            422,
            "latest",
        ),
        (
            "too large",
            format!("{good}# {}\n", "x".repeat(1 << 20)),
            413,
            "1 MiB",
        ),
        ("an alias bomb", bomb, 422, "alias"),
    ] {
        let begun = std::time::Instant::now();
        let (found, body) = host.api("POST", "/v1/apply", yaml.as_bytes());
        assert_eq!(found, status, "{what}: {body}");
        assert!(body["error"].to_string().contains(words), "{what}: {body}");
        assert!(
            begun.elapsed() < secs(5),
            "{what} took {:?}",
            begun.elapsed()
        );
    }
    let (status, body) = host.api("POST", "/v1/apply", service.as_bytes());
    assert_eq!(status, 200, "nothing to keep: {body}");
    assert!(body["warnings"].to_string().contains("Service"), "{body}");
    assert_eq!(body["objects"], serde_json::json!([]), "{body}");
    let (status, body) = host.api(
        "POST",
        "/v1/apply",
        format!("{good}---\n{no_image}---\n{service}---\nkind: Pod\n").as_bytes(),
    );
    assert_eq!(status, 422, "{body}");
    let problems = body["error"]["problems"].as_array().unwrap();
    assert!(
        problems
            .iter()
            .any(|one| one["document"] == 2 && one["line"].as_u64() > Some(0)),
        "{body}"
    );
    assert!(problems.iter().any(|one| one["document"] == 4), "{body}");
    let (_, all) = host.api("GET", "/v1/manifests", b"");
    assert_eq!(all["manifests"], Value::Array(vec![]));

    let (status, body) = host.api(
        "POST",
        "/v1/apply",
        format!("{service}---\n{good}").as_bytes(),
    );
    assert_eq!(status, 200, "a Service is warned about: {body}");
    assert!(
        body["warnings"][0].to_string().contains("Service"),
        "{body}"
    );
    let (status, body) = host.api(
        "POST",
        "/v1/apply?strict=true",
        format!("{service}---\n{good}").as_bytes(),
    );
    assert_eq!(status, 422, "and refused when strict: {body}");
}

/// A pod that serves its name at port 18022 of the hosts with this label.
fn serves(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  terminationGracePeriodSeconds: 1\n  nodeSelector: {{{label}: x}}\n  \
         containers:\n  - name: web\n    image: {IMAGE}\n    command: [sh, -c, 'echo {name} >/index.html; httpd -f -p 8080 -h /']\n    \
         ports: [{{containerPort: 8080, hostPort: 18022}}]\n"
    )
}

#[track_caller]
fn answers(host: &Host, name: &str) {
    wait_for(&format!("{name} at the port"), secs(60), || {
        let said = host.sh("curl -s -m 2 http://127.0.0.1:18022/").out;
        if said.trim() == name {
            Ok(())
        } else {
            Err(said)
        }
    });
}

#[test]
fn who_has_a_port_keeps_it_over_a_drain_and_a_boot_and_the_next_gets_it_after_that() {
    let cluster = Cluster::formed("ports-held", 1);
    let host = cluster.host(1);
    let label = |label: &str| {
        let _ = host.beemesh(&["host", "label", "h1", label]).ok();
    };
    label("zz=x");
    let answer = host.apply(&serves("zz-first", "zz"));
    assert_eq!(answer["settled"], true, "{answer}");
    let refused = host.try_apply(&serves("aa-second", "zz"), &[]);
    let words = "port 18022/tcp of the host is held by workload zz-first";
    assert!(
        refused.code == 1 && refused.err.contains(words),
        "{refused}"
    );
    let (status, _) = host.api("POST", "/v1/apply", serves("aa-second", "zz").as_bytes());
    assert_eq!(status, 409);
    // No host runs both yet.
    let _ = host.try_apply(&serves("aa-second", "aa"), &[]).ok();
    label("aa=x");
    let waits = || {
        wait_for("the second one to say what it waits for", secs(20), || {
            let (_, second) = host.api("GET", "/v1/workloads/aa-second", b"");
            let message = second["hosts"][0]["message"].to_string();
            if message.contains("waits for port 18022/tcp of workload zz-first") {
                Ok(())
            } else {
                Err(second)
            }
        });
    };
    waits();
    answers(host, "zz-first");
    for drained in ["drain", "undrain"] {
        let _ = host.beemesh(&["host", drained, "h1"]).ok();
    }
    answers(host, "zz-first");
    waits();
    cluster.crash(&[host]);
    cluster.boot(&[host]);
    answers(host, "zz-first");
    cluster.ready();
    waits();
    let _ = host.beemesh(&["delete", "zz-first"]).ok();
    answers(host, "aa-second");
}

#[test]
fn an_image_that_cannot_be_pulled_leaves_the_old_revision_running() {
    let cluster = Cluster::formed("no-image", 1);
    let host = cluster.host(1);
    missing_keys_are_refused_or_waited_for(host);
    let _ = host.apply(&pod("web", "first"));
    let before = host.containers("web");
    let answer = host.try_apply(
        &pod("web", "first").replace(IMAGE, "localhost:1/no/such:1"),
        &["--force", "--wait=20"],
    );
    assert_eq!(answer.code, 1, "{answer}");
    let web = wait_for("the reason in the cluster's answer", secs(30), || {
        let (_, web) = host.api("GET", "/v1/workloads/web", b"");
        if web.to_string().contains("localhost:1/no/such:1")
            && web["hosts"][0]["message"]
                .as_str()
                .is_some_and(|m| m.contains("no/such"))
        {
            Ok(web)
        } else {
            Err(web)
        }
    });
    assert_eq!(web["hosts"][0]["revision"], 1, "{web}");
    assert_eq!(host.containers("web"), before);
    assert_eq!(
        host.unit("beemesh-pod-web.service", "StatusText"),
        "1/1 healthy · rev 1 · 0 restarts"
    );
}

/// A missing key is refused; on request the workload waits for it while the old revision runs.
fn missing_keys_are_refused_or_waited_for(host: &Host) {
    let map = |key: &str| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{{key}: blue}}\n"
        )
    };
    let uses = pod("keys", "keys")
        + "    env: [{name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: MODE}}}]\n";
    let answer = host.apply(&(uses.clone() + &map("MODE")));
    assert_eq!(answer["settled"], true, "{answer}");
    let before = host.containers("keys");
    let misspelt = uses.clone() + &map("MOOD");
    let refused = host.try_apply(&misspelt, &[]);
    let words = "configMapKeyRef.key: ConfigMap settings has no key `MODE`: it has MOOD";
    assert!(
        refused.code == 1 && refused.err.contains(words),
        "{refused}"
    );
    let waits = host.try_apply(&misspelt, &["--wait-for-references", "--wait=3"]);
    let words = "waits: ConfigMap `settings` has no key `MODE`; revision 1 keeps running";
    assert!(waits.code == 1 && waits.err.contains(words), "{waits}");
    let refused = host.try_apply(&uses, &["--prune"]);
    let words =
        "Pod keys uses ConfigMap settings, which is neither in this manifest nor in the cluster";
    assert!(
        refused.code == 1 && refused.err.contains(words),
        "{refused}"
    );
    assert_eq!(host.containers("keys"), before);
    let answer = host.apply(&(uses + &map("MODE")));
    assert_eq!(answer["settled"], true, "{answer}");
    let _ = host.beemesh(&["delete", "keys"]).ok();
}

#[test]
fn a_full_disk_loses_nothing_and_writes_nothing_by_halves() {
    let cluster = Cluster::formed("disk-full", 1);
    let host = cluster.host(1);
    let _ = host.apply(&pod("web", "first"));
    let before = host.containers("web");
    let _ = host.sh("fallocate -l $(($(df --output=avail -B1 / | tail -n1) - 65536)) /filler; dd if=/dev/zero of=/filler2 bs=4k 2>/dev/null; df / | tail -n1");
    let answer = host.try_apply(&pod("more", "more"), &["--wait=15"]);
    eprintln!("while the disk is full: {answer}");
    assert_eq!(host.containers("web"), before);
    let pairs = host.sh("for k in /etc/containers/systemd/beemesh/*.kube; do y=$(sed -n 's/^Yaml=//p' $k); test -s $k -a -s /etc/containers/systemd/beemesh/$y || echo half $k; done").out;
    assert_eq!(pairs, "");
    let _ = host.sh("rm -f /filler /filler2; sync").ok();
    cluster.running("web", 1, &[host]);
    cluster.running("more", 1, &[host]);
    assert_eq!(host.containers("web"), before);
}

#[test]
fn garbage_on_the_sockets_and_ports_harms_no_host() {
    let cluster = Cluster::formed("garbage", 2);
    let host = cluster.host(1);
    let _ = host.apply(&pod("web", "first"));
    let agent = host.unit("beemesh-agent.service", "MainPID");
    let before = host.containers("web");
    // Input from the other host, which reaches the mesh port, and from the host itself, which reaches the sockets.
    let stranger = cluster.host(2);
    let address = host.address();
    for line in [
        "head -c 1000000 /dev/urandom | timeout 5 nc ADDRESS 4701 >/dev/null",
        "printf '\\377\\377\\377\\377\\001' | timeout 5 nc ADDRESS 4701 >/dev/null",
        "(printf '\\023/multi'; sleep 3) | timeout 5 nc ADDRESS 4701 >/dev/null",
        "head -c 65000 /dev/urandom | timeout 3 busybox nc -u -w 1 ADDRESS 4701 >/dev/null",
    ] {
        let _ = stranger.sh(&line
            .replace("nc ", "busybox nc ")
            .replace("busybox busybox", "busybox")
            .replace("ADDRESS", &address));
    }
    for bytes in [
        &b"\xff\xff\xff\xff\x01"[..],
        b"\x05\0\0\0\x01\0\0\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x09\0\0\0\x07garbage",
    ] {
        let _ = host.run_with(
            &[
                "timeout",
                "10",
                "curl",
                "-s",
                "-m",
                "8",
                "--unix-socket",
                "/run/beemesh/agent.sock",
                "telnet://agent",
            ],
            bytes,
        );
        let _ = host.run_with(
            &[
                "timeout",
                "10",
                "curl",
                "-s",
                "-m",
                "8",
                "--unix-socket",
                "/run/beemesh/gateway.sock",
                "telnet://gateway",
            ],
            bytes,
        );
    }
    assert_eq!(
        host.unit("beemesh-agent.service", "MainPID"),
        agent,
        "the agent did not restart"
    );
    cluster.ready();
    assert_eq!(host.containers("web"), before);
    let answer = host.apply(&pod("after", "after"));
    assert_eq!(answer["settled"], true, "{answer}");
}

#[test]
fn strangers_and_wrong_tokens_get_nothing() {
    let cluster = Cluster::booted("strangers", 2);
    cluster.each(|host| {
        let _ = host
            .run(&[
                "systemctl",
                "enable",
                "--now",
                "beemesh-agent.socket",
                "beemesh-agent.service",
            ])
            .ok();
        wait_for("a cluster of one", secs(60), || {
            let status = host.status();
            if status["leader"]["name"] == host.name.as_str() {
                Ok(())
            } else {
                Err(status)
            }
        });
    });
    let [h1, h2] = [cluster.host(1), cluster.host(2)];
    let token = h1.beemesh(&["token", "create"]).ok();
    let token = token.trim();
    let cut = &token[..token.len() - 3];
    assert_refused(h2, cut, "damaged");
    let (first, rest) = token.split_at(token.len() / 2);
    let altered = format!(
        "{first}{}{}",
        if rest.starts_with('a') { 'b' } else { 'a' },
        &rest[1..]
    );
    assert_refused(h2, &altered, "damaged");
    let _ = h2.apply(&pod("mine", "mine"));
    assert_refused(h2, token, "delete");
    let _ = h2.beemesh(&["delete", "mine"]).ok();
    let _ = h2.beemesh(&["join", token]).ok();
    cluster.ready();
    // A host that did not receive the answer to its join may join again, even with a used-up token.
    for member in [h2, h1] {
        let again = member.beemesh(&["join", token]).ok();
        assert!(again.contains("joined: "), "{again}");
    }
}

#[track_caller]
fn assert_refused(host: &Host, token: &str, words: &str) {
    let answer = host.beemesh(&["join", token]);
    assert_ne!(answer.code, 0, "{answer}");
    assert!(answer.err.contains(words), "{words}: {answer}");
}

/// Podman takes the beginning of a pod's id for its name.
#[test]
fn a_name_that_is_the_beginning_of_an_id_harms_no_other_pod() {
    let cluster = Cluster::formed("id-names", 1);
    let host = cluster.host(1);
    let line = format!("podman run -q -d --pod new:stranger {IMAGE} sleep 1000");
    let _ = host.sh(&line).ok();
    let state = |pod: &str| {
        let line = format!("podman pod inspect -f '{{{{.Id}}}} {{{{.State}}}}' {pod}");
        host.sh(&line).ok()
    };
    for pod_name in ["stranger", "beemesh-gateway"] {
        let before = state(pod_name);
        // YAML takes digits, also with an `e`, for a number.
        let letter = before.find(['a', 'b', 'c', 'd', 'f']).unwrap();
        let name = &before[..6.max(letter + 1)];
        let answer = host.apply(&pod(name, "one"));
        assert_eq!(answer["settled"], true, "{answer}");
        let answer = host.apply(&pod(name, "two"));
        assert_eq!(answer["settled"], true, "{answer}");
        let _ = host.beemesh(&["delete", name, "--wait=60"]).ok();
        assert_eq!(host.leftovers(name), "", "{name}");
        assert_eq!(state(pod_name), before, "{name}");
    }
}
