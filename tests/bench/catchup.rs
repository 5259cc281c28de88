//! Part 5: a follower returns and catches up while commits continue.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use harness::Host;

use crate::{
    attempt::attempt,
    data::{CatchUps, CaughtUp, System, Through},
    load::Load,
    options::Options,
    place::Place,
    probe::{Probe, now},
    running::Running,
};

/// The number of hosts in the cluster: it still commits with one of them off.
const HOSTS: usize = 3;
/// The number of clients that write the entries that the follower misses.
const CLIENTS: usize = 64;
/// The longest time in which they are written.
const LOAD_SECONDS: f64 = 600.0;
/// How long commits are timed before the follower returns.
const BEFORE: Duration = Duration::from_secs(5);
/// The longest time to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(300);
/// The pause between two looks at the follower's progress.
const PAUSE: Duration = Duration::from_millis(50);

/// The entries that the follower misses.
#[derive(Clone, Copy)]
struct Missed {
    words: &'static str,
    writes: usize,
    value: usize,
}

/// Measures every system that reports a follower's progress.
pub(crate) fn measure(options: &Options, failures: &mut Vec<String>) -> Result<CatchUps> {
    let many = Missed {
        words: options.pick("10,000 writes of 1 KiB", "100,000 writes of 1 KiB"),
        writes: options.pick(10_000, 100_000),
        value: 1 << 10,
    };
    // Each client replaces its own key, so the size of a write is its share of the whole state.
    let large = Missed {
        words: options.pick(
            "16 MiB of state, by snapshot",
            "100 MiB of state, by snapshot",
        ),
        writes: CLIENTS * options.pick(1, 4),
        value: options.pick(256 << 10, 400 << 10),
    };
    let mut catch_ups = CatchUps::default();
    for missed in [many, large] {
        for &system in options.systems() {
            if system == System::Swarm {
                continue;
            }
            eprintln!("catch-up: {}, {}", system.name(), missed.words);
            let row = attempt(failures, system, missed.words, || one(system, missed));
            if let Some(row) = row {
                eprintln!("  {row:?}");
                catch_ups.rows.push(row);
            }
        }
    }
    Ok(catch_ups)
}

fn one(system: System, missed: Missed) -> Result<CaughtUp> {
    let running = Running::boot(system, HOSTS)?;
    let leader = running.leader();
    let away = running.host(Through::Follower);
    let _ = away
        .run(&[&["systemctl", "stop"], running.units()].concat())
        .ok();
    write(&running, leader, missed)?;
    let probe = Probe::start(system, &Place::of(leader))?;
    let _ = probe.accepted_after(now(), CATCH_UP_MAX)?;
    let well = now();
    thread::sleep(BEFORE);
    let goal = running.progress(leader).context("the leader's progress")?;
    let returned = now();
    let _ = away
        .run(&["systemctl", "start", "--no-block", running.unit()])
        .ok();
    let seconds = until_applied(&running, away, goal)?;
    let done = now();
    Ok(CaughtUp {
        system,
        missed: missed.words.to_owned(),
        seconds,
        before: probe.times(well, returned),
        meanwhile: probe.times(returned, done),
    })
}

fn write(running: &Running, host: &Host, missed: Missed) -> Result<()> {
    let load = Load {
        system: running.system,
        value: missed.value,
        clients: CLIENTS,
        seconds: LOAD_SECONDS,
        bytes_max: missed.writes * missed.value,
        prefix: "missed".to_owned(),
    };
    let loaded = load.on(&Place::of(host))?;
    ensure!(
        loaded.errors == 0,
        "{} writes failed: {:?}",
        loaded.errors,
        loaded.error
    );
    Ok(())
}

/// Seconds until the host has applied the entry `goal`.
fn until_applied(running: &Running, host: &Host, goal: u64) -> Result<f64> {
    let begun = Instant::now();
    loop {
        if running
            .progress(host)
            .is_some_and(|applied| applied >= goal)
        {
            return Ok(begun.elapsed().as_secs_f64());
        }
        ensure!(
            begun.elapsed() < CATCH_UP_MAX,
            "not there after {CATCH_UP_MAX:?}"
        );
        thread::sleep(PAUSE);
    }
}
