//! Remote users may do what their role allows, and strangers nothing.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{Answer, Cluster, Host, pod, secs, wait_for};
use serde_json::Value;

#[test]
fn users_elsewhere_do_what_their_role_allows_and_the_audit_trail_says_so() {
    let cluster = Cluster::booted("remote", 4);
    cluster.form_of(3);
    let [h1, h2, h3] = [cluster.host(1), cluster.host(2), cluster.host(3)];
    let outside = cluster.host(4);

    user(h1, outside, "vic", "viewer");
    let closed = ask(outside, "vic", &["get", "hosts"]);
    assert_eq!(closed.code, 3, "off until it is switched on: {closed}");
    assert!(closed.err.contains("refused"), "{closed}");
    for host in [h1, h2] {
        open(host);
    }
    // The second host received no request before: it still has the key of the certificate authority.
    user(h2, outside, "dora", "deployer");
    user(h1, outside, "ann", "admin");
    strangers_get_nothing(h1, outside);

    let listed = ask(outside, "vic", &["get", "hosts"]).ok();
    assert!(listed.contains("h3"), "{listed}");
    let refused = apply(outside, "vic", &pod("web", "hello"));
    assert!(
        refused.code == 1
            && refused
                .err
                .contains("needs the role deployer, and you have viewer"),
        "{refused}"
    );
    let applied: Value = apply(outside, "dora", &pod("web", "hello")).json();
    assert_eq!(applied["settled"], true, "{applied}");
    assert_eq!(h3.containers("web").len(), 1);
    let logs = ask(outside, "vic", &["logs", "web"]).ok();
    assert!(logs.contains("hello"), "{logs}");
    let refused = ask(outside, "dora", &["host", "label", "h3", "disk=ssd"]);
    assert!(
        refused.code == 1 && refused.err.contains("needs the role admin"),
        "{refused}"
    );
    let _ = ask(outside, "ann", &["host", "label", "h3", "disk=ssd"]).ok();
    let token = ask(outside, "ann", &["token", "create"]).ok();
    let refused = ask(outside, "ann", &["join", token.trim()]);
    assert!(
        refused.code == 1 && refused.err.contains("possible only on the host itself"),
        "{refused}"
    );

    // Every host shows the audit log, and the journal of the host that received the request has the entry, too.
    let told: Value = h3.beemesh(&["get", "audit", "-o", "json"]).json();
    let found = told["changes"].as_array().unwrap().iter();
    let found: Vec<_> = found.filter(|one| one["who"] == "dora").collect();
    let [one] = found[..] else {
        panic!("{told}");
    };
    let from = one["from"].as_str().unwrap();
    assert!(from.starts_with(&outside.address()), "{one}");
    assert_eq!(
        (&one["action"], &one["name"], &one["host"], &one["index"]),
        (
            &"manifest applied".into(),
            &"web".into(),
            &"h2".into(),
            &applied["index"]
        )
    );
    let entry = wait_for("the journal's entry", secs(10), || {
        let entry =
            h2.sh("journalctl -u beemesh-gateway -o json BEEMESH_WHO=dora BEEMESH_NAME=web");
        serde_json::from_str::<Value>(&entry.out).map_err(|_| entry)
    });
    assert_eq!(
        entry["BEEMESH_INDEX"],
        applied["index"].to_string(),
        "{entry}"
    );

    // The user can connect to any host.
    cluster.crash(&[h1]);
    cluster.agree_on(&[h2, h3], 2, 3);
    let listed = ask(outside, "vic", &["get", "workloads"]).ok();
    assert!(listed.contains("web"), "{listed}");

    // A revocation also ends the requests in progress of the revoked user at once.
    thread::scope(|scope| {
        let following = scope.spawn(|| ask(outside, "vic", &["logs", "-f", "web", "--host", "h3"]));
        wait_for("the output to be followed", secs(20), || {
            let seen = outside
                .sh("ss -tnH state established '( dport = :7443 )'")
                .out;
            if seen.is_empty() { Err("none") } else { Ok(()) }
        });
        let _ = h3.beemesh(&["user", "revoke", "vic"]).ok();
        wait_for("its end", secs(20), || {
            if following.is_finished() {
                Ok(())
            } else {
                Err("it goes on")
            }
        });
    });
    let refused = ask(outside, "vic", &["get", "hosts"]);
    assert!(
        refused.code == 1 && refused.err.contains("was revoked or has expired"),
        "{refused}"
    );
    let users = h2.beemesh(&["user", "list"]).ok();
    assert!(users.contains("dora") && !users.contains("vic"), "{users}");

    let _ = h3.beemesh(&["user", "reset"]).ok();
    let refused = ask(outside, "ann", &["get", "hosts"]);
    assert!(
        refused.code == 1 && refused.err.contains("certificate"),
        "{refused}"
    );
    user(h3, outside, "ann", "admin");
    let listed = ask(outside, "ann", &["user", "list"]).ok();
    assert!(
        listed.contains("ann") && !listed.contains("dora"),
        "{listed}"
    );

    // Disabled again: no user can connect.
    let _ = h2
        .sh("rm /etc/beemesh/agent.toml.d/api.toml && systemctl reload beemesh-agent")
        .ok();
    let closed = ask(outside, "ann", &["get", "hosts"]);
    assert_eq!(closed.code, 3, "{closed}");
}

