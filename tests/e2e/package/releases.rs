//! This release and the previous one in one cluster.

use std::{collections::BTreeSet, time::Instant};

use harness::{Cluster, Host, pod, secs, two_containers, wait_for};

use crate::{
    install_previous,
    kinds::Kinds,
    load::{all_kept, under_load},
};

const THIS: &str = env!("CARGO_PKG_VERSION");
/// A manifest that adds an entry to the log, even if it changes nothing.
const CHANGE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: missed\n";
/// The size of entries that fills a gateway's log: it takes a snapshot after 64 MiB.
const FILLING: u64 = 66;

#[test]
fn three_hosts_go_from_one_release_to_the_next_under_load_and_one_goes_back() {
    let cluster = Cluster::bare("package-releases", 3);
    cluster.each(install_previous);
    cluster.form();
    let all: Vec<&Host> = cluster.hosts.iter().collect();
    let previous = versions(all[0]);
    assert!(
        previous.iter().all(|version| version != THIS),
        "{previous:?}"
    );
    let answer = all[0].apply(&two_containers("web", "first"));
    assert_eq!(answer["settled"], true, "{answer}");
    let kinds = Kinds::start(&cluster);
    let containers = || -> Vec<_> { all.iter().map(|host| host.containers("web")).collect() };
    let before = containers();
    let images: Vec<_> = all.iter().map(|host| gateway_images(host)).collect();
    write_snapshots(&cluster);

    let began = Instant::now();
    let acknowledged = under_load(&cluster, || {
        for upgraded in 1..=all.len() {
            upgrade(&cluster, all[upgraded - 1]);
            let (new, old) = all.split_at(upgraded);
            if !old.is_empty() {
                works_together(&cluster, new, old);
            }
            kinds.untouched(&format!("with {upgraded} of 3 hosts upgraded"));
            eprintln!("{upgraded} of 3 hosts upgraded after {:?}", began.elapsed());
        }
    });
    all_kept(&cluster, &acknowledged);
    cluster.running("web", 1, &all);
    assert_eq!(containers(), before, "no container was restarted");
    cluster.each(|host| assert_eq!(versions(host), [THIS; 3]));
    for (host, old) in all.iter().zip(&images) {
        has_one_new_image(host, old);
    }

    let [h1, h2, h3] = [all[0], all[1], all[2]];
    h1.dnf(&["downgrade", "beemesh"]);
    cluster.ready();
    assert_eq!(versions(h1), previous, "it is back");
    assert_eq!(containers(), before, "no container was restarted");
    kinds.untouched("with h1 back on the release before");
    all_kept(&cluster, &acknowledged);
    lead(&cluster, &[h2, h3]);
    catches_up(&cluster, h1, &[h2, h3]);
    let kinds = kinds.started_again(h1);
    all_kept(&cluster, &acknowledged);
    upgrade(&cluster, h1);
    kinds.untouched("with h1 upgraded again");

    kinds.jobs_are_over(h2);
    all_kept(&cluster, &acknowledged);
}

/// The versions that the command line, the agent and the gateway of a host report.
fn versions(host: &Host) -> Vec<String> {
    let line = "beemesh --version; \
                busctl get-property io.beemesh.Agent1 /io/beemesh/Agent1 io.beemesh.Agent1 Version";
    let said = host.sh(line).ok();
    let last = |line: &str| {
        line.rsplit(' ')
            .next()
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned()
    };
    let gateway = host.status()["version"]
        .as_str()
        .unwrap_or("none")
        .to_owned();
    said.lines().map(last).chain([gateway]).collect()
}

fn gateway_images(host: &Host) -> BTreeSet<String> {
    let line = "podman images -aq --no-trunc --filter label=io.beemesh.image=gateway";
    host.sh(line).ok().lines().map(str::to_owned).collect()
}

