//! Simulation of whole nodes with simulated time, network and disks: a seed chooses the faults, and the test checks
//! what must hold in spite of them.
//!
//! Each seed runs in a separate process in which every random number depends on the seed, so that a run can be
//! repeated. Clients write and read manifests through all hosts while hosts lose power, gateways are killed, disks fail
//! or are slow, and the network is cut.
//!
//! The test checks Raft's safety ("In Search of an Understandable Consensus Algorithm", figure 3): the same entries at
//! the same indexes, hence the same states, and no committed entry is lost. It does not check the first line of that
//! figure, because openraft orders leaders by term and host, so that one term can have two leaders, one after the
//! other. The test also checks that each manifest is a linearizable register, that a refused change never takes effect,
//! that all hosts agree soon after the last fault ends, and that workloads then have the requested hosts.
//!
//! In some seeds there is a singleton as well: see [`leases`].
//!
//! In half of the seeds workloads have rollouts, and a user changes one of them whose pods may fail. What must hold of
//! rollouts is in [`invariants`].

pub(super) mod chance;
mod invariants;
mod jobs;
mod leader;
mod leases;
pub(super) mod manifests;
mod net;
mod pods;
mod reports;
mod rig;
mod world;

use std::{
    env,
    process::{Command, Output},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use self::{
    chance::{SEED, seed},
    world::World,
};
use crate::raft::SIMULATED;

/// Number of seeds that run by default, starting at 1.
const SEEDS: u64 = 100;
/// The environment variable that selects the seeds: `FROM..TO`.
const RANGE: &str = "BEEMESH_SEEDS";

#[test]
fn seeds_change_nothing_of_what_was_acknowledged() {
    if let Some(seed) = seed() {
        return simulate(seed);
    }
    let range = env::var(RANGE).unwrap_or_else(|_| format!("1..{}", SEEDS + 1));
    let (from, to) = range.split_once("..").expect("FROM..TO");
    let (from, to): (u64, u64) = (from.parse().expect("FROM"), to.parse().expect("TO"));
    let next = AtomicU64::new(from);
    let failed: Vec<(u64, String)> = thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let work = || {
            let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < to);
            let outputs = std::iter::from_fn(take).map(|seed| (seed, alone(seed)));
            let failed = outputs.filter(|(_, output)| !output.status.success());
            failed
                .map(|(seed, output)| (seed, words(&output)))
                .collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let ended = workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker"));
        ended.collect()
    });
    for (seed, said) in failed.iter().take(3) {
        eprintln!("{SEED}={seed}:\n{said}");
    }
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    assert!(seeds.is_empty(), "of {} seeds: {seeds:?}", to - from);
}

#[test]
fn a_seed_does_the_same_again() {
    if seed().is_some() {
        return;
    }
    let trace = || {
        let said = words(&alone(7));
        let lines = said.lines().filter(|line| line.starts_with("at "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let first = trace();
    assert!(first.len() > 20, "{first:#?}");
    assert_eq!(first, trace());
}

/// Runs one seed in a separate process.
fn alone(seed: u64) -> Output {
    let name = "simulation::seeds_change_nothing_of_what_was_acknowledged";
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(SEED, seed.to_string())
        .output()
        .expect("this program again")
}

fn words(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn simulate(seed: u64) {
    SIMULATED.set(Some(seed));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let world = runtime.block_on(World::run(seed));
    let violations = world.violations();
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
}