/// A client without a certificate, with an old version of TLS, or that sends nothing: it gets nothing, and does not
/// keep others out.
#[track_caller]
fn strangers_get_nothing(member: &Host, outside: &Host) {
    let url = format!("https://{}:7443/v1/status", member.address());
    for more in [&[][..], &["--tls-max", "1.2"]] {
        let answer = outside.run(&[&["curl", "-sSk", "-m", "20", &url], more].concat());
        assert!(answer.code != 0 && answer.out.is_empty(), "{answer}");
    }
    let begun = Instant::now();
    // More connections than one address may have.
    let silent = format!(
        "for n in $(seq 40); do (exec 3<>/dev/tcp/{}/7443 && timeout 60 cat <&3 >/dev/null) & done; wait",
        member.address()
    );
    let answer = outside.run(&["bash", "-c", &silent]);
    assert_eq!(answer.code, 0, "{answer}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(30), "cut after {took:?}");
}

/// Enables the port.
#[track_caller]
fn open(host: &Host) {
    let _ = host
        .sh(
            "mkdir -p /etc/beemesh/agent.toml.d && echo 'api-port = 7443' >/etc/beemesh/agent.toml.d/api.toml && \
             systemctl reload beemesh-agent",
        )
        .ok();
    wait_for("the port to be open", secs(10), || {
        let seen = host.sh("ss -tlnH 'sport = :7443'").out;
        if seen.is_empty() { Err("none") } else { Ok(()) }
    });
}

/// Creates a user on a member and copies the configuration file to a host outside of the cluster.
#[track_caller]
fn user(member: &Host, outside: &Host, name: &str, role: &str) {
    let config = member
        .beemesh(&["user", "create", name, "--role", role])
        .ok();
    let file = format!("umask 077; cat >/root/{name}.yaml");
    let _ = outside
        .run_with(&["sh", "-c", &file], config.as_bytes())
        .ok();
}

fn ask(outside: &Host, user: &str, args: &[&str]) -> Answer {
    let config = format!("/root/{user}.yaml");
    outside.beemesh(&[&["--config", &config], args].concat())
}

fn apply(outside: &Host, user: &str, yaml: &str) -> Answer {
    let config = format!("/root/{user}.yaml");
    let args = ["beemesh", "--config", &config, "apply", "-f", "-"];
    let more = ["--wait=60", "-o", "json"];
    outside.run_with(&[&args[..], &more].concat(), yaml.as_bytes())
}
