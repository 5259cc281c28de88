//! What the parts of the suite measure, as plain data.
//!
//! Pure: shapes and arithmetic only. Each part is saved as JSON by itself, so that parts which ran at different times make
//! one page.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum System {
    /// Beemesh.
    Beemesh,
    /// etcd of the hosts' distribution.
    Etcd,
    /// Docker Swarm of the hosts' distribution.
    Swarm,
}

impl System {
    /// As a person writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Beemesh => "Beemesh",
            System::Etcd => "etcd",
            System::Swarm => "Swarm",
        }
    }
}

/// Under what a part was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// When it ended, as `2026-01-31 12:00 UTC`.
    pub(crate) date: String,
    /// The command that repeats it.
    pub(crate) command: String,
    /// The machine's kernel.
    pub(crate) kernel: String,
    /// The machine's cores.
    pub(crate) cores: usize,
    /// The hosts' distribution.
    pub(crate) suite: String,
    /// The version of each program, by name.
    pub(crate) versions: BTreeMap<String, String>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// A part with the circumstances of its measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved<T> {
    /// The circumstances.
    pub(crate) run: Run,
    /// The figures.
    pub(crate) data: T,
}

/// Times of many equal actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    /// How many.
    pub(crate) count: usize,
    /// The median, in milliseconds.
    pub(crate) p50: f64,
    /// What 99 of 100 stay below, in milliseconds; with fewer than 100 the longest.
    pub(crate) p99: f64,
    /// The longest, in milliseconds.
    pub(crate) max: f64,
}

impl Times {
    /// Of times in microseconds, in any order.
    pub(crate) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |percent: usize| {
            let place = (micros.len() * percent / 100).min(micros.len().saturating_sub(1));
            micros
                .get(place)
                .map_or(0.0, |micros| *micros as f64 / 1000.0)
        };
        Self {
            count: micros.len(),
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

/// Which host of a cluster is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Through {
    /// The one that leads.
    Leader,
    /// One that follows and passes the write on.
    Follower,
}

/// What identifies a cell of the commit tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// How many hosts vote.
    pub(crate) hosts: usize,
    /// The size of each value, in bytes.
    pub(crate) value: usize,
    /// Where the clients are.
    pub(crate) through: Through,
    /// How many of them write, each one value after the other.
    pub(crate) clients: usize,
}

/// One cell of the commit tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Who was measured.
    pub(crate) system: System,
    /// How.
    pub(crate) setting: Setting,
    /// From the start of each request to the end of its answer.
    pub(crate) times: Times,
    /// Accepted writes per second.
    pub(crate) throughput: f64,
    /// Writes that were refused or timed out.
    pub(crate) errors: u64,
    /// CPU time of all processes on all hosts for one write, in microseconds.
    pub(crate) cpu_micros: f64,
    /// What all hosts wrote to their disks for one write, in bytes.
    pub(crate) written: f64,
}

/// Part 1: commits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Commits {
    /// The cells, in the order they were measured.
    pub(crate) cells: Vec<Cell>,
}

/// What befalls a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Blow {
    /// Its process gets SIGKILL.
    Killed,
    /// Every packet to and from its host is dropped.
    Cut,
    /// Its host loses power: no packet says so.
    Off,
}

/// How long a cluster accepted nothing after a blow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outage {
    /// Who was measured.
    pub(crate) system: System,
    /// What befell the leader.
    pub(crate) blow: Blow,
    /// From the blow to the end of the first accepted write that began after it.
    pub(crate) times: Times,
}

/// Part 3: the leader fails.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failover {
    /// One for each system and blow.
    pub(crate) outages: Vec<Outage>,
}

/// Elections in a cluster whose machine is busy and whose leader is well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watched {
    /// Who was watched.
    pub(crate) system: System,
    /// For how long, in seconds.
    pub(crate) seconds: u64,
    /// By how much the term grew.
    pub(crate) elections: u64,
}

/// Part 3: what nothing caused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Elections {
    /// One for each system.
    pub(crate) watched: Vec<Watched>,
}

/// How long a stopped member needs to be of use again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// Who was measured.
    pub(crate) system: System,
    /// From `systemctl start` to the end of the first accepted write through this host.
    pub(crate) times: Times,
}

/// Part 4: start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Starts {
    /// One for each system.
    pub(crate) starts: Vec<Started>,
}

/// What a program took of a host while nothing was asked of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resting {
    /// The program; all its processes on the host together.
    pub(crate) program: String,
    /// How many processes.
    pub(crate) processes: usize,
    /// Their memory, with each shared page divided among those who share it, in bytes.
    pub(crate) pss: u64,
    /// What of `pss` is no page of a file: the kernel cannot drop it and read it again.
    pub(crate) anonymous: u64,
    /// CPU time of a second, in microseconds.
    pub(crate) cpu_micros: f64,
    /// What they wrote in all that time, in bytes.
    pub(crate) written: u64,
    /// How often they went to sleep in a second: each is one wake-up.
    pub(crate) wakeups: f64,
}

