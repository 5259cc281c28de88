//! An idle cluster writes nothing, even while hosts keep proposing entries that cannot be committed.
//!
//! CI watches for half a minute. `make idle` watches for an hour: `BEEMESH_IDLE_SECONDS`.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{Cluster, Host, pod, secs, wait_for};

/// The largest number of log entries. Proposals back off: each kind may add one entry, and after that one entry every
/// ten minutes.
fn allowed(watched: Duration) -> u64 {
    2 + watched.as_secs() / 600
}

#[test]
fn two_hosts_of_one_name_and_one_without_leave_the_log_as_it_is() {
    let watched = std::env::var("BEEMESH_IDLE_SECONDS");
    let watched = secs(watched.map_or(30, |seconds| seconds.parse().unwrap()));
    let cluster = Cluster::formed("idle", 3);
    let [h1, h2, h3] = [cluster.host(1), cluster.host(2), cluster.host(3)];
    let answer = h1.apply(&pod("web", "here"));
    assert_eq!(answer["settled"], true, "{answer}");
    let _ = h2
        .sh("hostname localhost && systemctl restart beemesh-agent")
        .ok();
    let taken = "mkdir -p /etc/beemesh/agent.toml.d && echo 'name = \"h1\"' >/etc/beemesh/agent.toml.d/name.toml && \
                 systemctl reload beemesh-agent";
    let _ = h3.sh(taken).ok();
    says(h2, "the host name of the system is localhost");
    says(h3, "`name` is set to h1");
    cluster.ready();
    let pods = cluster.hosts.iter().map(|host| host.containers("web"));
    let pods: Vec<_> = pods.collect();
    let applied = || h1.status()["applied"].as_u64().unwrap();
    let (before, begun) = (applied(), Instant::now());
    while begun.elapsed() < watched {
        thread::sleep(secs(10).min(watched));
        let grown = applied() - before;
        let allowed = allowed(begun.elapsed());
        assert!(
            grown <= allowed,
            "{grown} entries after {:?}",
            begun.elapsed()
        );
    }
    println!("{} entries in {:?}", applied() - before, begun.elapsed());
    let now = cluster.hosts.iter().map(|host| host.containers("web"));
    assert_eq!(now.collect::<Vec<_>>(), pods, "nothing is played again");
    says(h2, "the host name of the system is localhost");
    says(h3, "`name` is set to h1");
}

/// Waits until `beemesh status` shows these words to the administrator.
#[track_caller]
fn says(host: &Host, words: &str) {
    wait_for(words, secs(30), || {
        let status = host.beemesh(&["status"]).out;
        if status.contains(words) {
            Ok(())
        } else {
            Err(status)
        }
    });
}
