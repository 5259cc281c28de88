//! Options: the parts to measure, and their durations and counts.

use clap::{Args, ValueEnum};

use crate::data::{Blow, System};

/// A part of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Part {
    /// Small durable writes
    Commit,
    /// From an apply to running pods
    Apply,
    /// Faults of the leader
    Failover,
    /// Elections without a fault
    Elections,
    /// From a start to the first answer
    Start,
    /// Resources of idle hosts
    Idle,
    /// A follower that catches up
    Catchup,
    /// The stages of a commit and an apply
    Spans,
    /// Clusters of many gateways
    Scale,
    /// The death of a host with a replica
    Reschedule,
}

/// The options of a run. Without options, everything is measured in full, which takes some hours.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Measure only these parts; the page keeps its results of the others
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Use small numbers everywhere, to check that the benchmark works
    #[arg(long)]
    quick: bool,
    /// Measure only these systems; the saved results of a measured part are then theirs alone
    #[arg(long, value_delimiter = ',')]
    systems: Vec<System>,
    /// Measure failover only for these faults
    #[arg(long, value_delimiter = ',')]
    blows: Vec<Blow>,
    /// Use only these numbers of clients
    #[arg(long, value_delimiter = ',')]
    clients: Vec<usize>,
    /// Use only clusters of these numbers of hosts
    #[arg(long, value_delimiter = ',')]
    hosts: Vec<usize>,
    /// Number of times that all systems are booted and measured, for commits and applies
    #[arg(long)]
    rounds: Option<usize>,
    /// Duration of each cell of the commit tables, in seconds
    #[arg(long)]
    load_seconds: Option<f64>,
    /// Number of times that a leader fails in each way
    #[arg(long)]
    failures: Option<usize>,
    /// Number of times that a member is started
    #[arg(long)]
    starts: Option<usize>,
    /// Duration of the watch over idle hosts, in seconds
    #[arg(long)]
    idle_seconds: Option<u64>,
    /// Duration of the count of elections, in seconds
    #[arg(long)]
    watch_seconds: Option<u64>,
    /// Use only this many of the numbers of workloads
    #[arg(long)]
    workload_steps: Option<usize>,
}

impl Options {
    /// Whether a part is selected.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// The selected systems.
    pub(crate) fn systems(&self) -> &[System] {
        or(&self.systems, System::value_variants())
    }

    /// The faults of leaders.
    pub(crate) fn blows(&self) -> &[Blow] {
        or(&self.blows, Blow::value_variants())
    }

    /// The numbers of concurrent clients.
    pub(crate) fn clients(&self) -> &[usize] {
        or(&self.clients, &[1, 16, 64, 256])
    }

    /// The numbers of hosts in a cluster.
    pub(crate) fn sizes(&self) -> &[usize] {
        or(&self.hosts, self.pick(&[3], &[3, 5]))
    }

    /// The numbers of gateways in a growing cluster.
    pub(crate) fn scale(&self) -> &[usize] {
        or(&self.hosts, self.pick(&[3, 10], &[3, 10, 30, 100]))
    }

    /// The number of times that a leader of many gateways fails in each way.
    pub(crate) fn scale_failures(&self) -> usize {
        self.failures.unwrap_or(self.pick(2, 10))
    }

    /// The duration of the watch over gateways without requests, in seconds.
    pub(crate) fn scale_seconds(&self) -> u64 {
        self.idle_seconds.unwrap_or(self.pick(10, 30))
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(self.pick(1, 3))
    }

    pub(crate) fn load_seconds(&self) -> f64 {
        self.load_seconds.unwrap_or(self.pick(2.0, 10.0))
    }

    pub(crate) fn failures(&self) -> usize {
        self.failures.unwrap_or(self.pick(3, 50))
    }

    /// The number of times that a host with a replica dies.
    pub(crate) fn deaths(&self) -> usize {
        self.failures.unwrap_or(self.pick(2, 10))
    }

    pub(crate) fn starts(&self) -> usize {
        self.starts.unwrap_or(self.pick(3, 20))
    }

    pub(crate) fn idle_seconds(&self) -> u64 {
        self.idle_seconds.unwrap_or(self.pick(30, 600))
    }

    pub(crate) fn watch_seconds(&self) -> u64 {
        self.watch_seconds.unwrap_or(self.pick(60, 600))
    }

    /// The selected numbers of workloads out of `all`.
    pub(crate) fn workloads<'a>(&self, all: &'a [usize]) -> &'a [usize] {
        let steps = self.workload_steps.unwrap_or(self.pick(2, all.len()));
        &all[..steps.min(all.len())]
    }

    /// `full`, or `quick` in a quick run.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn or<'a, T>(wanted: &'a [T], all: &'a [T]) -> &'a [T] {
    if wanted.is_empty() { all } else { wanted }
}