/// An idle host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Idle {
    /// Whose.
    pub(crate) system: System,
    /// Workloads that run on it.
    pub(crate) workloads: usize,
    /// Whether it leads.
    pub(crate) leads: bool,
    /// For how long it was watched, in seconds.
    pub(crate) seconds: u64,
    /// Its programs.
    pub(crate) programs: Vec<Resting>,
    /// What the whole host wrote to its disk, in bytes.
    pub(crate) disk_written: u64,
}

/// Part 4: rest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// In the order they were measured.
    pub(crate) hosts: Vec<Idle>,
}

/// What is done with a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Deed {
    /// Its workloads are new.
    First,
    /// Each of them has changed.
    Update,
    /// Nothing has changed.
    Unchanged,
    /// They are removed.
    Delete,
}

/// A deed by Beemesh and by Podman alone, on the same three hosts in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// Pods in the manifest.
    pub(crate) workloads: usize,
    /// What was done.
    pub(crate) deed: Deed,
    /// How long Beemesh took, until every host was done.
    pub(crate) beemesh: Times,
    /// How long Podman took on all hosts at once; none where it has nothing to do.
    pub(crate) podman: Option<Times>,
    /// How long a Quadlet for each pod took, written and started by hand on all hosts at once; likewise.
    #[serde(default)]
    pub(crate) quadlets: Option<Times>,
    /// Log entries that the deed took at most.
    pub(crate) entries: u64,
}

/// Part 2: apply to running.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Applies {
    /// In the order they were measured.
    pub(crate) rows: Vec<Applied>,
}

/// A stretch of the way of one action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// What happens in it.
    pub(crate) what: String,
    /// How long it takes.
    pub(crate) times: Times,
}

/// The way of an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// The action.
    pub(crate) what: String,
    /// Its stretches, in order.
    pub(crate) spans: Vec<Span>,
}

/// Part 6: where the time goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spans {
    /// One commit, and one apply.
    pub(crate) ways: Vec<Way>,
}

/// A follower that was away and gets what it missed, while commits go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CaughtUp {
    /// Who was measured.
    pub(crate) system: System,
    /// What it missed, in words.
    pub(crate) missed: String,
    /// From its return to having applied all that was committed before, in seconds.
    pub(crate) seconds: f64,
    /// Commits while it was away.
    pub(crate) before: Times,
    /// Commits while it caught up.
    pub(crate) meanwhile: Times,
}

/// Part 5: catching up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CatchUps {
    /// In the order they were measured.
    pub(crate) rows: Vec<CaughtUp>,
}

/// Writes at one size of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScaleLoad {
    /// Where the clients are.
    pub(crate) through: Through,
    /// How many of them.
    pub(crate) clients: usize,
    /// From the start of each request to the end of its answer.
    pub(crate) times: Times,
    /// Accepted writes per second.
    pub(crate) throughput: f64,
    /// Writes that were refused or timed out.
    pub(crate) errors: u64,
    /// CPU time of the leader's gateway for one write, in microseconds.
    pub(crate) leader_cpu: f64,
    /// CPU time of all gateways for one write, in microseconds.
    pub(crate) all_cpu: f64,
    /// What the leader's gateway sent to one follower for one write, in bytes.
    pub(crate) sent: f64,
    /// In how many bursts.
    pub(crate) bursts: f64,
    /// How long after the last answer the last host had applied everything, in seconds.
    pub(crate) behind: f64,
}

/// A second of a cluster that is asked nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScaleRest {
    /// CPU time of the leader's gateway, in microseconds.
    pub(crate) leader_cpu: f64,
    /// CPU time of a follower's, in microseconds.
    pub(crate) follower_cpu: f64,
    /// What the leader's sent to one follower, in bytes.
    pub(crate) sent: f64,
    /// In how many bursts.
    pub(crate) bursts: f64,
    /// The memory of the leader's gateway, in bytes.
    pub(crate) leader_pss: u64,
    /// The memory of a follower's, in bytes.
    pub(crate) follower_pss: u64,
}

/// One size of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sized {
    /// How many gateways.
    pub(crate) hosts: usize,
    /// How long each of those took that joined since the size before.
    pub(crate) joins: Times,
    /// How long after the last one had joined all of them agreed on who is there, in seconds.
    pub(crate) settled: f64,
    /// What nobody asked for.
    pub(crate) rest: ScaleRest,
    /// Writes.
    pub(crate) loads: Vec<ScaleLoad>,
    /// The leader fails.
    pub(crate) outages: Vec<Outage>,
}

/// How consensus holds up with the number of hosts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scale {
    /// From small to large.
    pub(crate) sizes: Vec<Sized>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_percentiles_in_milliseconds() {
        let of_1_to_200 = Times::of((1..=200).rev().map(|n| n * 1000).collect());
        let expected = Times {
            count: 200,
            p50: 101.0,
            p99: 199.0,
            max: 200.0,
        };
        assert_eq!(of_1_to_200, expected);
        assert_eq!(Times::of(Vec::new()), Times::default());
    }
}
