//! Part 10: the time from the death of a host until the replica that ran on it runs on another host.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use harness::{Host, IMAGE, secs, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    attempt::attempt,
    data::{Moved, Reschedules, System, Times},
    options::Options,
    running::{Running, swarm},
};

/// The number of hosts in the cluster: two are left.
const HOSTS: usize = 3;
/// The program of the replica, which no other process has as its command line.
const PROGRAM: &str = "sleep 998877";
/// The longest time; a longer one is reported as a failure.
const MOVE_MAX: Duration = Duration::from_secs(180);
/// The pause between two looks at the processes of the hosts.
const LOOK: Duration = Duration::from_millis(50);
/// The shortest time that Beemesh accepts, beside its default.
const SOON: &str = "10s";

/// Measures Beemesh with its default and its shortest time, and Swarm.
pub(crate) fn measure(options: &Options, failures: &mut Vec<String>) -> Result<Reschedules> {
    let mut moved = Vec::new();
    for &system in options.systems() {
        let settings: &[Option<&str>] = match system {
            System::Beemesh => &[None, Some(SOON)],
            System::Swarm => &[None],
            // It runs no workloads.
            System::Etcd => continue,
        };
        for after in settings {
            eprintln!(
                "reschedule: {} {}",
                system.name(),
                after.unwrap_or_default()
            );
            let mut micros = Vec::new();
            attempt(failures, system, "a host dies", || {
                die(system, *after, options.deaths(), &mut micros)
            });
            if !micros.is_empty() {
                moved.push(Moved {
                    system,
                    after: after.map(str::to_owned),
                    times: Times::of(micros),
                });
            }
        }
    }
    Ok(Reschedules { moved })
}

fn die(system: System, after: Option<&str>, times: usize, micros: &mut Vec<u64>) -> Result<()> {
    let running = Running::boot(system, HOSTS)?;
    begin(&running, after)?;
    for n in 1..=times {
        let hosts = running.cluster.all();
        let found = wait_for("the replica", secs(120), || {
            one_of(&hosts).ok_or("it is nowhere")
        });
        let victim = hosts[found];
        let took = strike(&running, victim)?;
        eprintln!("  {n}: {} off: {:.1} s", victim.name, took.as_secs_f64());
        micros.push(u64::try_from(took.as_micros())?);
        running.cluster.crash(&[victim]);
        running.cluster.boot(&[victim]);
        if system == System::Swarm {
            let _ = victim.run(&["systemctl", "start", running.unit()]);
        }
        running.ready();
    }
    Ok(())
}

/// Starts the replica.
fn begin(running: &Running, after: Option<&str>) -> Result<()> {
    let host = &running.cluster.hosts[0];
    match running.system {
        System::Beemesh => {
            let after = after.map_or_else(String::new, |after| {
                format!("  annotations: {{beemesh.io/reschedule-after: {after}}}\n")
            });
            let yaml = format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: moves\n{after}spec:\n  replicas: 1\n  selector: {{matchLabels: {{app: moves}}}}\n  \
                 template:\n    metadata: {{labels: {{app: moves}}}}\n    spec:\n      containers:\n      - {{name: main, image: {IMAGE}, command: [sleep, \"998877\"]}}\n"
            );
            let answer = host.apply(&yaml);
            ensure!(answer["settled"] == true, "{answer}");
            Ok(())
        }
        System::Swarm => swarm::replica(&running.cluster, &["sleep", "998877"]),
        System::Etcd => bail!("etcd runs no workloads"),
    }
}

/// The first of the hosts that runs the replica.
fn one_of(hosts: &[&Host]) -> Option<usize> {
    hosts.iter().position(|host| {
        let mut pids = host.pids().into_iter();
        pids.any(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line)
                .trim_end_matches('\0')
                .replace('\0', " ")
                == PROGRAM
        })
    })
}

/// Takes the power of the host, and returns the time until the replica runs on another one.
fn strike(running: &Running, victim: &Host) -> Result<Duration> {
    let others = running.cluster.all();
    let others: Vec<&Host> = others
        .into_iter()
        .filter(|host| host.name != victim.name)
        .collect();
    ensure!(one_of(&others).is_none(), "the replica runs twice");
    let init = Pid::from_raw(victim.init().cast_signed());
    let begun = Instant::now();
    running.cluster.isolate(victim);
    kill(init, Signal::SIGKILL).context("kill")?;
    loop {
        if one_of(&others).is_some() {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < MOVE_MAX, "it did not start elsewhere");
        thread::sleep(LOOK);
    }
}
