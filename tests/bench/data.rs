//! The results of all parts as plain data.
//!
//! Pure: types and arithmetic only. Each part is saved as JSON by itself, so that one page can show parts that were
//! measured at different times.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A measured system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum System {
    /// Beemesh.
    Beemesh,
    /// etcd from the hosts' distribution.
    Etcd,
    /// Docker Swarm from the hosts' distribution.
    Swarm,
}

impl System {
    /// The name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Beemesh => "Beemesh",
            System::Etcd => "etcd",
            System::Swarm => "Swarm",
        }
    }
}

/// The circumstances of a measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The time when it ended, as `2026-01-31 12:00 UTC`.
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
    /// The measurements that failed, with the reasons.
    pub(crate) failures: Vec<String>,
}

/// The results of a part with the circumstances of their measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved<T> {
    pub(crate) run: Run,
    pub(crate) data: T,
}

/// The times of many equal operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    /// The number of operations.
    pub(crate) count: usize,
    /// The median, in milliseconds.
    pub(crate) p50: f64,
    /// The 99th percentile, in milliseconds; with fewer than 100 operations the longest time.
    pub(crate) p99: f64,
    /// The longest, in milliseconds.
    pub(crate) max: f64,
}

impl Times {
    /// Computes them from times in microseconds, in any order.
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

/// The host that the clients write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Through {
    /// The leader.
    Leader,
    /// A follower, which forwards the write.
    Follower,
}

/// The identity of a cell of the commit tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// The number of voters.
    pub(crate) hosts: usize,
    /// The size of each value, in bytes.
    pub(crate) value: usize,
    /// The host that the clients write to.
    pub(crate) through: Through,
    /// The number of clients; each writes one value after the other.
    pub(crate) clients: usize,
}

/// One cell of the commit tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// The measured system.
    pub(crate) system: System,
    pub(crate) setting: Setting,
    /// From the start of each request to the end of its answer.
    pub(crate) times: Times,
    /// Committed writes per second.
    pub(crate) throughput: f64,
    /// Writes that were refused or timed out.
    pub(crate) errors: u64,
    /// CPU time of all processes on all hosts, in microseconds per write.
    pub(crate) cpu_micros: f64,
    /// Bytes that all hosts wrote to their disks, per write.
    pub(crate) written: f64,
}

/// Part 1: commits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Commits {
    /// The cells, in the order they were measured.
    pub(crate) cells: Vec<Cell>,
}

/// A fault that strikes a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Blow {
    /// Its process gets SIGKILL.
    Killed,
    /// Every packet to and from its host is dropped.
    Cut,
    /// Its host loses power, without a last packet.
    Off,
}

/// How long a cluster committed nothing after a fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outage {
    /// The measured system.
    pub(crate) system: System,
    /// The fault.
    pub(crate) blow: Blow,
    /// The time from the fault to the end of the first committed write that began after it.
    pub(crate) times: Times,
}

/// Part 3: the leader fails.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failover {
    /// One for each system and fault.
    pub(crate) outages: Vec<Outage>,
}

/// Elections in a cluster with a healthy leader on a busy machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watched {
    /// The measured system.
    pub(crate) system: System,
    /// The duration in seconds.
    pub(crate) seconds: u64,
    /// The increase of the term.
    pub(crate) elections: u64,
}

/// Part 3: elections without a fault.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Elections {
    /// One for each system.
    pub(crate) watched: Vec<Watched>,
}

/// The time in which a stopped member becomes usable again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The measured system.
    pub(crate) system: System,
    /// The time from `systemctl start` to the end of the first committed write through this host.
    pub(crate) times: Times,
}

/// How long a replica was missing after the death of its host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) system: System,
    /// The time after which it was to move, as in the annotation; `None` for the default.
    pub(crate) after: Option<String>,
    pub(crate) times: Times,
}

/// Part 10: hosts that die.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reschedules {
    /// One for each system and setting.
    pub(crate) moved: Vec<Moved>,
}

/// Part 4: start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Starts {
    /// One for each system.
    pub(crate) starts: Vec<Started>,
}

/// Resources that a program used on a host that received no requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resting {
    /// The program. The figures are those of all its processes on the host.
    pub(crate) program: String,
    /// The number of processes.
    pub(crate) processes: usize,
    /// Their memory in bytes (PSS): each shared page is divided among the processes that share it.
    pub(crate) pss: u64,
    /// The part of `pss` that is not backed by a file, so that the kernel cannot drop it.
    pub(crate) anonymous: u64,
    /// CPU time, in microseconds per second.
    pub(crate) cpu_micros: f64,
    /// Bytes that they wrote to the disk in the whole time.
    pub(crate) written: u64,
    /// How often they went to sleep, per second: each time is one wake-up.
    pub(crate) wakeups: f64,
}

