//! A singleton never runs on two hosts at a time, whatever happens, and runs again within a stated time.
//!
//! Its container writes time stamps of one clock to a folder outside of its host. The tests compare those of all hosts, so
//! that they see what really ran, also on a host that lost its power or whose programs were stopped.

#![allow(clippy::unwrap_used, reason = "whatever is missing fails the test")]

#[path = "singleton/beats.rs"]
mod beats;
#[path = "singleton/faults.rs"]
mod faults;
#[path = "singleton/leaders.rs"]
mod leaders;
#[path = "singleton/lost.rs"]
mod lost;
#[path = "singleton/manifests.rs"]
mod manifests;
#[path = "singleton/many.rs"]
mod many;
#[path = "singleton/stays.rs"]
mod stays;

use std::time::Duration;

use harness::{Cluster, Host, Run, secs, wait_for};

use beats::{Beats, OUTSIDE, now};

/// How long a lease lasts on the host that has it. Within this time the pod of a host without the leader has ended.
const TERM: Duration = Duration::from_secs(20);
/// How long the leader waits until nobody has a lease that it has granted: 1 % longer.
const TERM_OF_LEADER: Duration = Duration::from_millis(20_200);
/// After which time pods of an unreachable host start elsewhere, as the manifests say.
const AFTER: Duration = Duration::from_secs(10);
/// From the time at which a pod is to start until it is at work. Tests run beside others.
const START_MAX: Duration = Duration::from_secs(25);
/// How long a pod that a host has too much may last after the host has caught up with the log.
const SURPLUS_MAX: Duration = Duration::from_secs(10);
/// The unit of the singleton of these tests.
const UNIT: &str = "beemesh-pod-web.service";

/// Boots hosts that allow pods to write outside, and joins them into one cluster.
#[track_caller]
fn formed(test: &str, count: usize) -> Cluster {
    let cluster = Cluster::formed(test, count);
    let policy = format!("hostPaths: [{OUTSIDE}]\n");
    let set = ["beemesh", "policy", "set", "-f", "-"];
    let _ = cluster.host(1).run_with(&set, policy.as_bytes()).ok();
    cluster
}

#[track_caller]
fn apply(host: &Host, yaml: &str) {
    let answer = host.apply(yaml);
    assert_eq!(answer["settled"], true, "{answer}");
}

/// Applies a singleton, and returns its run.
#[track_caller]
fn start(cluster: &Cluster, beats: &mut Beats, yaml: &str) -> Run {
    apply(cluster.host(1), yaml);
    let _ = beats.after(now(), START_MAX);
    beats.run()
}

/// Applies a singleton so that it gets this host, and may move to the others afterwards.
#[track_caller]
fn start_on(cluster: &Cluster, host: &Host, beats: &mut Beats, yaml: &str) -> Run {
    for other in others(cluster, host) {
        let _ = host.beemesh(&["host", "drain", &other.name]).ok();
    }
    apply(host, yaml);
    for other in others(cluster, host) {
        let _ = host.beemesh(&["host", "undrain", &other.name]).ok();
    }
    let _ = beats.after(now(), START_MAX);
    let run = beats.run();
    assert_eq!(cluster.host(run.host).name, host.name, "{run}");
    run
}

fn others<'a>(cluster: &'a Cluster, but: &Host) -> Vec<&'a Host> {
    let all = cluster.all().into_iter();
    all.filter(|host| host.name != but.name).collect()
}

/// Waits until the cluster counts on a host that was away, and the host knows what has happened.
#[track_caller]
fn taken_back(host: &Host, by: &Host) {
    wait_for(&format!("{} to be taken back", host.name), secs(90), || {
        let (_, found) = by.api("GET", &format!("/v1/hosts/{}", host.name), b"");
        let applied = by.status()["applied"].as_u64();
        let is_back = found["reachable"] == true && found["lost"].is_null();
        match is_back && found["applied"].as_u64() >= applied {
            true => Ok(()),
            false => Err(found),
        }
    });
}

/// Waits until the host has no container of the singleton.
#[track_caller]
fn has_none(host: &Host, time: Duration) {
    wait_for(&format!("no pod on {}", host.name), time, || {
        let found = host.containers("web");
        match found.is_empty() {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
}

/// Waits until this run, which must not have been interrupted, is at work after everything so far.
#[track_caller]
fn goes_on(beats: &mut Beats, run: Run) {
    let stamp = beats.after(now(), secs(10));
    let is_same = (stamp.host, stamp.begun) == (run.host, run.begun);
    assert!(is_same, "{run} was followed by {stamp:?}");
}
