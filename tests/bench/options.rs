//! What is measured, and how long or how often.

use clap::{Args, ValueEnum};

use crate::data::{Blow, System};

/// A part of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Part {
    /// Small durable writes.
    Commit,
    /// Apply to running.
    Apply,
    /// The leader fails.
    Failover,
    /// Elections that nothing caused.
    Elections,
    /// Start to first answer.
    Start,
    /// What idle hosts take.
    Idle,
    /// A follower catches up.
    Catchup,
    /// Where the time goes.
    Spans,
    /// Many gateways.
    Scale,
}

/// The options of a run. Without any, everything is measured in full: some hours.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Measure only these parts; the page keeps what it knows of the others.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Small numbers everywhere: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Measure only these systems; what is kept of a measured part is then theirs alone.
    #[arg(long, value_delimiter = ',')]
    systems: Vec<System>,
    /// Measure failover only for these.
    #[arg(long, value_delimiter = ',')]
    blows: Vec<Blow>,
    /// Write by these numbers of clients only.
    #[arg(long, value_delimiter = ',')]
    clients: Vec<usize>,
    /// Clusters of these numbers of hosts only.
    #[arg(long, value_delimiter = ',')]
    hosts: Vec<usize>,
    /// How often all systems are booted and measured, for commits and applies.
    #[arg(long)]
    rounds: Option<usize>,
    /// For how many seconds each cell of the commit tables is written.
    #[arg(long)]
    load_seconds: Option<f64>,
    /// How often a leader fails in each way.
    #[arg(long)]
    failures: Option<usize>,
    /// How often a member is started.
    #[arg(long)]
    starts: Option<usize>,
    /// For how many seconds idle hosts are watched.
    #[arg(long)]
    idle_seconds: Option<u64>,
    /// For how many seconds elections are counted.
    #[arg(long)]
    watch_seconds: Option<u64>,
    /// Only the first so many of the numbers of workloads.
    #[arg(long)]
    workload_steps: Option<usize>,
}

impl Options {
    /// Whether a part is measured.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Whose figures are wanted.
    pub(crate) fn systems(&self) -> &[System] {
        or(&self.systems, System::value_variants())
    }

    /// What befalls leaders.
    pub(crate) fn blows(&self) -> &[Blow] {
        or(&self.blows, Blow::value_variants())
    }

    /// Numbers of clients that write at once.
    pub(crate) fn clients(&self) -> &[usize] {
        or(&self.clients, &[1, 16, 64, 256])
    }

    /// Numbers of hosts in a cluster.
    pub(crate) fn sizes(&self) -> &[usize] {
        or(&self.hosts, self.pick(&[3], &[3, 5]))
    }

    /// Numbers of gateways in a cluster that grows.
    pub(crate) fn scale(&self) -> &[usize] {
        or(&self.hosts, self.pick(&[3, 10], &[3, 10, 30, 100]))
    }

    /// How often a leader of many gateways fails in each way.
    pub(crate) fn scale_failures(&self) -> usize {
        self.failures.unwrap_or(self.pick(2, 10))
    }

    /// For how many seconds gateways that are asked nothing are watched.
    pub(crate) fn scale_seconds(&self) -> u64 {
        self.idle_seconds.unwrap_or(self.pick(10, 30))
    }

    /// See the option.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(self.pick(1, 3))
    }

    /// See the option.
    pub(crate) fn load_seconds(&self) -> f64 {
        self.load_seconds.unwrap_or(self.pick(2.0, 10.0))
    }

    /// See the option.
    pub(crate) fn failures(&self) -> usize {
        self.failures.unwrap_or(self.pick(3, 50))
    }

    /// See the option.
    pub(crate) fn starts(&self) -> usize {
        self.starts.unwrap_or(self.pick(3, 20))
    }

    /// See the option.
    pub(crate) fn idle_seconds(&self) -> u64 {
        self.idle_seconds.unwrap_or(self.pick(30, 600))
    }

    /// See the option.
    pub(crate) fn watch_seconds(&self) -> u64 {
        self.watch_seconds.unwrap_or(self.pick(60, 600))
    }

    /// The numbers of workloads out of `all` that are tried.
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