#[track_caller]
fn has_one_new_image(host: &Host, old: &BTreeSet<String>) {
    assert_eq!(old.len(), 1, "{old:?}");
    wait_for(
        &format!("one gateway image on {}", host.name),
        secs(30),
        || {
            let now = gateway_images(host);
            if now.len() == 1 && now != *old {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        },
    );
}

/// Makes the previous release write a snapshot on every host, from which this release starts later.
#[track_caller]
fn write_snapshots(cluster: &Cluster) {
    let half = "x".repeat(500 << 10);
    for turn in 0..FILLING {
        let yaml = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: filling\ndata:\n  turn: \"{turn}\"\n  one: {half}\n  two: {half}\n"
        );
        let (code, answer) = cluster
            .host(1)
            .api("POST", "/v1/apply?timeout=30", yaml.as_bytes());
        assert_eq!(code, 200, "{answer}");
    }
    for host in &cluster.hosts {
        wait_for(&format!("a snapshot on {}", host.name), secs(30), || {
            let listed = host.sh("ls -l /var/lib/beemesh/gateway/raft/*").out;
            if listed.contains(".snapshot") {
                Ok(())
            } else {
                Err(listed)
            }
        });
    }
}

#[track_caller]
fn upgrade(cluster: &Cluster, host: &Host) {
    let units = ["beemesh-gateway.service", "beemesh-agent.service"];
    let running = || units.map(|unit| host.unit(unit, "InvocationID"));
    let before = running();
    host.dnf(&["upgrade", "beemesh"]);
    cluster.ready();
    let after = running();
    for (unit, (before, after)) in units.iter().zip(before.iter().zip(&after)) {
        assert_ne!(before, after, "{unit} of {} was not restarted", host.name);
    }
    assert_eq!(versions(host), [THIS; 3]);
}

/// Asserts that both releases carry out a change, with a leader of either release and on a host of either.
#[track_caller]
fn works_together(cluster: &Cluster, new: &[&Host], old: &[&Host]) {
    for leaders in [old, new] {
        lead(cluster, leaders);
        for (name, host) in [("via-new", new[0]), ("via-old", old[0])] {
            applied_everywhere(cluster, host, name);
        }
    }
}

#[track_caller]
fn applied_everywhere(cluster: &Cluster, host: &Host, name: &str) {
    let (_, now) = host.api("GET", &format!("/v1/workloads/{name}"), b"");
    let revision = now["revision"].as_u64().unwrap_or(0) + 1;
    let answer = host.apply(&pod(name, &format!("revision-{revision}")));
    assert_eq!(answer["settled"], true, "{name} by {}: {answer}", host.name);
    let all: Vec<&Host> = cluster.hosts.iter().collect();
    cluster.running(name, revision, &all);
}

/// Makes one of these hosts the leader. The function stops the leader for an election. Each other host that could win
/// it misses an entry first.
#[track_caller]
fn lead(cluster: &Cluster, wanted: &[&Host]) {
    cluster.ready();
    let is_wanted = |name: &str| wanted.iter().any(|host| host.name == name);
    let leader = cluster.leader(wanted[0]);
    if is_wanted(&leader.name) {
        return;
    }
    let others = cluster.hosts.iter().filter(|host| host.name != leader.name);
    let late: Vec<_> = others.filter(|host| !is_wanted(&host.name)).collect();
    for host in &late {
        gateway(host, "stop");
        let missed = wanted[0].try_apply(CHANGE, &["--timeout", "30s"]);
        assert_eq!(missed.code, 0, "{missed}");
    }
    gateway(leader, "stop");
    late.iter().for_each(|host| gateway(host, "start"));
    wait_for("another leader", secs(30), || {
        let status = wanted[0].status();
        let name = status["leader"]["name"].as_str();
        if name.is_some_and(is_wanted) {
            Ok(())
        } else {
            Err(status)
        }
    });
    gateway(leader, "start");
    cluster.ready();
}

#[track_caller]
fn gateway(host: &Host, verb: &str) {
    let _ = host
        .run(&["systemctl", verb, "beemesh-gateway.service"])
        .ok();
}

/// A host is off while the others commit changes, with one of them as the leader.
#[track_caller]
fn catches_up(cluster: &Cluster, host: &Host, others: &[&Host]) {
    let before = host.containers("via-new");
    cluster.crash(&[host]);
    cluster.agree(others, others.len());
    let answer = others[0].try_apply(&pod("via-new", "meanwhile"), &["-o", "json"]);
    let revision = answer.json()["objects"][0]["revision"].as_u64();
    let revision = revision.expect("a workload has a revision");
    cluster.running("via-new", revision, others);
    cluster.boot(&[host]);
    cluster.ready();
    let leader = cluster.leader(host);
    assert!(
        others.iter().any(|other| other.name == leader.name),
        "{} leads",
        leader.name
    );
    cluster.running("via-new", revision, &[host]);
    cluster.running("web", 1, &[host]);
    assert_ne!(host.containers("via-new"), before);
}
