//! Part 4: the resources of idle hosts: memory, CPU time, writes and wake-ups.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Result, ensure};
use harness::{Host, IMAGE};

use crate::{
    attempt::attempt,
    data::{Idle, Rest, Resting, System},
    meter::{self, Process},
    options::Options,
    running::Running,
};

/// The number of hosts in the cluster.
const HOSTS: usize = 3;
/// The numbers of workloads on each host of Beemesh; other systems run none.
const WORKLOADS: [usize; 3] = [0, 5, 50];
/// The pause between a change and the watch: reports, health checks and the kernel's writeback finish.
const CALM: Duration = Duration::from_secs(20);

/// Watches every system; Beemesh with several numbers of workloads.
pub(crate) fn measure(options: &Options, failures: &mut Vec<String>) -> Result<Rest> {
    let mut rest = Rest::default();
    for &system in options.systems() {
        attempt(failures, system, "idle hosts", || {
            watch(system, options, &mut rest)
        });
    }
    Ok(rest)
}

fn watch(system: System, options: &Options, rest: &mut Rest) -> Result<()> {
    let running = Running::boot(system, HOSTS)?;
    let numbers = match system {
        System::Beemesh => options.workloads(&WORKLOADS),
        System::Etcd | System::Swarm => &WORKLOADS[..1],
    };
    for &workloads in numbers {
        eprintln!("idle: {} with {workloads} workloads", system.name());
        if workloads > 0 {
            let how = ["--name=idle", "--wait=900s", "-o", "json"];
            let answer = running
                .cluster
                .host(1)
                .try_apply(&quiet_pods(workloads), &how);
            ensure!(answer.code == 0, "{answer}");
        }
        thread::sleep(CALM);
        rest.hosts
            .extend(both(&running, workloads, options.idle_seconds())?);
    }
    Ok(())
}

/// Pods that do nothing at all.
fn quiet_pods(count: usize) -> String {
    let pod = |n| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: idle{n}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
             containers:\n  - name: main\n    image: {IMAGE}\n    command: [sleep, '1000000']\n"
        )
    };
    (1..=count).map(pod).collect::<Vec<_>>().join("---\n")
}

/// Watches the leader and a follower at the same time.
fn both(running: &Running, workloads: usize, seconds: u64) -> Result<Vec<Idle>> {
    let leader = running.leader();
    let hosts = [(leader, true), (running.other_than(leader), false)];
    let mut before = Vec::new();
    for (host, _) in hosts {
        meter::flush(host)?;
        before.push((meter::written(&host.device())?, programs(running, host)));
    }
    thread::sleep(Duration::from_secs(seconds));
    let mut idle = Vec::new();
    for ((host, leads), (disk, programs_before)) in hosts.into_iter().zip(before) {
        let after = programs(running, host);
        meter::flush(host)?;
        let written = meter::written(&host.device())? - disk;
        let programs = after.into_iter().map(|(name, pids)| {
            let earlier = programs_before.get(name).cloned().unwrap_or_default();
            resting(name, &earlier, &pids, seconds)
        });
        let one = Idle {
            system: running.system,
            workloads,
            leads,
            seconds,
            programs: programs.collect(),
            disk_written: written,
        };
        eprintln!("  {one:?}");
        idle.push(one);
    }
    Ok(idle)
}

type Pids = BTreeMap<u32, Process>;

fn programs(running: &Running, host: &Host) -> BTreeMap<&'static str, Pids> {
    let mut found = host.processes();
    let names = running.programs().iter();
    let of = |name: &&'static str| {
        let pids = found.remove(*name)?;
        let pids = pids.into_iter().map(|pid| (pid, Process::of(pid)));
        Some((*name, pids.collect()))
    };
    names.filter_map(of).collect()
}

fn resting(name: &str, before: &Pids, after: &Pids, seconds: u64) -> Resting {
    let (mut cpu, mut written, mut sleeps) = (0, 0, 0);
    for (pid, now) in after {
        let then = before.get(pid).copied().unwrap_or_default();
        cpu += now.cpu_micros.saturating_sub(then.cpu_micros);
        written += now.written.saturating_sub(then.written);
        sleeps += now.sleeps.saturating_sub(then.sleeps);
    }
    Resting {
        program: name.to_owned(),
        processes: after.len(),
        pss: after.values().map(|process| process.pss).sum(),
        anonymous: after.values().map(|process| process.anonymous).sum(),
        cpu_micros: cpu as f64 / seconds as f64,
        written,
        wakeups: sleeps as f64 / seconds as f64,
    }
}
