//! The same hosts under load and faults for a long time: no resource use may grow.
//!
//! Shell. No fault kills the agent or the gateway, so that a leak in them accumulates. Between two rounds of faults,
//! after all repairs and without workloads that change, the soak test samples the resources of each host.

mod page;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;

use self::page::page;
use super::{
    clients::{MANIFESTS, name},
    faults::Kind,
    round,
};
use crate::{Cluster, Host, secs, wait_for};

/// Faults that the agent and the gateway survive.
const KINDS: [Kind; 9] = [
    Kind::SupervisorsKilled,
    Kind::PodmanKilled,
    Kind::MonitorsKilled,
    Kind::AgentPaused,
    Kind::GatewayPaused,
    Kind::CutOff,
    Kind::LeaderCutOff,
    Kind::OneWay,
    Kind::Apart,
];
/// The number of faults between two samples.
const FAULTS: usize = 10;
/// The persistent folders whose disk use counts. The journal has its own bound.
const FOLDERS: [&str; 3] = ["var/lib/beemesh", "var/lib/containers", "etc/containers"];

/// Options.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Seed of the first faults
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Duration in minutes
    #[arg(long, default_value_t = 60)]
    pub minutes: u64,
    /// Number of hosts
    #[arg(long, default_value_t = 3)]
    pub hosts: usize,
    /// File for the report
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// The resources of all hosts together at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sample {
    at: Duration,
    faults: usize,
    /// The number of answered calls of clients.
    answered: usize,
    /// Memory of agents and gateways, in bytes.
    memory: u64,
    /// Memory of supervisors, in bytes.
    supervisors: u64,
    /// Open files of agents, gateways and supervisors.
    files: u64,
    /// Threads of agents, gateways and supervisors.
    tasks: u64,
    /// Disk use of [`FOLDERS`], in bytes.
    disk: u64,
}

/// Strikes and samples until the time is over, and writes the report. Returns whether nothing grew.
///
/// # Errors
/// If the report cannot be written.
///
/// # Panics
/// If a check fails.
pub fn run(options: &Options) -> io::Result<bool> {
    let begun = Instant::now();
    let cluster = round::boot("soak", options.hosts, 0);
    let first = processes(&cluster);
    assert_eq!(
        first.len(),
        2 * options.hosts,
        "an agent and a gateway each"
    );
    let mut samples = Vec::<Sample>::new();
    let mut seed = options.seed;
    while begun.elapsed() < Duration::from_secs(60 * options.minutes) {
        let struck = round::strike(&cluster, options.hosts, seed, &KINDS, FAULTS);
        eprintln!("seed {seed}: {struck}");
        seed += 1;
        clear(&cluster);
        let before = samples.last().copied().unwrap_or_default();
        let sample = Sample {
            at: begun.elapsed(),
            faults: before.faults + FAULTS,
            answered: before.answered + struck.answered,
            ..sample(&cluster)
        };
        eprintln!("{sample:?}");
        samples.push(sample);
        assert_eq!(processes(&cluster), first, "the same agents and gateways");
    }
    let (page, flat) = page(options, &samples);
    eprint!("{page}");
    if let Some(path) = &options.report {
        fs::write(path, page)?;
    }
    Ok(flat)
}

/// Deletes the manifests of clients, and waits until no host runs any of them.
fn clear(cluster: &Cluster) {
    for manifest in 0..MANIFESTS {
        let path = format!("/v1/manifests/{}?wait=60", name(manifest));
        let (code, answer) = cluster.host(1).api("DELETE", &path, b"");
        assert!(matches!(code, 200 | 404), "{path}: {code}: {answer}");
        for host in &cluster.hosts {
            let what = format!("{} to be gone from {}", name(manifest), host.name);
            wait_for(&what, secs(120), || round::runs_only(host, manifest, 0));
        }
    }
}

/// The PIDs of all agents and gateways.
fn processes(cluster: &Cluster) -> Vec<u32> {
    let of = |host: &Host| {
        let mut processes = host.processes();
        ["beemesh-agent", "beemesh-gateway"].map(|name| processes.remove(name).unwrap_or_default())
    };
    cluster.hosts.iter().flat_map(of).flatten().collect()
}

fn sample(cluster: &Cluster) -> Sample {
    let mut sample = Sample::default();
    for pid in processes(cluster) {
        sample.memory += memory(pid);
        sample.files += count(pid, "fd");
        sample.tasks += count(pid, "task");
    }
    for host in &cluster.hosts {
        for pid in host.processes().remove("beemesh-pod").unwrap_or_default() {
            sample.supervisors += memory(pid);
            sample.files += count(pid, "fd");
            sample.tasks += count(pid, "task");
        }
        let line = format!(
            "cd / && du --summarize --bytes --total {} | tail -n1",
            FOLDERS.join(" ")
        );
        let said = host.sh(&line).ok();
        let bytes = said
            .split_whitespace()
            .next()
            .and_then(|bytes| bytes.parse::<u64>().ok());
        sample.disk += bytes.expect("du says how much");
    }
    sample
}

/// PSS in bytes.
fn memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.expect("it lives, and the kernel says what it takes") << 10
}

fn count(pid: u32, of: &str) -> u64 {
    let entries = fs::read_dir(Path::new("/proc").join(pid.to_string()).join(of));
    entries.expect("it lives").count() as u64
}
