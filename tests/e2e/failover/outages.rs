//! Hosts that are not dead: frozen, heard by nobody, or on the smaller side of a cut.

use std::{collections::BTreeMap, fs, time::Instant};

use harness::{Cluster, Host, secs, wait_for};

use super::{START_MAX, SURPLUS_MAX, deployment, places, wait_for_place};

/// The shortest time after which replicas may move, in seconds.
const SOON: u64 = 10;

fn soon(name: &str, replicas: u32) -> String {
    deployment(name, replicas, "beemesh.io/reschedule-after: 10s", "")
}

/// The pods of a workload on these hosts, with the time of the last move of each.
fn committed(on: &[&Host], workload: &str) -> BTreeMap<String, u64> {
    let (_, found) = on[0].api("GET", &format!("/v1/workloads/{workload}"), b"");
    let pods = found["hosts"].as_array().into_iter().flatten();
    let here = pods.filter(|pod| on.iter().any(|host| pod["host"] == host.name.as_str()));
    let placed = here.map(|pod| {
        let key = format!("{} {}", pod["host"], pod["pod"]);
        (key, pod["moved"]["atMs"].as_u64().unwrap_or_default())
    });
    placed.collect()
}

/// A host that runs one of the replicas, other than the first, through which the test looks.
fn victim<'a>(cluster: &'a Cluster, workload: &str) -> &'a Host {
    let found = places(&cluster.all(), workload);
    let mut hosts = cluster.all().into_iter().skip(1);
    let runs = |host: &&Host| found.contains(&host.name);
    hosts.find(runs).expect("a replica on another host")
}

/// The number of replicas that run on these hosts, also beside each other.
fn pods(hosts: &[&Host]) -> usize {
    let line = "podman ps -q --filter name='^web.*-main$' | wc -l";
    let count = |host: &&Host| host.sh(line).ok().trim().parse::<usize>().unwrap();
    hosts.iter().map(count).sum()
}

fn others<'a>(cluster: &'a Cluster, but: &Host) -> Vec<&'a Host> {
    let all = cluster.all().into_iter();
    all.filter(|host| host.name != but.name).collect()
}

/// The replicas start elsewhere in time, once; after the return the host has none of them, and nothing moves again.
fn is_replaced(
    cluster: &Cluster,
    victim: &Host,
    workload: &str,
    begun: Instant,
    back: impl FnOnce(),
) {
    let left = others(cluster, victim);
    let within = (secs(SOON) + START_MAX).saturating_sub(begun.elapsed());
    let found = wait_for_place(&left, workload, within, |found| found.len() == 2);
    let moved = committed(&left, workload);
    back();
    wait_for("the host to be taken back", secs(60), || {
        let (_, found) = left[0].api("GET", &format!("/v1/hosts/{}", victim.name), b"");
        let applied = left[0].status()["applied"].as_u64();
        let is_back = found["reachable"] == true && found["lost"].is_null();
        match is_back && found["applied"].as_u64() >= applied {
            true => Ok(()),
            false => Err(found),
        }
    });
    wait_for_place(&cluster.all(), workload, SURPLUS_MAX, |now| {
        now == found.as_slice()
    });
    assert_eq!(committed(&left, workload), moved, "nothing moved twice");
}

#[test]
fn a_host_that_is_frozen_or_not_heard_is_replaced_once() {
    let cluster = Cluster::formed("frozen", 3);
    let host = cluster.host(1);
    let answer = host.apply(&soon("web", 2));
    assert_eq!(answer["settled"], true, "{answer}");

    let frozen = victim(&cluster, "web");
    let freeze =
        |state: &str| fs::write(frozen.cgroup().join("cgroup.freeze"), state).expect("frozen");
    let begun = Instant::now();
    freeze("1");
    is_replaced(&cluster, frozen, "web", begun, || freeze("0"));

    // It hears the others, and none of them hears it.
    let mute = victim(&cluster, "web");
    let begun = Instant::now();
    for other in others(&cluster, mute) {
        cluster.mute(mute, other);
    }
    is_replaced(&cluster, mute, "web", begun, || cluster.heal());
}

#[test]
fn a_cluster_that_is_cut_in_two_goes_on_in_its_larger_part() {
    let cluster = Cluster::formed("halves", 5);
    let host = cluster.host(1);
    let answer = host.apply(&soon("web", 5));
    assert_eq!(answer["settled"], true, "{answer}");
    let (large, small): (Vec<&Host>, Vec<&Host>) = cluster
        .all()
        .into_iter()
        .partition(|host| ["h1", "h2", "h3"].contains(&host.name.as_str()));
    let begun = Instant::now();
    for (one, other) in large
        .iter()
        .flat_map(|one| small.iter().map(move |other| (one, other)))
    {
        cluster.cut(one, other);
    }
    // Two of them run beside others.
    let within = (secs(SOON) + START_MAX).saturating_sub(begun.elapsed());
    wait_for("five replicas in the larger half", within, || {
        match pods(&large) {
            5 => Ok(()),
            count => Err(count),
        }
    });
    assert_eq!(pods(&small), 2, "a host that is cut off goes on");
    let answer = small[0].try_apply(&soon("late", 1), &["--timeout", "5"]);
    assert_ne!(
        answer.code, 0,
        "without a quorum nothing is committed: {answer}"
    );
    let moved = committed(&large, "web");
    cluster.heal();
    cluster.agree(&cluster.all(), 5);
    wait_for("the surplus to go", SURPLUS_MAX + secs(20), || {
        match (pods(&small), pods(&large)) {
            (0, 5) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(committed(&large, "web"), moved, "nothing moved twice");
}
