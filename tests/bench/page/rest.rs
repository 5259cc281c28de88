//! The tables of starts and of idle hosts.
//!
//! Pure.

use super::table::{figure, megabytes, table};
use crate::data::{Idle, Rest, Resting, Started, Starts};

pub(super) fn starts(starts: &Starts) -> String {
    let row = |started: &Started| {
        let times = started.times;
        vec![
            started.system.name().to_owned(),
            times.count.to_string(),
            figure(times.p50),
            figure(times.p99),
            figure(times.max),
        ]
    };
    let rows: Vec<_> = starts.starts.iter().map(row).collect();
    table(&["system", "times", "p50 ms", "p99 ms", "max ms"], &rows)
}

const HEAD: [&str; 9] = [
    "host",
    "workloads",
    "program",
    "PSS MB",
    "no file's",
    "CPU % of a core",
    "bytes written",
    "wake-ups/s",
    "host's disk KiB",
];

pub(super) fn body(rest: &Rest) -> String {
    let rows: Vec<_> = rest.hosts.iter().flat_map(rows).collect();
    table(&HEAD, &rows)
}

fn rows(idle: &Idle) -> Vec<Vec<String>> {
    let role = if idle.leads { "leader" } else { "follower" };
    let row = |resting: &Resting| {
        let count = match resting.processes {
            1 => String::new(),
            count => format!(" ×{count}"),
        };
        vec![
            format!("{} {role}", idle.system.name()),
            idle.workloads.to_string(),
            format!("{}{count}", resting.program),
            figure(megabytes(resting.pss)),
            figure(megabytes(resting.anonymous)),
            figure(percent(resting)),
            resting.written.to_string(),
            figure(resting.wakeups),
            figure(idle.disk_written as f64 / 1024.0),
        ]
    };
    idle.programs.iter().map(row).collect()
}

/// CPU time in percent of one core.
pub(super) fn percent(resting: &Resting) -> f64 {
    resting.cpu_micros / 1e6 * 100.0
}
