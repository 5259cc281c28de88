//! Part 3: the time from a fault of the leader until the next write is committed.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use harness::Host;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    attempt::attempt,
    data::{Blow, Failover, Outage, System, Times},
    options::Options,
    place::Place,
    probe::{Probe, now},
    running::Running,
};

/// The number of hosts in the cluster: the fewest that tolerate the loss of one.
const HOSTS: usize = 3;
/// How long the cluster is healthy before each fault, so that no fault strikes while the last one still has effects.
const CALM: Duration = Duration::from_secs(1);
/// The longest outage; a longer one is reported as a failure.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// How often a system is booted again after it did not recover from a fault.
const BOOTS_MAX: usize = 5;

/// Measures one fault on one system. If the system does not recover, that is a failure, and the next fault strikes new
/// hosts.
pub(crate) fn measure(
    options: &Options,
    system: System,
    blow: Blow,
    failures: &mut Vec<String>,
) -> Result<Failover> {
    eprintln!("failover: {}, leader {blow:?}", system.name());
    let mut micros = Vec::new();
    for _ in 0..BOOTS_MAX {
        let left = options.failures() - micros.len();
        if left > 0 {
            attempt(failures, system, &format!("leader {blow:?}"), || {
                strikes(system, blow, left, &mut micros)
            });
        }
    }
    let times = (!micros.is_empty()).then(|| Times::of(micros));
    let outage = times.map(|times| Outage {
        system,
        blow,
        times,
    });
    Ok(Failover {
        outages: outage.into_iter().collect(),
    })
}

fn strikes(system: System, blow: Blow, times: usize, micros: &mut Vec<u64>) -> Result<()> {
    let running = Running::boot(system, HOSTS)?;
    for n in 1..=times {
        let leader = running.leader();
        let took = strike(&running, leader, blow)
            .with_context(|| format!("blow {n}; last words of {}", running.last_words(leader)))?;
        eprintln!(
            "  {n}: {} {blow:?}: {:.0} ms",
            leader.name,
            took as f64 / 1000.0
        );
        micros.push(took);
        mend(&running, leader, blow);
        running.ready();
    }
    Ok(())
}

/// Strikes the leader and returns the length of the outage in microseconds.
fn strike(running: &Running, leader: &Host, blow: Blow) -> Result<u64> {
    let probe = Probe::start(running.system, &Place::of(running.other_than(leader)))?;
    let well = now();
    let _ = probe.accepted_after(well, OUTAGE_MAX)?;
    thread::sleep(CALM);
    let victims = victims(running, leader, blow)?;
    // The outage begins before the fault strikes. A write that began while the fault was striking does not end it.
    let begun = now();
    if blow != Blow::Killed {
        running.cluster.isolate(leader);
    }
    for pid in victims {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).context("kill")?;
    }
    let (_, accepted) = probe.accepted_after(now(), OUTAGE_MAX)?;
    Ok(accepted - begun)
}

/// The processes that the fault kills. They are found before the fault, because that takes time.
fn victims(running: &Running, leader: &Host, blow: Blow) -> Result<Vec<u32>> {
    match blow {
        Blow::Killed => {
            let mut processes = leader.processes();
            let pids = processes.remove(running.process()).unwrap_or_default();
            ensure!(!pids.is_empty(), "{} is not running", running.process());
            Ok(pids)
        }
        Blow::Cut => Ok(Vec::new()),
        // The kernel kills every process of the host with its PID 1.
        Blow::Off => Ok(vec![leader.init()]),
    }
}

fn mend(running: &Running, leader: &Host, blow: Blow) {
    if blow == Blow::Off {
        running.cluster.crash(&[leader]);
    }
    running.cluster.heal();
    if blow == Blow::Off {
        running.cluster.boot(&[leader]);
        // The units of etcd and Swarm are not enabled on hosts that have both.
        let _ = leader.run(&["systemctl", "start", running.unit()]);
    }
}
