//! `make bench`: what Beemesh costs on booted hosts, beside bare Podman on the same hosts in the same run.
//!
//! Machines differ and are noisy, so a figure that compares is a ratio of two measurements taken in turn.

mod http;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use harness::{Cluster, Host, pod, two_containers};

/// Rounds of apply and bare play: the median of this many is reported.
const ROUNDS: usize = 7;
/// Commits that are timed one after the other.
const COMMITS: usize = 1000;
/// How long the idle cluster is watched.
const IDLE: Duration = Duration::from_secs(60);

fn main() {
    let cluster = Cluster::booted("bench", 3);
    // Each host gets program files of its own, as real hosts have: their memory is not shared with other hosts.
    cluster.each(|host| {
        let line = "for f in /usr/bin/beemesh /usr/libexec/beemesh/*; do cp $f $f.own && mv $f.own $f; done";
        let _ = host.sh(line).ok();
    });
    cluster.form();
    apply_to_running(&cluster);
    commit_latency(&cluster);
    idle_cost(&cluster);
}

fn apply_to_running(cluster: &Cluster) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("round{round}");
        let yaml = two_containers(&name, "x");
        bare.push(bare_play(cluster, &yaml));
        let begun = Instant::now();
        let answer = cluster.host(2).apply(&yaml);
        assert_eq!(answer["settled"], true, "{answer}");
        ours.push(begun.elapsed());
        let manifest = format!("/v1/manifests/{name}-conf?wait=60");
        let (status, gone) = cluster.host(2).api("DELETE", &manifest, b"");
        assert_eq!(status, 200, "{gone}");
    }
    let (ours, bare) = (median(&mut ours), median(&mut bare));
    println!("apply to running on three hosts, two containers, median of {ROUNDS}:");
    println!("  beemesh apply --wait   {:>7.3} s", ours.as_secs_f64());
    println!(
        "  bare podman kube play  {:>7.3} s   on the same three hosts at once",
        bare.as_secs_f64()
    );
    println!(
        "  ratio                  {:>7.2}     aim 1.25 or less",
        ours.as_secs_f64() / bare.as_secs_f64()
    );
}

/// Plays the same file on all hosts at once by Podman alone, and takes it down again.
fn bare_play(cluster: &Cluster, yaml: &str) -> Duration {
    let play = |host: &Host| {
        let _ = host
            .run_with(&["podman", "kube", "play", "-q", "-"], yaml.as_bytes())
            .ok();
    };
    let begun = Instant::now();
    cluster.each(play);
    let took = begun.elapsed();
    cluster.each(|host| {
        let _ = host
            .run_with(&["podman", "kube", "down", "--force", "-"], yaml.as_bytes())
            .ok();
    });
    took
}

/// ConfigMaps of 1 KiB, one after the other over one connection: consensus without Podman.
fn commit_latency(cluster: &Cluster) {
    for (what, host) in [("leader", true), ("follower", false)] {
        let leader = cluster.leader(cluster.host(1)).name.clone();
        let host = cluster
            .hosts
            .iter()
            .find(|one| (one.name == leader) == host)
            .expect("three hosts");
        let mut client = http::Client::connect(host);
        let mut times: Vec<Duration> = (0..COMMITS)
            .map(|n| {
                let body = format!(
                    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: bench-{what}\ndata:\n  n: \"{n}\"\n  pad: {}\n",
                    "x".repeat(900)
                );
                let begun = Instant::now();
                assert_eq!(client.post("/v1/apply", &body), 200);
                begun.elapsed()
            })
            .collect();
        times.sort();
        let at = |part: usize| times[times.len() * part / 1000].as_secs_f64() * 1000.0;
        println!("commit of a 1 KiB ConfigMap through the {what}, {COMMITS} in turn:");
        println!(
            "  p50 {:.2} ms   p99 {:.2} ms   max {:.2} ms   aim p50 5 ms or less",
            at(500),
            at(990),
            at(999)
        );
    }
}

fn idle_cost(cluster: &Cluster) {
    for n in 1..=5 {
        let answer = cluster.host(1).apply(&pod(&format!("idle{n}"), "idle"));
        assert_eq!(answer["settled"], true, "{answer}");
    }
    let host = cluster.leader(cluster.host(1));
    let parts = processes(host);
    println!("memory on the leader with five workloads:");
    let mut total = 0;
    for (name, pids) in &parts {
        let pss = pids
            .iter()
            .map(|pid| pss_kib(host, *pid))
            .max()
            .unwrap_or(0);
        println!(
            "  {name:<16} {:>6.1} MB PSS{}",
            kib_as_mb(pss),
            if pids.len() > 1 {
                "   (the largest)"
            } else {
                ""
            }
        );
        total += if name == "beemesh-pod" { 0 } else { pss };
    }
    println!(
        "  agent + gateway  {:>6.1} MB PSS   aim 25 MB or less; supervisor 2 MB or less",
        kib_as_mb(total)
    );
    let all: Vec<u32> = parts.iter().flat_map(|(_, pids)| pids.clone()).collect();
    let before = cpu_ticks(host, &all);
    thread::sleep(IDLE);
    let ticks = cpu_ticks(host, &all) - before;
    let share = ticks as f64 / 100.0 / IDLE.as_secs_f64() * 100.0;
    println!("idle CPU of all of these over {IDLE:?}: {share:.2} % of a core   aim 1 % or less");
}

fn processes(host: &Host) -> Vec<(String, Vec<u32>)> {
    ["beemesh-agent", "beemesh-gateway", "beemesh-pod"]
        .map(|name| {
            let pids = host.run(&["pgrep", "-x", &name[..name.len().min(15)]]).ok();
            (
                name.to_owned(),
                pids.lines().filter_map(|pid| pid.parse().ok()).collect(),
            )
        })
        .to_vec()
}

fn pss_kib(host: &Host, pid: u32) -> u64 {
    let rollup = host.sh(&format!("cat /proc/{pid}/smaps_rollup")).ok();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn kib_as_mb(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

fn cpu_ticks(host: &Host, pids: &[u32]) -> u64 {
    let root = format!("/proc/{}/root/proc", host.init());
    pids.iter()
        .filter_map(|pid| fs::read_to_string(format!("{root}/{pid}/stat")).ok())
        .filter_map(|stat| {
            let fields: Vec<u64> = stat
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .filter_map(|f| f.parse().ok())
                .collect();
            // After the command and the state letter: utime and stime are fields 14 and 15 of proc_pid_stat(5).
            Some(fields.get(10)? + fields.get(11)?)
        })
        .sum()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
