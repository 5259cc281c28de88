//! A cluster grows and shrinks under load, and its leader is killed in the middle of that.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use harness::{Cluster, Host, secs, start_agent, wait_for};

/// The largest number of hosts; afterwards the cluster shrinks to [`FEW`].
const MANY: usize = 7;
const FEW: usize = 3;

#[test]
fn a_cluster_grows_to_seven_hosts_and_shrinks_to_three_and_loses_nothing() {
    let cluster = Cluster::booted("growth", MANY);
    cluster.each(start_agent);
    let first = cluster.host(1);
    let line = ["token", "create", "--uses", "6", "-o", "json"];
    let token = first.beemesh(&line).json();
    let token = token["token"].as_str().unwrap();

    let done = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let writer = scope.spawn(|| write(first, &done));
        // Even if this thread fails: the scope waits for the other one.
        let done = Done(&done);
        let mut members = vec![first];
        for (count, host) in (2..).zip(&cluster.hosts[1..]) {
            let asked = scope.spawn(|| repeat(host, &["join", token]));
            if count % 2 == 0 {
                kill_the_leader(&cluster, first);
            }
            asked.join().unwrap();
            members.push(host);
            cluster.agree_on(&members, count, count);
        }
        // The first host stays, because the writer uses it. The leader is removed whenever it is another host.
        while members.len() > FEW {
            let leader = the_leader(&cluster, first);
            let goes = if leader.name == first.name {
                members.len() - 1
            } else {
                members
                    .iter()
                    .position(|host| host.name == leader.name)
                    .unwrap()
            };
            let gone = members.remove(goes);
            let asked = scope.spawn(|| remove(first, &gone.name));
            if members.len() % 2 == 0 {
                kill_the_leader(&cluster, first);
            }
            asked.join().unwrap();
            cluster.agree_on(&members, members.len(), members.len());
        }
        drop(done);
        let acknowledged = writer.join().unwrap();
        for host in members {
            let there = host.beemesh(&["get", "manifests", "-o", "json"]).json();
            let there: BTreeSet<String> = there["manifests"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["name"].as_str().unwrap().to_owned())
                .collect();
            let lost: Vec<_> = acknowledged.difference(&there).collect();
            assert!(lost.is_empty(), "{} does not have {lost:?}", host.name);
        }
        acknowledged
    });
    assert!(acknowledged.len() > 50, "{} writes", acknowledged.len());
}

/// Stops the writer when it is dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Applies one ConfigMap after the other and returns the acknowledged ones.
fn write(host: &Host, done: &AtomicBool) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("c{number}");
        let yaml = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
        if host.api("POST", "/v1/apply", yaml.as_bytes()).0 == 200 {
            acknowledged.insert(name);
        }
    }
    acknowledged
}

fn kill_the_leader(cluster: &Cluster, asked: &Host) {
    let leader = the_leader(cluster, asked);
    let _ = leader.sh("kill -9 $(pgrep -x beemesh-gateway)");
}

/// The leader among the members. A leader that is being removed has no name, so the loop waits for the next one.
fn the_leader<'a>(cluster: &'a Cluster, asked: &Host) -> &'a Host {
    wait_for("a leader among the members", secs(30), || {
        let status = asked.status();
        let name = status["leader"]["name"].as_str();
        let found = cluster.hosts.iter().find(|host| Some(&*host.name) == name);
        found.ok_or(status.to_string())
    })
}

/// Repeats a command until it succeeds, as a user would.
fn repeat(host: &Host, command: &[&str]) {
    let begun = Instant::now();
    loop {
        let answer = host.beemesh(command);
        if answer.code == 0 {
            return;
        }
        assert!(begun.elapsed() < secs(120), "{command:?}: {answer}");
    }
}

/// Removes a host, with repetitions: a removal that was not confirmed may have been committed.
fn remove(asked: &Host, name: &str) {
    let begun = Instant::now();
    loop {
        let answer = asked.beemesh(&["host", "remove", name]);
        if answer.code == 0 || answer.err.contains("not found") {
            return;
        }
        assert!(begun.elapsed() < secs(120), "remove {name}: {answer}");
    }
}
