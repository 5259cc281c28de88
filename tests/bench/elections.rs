//! Part 3: elections without a fault, while every core of the machine is busy.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    attempt::attempt,
    data::{Elections, System, Watched},
    options::Options,
    running::Running,
};

/// The number of hosts in the cluster.
const HOSTS: usize = 3;

/// Watches every system that reports its term.
pub(crate) fn measure(options: &Options, failures: &mut Vec<String>) -> Result<Elections> {
    let mut watched = Vec::new();
    for &system in options.systems() {
        if system == System::Swarm {
            continue;
        }
        let seconds = options.watch_seconds();
        eprintln!("elections: {} for {seconds} s", system.name());
        let done = attempt(failures, system, "elections", || watch(system, seconds));
        if let Some(elections) = done {
            eprintln!("  {elections}");
            watched.push(Watched {
                system,
                seconds,
                elections,
            });
        }
    }
    Ok(Elections { watched })
}

fn watch(system: System, seconds: u64) -> Result<u64> {
    let running = Running::boot(system, HOSTS)?;
    let before = running.term().context("no term")?;
    while_busy(|| thread::sleep(Duration::from_secs(seconds)));
    let after = running.term().context("no term")?;
    Ok(after - before)
}

/// Runs `act` while one thread for each core keeps that core busy.
fn while_busy(act: impl FnOnce()) {
    let busy = AtomicBool::new(true);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        act();
        busy.store(false, Ordering::Relaxed);
    });
}
