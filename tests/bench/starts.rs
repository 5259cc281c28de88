//! Part 4: the time from the start of a stopped member until it commits a write.

use std::time::Duration;

use anyhow::Result;
use harness::Host;

use crate::{
    attempt::attempt,
    data::{Started, Starts, System, Through, Times},
    options::Options,
    place::Place,
    probe::{Probe, now},
    running::Running,
};

/// The number of hosts in the cluster: it still commits with one of them stopped.
const HOSTS: usize = 3;
/// The time limit of a start.
const START_MAX: Duration = Duration::from_secs(60);

/// Measures every system.
pub(crate) fn measure(options: &Options, failures: &mut Vec<String>) -> Result<Starts> {
    let mut starts = Vec::new();
    for &system in options.systems() {
        eprintln!("start: {}", system.name());
        let mut micros = Vec::new();
        attempt(failures, system, "start to first answer", || {
            begin_again(system, options.starts(), &mut micros)
        });
        if !micros.is_empty() {
            starts.push(Started {
                system,
                times: Times::of(micros),
            });
        }
    }
    Ok(Starts { starts })
}

fn begin_again(system: System, times: usize, micros: &mut Vec<u64>) -> Result<()> {
    let running = Running::boot(system, HOSTS)?;
    for n in 1..=times {
        let host = running.host(Through::Follower);
        let _ = host
            .run(&[&["systemctl", "stop"], running.units()].concat())
            .ok();
        let took = start(&running, host)?;
        eprintln!("  {n}: {:.0} ms", took as f64 / 1000.0);
        micros.push(took);
        running.ready();
    }
    Ok(())
}

/// Starts the system on the host and returns the time until it committed a write, in microseconds.
fn start(running: &Running, host: &Host) -> Result<u64> {
    let probe = Probe::start(running.system, &Place::of(host))?;
    let begun = now();
    let start = ["systemctl", "start", "--no-block", running.unit()];
    let _ = host.run(&start).ok();
    let (_, accepted) = probe.accepted_after(begun, START_MAX)?;
    Ok(accepted - begun)
}