/// An idle host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Idle {
    /// The measured system.
    pub(crate) system: System,
    /// The number of workloads that run on it.
    pub(crate) workloads: usize,
    /// Whether it is the leader.
    pub(crate) leads: bool,
    /// The duration in seconds.
    pub(crate) seconds: u64,
    /// The programs of the system.
    pub(crate) programs: Vec<Resting>,
    /// Bytes that the whole host wrote to its disk.
    pub(crate) disk_written: u64,
}

/// Part 4: idle hosts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// In the order they were measured.
    pub(crate) hosts: Vec<Idle>,
}

/// An operation on a manifest.
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

/// One operation by Beemesh and by Podman alone, on the same three hosts in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// The number of pods in the manifest.
    pub(crate) workloads: usize,
    /// The operation.
    pub(crate) deed: Deed,
    /// The time until every host had finished, by Beemesh.
    pub(crate) beemesh: Times,
    /// The time on all hosts at once, by Podman; `None` for an operation that Podman does not have.
    pub(crate) podman: Option<Times>,
    /// The time with a Quadlet for each pod, written and started by hand on all hosts at once; `None` as above.
    #[serde(default)]
    pub(crate) quadlets: Option<Times>,
    /// The largest number of log entries that the operation took.
    pub(crate) entries: u64,
}

/// Part 2: from an apply to running pods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Applies {
    /// In the order they were measured.
    pub(crate) rows: Vec<Applied>,
}

/// A stage of one operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// The description of the stage.
    pub(crate) what: String,
    /// The time that it takes.
    pub(crate) times: Times,
}

/// The stages of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// The description of the operation.
    pub(crate) what: String,
    /// Its stages, in order.
    pub(crate) spans: Vec<Span>,
}

/// Part 6: where the time goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spans {
    /// One commit, and one apply.
    pub(crate) ways: Vec<Way>,
}

/// A follower that returned and caught up while commits continued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CaughtUp {
    /// The measured system.
    pub(crate) system: System,
    /// The missed entries, in words.
    pub(crate) missed: String,
    /// The time from its return until it had applied everything committed before, in seconds.
    pub(crate) seconds: f64,
    /// Commits while it was off.
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

/// Writes at one size of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScaleLoad {
    /// The host that the clients write to.
    pub(crate) through: Through,
    /// The number of clients.
    pub(crate) clients: usize,
    /// From the start of each request to the end of its answer.
    pub(crate) times: Times,
    /// Committed writes per second.
    pub(crate) throughput: f64,
    /// Writes that were refused or timed out.
    pub(crate) errors: u64,
    /// CPU time of the leader's gateway, in microseconds per write.
    pub(crate) leader_cpu: f64,
    /// CPU time of all gateways, in microseconds per write.
    pub(crate) all_cpu: f64,
    /// Bytes that the leader's gateway sent to one follower, per write.
    pub(crate) sent: f64,
    /// The number of bursts in which it sent them.
    pub(crate) bursts: f64,
    /// The time from the last answer until the last host had applied everything, in seconds.
    pub(crate) behind: f64,
}

/// The load of a cluster without requests, per second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScaleRest {
    /// CPU time of the leader's gateway, in microseconds.
    pub(crate) leader_cpu: f64,
    /// CPU time of a follower's gateway, in microseconds.
    pub(crate) follower_cpu: f64,
    /// Bytes that the leader's gateway sent to one follower.
    pub(crate) sent: f64,
    /// The number of bursts in which it sent them.
    pub(crate) bursts: f64,
    /// The memory of the leader's gateway, in bytes.
    pub(crate) leader_pss: u64,
    /// The memory of a follower's gateway, in bytes.
    pub(crate) follower_pss: u64,
}

/// One size of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sized {
    /// The number of gateways.
    pub(crate) hosts: usize,
    /// The join times of the gateways that joined since the size before.
    pub(crate) joins: Times,
    /// The time from the last join until all gateways agreed on the members, in seconds.
    pub(crate) settled: f64,
    /// The load without requests.
    pub(crate) rest: ScaleRest,
    pub(crate) loads: Vec<ScaleLoad>,
    /// Outages after faults of the leader.
    pub(crate) outages: Vec<Outage>,
}

/// Consensus by the number of hosts.
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
